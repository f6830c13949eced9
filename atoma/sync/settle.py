"""Verdicts of the hub meeting the overlay: what leaves it, what stays, what goes to the inbox, what is visible then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from atoma.contracts.events import ConflictDetected
from atoma.contracts.mutations import ACKED, HELD_MID, MutationBody, Op, PendingMutation
from atoma.contracts.replica import InboxEntry, LostRow
from atoma.contracts.sync import Conflict, Cursor, Outcome, PullReply
from atoma.contracts.values import ErrorInfo, RowImage, RowKey, as_image
from atoma.mutations import ops_by_row, rebase, replay
from atoma.ports.local import LocalTx
from atoma.schema.bodies import decode_body
from atoma.sync.outbox import note_sent


@dataclass(slots=True)
class Settlement:
    """The part of a local transaction that settles what was pending.

    Attributes:
        dirty: Rows whose base or pending operations changed, each once and in order.
        removed: Numbers of mutations that left the overlay.
        accepted: Scopes in which a mutation was accepted whose page is still to come.
        conflicts: What to tell listeners after the commit.
        cursors: Positions of the confirmed base, by scope, as read in this transaction.
    """

    dirty: dict[RowKey, None] = field(default_factory=dict[RowKey, None])
    removed: set[int] = field(default_factory=set[int])
    accepted: set[str] = field(default_factory=set[str])
    conflicts: list[ConflictDetected] = field(default_factory=list[ConflictDetected])
    cursors: dict[str, int] = field(default_factory=dict[str, int])


def is_covered(tx: LocalTx, outcome: Outcome, page: PullReply | None, work: Settlement) -> bool:
    """Whether the confirmed base already holds what ``outcome`` did; only then may the overlay let go of it.

    A mutation that changed nothing has no sequence of its own: the base holds it once it is at the head that the hub
    had when it told the outcome.
    """
    if outcome.seq == 0:
        return page is not None and page.scope == outcome.scope and page.end.seq >= page.head
    return outcome.seq <= _confirmed_until(tx, outcome.scope, work)


def _confirmed_until(tx: LocalTx, scope: str, work: Settlement) -> int:
    """The hub's sequence that the confirmed base of ``scope`` is at."""
    if scope not in work.cursors:
        work.cursors[scope] = tx.scopes.read(scope).cursor.seq
    return work.cursors[scope]


def settle(
    tx: LocalTx, decided: Iterable[tuple[PendingMutation, Outcome]], page: PullReply | None, work: Settlement
) -> None:
    """Act on verdicts; one that was given on another number than the mutation has is of another life of the file.

    Args:
        tx: The open transaction; the cursor of ``page`` has moved in it.
        decided: Pending mutations with their verdicts.
        page: The page they came with, None for the reply to a push.
        work: Collects what is left to do in this transaction.
    """
    leaving: dict[int, tuple[PendingMutation, Outcome]] = {}
    acked: dict[int, int] = {}
    for pending, outcome in decided:
        if pending.mid != outcome.mid:
            continue
        # also where this file does not know that it was sent: by a copy of it, or before it was restored
        note_sent(tx, pending)
        if outcome.status == "rejected":
            keep_refused(tx, pending, outcome, work)
            leaving[pending.lsn] = pending, outcome
            continue
        if outcome.status == "merged" and pending.status != ACKED:
            keep_refused(tx, pending, outcome, work)
        if outcome.status == "superseded" and pending.status != ACKED:
            keep_superseded(tx, pending)
        if is_covered(tx, outcome, page, work):
            leaving[pending.lsn] = pending, outcome
            continue
        work.accepted.add(outcome.scope)
        if pending.status != ACKED or pending.ack_seq != outcome.seq:
            acked[outcome.mid] = outcome.seq
    if acked:
        tx.outbox.mark_acked(acked)
    _remove(tx, leaving, work)


def settle_page(
    tx: LocalTx,
    page: PullReply,
    decided: Iterable[tuple[PendingMutation, Outcome]],
    verified_mid: int,
    work: Settlement,
) -> None:
    """Settle what the outcomes of ``page`` have ``decided``, and acked mutations that it covers.

    Outcomes beyond ``verified_mid`` are left for the reply to their push: until the hub has compared digests, the
    mutation of that number might be another one, pushed by a copy of this file.
    """
    settle(tx, ((pending, outcome) for pending, outcome in decided if outcome.mid <= verified_mid), page, work)
    identity = tx.outbox.identity()
    confirmed = identity.confirmed_mid
    told = {outcome.mid for outcome in page.outcomes if confirmed < outcome.mid <= verified_mid}
    if len(told) >= verified_mid - confirmed:
        return  # the hub told of every mutation that may still be here
    leaving: dict[int, tuple[PendingMutation, Outcome]] = {}
    for pending in tx.outbox.acked(page.scope, _confirmed_until(tx, page.scope, work)):
        if pending.mid not in told and pending.mid <= verified_mid and pending.ack_seq:
            leaving[pending.lsn] = pending, Outcome(pending.mid, "applied", page.scope, pending.ack_seq)
    _remove(tx, leaving, work)


def _remove(tx: LocalTx, leaving: Mapping[int, tuple[PendingMutation, Outcome]], work: Settlement) -> None:
    if leaving:
        touched = tx.outbox.remove({lsn: outcome for lsn, (_, outcome) in leaving.items()})
        work.dirty.update(dict.fromkeys(touched))
        work.removed.update([pending.mid for pending, _ in leaving.values()])


def keep_refused(tx: LocalTx, pending: PendingMutation, outcome: Outcome, work: Settlement) -> None:
    """Put what the user loses by ``outcome`` into the inbox: every row of a rejection, cut rows of a merge."""
    for (store, id), ops in ops_by_row(pending.meaning, tx.schema).items():
        conflict = next((item for item in outcome.conflicts if (item.store, item.id) == (store, id)), None)
        if outcome.status == "merged" and (conflict is None or not conflict.dropped):
            continue
        entry = _entry(tx, pending, outcome, conflict, (store, id), ops)
        tx.inbox.add(entry)
        work.conflicts.append(ConflictDetected(pending.scope, store, id, entry.code))


class Refusals:
    """The writes that the hub has refused in the present life of a file, and what builds on them."""

    def __init__(self, tx: LocalTx) -> None:
        self._tx = tx
        self._refused = {
            (entry.mid, entry.store, entry.id)
            for entry in tx.inbox.entries()
            if entry.code != "MERGED" and self._is_of_this_life(entry)
        }
        self._held: dict[RowKey, int] = {}

    def _is_of_this_life(self, entry: InboxEntry) -> bool:
        if entry.incarnation:
            return entry.incarnation == self._tx.outbox.identity().incarnation
        # an earlier version did not say whose number it was; one that waits in the outbox has not been refused in this life
        return self._tx.outbox.by_mid(entry.mid) is None

    def _root(self, body: MutationBody) -> int:
        """The number of a refused mutation that ``body`` builds on, 0 for none."""
        for op in body.ops:
            if body.mid == HELD_MID and (op.store, op.id) in self._held:
                return self._held[op.store, op.id]
            if op.after_mid and (op.after_mid, op.store, op.id) in self._refused:
                return op.after_mid
        return 0

    def refuse(self, mutation: PendingMutation, body: MutationBody, work: Settlement) -> bool:
        """Put ``mutation`` into the inbox if it builds on a refused one, as the hub would have it; whether it does."""
        root = self._root(body)
        if not root:
            return False
        message = f"it builds on mutation {root}, which was refused"
        error = ErrorInfo("DEPENDENCY_REJECTED", message, info={"root_mid": str(root)})
        outcome = Outcome(mutation.mid, "rejected", mutation.scope, error=error)
        keep_refused(self._tx, mutation, outcome, work)
        for op in body.ops:
            if mutation.mid == HELD_MID:
                self._held[op.store, op.id] = root
            else:
                self._refused.add((mutation.mid, op.store, op.id))
        work.dirty.update(dict.fromkeys(self._tx.outbox.remove({mutation.lsn: outcome})))
        return True


def keep_superseded(tx: LocalTx, pending: PendingMutation) -> None:
    """List an offer that did not count, as resolved: a device that had seen more was at the hub before."""
    body = decode_body(pending.meaning, tx.schema)
    if body.recovers is None:
        return
    tx.inbox.keep_lost(
        LostRow(
            0, op.store, op.id, body.scope, replay(op, None), tx.base.read(op.store, op.id).image, "superseded",
            Cursor(body.base_epoch, body.base_seq), body.recovers, tx.now_ms, "superseded",
        )
        for op in body.ops
    )  # fmt: skip


def _entry(
    tx: LocalTx, pending: PendingMutation, outcome: Outcome, conflict: Conflict | None, key: RowKey, ops: list[Op]
) -> InboxEntry:
    store, id = key
    seen = tx.outbox.pre_image(store, id, pending.lsn)
    theirs, theirs_seq = _theirs(tx, conflict, key)
    if outcome.status == "merged" and conflict is not None:
        code, message = "MERGED", f"{', '.join(conflict.dropped)} kept somebody else's value ({conflict.rule})"
    elif outcome.error is not None:
        code, message = outcome.error.code, outcome.error.message
    else:
        code, message = "REJECTED", "the hub gave no reason"
    return InboxEntry(
        mid=pending.mid,
        store=store,
        id=id,
        scope=pending.scope,
        code=code,
        message=message,
        op=ops[-1],
        base=seen,
        mine=rebase(seen, ops),
        theirs=theirs,
        theirs_seq=theirs_seq,
        at_ms=tx.now_ms,
        lsn=pending.lsn,
        incarnation=tx.outbox.identity().incarnation,
    )


def _theirs(tx: LocalTx, conflict: Conflict | None, key: RowKey) -> tuple[RowImage | None, int]:
    """The hub's image: what the conflict tells, else the confirmed base."""
    if conflict is not None:
        current = conflict.current
        if current is None:
            return None, conflict.current_seq
        store = tx.schema.store(key[0])  # the hub's may have more fields
        image = {name: value for name, value in as_image(current).items() if name in store.fields and name != "id"}
        return store.unpack(image), conflict.current_seq
    base = tx.base.read(*key)
    return base.image, base.seq


def confirm(tx: LocalTx, removed: set[int]) -> None:
    """Move ``confirmed_mid`` over every mutation that has left the outbox; the hub may then forget its outcome."""
    identity = tx.outbox.identity()
    mid = identity.confirmed_mid
    while mid + 1 < identity.next_mid and (mid + 1 in removed or tx.outbox.by_mid(mid + 1) is None):
        mid += 1
    if mid != identity.confirmed_mid:
        tx.outbox.save_identity(replace(identity, confirmed_mid=mid))
