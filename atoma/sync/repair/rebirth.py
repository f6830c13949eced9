"""The one local transaction of a repair: settle, swap, take a new client id, number the outbox anew with offers in front.

A crash before it changes nothing; after it the file is an ordinary client that the hub has never seen. A mutation keeps its
place in the overlay, so nothing that is visible moves but what the verdicts and the hub's state move, and its handle goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import ACKED, QUEUED, MutationBody, Origin, PendingMutation
from atoma.contracts.replica import ClientIdentity, RepairReport
from atoma.contracts.sync import Cursor, OpenReply, Verdict
from atoma.mutations import counts
from atoma.ports.local import LocalTx
from atoma.sync.policies import HubLossPolicy
from atoma.sync.repair.diagnosis import Diagnosis
from atoma.sync.repair.offers import Beyond, Cut, Offers, lost_rows, part_with, swap_cut, without_deletions
from atoma.sync.repair.sorting import sort_outbox
from atoma.sync.settle import Refusals, Settlement, settle


@dataclass(frozen=True, slots=True)
class Rebirth:
    """The values that a rebirth is made of.

    Attributes:
        diagnosis: Why it is made.
        client_id: The new id, 16 random bytes.
        verdicts: What the hub keeps of this file's mutations, by number.
        reply: What the hub said of this file.
        cuts: Scopes of which the hub has lost a part, with the staged snapshots.
        apart: Others of which it has, with where the histories part; their bases and places stay as they are.
        stores: Names of the stores that replicate.
        policy: What to do with what the hub has lost.
    """

    diagnosis: Diagnosis
    client_id: bytes
    verdicts: Mapping[int, Verdict]
    reply: OpenReply
    cuts: Sequence[Cut]
    apart: Mapping[str, int]
    stores: frozenset[str]
    policy: HubLossPolicy

    @property
    def adopted(self) -> bool:
        """Whether the file is handed over to another hub or principal."""
        return self.diagnosis.cause == "WRONG_HUB"


def be_reborn(tx: LocalTx, rebirth: Rebirth, ids: Callable[[], str], work: Settlement) -> RepairReport:
    """Let the file begin anew under another name; what that did.

    Args:
        tx: The open transaction.
        rebirth: What it is made of.
        ids: Draws idempotency keys for offers.
        work: Collects what is left to do in this transaction, and what to tell listeners.

    Raises:
        HistoryMoved: A staged snapshot is no longer there.
    """
    reply, identity = rebirth.reply, tx.outbox.identity()
    known, other_hub = reply.known and not rebirth.adopted, rebirth.adopted and identity.hub_id != reply.hub_id
    missing = tx.outbox.first_missing(reply.last_mid)
    sorted_ = sort_outbox(tx.outbox.every(), rebirth.verdicts, reply.last_mid, known=known)
    beyond = [swap_cut(tx, cut, rebirth.policy, rebirth.stores, adopted=other_hub) for cut in rebirth.cuts]
    if other_hub:
        part_with(tx, (status.scope for status in reply.scopes))
    for cut in rebirth.cuts:
        work.dirty.update(dict.fromkeys(tx.base.shadowed(cut.status.scope)))
    work.cursors.update(rebirth.apart)
    settle(tx, sorted_.settled, None, work)
    offers = Offers(tx, ids)
    lost = _offer(tx, beyond, offers, work)
    forks = {scope: Cursor(reply.epoch, seq) for scope, seq in rebirth.apart.items()}
    forks.update((cut.status.scope, cut.fork) for cut in rebirth.cuts)
    numbering = _Numbering(tx, forks, offers, missing, other_hub=other_hub)
    # what is decided and only waits for its page is sent again as well: the hub answers by its first name, and should that
    # have been a verdict of a history that is lost by then, the mutation is not
    waiting = filter(None, (tx.outbox.by_mid(mutation.mid) for mutation, _ in sorted_.settled))
    undecided = _undecided(sorted_.again, identity, forks)
    for mutation, doubtful in sorted([*undecided, *((one, True) for one in waiting)], key=lambda one: one[0].mid):
        numbering.add(mutation, doubtful=doubtful, work=work)
    for mutation in tx.outbox.held():
        numbering.keep(mutation, work)
    tx.outbox.rewrite([*numbering.renumbered, *numbering.held])
    offers.enqueue()
    tx.outbox.save_identity(
        replace(
            identity,
            hub_id=reply.hub_id,
            principal=reply.principal,
            client_id=rebirth.client_id,
            incarnation=identity.incarnation + 1,
            next_mid=offers.chain.next_mid,
            tail_digest=offers.chain.tail,
            confirmed_mid=0,
            renew=False,
            sent_mid=0,
            sent_digest=b"",
        )
    )
    report = RepairReport(
        cause=rebirth.diagnosis.cause,
        why=rebirth.diagnosis.why,
        at_ms=tx.now_ms,
        forks={cut.status.scope: cut.fork.seq for cut in rebirth.cuts},
        settled=len(sorted_.settled),
        renumbered=len(numbering.renumbered),
        doubtful=numbering.doubtful,
        to_inbox=numbering.refused,
        offered=offers.rows,
        lost=lost,
        old_client_id=identity.client_id,
        new_client_id=rebirth.client_id,
        withdrawn=tuple(one.idem for one, _ in sorted_.again if one.status == ACKED),
    )
    tx.inbox.note_repair(report)
    return report


def _offer(tx: LocalTx, beyond: Sequence[Beyond], offers: Offers, work: Settlement) -> int:
    """Offer what may be offered and keep the rest; how much was kept."""
    kept = 0
    for one in beyond:
        if one.reason:
            rows = lost_rows(tx, one)
        else:
            offered, held = (one, None) if one.cut.status.deletes else without_deletions(tx, one)
            rows = [] if held is None else lost_rows(tx, held)
            offers.add(offered, work)
        tx.inbox.keep_lost(rows)
        kept += len(rows)
    return kept


def _undecided(
    again: Iterable[tuple[PendingMutation, bool]], identity: ClientIdentity, forks: Mapping[str, Cursor]
) -> Iterator[tuple[PendingMutation, bool]]:
    """What is sent again, as what waits to be sent, and whether it may have been decided before."""
    for mutation, doubtful in again:
        yield replace(mutation, status=QUEUED, ack_seq=0), doubtful or _may_be_offered(mutation, identity, forks)


def _may_be_offered(mutation: PendingMutation, identity: ClientIdentity, forks: Mapping[str, Cursor]) -> bool:
    """Whether an increment may have been decided in the part of a history that is lost, and be in what others offer of it."""
    if mutation.scope not in forks or not identity.may_have_sent(mutation.mid):
        return False
    return any(map(counts, decode(mutation.body, MutationBody).ops))


def capped(body: MutationBody, fork: Cursor) -> MutationBody:
    """``body`` with a base in the hub's history: what was seen of the lost one, behind ``fork``, is not in that."""
    return replace(body, base_seq=min(body.base_seq, fork.seq), base_epoch=fork.epoch)


class _Numbering:
    """A new numbering of mutations, in order, behind the offers."""

    def __init__(
        self, tx: LocalTx, forks: Mapping[str, Cursor], offers: Offers, missing: int | None, *, other_hub: bool
    ) -> None:
        self._tx = tx
        self._missing = missing
        self._other_hub = other_hub
        self._identity = tx.outbox.identity()
        self._refusals = Refusals(tx)
        self._forks = forks
        self._chain = offers.chain
        self._numbers: dict[int, int] = {}
        self.renumbered: list[PendingMutation] = []
        self.held: list[PendingMutation] = []
        self.doubtful = 0
        self.refused = 0

    def add(self, mutation: PendingMutation, *, doubtful: bool, work: Settlement) -> None:
        """Give ``mutation`` the next number, or put it into the inbox if what it builds on was refused."""
        body = decode(mutation.body, MutationBody)
        if self._refusals.refuse(mutation, body, work):
            self.refused += 1
            return
        if body.recovers is not None and body.recovers.last and not self._have_all_come(mutation.mid):
            self._tx.outbox.remove({mutation.lsn: None})
            return
        if self._other_hub:  # it has lost nothing
            body = replace(body, recovers=None)
        self._numbers[mutation.mid] = self._chain.next_mid
        body = self._restated(body)
        if body.recovers is None:  # an offer is state, and may come again as it is
            origin = body.origin or Origin(self._identity.client_id, mutation.mid, mutation.digest)
            body = replace(body, origin=origin, doubtful=doubtful or body.doubtful)
            self.doubtful += body.doubtful
        self.renumbered.append(self._chain.append_again(mutation, body))

    def keep(self, mutation: PendingMutation, work: Settlement) -> None:
        """Keep ``mutation`` held, in terms of the new numbers, or put it into the inbox if what it builds on was refused."""
        body = decode(mutation.body, MutationBody)
        if self._refusals.refuse(mutation, body, work):
            self.refused += 1
            return
        body = self._restated(body)
        self.held.append(replace(mutation, base_seq=body.base_seq, body=encode(body)))

    def _restated(self, body: MutationBody) -> MutationBody:
        """``body`` with what it builds on by its new number, and with a base in the hub's history."""
        body = replace(body, ops=tuple(replace(op, after_mid=self._numbers.get(op.after_mid, 0)) for op in body.ops))
        fork = self._forks.get(body.scope)
        return body if fork is None else capped(body, fork)

    def _have_all_come(self, mid: int) -> bool:
        """Whether the offers in front of ``mid`` are at the hub or still lie there; if not, saying so would take rows back.

        One that has left the outbox by a verdict that the hub does not know was taken or refused in a history that is gone.
        Another hub never asks.
        """
        return not self._other_hub and (self._missing is None or mid < self._missing)
