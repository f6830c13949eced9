"""The replication protocol's messages: one definition for every codec and transport.

A scope is the unit of order: the hub gives each accepted mutation the next number of its scope, dense and in commit
order. A client's mutations carry a dense number of their own (``mid``) and are decided strictly in that order.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

import msgspec

from atoma.contracts.limits import MUTATION_OPS
from atoma.contracts.values import ErrorInfo

PROTOCOL_OLDEST = 1
PROTOCOL_VERSION = 4
PROTOCOL_EDITS = 2
"""From this version on the operations of mutations may have edits, which a hub of before would pass over."""
PROTOCOL_SHAPES = 3
"""From this version on a device may take a part of a scope; a hub of before would give out all of it."""
PROTOCOL_TEXTS = 4
"""From this version on there are edits of texts; a hub of before could not read the mutation, and would refuse it for good."""
TRAIL_MAX = 24
"""Most marks that a client remembers and reports of a scope."""
ASKED_MAX = 256
"""Most verdicts that one call may ask for."""

OutcomeStatus: TypeAlias = Literal["applied", "merged", "rejected", "superseded"]
DevicePolicy: TypeAlias = Literal["offer", "ask", "forget"]
"""What devices do with what a hub has lost and they have seen: offer it by themselves, only when somebody asks for it, or
never, since the hub went back on purpose."""


class Mutation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An encoded :class:`MutationBody` with the digest chain after it: ``sha256(previous digest + body)``."""

    mid: int
    body: bytes
    digest: bytes


class Cursor(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A position in a scope's log, for one view of the scope.

    Attributes:
        epoch: The hub's epoch.
        seq: The sequence.
        hash: Lineage hash at that sequence.
        view: The view of the scope to which the position belongs, opaque; empty for all rows.
        LATER: As in :class:`OpenRequest`.
    """

    LATER: ClassVar[tuple[str, ...]] = ("view",)

    epoch: bytes = b""
    seq: int = 0
    hash: bytes = b""
    view: bytes = b""


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """A place where a mutation met somebody else's change.

    Attributes:
        store: Store name.
        id: Row id.
        fields: Columns both changed; empty when the whole row is meant.
        dropped: Columns of the mutation that were not taken.
        rule: The rule that decided (``lww``, ``server_wins``, ``client_wins``, ``manual``, ``cas``).
        current: The hub's image before the mutation, None when there was no row or it may not be read.
        current_seq: Its sequence.
    """

    store: str
    id: str
    fields: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    rule: str = ""
    current: dict[str, object] | None = None
    current_seq: int = 0


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The final verdict on one mutation; it never changes, a duplicate gets the same.

    Attributes:
        mid: The mutation.
        status: ``applied`` as it was, ``merged`` with somebody else's change, ``rejected``; for an offer also
            ``superseded`` by one that has seen more.
        scope: Its scope.
        seq: Sequence it got; the head of its scope at the decision when it changed nothing; 0 when rejected.
        duplicate: True when the hub had decided it before.
        error: Why it was rejected.
        conflicts: Where it met other changes.
    """

    mid: int
    status: OutcomeStatus
    scope: str
    seq: int = 0
    duplicate: bool = False
    error: ErrorInfo | None = None
    conflicts: tuple[Conflict, ...] = ()


class Limits(msgspec.Struct, frozen=True):
    """The limits that a hub sets for its clients; sizes in bytes."""

    frame_bytes: int = 4 * 1024 * 1024 + 65536
    mutation_bytes: int = 1024 * 1024
    mutation_ops: int = MUTATION_OPS
    push_mutations: int = 256
    push_bytes: int = 1024 * 1024
    page_bytes: int = 4 * 1024 * 1024
    page_changes: int = 5000
    scopes: int = 200
    id_bytes: int = 200


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """A sequence of a scope with the lineage hash there: equal marks mean equal logs up to there."""

    seq: int
    hash: bytes


class Place(msgspec.Struct, frozen=True):
    """The progress of a client in a scope, and what it remembers of the way there.

    Attributes:
        scope: The scope.
        cursor: Position of the client's confirmed rows.
        trail: Marks behind the cursor, oldest first, the further back the fewer: at most :data:`TRAIL_MAX`.
        proof: The hub's proof of the cursor, see :attr:`PullReply.proof`.
        LATER: As in :class:`OpenRequest`.
    """

    LATER: ClassVar[tuple[str, ...]] = ("proof",)

    scope: str
    cursor: Cursor
    trail: tuple[Mark, ...] = ()
    proof: bytes = b""

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The trail and where it has led."""
        return (*self.trail, Mark(self.cursor.seq, self.cursor.hash))


class ScopeShapes(msgspec.Struct, frozen=True):
    """The shapes in which a client takes parts of a scope.

    Attributes:
        scope: The scope.
        shapes: Each as :class:`atoma.contracts.shapes.ShapeCall` is written.
    """

    scope: str
    shapes: tuple[bytes, ...]


class ShapeRefusal(msgspec.Struct, frozen=True):
    """A shape that the hub refuses.

    Attributes:
        shape: The shape, as it was asked for.
        error: The reason.
    """

    shape: bytes
    error: ErrorInfo


class Verdict(msgspec.Struct, frozen=True):
    """An outcome with the digest of the mutation it is about: two copies of a file give out the same numbers."""

    digest: bytes
    outcome: Outcome


class OpenRequest(msgspec.Struct, frozen=True):
    """First message of a sync session.

    Attributes:
        client_id: The database file.
        incarnation: Its history.
        schema_version: Version of the client's schema.
        schema_hash: Hash of its declarations; a hub that has others answers with its own.
        scopes: What it wants to replicate.
        confirmed_mid: Every mutation up to this one has left the outbox; the hub may forget their outcomes.
        tail_mid: Highest mutation number the client ever gave out.
        hub_id: Hub the file belongs to, empty on first contact.
        proto_min: Lowest protocol version the client speaks.
        proto_max: Highest.
        places: Where it is in scopes that it has replicated.
        asked: Mutations of this client whose verdicts it wants to know, at most :data:`ASKED_MAX`.
        shapes: Of the scopes those that it takes a part of. They are not told to a hub before :data:`PROTOCOL_SHAPES`.
        LATER: Fields that earlier versions do not know: left out of JSON, where a name that is not known is refused,
            while they have their default.
    """

    LATER: ClassVar[tuple[str, ...]] = ("places", "asked", "shapes")

    client_id: bytes
    incarnation: int
    schema_version: int
    schema_hash: bytes
    scopes: tuple[str, ...]
    confirmed_mid: int = 0
    tail_mid: int = 0
    hub_id: bytes = b""
    proto_min: int = PROTOCOL_OLDEST
    proto_max: int = PROTOCOL_OLDEST
    places: tuple[Place, ...] = ()
    asked: tuple[int, ...] = ()
    shapes: tuple[ScopeShapes, ...] = ()


class ScopeStatus(msgspec.Struct, frozen=True):
    """One scope at the hub.

    Attributes:
        scope: The scope.
        head: Its last sequence.
        floor: The oldest cursor that can still be continued.
        error: Why it is refused; None if it is not.
        fork: Up to where the client's history of the scope and the hub's are one: the client's cursor when the hub has
            lost nothing that it has seen, less when it has. None when the client gave no place.
        writable: Whether the client may write there.
        devices: What the operator wants devices to do with what they have seen behind the fork.
        deletes: Whether that goes for deletions of rows that the hub still has.
        unproven: Whether that goes for what nothing proves to have been seen.
        refused: Those of the shapes that were asked for that are not given out.
        LATER: As in :class:`OpenRequest`.
    """

    LATER: ClassVar[tuple[str, ...]] = ("fork", "writable", "devices", "deletes", "unproven", "refused")

    scope: str
    head: int = 0
    floor: int = 0
    error: ErrorInfo | None = None
    fork: int | None = None
    writable: bool = True
    devices: DevicePolicy = "offer"
    deletes: bool = True
    unproven: bool = False
    refused: tuple[ShapeRefusal, ...] = ()


class EpochWord(msgspec.Struct, frozen=True):
    """The operator's present decision about what came after the end of an epoch.

    Attributes:
        epoch: The epoch that has ended.
        devices: What devices do with what they have seen of it.
        deletes: Whether they may delete rows that the hub still has.
        unproven: Whether what nothing proves to have been seen is taken as well.
    """

    epoch: bytes
    devices: DevicePolicy = "offer"
    deletes: bool = True
    unproven: bool = False


class OpenReply(msgspec.Struct, frozen=True):
    """The answer to :class:`OpenRequest`.

    Attributes:
        hub_id: The hub, forever.
        epoch: Changes when the hub's history may have been cut.
        principal: The principal of the token.
        last_mid: Last mutation of this client the hub decided.
        last_digest: Digest chain after it.
        scopes: One per requested scope.
        limits: Bounds to keep to.
        hub_time_ms: The hub's wall clock.
        proto: Protocol version to speak.
        known: False when the hub has forgotten this client, so that nobody can tell any more what became of the
            mutations it has sent. A client that was never seen is known, with ``last_mid`` 0.
        verdicts: What the hub keeps of the mutations that were asked for.
        words: Of the last epochs that have ended, oldest first, what the operator says about them today.
        forms: Forms of the columns of every store, where the hub's declarations are not the client's; else empty. To a client
            of an earlier version they are sent as that version has them.
        schema_version: Version of the hub's schema, where it is later than the client's; else 0.
        LATER: As in :class:`OpenRequest`.
    """

    LATER: ClassVar[tuple[str, ...]] = ("known", "verdicts", "words", "forms", "schema_version")

    hub_id: bytes
    epoch: bytes
    principal: str
    last_mid: int
    last_digest: bytes
    scopes: tuple[ScopeStatus, ...]
    limits: Limits = Limits()
    hub_time_ms: int = 0
    proto: int = PROTOCOL_OLDEST
    known: bool = True
    verdicts: tuple[Verdict, ...] = ()
    words: tuple[EpochWord, ...] = ()
    forms: dict[str, dict[str, str]] = {}
    schema_version: int = 0


class PushRequest(msgspec.Struct, frozen=True):
    """Mutations in ``mid`` order, contiguous; ``prev_digest`` is the chain before the first.

    Attributes:
        schema_version: Version in which the client reads what is answered; 0 for the hub's own.
        LATER: As in :class:`OpenRequest`.
    """

    LATER: ClassVar[tuple[str, ...]] = ("schema_version",)

    client_id: bytes
    incarnation: int
    mutations: tuple[Mutation, ...]
    prev_digest: bytes
    confirmed_mid: int = 0
    schema_version: int = 0


class PushReply(msgspec.Struct, frozen=True):
    """Outcomes in ``mid`` order; fewer than were pushed when ``error`` stopped the batch.

    ``error`` is never a verdict: the mutations after the last outcome are to be sent again.
    """

    outcomes: tuple[Outcome, ...]
    last_mid: int
    error: ErrorInfo | None = None


class StoreChanges(msgspec.Struct, frozen=True):
    """Rows of one store in a page: a header once, then tuples.

    Attributes:
        store: Store name.
        schema_version: Version the rows are in.
        columns: Column names, the id first.
        rows: ``(seq, id, value, value, …)`` in the order of ``columns``; the last image per row.
        deletes: ``(seq, id)``.
    """

    store: str
    schema_version: int
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...] = ()
    deletes: tuple[tuple[int, str], ...] = ()


class PullRequest(msgspec.Struct, frozen=True):
    """A request for what happened in ``scope`` after ``cursor``.

    Attributes:
        scope: The scope.
        cursor: Position of the base (or of the staged snapshot).
        client_id: Whose outcomes to add.
        outcomes_after_mid: Only outcomes of later mutations.
        max_bytes: Bound on the page.
        max_changes: Bound on its changes.
        schema_version: As in :class:`PushRequest`.
        shapes: The shapes in which the scope is taken; none for all of it.
        LATER: As in :class:`OpenRequest`.
    """

    LATER: ClassVar[tuple[str, ...]] = ("schema_version", "shapes")

    scope: str
    cursor: Cursor
    client_id: bytes
    outcomes_after_mid: int = 0
    max_bytes: int = 1024 * 1024
    max_changes: int = 5000
    schema_version: int = 0
    shapes: tuple[bytes, ...] = ()


class PullReply(msgspec.Struct, frozen=True):
    """One page: everything between ``start`` and ``end``, cut between transactions, to be applied at once.

    Attributes:
        scope: The scope.
        start: The request's cursor.
        end: New cursor once the page is applied; moves also when nothing is in the page.
        stores: Last image per row.
        more: Whether the log goes on.
        head: Head of the scope in the same snapshot.
        outcomes: This client's outcomes, from the same snapshot.
        proof: Proves to this hub, also when it has been restored, that the scope was at ``end`` once; opaque.
        LATER: As in :class:`OpenRequest`.
    """

    LATER: ClassVar[tuple[str, ...]] = ("proof",)

    scope: str
    start: Cursor
    end: Cursor
    stores: tuple[StoreChanges, ...] = ()
    more: bool = False
    head: int = 0
    outcomes: tuple[Outcome, ...] = ()
    proof: bytes = b""


class SnapshotRequest(msgspec.Struct, frozen=True):
    """A request for the next page of a snapshot; ``token`` empty begins one.

    Attributes:
        schema_version: As in :class:`PushRequest`.
        shapes: The shapes in which the scope is taken; none for all of it.
        LATER: As in :class:`OpenRequest`.
    """

    LATER: ClassVar[tuple[str, ...]] = ("schema_version", "shapes")

    scope: str
    client_id: bytes
    token: bytes = b""
    max_bytes: int = 1024 * 1024
    max_rows: int = 5000
    schema_version: int = 0
    shapes: tuple[bytes, ...] = ()


class SnapshotReply(msgspec.Struct, frozen=True):
    """Rows in (store, id) order, read fuzzily; the log from ``start`` on repairs what moved meanwhile."""

    scope: str
    start: Cursor
    stores: tuple[StoreChanges, ...]
    token: bytes
    done: bool


class NotifyRequest(msgspec.Struct, frozen=True):
    """A request for hints about ``scopes`` until it is cancelled."""

    scopes: tuple[str, ...]


class Hint(msgspec.Struct, frozen=True):
    """``scope`` has reached ``head``; a reason to pull, never a cursor."""

    scope: str
    head: int
