"""One open local transaction, without SQL: its parts, for the runtime, the outbox node and the sync lanes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from atoma.contracts.execution import WriteItemResult
from atoma.contracts.mutations import BaseRow, Effect, PendingMutation
from atoma.contracts.quarantine import Quarantined
from atoma.contracts.query import BoundQuery
from atoma.contracts.replica import (
    BroughtScope,
    ClientIdentity,
    InboxEntry,
    LostRow,
    Portion,
    RepairReport,
    StagedRow,
    Subscription,
)
from atoma.contracts.sync import Cursor, Outcome
from atoma.contracts.values import RowImage, RowKey, StoredRow
from atoma.schema.kinds import INT64_MAX
from atoma.schema.schema import Schema


class RowsPart(Protocol):
    """The rows that the user sees. Images never contain the id. ``scope`` of an existing row cannot change."""

    def read(self, store: str, id: str) -> StoredRow | None:
        """The visible row."""
        ...

    def matching(self, query: BoundQuery) -> Sequence[str]:
        """Ids of the visible rows that ``query``, which reads whole rows of one store, finds now.

        Raises:
            QueryError: It does not fit the schema.
        """
        ...

    def put(self, store: str, id: str, scope: str, image: RowImage | None) -> int:
        """Make ``image`` the visible row (None deletes it) and return its new local version (0 when deleted).

        An image equal to the one that is there changes nothing and keeps the version.

        Raises:
            ConflictError: A UNIQUE index refuses it; the row is as it was.
        """
        ...

    def insert(self, store: str, id: str, scope: str, image: RowImage) -> int | None:
        """Insert a row and return its local version; None and no change when there is a row with this id.

        Raises:
            ConflictError: A UNIQUE index refuses it; nothing was inserted.
        """
        ...

    def insert_many(
        self, store: str, ids: Sequence[str], scopes: Sequence[str], images: Sequence[RowImage]
    ) -> Sequence[int] | None:
        """Insert many rows at once; their versions, or None and no change when one of them is refused.

        Several times faster than :meth:`put` per row, for callers that know what to do row by row otherwise.
        """
        ...

    def check_unique(self, store: str, id: str) -> None:
        """Refuse a row that shows a unique value of another one.

        Raises:
            ConflictError: It does.
        """
        ...


class ConfirmedPart(Protocol):
    """The confirmed rows under the visible ones."""

    def read(self, store: str, id: str) -> BaseRow:
        """The confirmed image: the shadow if the row has pending mutations, else the visible row."""
        ...

    def shadow_of(self, store: str, id: str) -> BaseRow | None:
        """The confirmed image where it was set aside; None where it is the visible row."""
        ...

    def put(self, store: str, id: str, scope: str, image: RowImage | None, seq: int) -> None:
        """Make ``image`` the confirmed image: the shadow if there is one, else the visible row itself.

        A deletion that names another scope than the row's is of an older life of the row and is passed over.
        """
        ...

    def put_many(self, store: str, scope: str, rows: Iterable[tuple[str, RowImage | None, int]]) -> list[str]:
        """:meth:`put` for many ``(id, image, seq)`` of one store; returns the ids that are shadowed."""
        ...

    def shadow(self, store: str, id: str, scope: str, pre: RowImage | None) -> bool:
        """Set ``pre`` aside as the confirmed image and return True, unless the row is shadowed already."""
        ...

    def unshadow(self, store: str, id: str) -> None:
        """Forget the shadow; the visible row keeps its image and takes the shadow's sequence."""
        ...

    def unshadow_settled(self, store: str, ids: Sequence[str]) -> Collection[str]:
        """:meth:`unshadow` of those of ``ids`` on which nothing is pending and that are visible as they are confirmed; which."""
        ...

    def shadowed(self, scope: str) -> Sequence[tuple[str, str]]:
        """``(store, id)`` of every shadowed row of a scope."""
        ...

    def hidden(self, store: str) -> Sequence[str]:
        """Ids of rows that a unique index has refused to show: they are shadowed, and nothing is pending on them."""
        ...


class OutboxPart(Protocol):
    """Pending mutations in local order, those of kind ``outbox`` numbered towards the hub; and whose numbers those are."""

    def identity(self) -> ClientIdentity:
        """Who this file is to the hub."""
        ...

    def save_identity(self, identity: ClientIdentity) -> None:
        """Replace the identity."""
        ...

    def add(
        self, mutation: PendingMutation, rows: Sequence[tuple[str, str, RowImage | None]], *, limited: bool = True
    ) -> int:
        """Add a pending mutation (its ``lsn`` is ignored) on ``(store, id, pre-image)`` rows; returns the lsn.

        The outbox's limit is for what is written. It does not hold for what the device has already, and only sends: that would never
        leave.

        Raises:
            OutboxFull: The outbox is at its limit; the unit has to be rolled back.
        """
        ...

    def add_below(
        self, mutations: Sequence[tuple[PendingMutation, Sequence[tuple[str, str, RowImage | None]]]]
    ) -> None:
        """Add outbox mutations, each with its rows as :meth:`add` takes them, below everything that is pending.

        They are not limited.
        """
        ...

    def on_row(self, store: str, id: str) -> Sequence[PendingMutation]:
        """Pending mutations that touch the row, in local order."""
        ...

    def last_mid(self, store: str, id: str) -> int:
        """``mid`` of the latest pending mutation on the row that is for the hub: ``HELD_MID`` if it is held, 0 if there is none."""
        ...

    def by_mid(self, mid: int) -> PendingMutation | None:
        """The outbox mutation ``mid`` if it is still pending."""
        ...

    def keys_of(self, mids: Iterable[int]) -> Mapping[int, str]:
        """The idempotency keys of those of the outbox mutations ``mids`` that are still pending, by ``mid``."""
        ...

    def by_keys(self, keys: Iterable[str]) -> dict[str, PendingMutation]:
        """Those of the mutations with these idempotency keys that are still pending, of either kind, by key."""
        ...

    def pre_image(self, store: str, id: str, lsn: int) -> RowImage | None:
        """What the row looked like to the user before mutation ``lsn``."""
        ...

    def queued(self, *, limit: int, max_bytes: int) -> Sequence[PendingMutation]:
        """The oldest queued outbox mutations in ``mid`` order; at least one if there is any."""
        ...

    def every(self, through: int = INT64_MAX) -> Sequence[PendingMutation]:
        """Every outbox mutation up to number ``through``, whatever its status, in ``mid`` order."""
        ...

    def acked(self, scope: str, through: int = INT64_MAX) -> Sequence[PendingMutation]:
        """Outbox mutations of the scope that are acked, up to sequence ``through``, and wait for their page."""
        ...

    def waits_in(self, scope: str) -> bool:
        """Whether anything is pending in the scope, of any kind."""
        ...

    def first_missing(self, decided: int) -> int | None:
        """The first number behind ``decided`` that was given out and has left the outbox, None when all of them lie there.

        A mutation leaves the outbox when it is decided, a refused one before those in front of it that wait for their page.
        """
        ...

    def held(self) -> Sequence[PendingMutation]:
        """Every held mutation, in local order."""
        ...

    def held_count(self) -> int:
        """How many mutations are held."""
        ...

    def hurries(self) -> int:
        """How often somebody has asked that what is queued be sent at once."""
        ...

    def hurry(self) -> None:
        """Ask it once more, of whichever program sends."""
        ...

    def rewrite(self, mutations: Sequence[PendingMutation]) -> None:
        """Replace kind, number, base, bytes, digest and status of mutations for the hub, found by their lsn.

        Each keeps its place in the overlay. The numbers may be ones that others of them had. The receipt of one that is held
        ends there, with its ``last_error``; the others keep theirs.
        """
        ...

    def mark_acked(self, seqs: Mapping[int, int]) -> None:
        """The hub applied mutations, by ``mid``, as these sequences; they stay in the overlay until the page comes."""
        ...

    def unmark_acked(self, scope: str) -> None:
        """What the hub had applied in ``scope``, and its page has not come, waits for a verdict again."""
        ...

    def mark_attempt(self, mids: Sequence[int], next_attempt_ms: int, error: str) -> None:
        """Note a failed attempt: count it, keep the error and when the next one is due."""
        ...

    def remove(self, outcomes: Mapping[int, Outcome | None]) -> Sequence[RowKey]:
        """Take mutations, by lsn, out of the overlay and return the ``(store, id)`` that they touched, each one's in order.

        The outcome of each is what waiting receipts are told after the commit (None: taken back locally).
        """
        ...


class InboxPart(Protocol):
    """The things that are left to a person: refused work, rows that the hub has lost, what repairs did and migrations did not."""

    def add(self, entry: InboxEntry) -> None:
        """Keep something the user typed that the hub refused or cut."""
        ...

    def entries(self) -> Sequence[InboxEntry]:
        """Every inbox entry, oldest first, resolved ones too."""
        ...

    def resolve(self, entry: InboxEntry, resolution: str) -> None:
        """Mark an inbox entry as resolved."""
        ...

    def keep_lost(self, rows: Iterable[LostRow]) -> None:
        """Keep rows that the hub has lost; their ``number`` is ignored."""
        ...

    def lost(self, *, resolved: bool = True) -> Sequence[LostRow]:
        """Rows that were kept, oldest first; only those that are open when not ``resolved``."""
        ...

    def resolve_lost(self, number: int, resolution: str) -> None:
        """Mark a kept row as resolved; one that is resolved already stays so."""
        ...

    def forget_lost(self, numbers: Sequence[int]) -> None:
        """Let go of kept rows."""
        ...

    def note_repair(self, report: RepairReport) -> None:
        """Remember what a repair did; the last twenty are kept."""
        ...

    def repairs(self) -> Sequence[RepairReport]:
        """The last repairs, oldest first."""
        ...

    def quarantine(self) -> Sequence[Quarantined]:
        """What migrations could not convert, oldest first."""
        ...

    def forget_quarantined(self, numbers: Collection[int]) -> int:
        """Let go of what was put aside; how many entries there were."""
        ...


class ScopesPart(Protocol):
    """The progress of each scope's replication, and the snapshots under construction."""

    def read(self, scope: str) -> Subscription:
        """How far the scope is replicated; a fresh ``new`` one if it never was."""
        ...

    def save(self, subscription: Subscription) -> None:
        """Replace the scope's state; the cursor of a live one moves through :meth:`advance` only."""
        ...

    def advance(self, scope: str, start: Cursor, end: Cursor, proof: bytes = b"") -> bool:
        """Move the cursor from ``start`` to ``end``, where ``proof`` is for; False and no change when it is elsewhere."""
        ...

    def every(self) -> Sequence[str]:
        """Names of the scopes that something is known of, in order."""
        ...

    def brought(self) -> Sequence[BroughtScope]:
        """The scopes and parts of scopes that were brought along while the file was in use, by name."""
        ...

    def is_brought(self, scope: str) -> bool:
        """Whether the scope, or a part of it, was brought along."""
        ...

    def use(self, portion: Portion, program: int, at_ms: int) -> None:
        """Note that ``program`` uses it from now on, which brings it along."""
        ...

    def leave(self, portion: Portion, program: int, at_ms: int) -> None:
        """Note that ``program`` has used it until now; nothing where it has not."""
        ...

    def let_go(self, portion: Portion) -> None:
        """Forget who has used it, so that it is wanted no more; the scope's rows stay."""
        ...

    def remove(self, scope: str) -> None:
        """Forget the scope: its confirmed rows and their past, what is staged, how far it was, who uses it.

        A row with pending mutations stays visible and gets the base "absent".
        """
        ...

    def stage(self, scope: str, rows: Iterable[StagedRow]) -> None:
        """Add rows to the snapshot under construction; an older sequence never replaces a newer one."""
        ...

    def term(self) -> int:
        """The number of the reign that the file is in: how often the lead has changed hands, see ``Lead``."""
        ...

    def clear_stage(self, scope: str) -> None:
        """Forget the snapshot under construction."""
        ...

    def beyond(self, scope: str, fork: int) -> Sequence[StagedRow]:
        """What the confirmed base has that the staged snapshot's history has lost behind ``fork``.

        Base rows with a later sequence, and, as deletions, staged rows from before it that the base lacks.
        """
        ...

    def swap(self, scope: str) -> None:
        """Make the staged snapshot the confirmed base of the scope, writing only what differs.

        Rows of the scope that are not staged leave the base: clean ones are deleted, shadowed ones get the base "absent".
        The visible image of shadowed rows is left for the rebase. The stage is empty afterwards.
        """
        ...


class HistoryPart(Protocol):
    """The past as the file remembers it; it is written down by itself."""

    def forget(self, rows: Iterable[tuple[str, str]]) -> None:
        """Forget every ``(store, id)`` of ``rows`` in this transaction, with what the transaction does to it.

        For rows that must not be here any more: purged, out of what this device may see.
        """
        ...


class UnitPart(Protocol):
    """A record that the stages of one write unit share with one another and with their caller."""

    @property
    def effects(self) -> Sequence[Effect]:
        """Effects recorded in this unit so far, in entry order; entries that changed nothing have none."""
        ...

    @property
    def effects_wanted(self) -> bool:
        """Whether a later stage may look at the effects."""
        ...

    def record(self, effect: Effect) -> None:
        """Tell later stages what an entry did."""
        ...

    def tell(self, effect: Effect) -> None:
        """Have :attr:`atoma.ports.engine.Commit.saved` tell what was done, if the transaction is committed."""
        ...

    def report(self, index: int, result: WriteItemResult) -> None:
        """Set the result of the unit's entry ``index``."""
        ...

    def report_many(self, start: int, results: Sequence[WriteItemResult]) -> None:
        """Set the results of the unit's entries from ``start`` on."""
        ...


class LocalTx(Protocol):
    """One ``BEGIN IMMEDIATE … COMMIT`` on the local database, by its parts; synchronous, valid inside the body only."""

    @property
    def schema(self) -> Schema:
        """The declared stores."""
        ...

    @property
    def now_ms(self) -> int:
        """Wall clock of the environment; one time for the whole transaction."""
        ...

    @property
    def commit(self) -> int:
        """Number of the last commit before this transaction; see ``Commit``."""
        ...

    @property
    def rows(self) -> RowsPart:
        """The visible rows."""
        ...

    @property
    def base(self) -> ConfirmedPart:
        """The confirmed rows under them."""
        ...

    @property
    def outbox(self) -> OutboxPart:
        """The pending mutations."""
        ...

    @property
    def inbox(self) -> InboxPart:
        """What is left for a person."""
        ...

    @property
    def scopes(self) -> ScopesPart:
        """Cursors and staged snapshots."""
        ...

    @property
    def history(self) -> HistoryPart:
        """What the file remembers of its past."""
        ...

    @property
    def unit(self) -> UnitPart:
        """The write unit that is being staged; an empty one outside of one."""
        ...
