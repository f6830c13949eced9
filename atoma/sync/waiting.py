"""The outbox for people: the writes that wait to be sent, and what can still be done about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from atoma.contracts.mutations import ACKED, PendingMutation
from atoma.contracts.outbox import WaitingState, WaitingWrite
from atoma.contracts.replica import ClientIdentity
from atoma.contracts.sync import Limits
from atoma.errors import ValidationError
from atoma.ports.local import LocalTx
from atoma.ports.loops import LoopGuard
from atoma.schema.bodies import decode_body
from atoma.schema.schema import Schema
from atoma.sync.replica import Replica
from atoma.sync.staging import Hurried
from atoma.sync.unsent import Edited, Kept, Released, WriteDiscarded, is_unsent

HELD_BY_HAND = "somebody holds it"


class Outbox:
    """The writes that the hub has not confirmed yet; those that were never sent can be held, edited and discarded.

    A write that was sent, or may have been, is the hub's to decide: it is accepted, or comes back in the inbox. The
    writes to one row keep their order: holding one holds those that build on it, and releasing one releases those
    that are held with it.

    Args:
        replica: The client's side.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._guard = LoopGuard("replication")

    async def entries(self) -> Sequence[WaitingWrite]:
        """Return every waiting write, in the order in which they were made."""
        self._guard.check()
        return await self._replica.database.inspect(waiting_writes)

    async def retry(self) -> None:
        """Send queued writes now, without waiting for their next attempt, even if another program sends them.

        If the call is cancelled before its one local transaction, nothing was requested.
        """
        self._guard.check()
        await self._replica.change(Hurried())

    async def hold(self, entries: Sequence[WaitingWrite], *, why: str = "") -> int:
        """Keep writes, and those that build on them, on this device; their rows stay visible as they are.

        Their handles end in ``dead``, and later writes to their rows are held as well. Other writes go on.

        Args:
            entries: Entries from :meth:`entries`.
            why: Shown beside them; by default it says that somebody holds them.

        Returns:
            How many were not held before.

        Raises:
            AlreadySent: One was sent, or may have been; nothing was changed.
            NotPending: One no longer waits; nothing was changed.

        If the call is cancelled before its one local transaction, nothing has changed; the same holds for every
        call here.
        """
        self._guard.check()
        return self._done(await self._replica.change(Kept(_keys(entries), why or HELD_BY_HAND)))

    async def release(self, entries: Sequence[WaitingWrite]) -> None:
        """Send held writes after all, behind the waiting ones, with every other write that is held on the same rows.

        A write that builds on one that was refused meanwhile goes to the inbox.

        Raises:
            NotPending: One no longer waits; nothing was changed.
        """
        self._guard.check()
        self._replica.settled(await self._replica.change(Released(_keys(entries))))
        self._done(0)

    async def edit(
        self, entry: WaitingWrite, changes: Mapping[str, object], *, row: tuple[str, str] | None = None
    ) -> None:
        """Change the values of a write, in its place in the order.

        Args:
            entry: An entry from :meth:`entries`.
            changes: Values by field.
            row: Store and id of the row, if the write is on several.

        Raises:
            AlreadySent: It was sent, or may have been; nothing was changed.
            NotPending: It no longer waits; nothing was changed.
            ValidationError: It does not write the row, a value is wrong, or ``row`` is needed.
            ConflictError: The row would have a unique value of another one.
        """
        self._guard.check()
        rows = entry.rows
        if row is None and len(rows) > 1:
            first, second = list(rows)[:2]
            raise ValidationError(f"the write is on {len(rows)} rows, say which: row={first} or row={second}")
        target = row or next(iter(rows))
        self._done(await self._replica.change(Edited(entry.key, target, changes, Limits())))

    async def discard(self, entries: Sequence[WaitingWrite], *, dependents: bool = False) -> int:
        """Take writes back, as if they had never been made; their handles end in ``rejected`` with ``TAKEN_BACK``.

        Args:
            entries: Entries from :meth:`entries`.
            dependents: Also take back the later writes that build on them.

        Returns:
            How many were taken back.

        Raises:
            AlreadySent: One was sent, or may have been; nothing was changed.
            NotPending: One no longer waits; nothing was changed.
            ConflictError: Later writes build on them, and ``dependents`` is false.
        """
        self._guard.check()
        return self._done(await self._replica.change(WriteDiscarded(_keys(entries), dependents)))

    def _done(self, count: int | None) -> int:
        self._replica.bell.ring()
        return count or 0


def _keys(entries: Iterable[WaitingWrite]) -> tuple[str, ...]:
    return tuple(entry.key for entry in entries)


def waiting_writes(tx: LocalTx) -> list[WaitingWrite]:
    """Everything that waits in an outbox, in local order."""
    identity = tx.outbox.identity()
    found = sorted([*tx.outbox.every(), *tx.outbox.held()], key=lambda one: one.lsn)
    return [waiting_write(one, identity, tx.schema) for one in found]


def waiting_write(mutation: PendingMutation, identity: ClientIdentity, schema: Schema) -> WaitingWrite:
    """``mutation`` for people, who are told whether it may still be edited."""
    body = decode_body(mutation.meaning, schema)
    editable = is_unsent(identity, mutation)
    state: WaitingState = "queued" if editable else "sent"
    if mutation.kind == "held":
        state = "held"
    elif mutation.status == ACKED:
        state = "accepted"
    return WaitingWrite(
        key=mutation.idem,
        scope=mutation.scope,
        state=state,
        ops=body.ops,
        written_ms=body.client_ms,
        mid=mutation.mid,
        attempts=mutation.attempts,
        next_attempt_ms=mutation.next_attempt_ms,
        why=mutation.last_error,
        editable=editable,
    )
