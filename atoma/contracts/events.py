"""What the kernel and the sync lanes report about themselves: at most once, may be lost, never on the critical path.

``at`` is when it happened, in seconds on the client's clock.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from atoma.contracts.execution import Step, StepOutcome, WriteRequest, WriteStatus
from atoma.contracts.mutations import Op
from atoma.contracts.replica import RepairReport


class WriteDispatched(msgspec.Struct, frozen=True):
    """A write is about to run; a hint, never the outbox.

    Attributes:
        request: The write as its policy carries it out: entries, options, context and key.
        at: When it began.
    """

    request: WriteRequest
    at: float = 0.0

    @property
    def trace_id(self) -> str:
        """The request's trace id."""
        return self.request.context.trace_id

    @property
    def idem(self) -> str:
        """The write's key; a write whose answer was lost is dispatched again under the same one."""
        return self.request.idem

    @property
    def policy(self) -> str:
        """The policy it runs under."""
        return self.request.context.policy

    @property
    def entries(self) -> tuple[Op, ...]:
        """Its entries, in the caller's order."""
        return self.request.entries


class WriteSettled(msgspec.Struct, frozen=True):
    """A write has its result."""

    trace_id: str
    idem: str
    policy: str
    status: WriteStatus | None
    error: str
    path: tuple[Step, ...]
    at: float = 0.0


class WriteResolved(msgspec.Struct, frozen=True):
    """The news that somebody asked what became of a write.

    Attributes:
        trace_id: Trace id of the asking.
        idem: The write's key.
        policy: The policy that was asked by.
        status: What the write's lost answer said; None when there was none.
        abandoned: The write was not and never will be applied.
        error: Code of the error, when nobody could tell.
        path: Who was asked.
        at: When it was answered.
    """

    trace_id: str
    idem: str
    policy: str
    status: WriteStatus | None
    abandoned: bool
    error: str
    path: tuple[Step, ...]
    at: float = 0.0


class WriteTakenBack(msgspec.Struct, frozen=True):
    """Rows that were shown before the authority had answered are as they would be without the write.

    Attributes:
        trace_id: The request's trace id.
        idem: The write's key.
        policy: The policy it ran under.
        rows: ``(store, id)`` of what was taken back; not all of the write, if the authority took a part.
        code: Why: the authority's code, or that of the failure; ``UNKNOWN_OUTCOME`` when nobody could find out.
    """

    trace_id: str
    idem: str
    policy: str
    rows: tuple[tuple[str, str], ...]
    code: str


class HookFailed(msgspec.Struct, frozen=True):
    """A hook of a store failed, and only that: the write stands, the answer is true.

    Attributes:
        hook: Which one.
        store: Its store.
        id: The row it was called for; ``""`` for ``writeback``, which gets all rows of an answer.
        error: What it raised.
    """

    hook: Literal["after_save", "writeback"]
    store: str
    id: str
    error: str


class QueryFinished(msgspec.Struct, frozen=True):
    """A query has its result, or failed with the code ``error``."""

    trace_id: str
    store: str
    policy: str
    error: str
    path: tuple[Step, ...]
    at: float = 0.0


class StepStarted(msgspec.Struct, frozen=True):
    """A node begins."""

    trace_id: str
    node: str
    attempt: int
    at: float = 0.0


class StepFinished(msgspec.Struct, frozen=True):
    """A node ended."""

    trace_id: str
    node: str
    attempt: int
    outcome: StepOutcome
    seconds: float
    error: str
    at: float = 0.0


class RetryScheduled(msgspec.Struct, frozen=True):
    """A retry, the try number ``attempt``, begins after ``delay_s`` seconds."""

    trace_id: str
    node: str
    attempt: int
    delay_s: float
    error: str


class FallbackTaken(msgspec.Struct, frozen=True):
    """An alternative is tried because of ``error``."""

    trace_id: str
    failed: str
    error: str


class BreakerChanged(msgspec.Struct, frozen=True):
    """A breaker moved to ``state`` (``closed``, ``open``, ``half-open``)."""

    node: str
    state: str


class ConflictDetected(msgspec.Struct, frozen=True):
    """A write came back refused or merged and something the user typed lies in the inbox."""

    scope: str
    store: str
    id: str
    code: str


class SyncStateChanged(msgspec.Struct, frozen=True):
    """The sync lanes moved to ``state`` (``offline``, ``connecting``, ``repairing``, ``online``, ``stalled``, ``stopped``)."""

    state: str
    reason: str


class ScopeBrought(msgspec.Struct, frozen=True):
    """A scope was brought along: it replicates on this device from now on, and its rows are on their way."""

    scope: str


class ScopeLeft(msgspec.Struct, frozen=True):
    """A scope that was brought along has left this device with its rows, as nobody has used it any more."""

    scope: str


class RepairStarted(msgspec.Struct, frozen=True):
    """The file does not continue the hub's history and is being repaired."""

    cause: str
    why: str


class RepairDone(msgspec.Struct, frozen=True):
    """A repair was committed."""

    report: RepairReport


class LostRowsExpired(msgspec.Struct, frozen=True):
    """Rows that a restored hub had lost have waited thirty days for somebody to decide, and are not offered any more."""

    rows: int


SqlKind: TypeAlias = Literal["read", "write", "commit"]
"""What SQL is for: what only reads, what a write group reads and writes, and its COMMIT where that is sent by itself."""


class SqlBatch(msgspec.Struct, frozen=True):
    """Statements that a hub sent to its database together, without their text and their values.

    Attributes:
        kind: What they are for.
        system: The database, as OpenTelemetry names it: ``sqlite``, ``postgresql``.
        statements: How many there were.
        calls: How many calls had a part in them: a write group is of all calls that waited.
        after: Seconds after the beginning of the call.
        seconds: How long they took; of a commit, until the hub was told that it is on the disk.
    """

    kind: SqlKind
    system: str
    statements: int
    calls: int
    after: float
    seconds: float


class CallServed(msgspec.Struct, frozen=True):
    """A hub has answered one call; reported by the hub, not by a client.

    Attributes:
        trace_id: The caller's, ``""`` for calls of the sync lanes.
        method: What was called.
        seconds: How long it took.
        error: Code of the error, ``CANCELLED`` when the caller gave up, ``""`` when it was answered.
        ended_ms: Wall clock at the end, in milliseconds.
        batches: The SQL of the call in the order in which it ended, the first ones of it.
        left_out: How many more batches there were.
    """

    trace_id: str
    method: str
    seconds: float
    error: str
    ended_ms: int
    batches: tuple[SqlBatch, ...] = ()
    left_out: int = 0


class ClientAhead(msgspec.Struct, frozen=True):
    """A client has received verdicts that this hub has not given, so the hub was restored. Reported by the hub.

    Attributes:
        principal: Whose client it is.
        client: The client.
        last_mid: Last mutation of it that the hub has decided.
        confirmed: Every mutation up to this one has been decided, says the client.
        at_ms: Wall clock, in milliseconds.
    """

    principal: str
    client: bytes
    last_mid: int
    confirmed: int
    at_ms: int


HubEvent: TypeAlias = CallServed | ClientAhead
"""What a hub reports to its listener."""

Event: TypeAlias = (
    WriteDispatched
    | WriteSettled
    | WriteResolved
    | WriteTakenBack
    | HookFailed
    | QueryFinished
    | StepStarted
    | StepFinished
    | RetryScheduled
    | FallbackTaken
    | BreakerChanged
    | ConflictDetected
    | SyncStateChanged
    | ScopeBrought
    | ScopeLeft
    | RepairStarted
    | RepairDone
    | LostRowsExpired
)
