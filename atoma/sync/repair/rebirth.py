"""The one local transaction of a repair: settle what was decided, take a new client id, number the outbox anew.

A crash before it changes nothing; after it the file is an ordinary client that the hub has never seen. A mutation keeps its
place in the overlay, so nothing that is visible moves but what the verdicts move, and its handle goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.overlay import ACKED, QUEUED, PendingMutation
from atoma.contracts.sync import MutationBody, Op, Origin, Outcome, Verdict
from atoma.contracts.values import ErrorInfo
from atoma.ports.local import LocalTx
from atoma.sync.outbox import next_digest
from atoma.sync.repair.sorting import sort_outbox
from atoma.sync.settle import Settlement, keep_refused, rebase_rows, settle


@dataclass(frozen=True, slots=True)
class Reborn:
    """What a rebirth did.

    Attributes:
        settled: Mutations that the hub had decided.
        renumbered: Mutations that are sent again, ``doubtful`` of them guarded.
        doubtful: Mutations that may have been decided before.
        to_inbox: Mutations that can no longer be sent, with their rows in the inbox.
        work: What to tell listeners.
    """

    settled: int
    renumbered: int
    doubtful: int
    to_inbox: int
    work: Settlement


def be_reborn(tx: LocalTx, client_id: bytes, verdicts: Mapping[int, Verdict], last_mid: int, *, known: bool) -> Reborn:
    """Give the file the new ``client_id``.

    Args:
        tx: The open transaction.
        client_id: 16 random bytes.
        verdicts: What the hub keeps of this file's mutations, by number.
        last_mid: Last one that it has decided.
        known: Whether it knows the file at all.
    """
    sorted_ = sort_outbox(tx.every_outbox(), verdicts, last_mid, known=known)
    work = Settlement()
    settle(tx, (outcome for _, outcome in sorted_.settled), None, work)
    inbox = {(entry.mid, entry.store, entry.id) for entry in tx.inbox() if entry.code != "MERGED"}
    kept = [mutation for mutation, _ in sorted_.settled if mutation.mid not in work.removed]
    numbering = _Numbering(tx, inbox)
    for mutation, doubtful in sorted_.again:
        numbering.add(mutation, doubtful=doubtful, work=work)
    # what is decided and only waits for its page goes below the numbers of the new life
    waiting = [
        replace(pending, mid=-place, status=ACKED)
        for place, mutation in enumerate(reversed(kept), 1)
        if (pending := _now(tx, mutation)) is not None
    ]
    tx.renumber([*waiting, *numbering.renumbered])
    identity = tx.identity()
    tx.save_identity(
        replace(
            identity,
            client_id=client_id,
            incarnation=identity.incarnation + 1,
            next_mid=len(numbering.renumbered) + 1,
            tail_digest=numbering.tail,
            confirmed_mid=0,
        )
    )
    rebase_rows(tx, work.dirty)
    return Reborn(len(sorted_.settled), len(numbering.renumbered), numbering.doubtful, numbering.refused, work)


def _now(tx: LocalTx, mutation: PendingMutation) -> PendingMutation | None:
    """``mutation`` as it is after settling, None when it has left."""
    return tx.pending_by_mid(mutation.mid)


class _Numbering:
    """Numbers mutations anew from 1, in order."""

    def __init__(self, tx: LocalTx, inbox: set[tuple[int, str, str]]) -> None:
        self._tx = tx
        self._identity = tx.identity()
        self._inbox = inbox
        self._numbers: dict[int, int] = {}
        self.renumbered: list[PendingMutation] = []
        self.tail = b""
        self.doubtful = 0
        self.refused = 0

    def add(self, mutation: PendingMutation, *, doubtful: bool, work: Settlement) -> None:
        """Give ``mutation`` the next number, or put it into the inbox if what it builds on was refused."""
        body = decode(mutation.body, MutationBody)
        broken = next((op for op in body.ops if self._builds_on_a_refusal(op)), None)
        if broken is not None:
            self._refuse(mutation, body, broken.after_mid, work)
            return
        mid = len(self.renumbered) + 1
        self._numbers[mutation.mid] = mid
        origin = body.origin or Origin(self._identity.client_id, mutation.mid, mutation.digest)
        ops = tuple(replace(op, after_mid=self._numbers.get(op.after_mid, 0)) for op in body.ops)
        doubtful = doubtful or body.doubtful
        packed = encode(replace(body, mid=mid, ops=ops, origin=origin, doubtful=doubtful))
        self.tail = next_digest(self.tail, packed)
        self.doubtful += doubtful
        self.renumbered.append(replace(mutation, mid=mid, body=packed, digest=self.tail, status=QUEUED, ack_seq=0))

    def _builds_on_a_refusal(self, op: Op) -> bool:
        return bool(op.after_mid) and (op.after_mid, op.store, op.id) in self._inbox

    def _refuse(self, mutation: PendingMutation, body: MutationBody, root: int, work: Settlement) -> None:
        message = f"it builds on mutation {root}, which was refused"
        error = ErrorInfo("DEPENDENCY_REJECTED", message, info={"root_mid": str(root)})
        outcome = Outcome(mutation.mid, "rejected", mutation.scope, error=error)
        keep_refused(self._tx, mutation, outcome, work)
        self._inbox.update((mutation.mid, op.store, op.id) for op in body.ops)
        for key in self._tx.remove_pending(mutation.lsn, outcome):
            work.dirty[key] = mutation.scope
        self.refused += 1
