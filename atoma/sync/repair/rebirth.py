"""The one local transaction of a repair: settle, swap, take a new client id, number the outbox anew with offers in front.

A crash before it changes nothing; after it the file is an ordinary client that the hub has never seen. A mutation keeps its
place in the overlay, so nothing that is visible moves but what the verdicts and the hub's state move, and its handle goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import QUEUED, MutationBody, Op, Origin, PendingMutation
from atoma.contracts.replica import RepairReport
from atoma.contracts.sync import Cursor, OpenReply, Outcome, Verdict
from atoma.contracts.values import ErrorInfo
from atoma.ports.local import LocalTx
from atoma.sync.outbox import next_digest
from atoma.sync.policies import HubLossPolicy
from atoma.sync.repair.diagnosis import Diagnosis
from atoma.sync.repair.offers import Beyond, Cut, Offers, lost_rows, part_with, swap_cut, without_deletions
from atoma.sync.repair.sorting import sort_outbox
from atoma.sync.settle import Settlement, keep_refused, settle


@dataclass(frozen=True, slots=True)
class Rebirth:
    """What a rebirth is made of.

    Attributes:
        diagnosis: Why it is made.
        client_id: The new id, 16 random bytes.
        verdicts: What the hub keeps of this file's mutations, by number.
        reply: What the hub said of this file.
        cuts: Scopes of which the hub has lost a part, with the staged snapshots.
        stores: Names of the stores that replicate.
        policy: What to do with what the hub has lost.
    """

    diagnosis: Diagnosis
    client_id: bytes
    verdicts: Mapping[int, Verdict]
    reply: OpenReply
    cuts: Sequence[Cut]
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
    reply = rebirth.reply
    identity = tx.outbox.identity()
    known, other_hub = reply.known and not rebirth.adopted, rebirth.adopted and identity.hub_id != reply.hub_id
    missing = tx.outbox.first_missing(reply.last_mid)
    sorted_ = sort_outbox(tx.outbox.every(), rebirth.verdicts, reply.last_mid, known=known)
    beyond = [swap_cut(tx, cut, rebirth.policy, rebirth.stores, adopted=other_hub) for cut in rebirth.cuts]
    if other_hub:
        part_with(tx, (status.scope for status in reply.scopes))
    for cut in rebirth.cuts:
        work.dirty.update(dict.fromkeys(tx.base.shadowed(cut.status.scope)))
    settle(tx, sorted_.settled, None, work)
    offers = Offers(tx, ids)
    lost = _offer(tx, beyond, offers, work)
    forks = {cut.status.scope: cut.fork for cut in rebirth.cuts}
    numbering = _Numbering(tx, forks, offers, missing, other_hub=other_hub)
    # what is decided and only waits for its page is sent again as well: the hub answers by its first name, and should that
    # have been a verdict of a history that is lost by then, the mutation is not
    waiting = filter(None, (tx.outbox.by_mid(mutation.mid) for mutation, _ in sorted_.settled))
    undecided = ((replace(mutation, status=QUEUED, ack_seq=0), doubtful) for mutation, doubtful in sorted_.again)
    for mutation, doubtful in sorted([*undecided, *((one, True) for one in waiting)], key=lambda one: one[0].mid):
        numbering.add(mutation, doubtful=doubtful, work=work)
    tx.outbox.renumber(numbering.renumbered)
    offers.enqueue()
    tx.outbox.save_identity(
        replace(
            identity,
            hub_id=reply.hub_id,
            principal=reply.principal,
            client_id=rebirth.client_id,
            incarnation=identity.incarnation + 1,
            next_mid=offers.count + len(numbering.renumbered) + 1,
            tail_digest=numbering.tail,
            confirmed_mid=0,
            renew=False,
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


def capped(body: MutationBody, fork: Cursor) -> MutationBody:
    """``body`` with a base in the hub's history: what was seen of the lost one, behind ``fork``, is not in that."""
    return replace(body, base_seq=min(body.base_seq, fork.seq), base_epoch=fork.epoch)


class _Numbering:
    """Numbers mutations anew, in order, behind the offers."""

    def __init__(
        self, tx: LocalTx, forks: Mapping[str, Cursor], offers: Offers, missing: int | None, *, other_hub: bool
    ) -> None:
        self._tx = tx
        self._missing = missing
        self._other_hub = other_hub
        self._identity = tx.outbox.identity()
        self._refusals = {
            (entry.mid, entry.store, entry.id)
            for entry in tx.inbox.entries()
            if entry.code != "MERGED" and entry.incarnation in (0, self._identity.incarnation)
        }
        self._forks = forks
        self._first = offers.count + 1
        self._numbers: dict[int, int] = {}
        self.renumbered: list[PendingMutation] = []
        self.tail = offers.tail
        self.doubtful = 0
        self.refused = 0

    def add(self, mutation: PendingMutation, *, doubtful: bool, work: Settlement) -> None:
        """Give ``mutation`` the next number, or put it into the inbox if what it builds on was refused."""
        body = decode(mutation.body, MutationBody)
        broken = next((op for op in body.ops if self._builds_on_a_refusal(op)), None)
        if broken is not None:
            self._refuse(mutation, body, broken.after_mid, work)
            return
        fork = self._forks.get(body.scope)
        if body.recovers is not None and body.recovers.last and not self._have_all_come(mutation.mid):
            self._tx.outbox.remove(mutation.lsn, None)
            return
        if self._other_hub:  # it has lost nothing
            body = replace(body, recovers=None)
        mid = self._first + len(self.renumbered)
        self._numbers[mutation.mid] = mid
        ops = tuple(replace(op, after_mid=self._numbers.get(op.after_mid, 0)) for op in body.ops)
        body = replace(body, mid=mid, ops=ops)
        if fork is not None:
            body = capped(body, fork)
        if body.recovers is None:  # an offer is state, and may come again as it is
            origin = body.origin or Origin(self._identity.client_id, mutation.mid, mutation.digest)
            body = replace(body, origin=origin, doubtful=doubtful or body.doubtful)
            self.doubtful += body.doubtful
        packed = encode(body)
        self.tail = next_digest(self.tail, packed)
        self.renumbered.append(replace(mutation, mid=mid, base_seq=body.base_seq, body=packed, digest=self.tail))

    def _have_all_come(self, mid: int) -> bool:
        """Whether the offers in front of ``mid`` are at the hub or still lie there; if not, saying so would take rows back.

        One that has left the outbox by a verdict that the hub does not know was taken or refused in a history that is gone.
        Another hub never asks.
        """
        return not self._other_hub and (self._missing is None or mid < self._missing)

    def _builds_on_a_refusal(self, op: Op) -> bool:
        return bool(op.after_mid) and (op.after_mid, op.store, op.id) in self._refusals

    def _refuse(self, mutation: PendingMutation, body: MutationBody, root: int, work: Settlement) -> None:
        message = f"it builds on mutation {root}, which was refused"
        error = ErrorInfo("DEPENDENCY_REJECTED", message, info={"root_mid": str(root)})
        outcome = Outcome(mutation.mid, "rejected", mutation.scope, error=error)
        keep_refused(self._tx, mutation, outcome, work)
        self._refusals.update((mutation.mid, op.store, op.id) for op in body.ops)
        work.dirty.update(dict.fromkeys(self._tx.outbox.remove(mutation.lsn, outcome)))
        self.refused += 1
