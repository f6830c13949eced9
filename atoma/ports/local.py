"""One open local transaction, without SQL: what the runtime, the outbox node and the sync lanes do in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from atoma.contracts.execution import WriteItemResult
from atoma.contracts.mutations import BaseRow, Effect, PendingMutation
from atoma.contracts.replica import ClientIdentity, InboxEntry, LostRow, RepairReport, StagedRow, Subscription
from atoma.contracts.sync import Cursor, Outcome
from atoma.contracts.values import RowImage, StoredRow
from atoma.schema.spec import Schema


class LocalTx(Protocol):
    """One ``BEGIN IMMEDIATE … COMMIT`` on the local database; synchronous, valid inside the body only.

    Images never contain the id. ``scope`` of an existing row cannot change.
    """

    @property
    def schema(self) -> Schema:
        """The declared stores."""
        ...

    @property
    def now_ms(self) -> int:
        """Wall clock of the environment when the transaction began."""
        ...

    # visible rows

    def read_row(self, store: str, id: str) -> StoredRow | None:
        """The visible row."""
        ...

    def put_visible(self, store: str, id: str, scope: str, image: RowImage | None) -> int:
        """Make ``image`` the visible row (None deletes it) and return its new local version (0 when deleted).

        An image equal to the one that is there changes nothing and keeps the version.

        Raises:
            ConflictError: A UNIQUE index refuses it; the row is as it was.
        """
        ...

    # units

    def record(self, effect: Effect) -> None:
        """Tell later stages what an entry did."""
        ...

    @property
    def effects(self) -> Sequence[Effect]:
        """Effects recorded in this unit so far, in entry order; entries that changed nothing have none."""
        ...

    def report(self, index: int, result: WriteItemResult) -> None:
        """Set the result of the unit's entry ``index``."""
        ...

    # confirmed base

    def read_base(self, store: str, id: str) -> BaseRow:
        """The confirmed image: the shadow if the row has pending mutations, else the visible row."""
        ...

    def put_base(self, store: str, id: str, scope: str, image: RowImage | None, seq: int) -> None:
        """Make ``image`` the confirmed image: the shadow if there is one, else the visible row itself."""
        ...

    def put_base_many(self, store: str, scope: str, rows: Iterable[tuple[str, RowImage | None, int]]) -> list[str]:
        """:meth:`put_base` for many ``(id, image, seq)`` of one store; returns the ids that are shadowed."""
        ...

    def shadow(self, store: str, id: str, scope: str, pre: RowImage | None) -> bool:
        """Set ``pre`` aside as the confirmed image and return True, unless the row is shadowed already."""
        ...

    def unshadow(self, store: str, id: str) -> None:
        """Forget the shadow; the visible row keeps its image and takes the shadow's sequence."""
        ...

    def shadowed(self, scope: str) -> Sequence[tuple[str, str]]:
        """``(store, id)`` of every shadowed row of a scope."""
        ...

    def hidden(self, store: str) -> Sequence[str]:
        """Ids of rows that a unique index has refused to show: they are shadowed, and nothing is pending on them."""
        ...

    # pending mutations

    def identity(self) -> ClientIdentity:
        """Who this file is to the hub."""
        ...

    def save_identity(self, identity: ClientIdentity) -> None:
        """Replace the identity."""
        ...

    def enqueue(self, mutation: PendingMutation, rows: Sequence[tuple[str, str, RowImage | None]]) -> int:
        """Add a pending mutation (its ``lsn`` is ignored) on ``(store, id, pre-image)`` rows; returns the lsn.

        Raises:
            OutboxFull: The outbox is at its limit; the unit has to be rolled back.
        """
        ...

    def pending(self, store: str, id: str) -> Sequence[PendingMutation]:
        """Pending mutations that touch the row, in local order."""
        ...

    def last_pending_mid(self, store: str, id: str) -> int:
        """``mid`` of the latest pending outbox mutation on the row, 0 if there is none."""
        ...

    def pending_by_mid(self, mid: int) -> PendingMutation | None:
        """The outbox mutation ``mid`` if it is still pending."""
        ...

    def pre_image(self, store: str, id: str, lsn: int) -> RowImage | None:
        """What the row looked like to the user before mutation ``lsn``."""
        ...

    def outbox(self, *, limit: int, max_bytes: int) -> Sequence[PendingMutation]:
        """The oldest queued outbox mutations in ``mid`` order; at least one if there is any."""
        ...

    def every_outbox(self) -> Sequence[PendingMutation]:
        """Every outbox mutation, whatever its status, in ``mid`` order."""
        ...

    def enqueue_below(
        self, mutations: Sequence[tuple[PendingMutation, Sequence[tuple[str, str, RowImage | None]]]]
    ) -> None:
        """Add outbox mutations, each with its rows as :meth:`enqueue` takes them, below everything that is pending.

        The outbox's limit does not hold for them: they are rows that the device has already.
        """
        ...

    def renumber(self, mutations: Sequence[PendingMutation]) -> None:
        """Replace number, base, bytes, digest and status of pending outbox mutations, found by their lsn.

        Each keeps its place in the overlay, and its receipt. The numbers may be ones that others of them had.
        """
        ...

    def acked(self, scope: str) -> Sequence[PendingMutation]:
        """Outbox mutations of the scope that are acked and wait for their page."""
        ...

    def mark_acked(self, mid: int, seq: int) -> None:
        """The hub applied ``mid`` as ``seq``; it stays in the overlay until the page comes."""
        ...

    def mark_attempt(self, mids: Sequence[int], next_attempt_ms: int, error: str) -> None:
        """Note a failed attempt: count it, keep the error and when the next one is due."""
        ...

    def park(self, mid: int, error: str) -> None:
        """Set ``mid`` aside as dead; it stays visible in the overlay and in the outbox list."""
        ...

    def remove_pending(self, lsn: int, outcome: Outcome | None) -> Sequence[tuple[str, str]]:
        """Take a mutation out of the overlay and return the ``(store, id)`` it touched.

        ``outcome`` is what waiting receipts are told after the commit (None: taken back locally).
        """
        ...

    def to_inbox(self, entry: InboxEntry) -> None:
        """Keep something the user typed that the hub refused or cut."""
        ...

    def inbox(self) -> Sequence[InboxEntry]:
        """Every inbox entry, oldest first, resolved ones too."""
        ...

    def note_repair(self, report: RepairReport) -> None:
        """Remember what a repair did; the last twenty are kept."""
        ...

    def repairs(self) -> Sequence[RepairReport]:
        """The last repairs, oldest first."""
        ...

    def keep_lost(self, rows: Iterable[LostRow]) -> None:
        """Keep rows that the hub has lost; their ``number`` is ignored."""
        ...

    def lost(self, *, resolved: bool = True) -> Sequence[LostRow]:
        """Rows that were kept, oldest first; only those that are open when not ``resolved``."""
        ...

    def resolve_lost(self, number: int, resolution: str) -> None:
        """Mark a kept row as resolved."""
        ...

    def forget_lost(self, numbers: Sequence[int]) -> None:
        """Let go of kept rows."""
        ...

    def resolve_inbox(self, entry: InboxEntry, resolution: str) -> None:
        """Mark an inbox entry as resolved."""
        ...

    # replication state

    def subscription(self, scope: str) -> Subscription:
        """How far the scope is replicated; a fresh ``new`` one if it never was."""
        ...

    def save_subscription(self, subscription: Subscription) -> None:
        """Replace the scope's state; the cursor of a live one moves through :meth:`advance` only."""
        ...

    def advance(self, scope: str, start: Cursor, end: Cursor, proof: bytes = b"") -> bool:
        """Move the cursor from ``start`` to ``end``, where ``proof`` is for; False and no change when it is elsewhere."""
        ...

    def stage(self, scope: str, rows: Iterable[StagedRow]) -> None:
        """Add rows to the snapshot under construction; an older sequence never replaces a newer one."""
        ...

    def clear_stage(self, scope: str) -> None:
        """Forget the snapshot under construction."""
        ...

    def beyond(self, scope: str, fork: int) -> Sequence[StagedRow]:
        """What the confirmed base has that the staged snapshot's history has lost behind ``fork``.

        Base rows with a later sequence, and, as deletions, staged rows from before it that the base lacks.
        """
        ...

    def swap_stage(self, scope: str) -> None:
        """Make the staged snapshot the confirmed base of the scope, writing only what differs.

        Rows of the scope that are not staged leave the base: clean ones are deleted, shadowed ones get the base "absent".
        The visible image of shadowed rows is left for the rebase. The stage is empty afterwards.
        """
        ...
