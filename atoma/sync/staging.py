"""What replication changes in the local database, as values.

A lane hands such a value to the apply port. With the rows and the verdicts of the same writeback it is one local
transaction: confirmed rows are in the base when it is carried out, and what is visible is rebuilt afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from msgspec.structs import replace

from atoma.contracts.mutations import PendingMutation
from atoma.contracts.replica import ClientIdentity, InboxEntry, Subscription
from atoma.contracts.sync import Outcome, Place, PullReply, SnapshotReply
from atoma.contracts.values import RowKey, StoredRow
from atoma.errors import SyncError
from atoma.ports.execution import Voided
from atoma.ports.local import LocalTx
from atoma.sync.outbox import queue_creates
from atoma.sync.settle import Settlement, confirm, settle, settle_page
from atoma.sync.snapshot import apply_tail_page, begin_live, begin_snapshot, forget_snapshot, stage_snapshot_page

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Opened:
    """The open transaction of a writeback, as replication meets it.

    Attributes:
        tx: The transaction.
        decided: Mutations of the outbox, each with the hub's verdict.
        touched: Rows that are rebuilt afterwards; to be added to.
        ids: Draws idempotency keys.
    """

    tx: LocalTx
    decided: Sequence[tuple[PendingMutation, Outcome]]
    touched: dict[RowKey, None]
    ids: Callable[[], str]


class ReplicaChange(Protocol[R_co]):
    """A value that says what replication changes; one of :data:`atoma.sync.writebacks.CHANGES`."""

    def stage(self, at: Opened) -> R_co:
        """Carry it out in the open transaction; what came of it."""
        ...


class LeadLost(SyncError):
    """The loss of the lead to another program, which took the sync lanes over while this one stood; nothing was changed."""

    code = "LEAD_LOST"


@dataclass(frozen=True, slots=True)
class Fenced:
    """A change that is carried out only while the program that makes it runs the lanes.

    Attributes:
        change: What is changed.
        term: The number of that program's reign.
    """

    change: ReplicaChange[object]
    term: int


@dataclass(frozen=True, slots=True)
class Replied:
    """The reply to a push; its verdicts are the writeback's. Rejections leave at once, acceptances with their page.

    Attributes:
        apart: Scopes whose base has left the hub's history, with where: what the hub has accepted since is not in it.
    """

    apart: Mapping[str, int] = field(default_factory=dict[str, int])

    def stage(self, at: Opened) -> Settlement:
        """Settle the verdicts."""
        work = Settlement(at.touched, cursors={**self.apart})
        settle(at.tx, at.decided, None, work)
        confirm(at.tx, work.removed)
        return work


@dataclass(frozen=True, slots=True)
class LivePage:
    """A page of the log behind the cursor: cursor, base, verdicts, all or nothing.

    Attributes:
        page: The page, cut between hub transactions; its rows and verdicts are the writeback's.
        verified_mid: Last mutation of this client whose digest the hub has confirmed.
    """

    page: PullReply
    verified_mid: int

    def stage(self, at: Opened) -> Settlement:
        """Move the cursor and settle.

        Raises:
            Voided: The cursor is not at the page's start: repeated, late and reordered pages change nothing.
        """
        if not move_cursor(at.tx, self.page):
            raise Voided
        work = Settlement(at.touched, cursors={self.page.scope: self.page.end.seq})
        settle_page(at.tx, self.page, at.decided, self.verified_mid, work)
        confirm(at.tx, work.removed)
        return work


def move_cursor(tx: LocalTx, page: PullReply) -> bool:
    """Move the cursor over ``page`` if it is at its start."""
    live = tx.scopes.read(page.scope).state == "live"
    return live and tx.scopes.advance(page.scope, page.start, page.end, page.proof)


@dataclass(frozen=True, slots=True)
class TailPage:
    """A page of the log behind a staged snapshot; with the last one it is swapped in. See :func:`apply_tail_page`.

    Attributes:
        page: The page; its verdicts are the writeback's.
        stores: Stores that replicate here; others are skipped.
        verified_mid: As in :class:`LivePage`; 0 while nothing may be settled.
    """

    page: PullReply
    stores: Collection[str]
    verified_mid: int = 0

    def stage(self, at: Opened) -> Settlement | None:
        """Stage its rows, or swap; None when the stage is not at the page's start."""
        return apply_tail_page(at.tx, self.page, self.stores, at.decided, self.verified_mid, Settlement(at.touched))


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """A page of a snapshot that was asked for with ``token``."""

    token: bytes
    page: SnapshotReply
    stores: Collection[str]

    def stage(self, at: Opened) -> bool:
        """Stage its rows; False when the stage has moved on since."""
        return stage_snapshot_page(at.tx, self.token, self.page, self.stores)


@dataclass(frozen=True, slots=True)
class SnapshotBegun:
    """The scope is staged anew, or, as the hub has nothing in it yet, follows the log from its beginning.

    Attributes:
        scope: The scope.
        empty: Whether the hub has nothing in it.
        fixed: Whether it always replicates; one that was brought along may have been dropped since.
    """

    scope: str
    empty: bool = False
    fixed: bool = True

    def stage(self, at: Opened) -> bool:
        """Begin; True.

        Raises:
            Voided: The scope was dropped.
        """
        if not self.fixed and not at.tx.scopes.is_brought(self.scope):
            raise Voided
        (begin_live if self.empty else begin_snapshot)(at.tx, self.scope)
        return True


@dataclass(frozen=True, slots=True)
class SnapshotsForgotten:
    """Scopes are as they were before a snapshot of them was begun."""

    before: Sequence[Subscription]

    def stage(self, at: Opened) -> None:
        """Forget what is staged."""
        for subscription in self.before:
            forget_snapshot(at.tx, subscription)


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """Mutations were sent and not decided: count it, keep the error, and when the next attempt is due."""

    mids: Sequence[int]
    next_attempt_ms: int
    error: str

    def stage(self, at: Opened) -> None:
        """Note it."""
        at.tx.outbox.mark_attempt(self.mids, self.next_attempt_ms, self.error)


@dataclass(frozen=True, slots=True)
class Hurried:
    """Somebody wants what is queued sent now, by whichever program of the file sends."""

    def stage(self, at: Opened) -> None:
        """Ask it."""
        at.tx.outbox.hurry()


@dataclass(frozen=True, slots=True)
class HubMet:
    """The first contact of the file with a hub, to which it belongs from then on."""

    hub_id: bytes
    principal: str
    stores: tuple[str, ...]

    def stage(self, at: Opened) -> ClientIdentity:
        """Remember them, and of which stores it takes rows; who the file is then."""
        known = at.tx.outbox.identity()
        identity = replace(known, hub_id=self.hub_id, principal=self.principal, stores=self.stores)
        at.tx.outbox.save_identity(identity)
        return identity


@dataclass(frozen=True, slots=True)
class TakingNoted:
    """The file takes rows of other stores than before, or of another version; see ``ClientIdentity.behind`` and ``stores``.

    Attributes:
        behind: The file's version where the hub's is later, else 0.
        stores: The stores, by name.
        anew: Whether every scope is staged anew: its rows were turned into an earlier version than the file has now, or those
            of a store were passed over.
    """

    behind: int
    stores: tuple[str, ...]
    anew: bool

    def stage(self, at: Opened) -> ClientIdentity:
        """Remember it; who the file is then."""
        for scope in at.tx.scopes.every() if self.anew else ():
            if at.tx.scopes.read(scope).state != "new":
                begin_snapshot(at.tx, scope)
        identity = replace(at.tx.outbox.identity(), behind=self.behind, stores=self.stores)
        at.tx.outbox.save_identity(identity)
        return identity


@dataclass(frozen=True, slots=True)
class EpochMoved:
    """The hub's epoch is another one, in which nothing of what was seen at ``places`` is lost."""

    places: Sequence[Place]
    epoch: bytes

    def stage(self, at: Opened) -> None:
        """Go on in it, where the cursor is still at its place."""
        for place in self.places:
            proof = at.tx.scopes.read(place.scope).proof
            if place.cursor.epoch:
                at.tx.scopes.advance(place.scope, place.cursor, replace(place.cursor, epoch=self.epoch), proof)
            at.tx.outbox.unmark_acked(place.scope)  # that lies behind the cursor, where the hub may have lost it


@dataclass(frozen=True, slots=True)
class RowsAdopted:
    """Rows of a store that the hub never sent are queued as creates, under the key ``idem``."""

    store: str
    scope: str
    rows: Sequence[StoredRow]
    idem: str

    def stage(self, at: Opened) -> int:
        """Queue those that are still as they were; how many."""
        return queue_creates(at.tx, self.store, self.scope, self.rows, self.idem)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The news that somebody has resolved an inbox entry."""

    entry: InboxEntry
    resolution: str

    def stage(self, at: Opened) -> None:
        """Mark it."""
        at.tx.inbox.resolve(self.entry, self.resolution)
