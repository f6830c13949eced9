"""A device's replica as data: its identity at the hub, its progress, what the hub refused or lost, and past repairs."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from atoma.contracts.mutations import Op, Recovers
from atoma.contracts.sync import TRAIL_MAX, Cursor, Mark, Place
from atoma.contracts.values import RowImage

SubscriptionState: TypeAlias = Literal["new", "snapshot", "tail", "live"]

TURNS_MAX = 4
"""Changes of the hub's epoch of which it is kept where a scope was then."""
SENT_UNKNOWN = -1
"""``ClientIdentity.sent_mid`` of a file of an earlier version, which did not note how far its outbox was sent."""


class ClientIdentity(msgspec.Struct, frozen=True):
    """The identity of this database file to the hub.

    Attributes:
        client_id: 16 random bytes, made when the file was; empty in a pre-built file, each copy of which draws its own.
        incarnation: 1, and one more each time the file has taken a new client id.
        next_mid: Number the next outbox mutation gets; dense from 1.
        tail_digest: Digest chain after mutation ``next_mid - 1``.
        confirmed_mid: Every mutation up to this one has left the outbox.
        hub_id: Hub the file belongs to, ``b""`` before first contact of one that was not pre-built.
        principal: The principal to whom the file belongs at the hub; ``""`` before first contact.
        behind: Version under which the file has taken rows from a hub of a later one, turned into its own; 0 for none. They are
            fetched anew when the file is of a later version itself.
        renew: Whether somebody has asked for a new client id, because the file is a copy; it takes one at the next contact
            with the hub.
        sent_mid: Every mutation behind this one has never been sent, so its number and its bytes may still change;
            ``SENT_UNKNOWN`` in a file of an earlier version: any of them may have been.
        sent_digest: Digest chain after mutation ``sent_mid``.
        stores: The stores of which the file takes rows, by name, as of the last session: what a scope's cursor has passed was
            passed over for the others. None in a file of an earlier version, where that is not known.
    """

    client_id: bytes
    incarnation: int
    next_mid: int
    tail_digest: bytes
    confirmed_mid: int
    hub_id: bytes
    principal: str
    renew: bool = False
    behind: int = 0
    sent_mid: int = SENT_UNKNOWN
    sent_digest: bytes = b""
    stores: tuple[str, ...] | None = None

    def may_have_sent(self, mid: int) -> bool:
        """Whether somebody else may have seen mutation ``mid``, so that its number and its bytes stay."""
        return self.sent_mid == SENT_UNKNOWN or mid <= self.sent_mid

    @property
    def is_noted(self) -> bool:
        """Whether it is noted of every mutation that was given a number that it was sent, or all of them have left the outbox."""
        return self.next_mid - 1 <= max(self.sent_mid, self.confirmed_mid)

    def once_sent(self, mid: int, digest: bytes) -> ClientIdentity:
        """The identity once mutation ``mid`` is sent, and with it everything before; ``digest`` is the digest chain after it.

        Where it is not known how far the outbox was sent that stays so until the last mutation is: one behind ``mid`` may have
        been sent by the earlier version.
        """
        last = self.next_mid - 1
        if self.may_have_sent(mid) and not (self.sent_mid == SENT_UNKNOWN and mid == last):
            return self
        return msgspec.structs.replace(self, sent_mid=mid, sent_digest=digest)


class Subscription(msgspec.Struct, frozen=True):
    """The progress of this client's replication of one scope.

    Attributes:
        scope: The scope.
        state: ``new`` never synced, ``snapshot`` pages are being staged, ``tail`` the staged snapshot is being caught
            up, ``live`` the visible base equals the hub at ``cursor``.
        cursor: Position of the visible base (also while another snapshot is being staged).
        stage_cursor: Position the staged snapshot is caught up to, None when there is none.
        token: Where the next snapshot page continues, ``b""`` at the beginning.
        head: Highest hub head that was announced; a hint, never a cursor.
        trail: Marks of the way to ``cursor``, which is the last of them; see :func:`longer_trail`.
        proof: The hub's proof that the scope was at ``cursor`` once, ``b""`` for none.
        turns: Marks of where ``cursor`` was when the hub's epoch changed and nothing was lost, oldest first, the last
            :data:`TURNS_MAX`: a hub that is restored to before such an epoch parts from this file there, or behind it.
    """

    scope: str
    state: SubscriptionState = "new"
    cursor: Cursor = Cursor()
    stage_cursor: Cursor | None = None
    token: bytes = b""
    head: int = 0
    trail: tuple[Mark, ...] = ()
    proof: bytes = b""
    turns: tuple[Mark, ...] = ()

    @property
    def place(self) -> Place:
        """Where the scope is, as it is reported to the hub."""
        turns = [mark for mark in self.turns if mark not in self.trail]
        room = TRAIL_MAX - len(turns)
        trail = tuple(sorted((*turns, *self.trail[-room:]), key=lambda mark: mark.seq))
        return Place(self.scope, self.cursor, trail, self.proof)


class ReplicaDelta(msgspec.Struct, frozen=True):
    """The change of a replica's state by a commit.

    Attributes:
        identity: The file's identity at the hub, and the extent of its outbox; None if unchanged.
        held: Number of held mutations; None if none was held or released.
        hurries: How often somebody has asked for queued writes to be sent at once; None if nobody has.
        scopes: The progress of each scope that has moved.
        brought: Everything that was brought along; None if unchanged.
    """

    identity: ClientIdentity | None = None
    held: int | None = None
    hurries: int | None = None
    scopes: dict[str, Subscription] = {}
    brought: tuple[BroughtScope, ...] | None = None


class Portion(msgspec.Struct, frozen=True, order=True):
    """A scope, or the part of it that a shape takes.

    Attributes:
        scope: The scope.
        shape: The shape with its values, as :class:`atoma.contracts.shapes.ShapeCall` is written; ``b""`` for all of the scope.
    """

    scope: str
    shape: bytes = b""


class BroughtScope(msgspec.Struct, frozen=True):
    """A scope, or a part of one, that a program has brought along while it ran; it stays while it is used, and for some time afterwards.

    Attributes:
        portion: What was brought along.
        used_ms: Wall-clock time of its last use.
        programs: Numbers of the programs that have the file open and use it now.
    """

    portion: Portion
    used_ms: int
    programs: tuple[int, ...] = ()

    @property
    def scope(self) -> str:
        """The scope."""
        return self.portion.scope


class LostRow(msgspec.Struct, frozen=True):
    """A row that the hub has lost and this device still had; it is kept until somebody offers or discards it.

    Attributes:
        number: The number of the entry.
        store: Store of the row.
        id: Id of the row.
        scope: Scope of the row.
        image: The row as the device had it, None when it was deleted.
        theirs: The row as the restored hub has it, None when it has none.
        reason: Why it was not offered. ``ask``, ``forget``: the operator decided so. ``inbox``, ``drop``: this device's setting
            says so. ``unproven``: the file is from before proofs. ``read-only``: the device may not write in the scope.
            ``deletion``: it is the deletion of a row that the hub still has, which the operator has not allowed, or a row with a
            unique value of such a row. ``adopted``: it is from another hub to which the file belonged. ``superseded``: it was
            offered, and a device that had seen more had come before.
        fork: The sequence at which the hub's history has left the device's.
        recovers: The position of the row in the lost history.
        at_ms: Wall-clock time of the repair.
        resolution: ``""`` while open, then ``offered``, ``discarded``, ``superseded``, or ``expired`` after thirty days.
    """

    number: int
    store: str
    id: str
    scope: str
    image: RowImage | None
    theirs: RowImage | None
    reason: str
    fork: Cursor
    recovers: Recovers
    at_ms: int
    resolution: str = ""


class RepairReport(msgspec.Struct, frozen=True):
    """A report of what one repair of this file did.

    Attributes:
        cause: ``HUB_LOST_DATA`` the hub was restored; ``CLIENT_FORKED`` the file was restored or copied;
            ``CLIENT_EXPIRED`` the hub had forgotten the file; ``WRONG_HUB`` it was handed over to another hub or principal.
        why: The observation that led to the repair, for people.
        at_ms: Wall-clock time.
        forks: Scopes whose rows were replaced by the hub's, with the sequence behind which the hub had lost what the file
            had seen.
        settled: Pending writes that the hub had decided.
        renumbered: Pending writes that are sent again.
        doubtful: Those of them that may have been decided before, and are guarded.
        to_inbox: Pending writes that built on a refused one.
        offered: Rows that the hub had lost and is offered again.
        lost: Rows that it had lost and that wait in :attr:`SyncControl.lost`.
        old_client_id: The file's client id before the repair.
        new_client_id: The file's client id from then on.
        withdrawn: Keys of the writes that the hub had accepted, as this file was told, and of which the hub knows nothing any
            more. They are sent again, unless they went to the inbox.
    """

    cause: str
    why: str
    at_ms: int
    forks: dict[str, int]
    settled: int
    renumbered: int
    doubtful: int
    to_inbox: int
    offered: int
    lost: int
    old_client_id: bytes
    new_client_id: bytes
    withdrawn: tuple[str, ...] = ()


class InboxEntry(msgspec.Struct, frozen=True):
    """A change of the user's that the hub refused or dropped: nothing is ever lost silently.

    Attributes:
        mid: The mutation.
        store: Store of the row.
        id: Id of the row.
        scope: Scope of the row.
        code: Why (``CONFLICT``, ``DENIED``, ``INVALID``, ``DEPENDENCY_REJECTED``, ``MERGED`` …).
        message: The explanation, for people.
        op: The operation that the user had made.
        base: Image the user had seen when writing, None when there was no row.
        mine: Image the user had made, None when they deleted it.
        theirs: The hub's image, None when there is none or it may not be read.
        theirs_seq: Its sequence.
        at_ms: Wall-clock time of the verdict.
        resolution: ``""`` while open, then ``dismissed`` or ``kept_mine``.
        lsn: Local order of the mutation, which tells it from one with the same number in another life of the file; 0 in
            entries that older versions made.
        incarnation: The life of the file in which the mutation had the number; 0 in entries that older versions made.
    """

    mid: int
    store: str
    id: str
    scope: str
    code: str
    message: str
    op: Op
    base: RowImage | None
    mine: RowImage | None
    theirs: RowImage | None
    theirs_seq: int
    at_ms: int
    resolution: str = ""
    lsn: int = 0
    incarnation: int = 0


class StagedRow(msgspec.Struct, frozen=True):
    """A row of a snapshot under construction; ``image`` None is a tombstone from the log tail."""

    store: str
    id: str
    seq: int
    image: RowImage | None


def longer_trail(trail: tuple[Mark, ...], cursor: Cursor) -> tuple[Mark, ...]:
    """``trail`` up to ``cursor``, thinned: the distances to the cursor double, so a few marks reach back to the beginning.

    Marks at and behind the cursor are of another history and go.
    """
    if not cursor.hash:
        return ()
    kept = [Mark(cursor.seq, cursor.hash)]
    bound = cursor.seq - 1
    for mark in reversed(trail):
        if mark.seq <= bound and len(kept) < TRAIL_MAX:
            kept.append(mark)
            bound = cursor.seq - 2 * (cursor.seq - mark.seq)
    return tuple(reversed(kept))
