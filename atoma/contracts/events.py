"""The events of the kernel and the sync lanes: delivered at most once, possibly lost, never on the critical path.

``at`` is the time of the event, in seconds on the client's clock.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from atoma.contracts.execution import Step, StepOutcome, WriteRequest, WriteStatus
from atoma.contracts.mutations import Op
from atoma.contracts.replica import RepairReport


class WriteDispatched(msgspec.Struct, frozen=True):
    """The event that a write is about to run; a hint, not the outbox.

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
    """The event that a write has its result."""

    trace_id: str
    idem: str
    policy: str
    status: WriteStatus | None
    error: str
    path: tuple[Step, ...]
    at: float = 0.0


class WriteResolved(msgspec.Struct, frozen=True):
    """The event that somebody has asked what became of a write.

    Attributes:
        trace_id: Trace id of the question.
        idem: The write's key.
        policy: The policy of the question.
        status: The status in the write's lost answer; None if there was none.
        abandoned: The write was not and never will be applied.
        error: Code of the error, if there was no answer.
        path: The nodes that were asked.
        at: The time of the answer.
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
    """The event that rows which were shown before the authority had answered are back in the state without the write.

    Attributes:
        trace_id: The request's trace id.
        idem: The write's key.
        policy: The policy it ran under.
        rows: ``(store, id)`` of the rows that were taken back; not all of the write's if the authority accepted a part.
        code: The authority's code, or that of the failure; ``UNKNOWN_OUTCOME`` if the outcome could not be found out.
    """

    trace_id: str
    idem: str
    policy: str
    rows: tuple[tuple[str, str], ...]
    code: str


class HookFailed(msgspec.Struct, frozen=True):
    """The event that a hook of a store failed, and only the hook: the write stands, and the answer is true.

    Attributes:
        hook: The name of the hook.
        store: The store of the hook.
        id: The row for which it was called; ``""`` for ``writeback``, which gets all rows of an answer.
        error: The exception that it raised.
    """

    hook: Literal["after_save", "writeback"]
    store: str
    id: str
    error: str


class QueryFinished(msgspec.Struct, frozen=True):
    """The event that a query has its result, or failed with the code ``error``."""

    trace_id: str
    store: str
    policy: str
    error: str
    path: tuple[Step, ...]
    at: float = 0.0


class StepStarted(msgspec.Struct, frozen=True):
    """The event that a node begins."""

    trace_id: str
    node: str
    attempt: int
    at: float = 0.0


class StepFinished(msgspec.Struct, frozen=True):
    """The event that a node ended."""

    trace_id: str
    node: str
    attempt: int
    outcome: StepOutcome
    seconds: float
    error: str
    at: float = 0.0


class RetryScheduled(msgspec.Struct, frozen=True):
    """The event that a retry, attempt number ``attempt``, will begin after ``delay_s`` seconds."""

    trace_id: str
    node: str
    attempt: int
    delay_s: float
    error: str


class FallbackTaken(msgspec.Struct, frozen=True):
    """The event that an alternative is tried because of ``error``."""

    trace_id: str
    failed: str
    error: str


class BreakerChanged(msgspec.Struct, frozen=True):
    """The event that a breaker moved to ``state`` (``closed``, ``open``, ``half-open``)."""

    node: str
    state: str


class ConflictDetected(msgspec.Struct, frozen=True):
    """The event that a write was refused or merged, so that a change of the user's is in the inbox."""

    scope: str
    store: str
    id: str
    code: str


class SyncStateChanged(msgspec.Struct, frozen=True):
    """The event that the sync lanes moved to ``state`` (``offline``, ``connecting``, ``repairing``, ``online``, ``stalled``, ``stopped``)."""

    state: str
    reason: str


class ScopeBrought(msgspec.Struct, frozen=True):
    """The event that a scope was brought along: it replicates on this device from now on, and its rows will follow."""

    scope: str


class ScopeLeft(msgspec.Struct, frozen=True):
    """The event that a scope which was brought along has left this device with its rows, because it was no longer used."""

    scope: str


class RepairStarted(msgspec.Struct, frozen=True):
    """The event that a repair begins, because the file does not continue the hub's history."""

    cause: str
    why: str


class RepairDone(msgspec.Struct, frozen=True):
    """The event that a repair was committed."""

    report: RepairReport


class LostRowsExpired(msgspec.Struct, frozen=True):
    """The event that rows which a restored hub had lost have waited thirty days for a decision, and are no longer offered."""

    rows: int


SqlKind: TypeAlias = Literal["read", "write", "commit"]
"""The purpose of SQL: reading only, the reads and writes of a write group, or its COMMIT if that is sent separately."""


class SqlBatch(msgspec.Struct, frozen=True):
    """Statements that a hub sent to its database together, without their text and their values.

    Attributes:
        kind: The purpose of the statements.
        system: The database, as OpenTelemetry names it: ``sqlite``, ``postgresql``.
        statements: Number of statements.
        calls: Number of calls that they belong to: a write group serves all calls that waited.
        after: Seconds from the beginning of the call.
        seconds: Duration in seconds; for a commit, until the hub knew that it is on the disk.
    """

    kind: SqlKind
    system: str
    statements: int
    calls: int
    after: float
    seconds: float


class CallServed(msgspec.Struct, frozen=True):
    """The event that a hub has answered a call; the hub reports it, not a client.

    Attributes:
        trace_id: The caller's trace id; ``""`` for calls of the sync lanes.
        method: The method that was called.
        seconds: Duration in seconds.
        error: Code of the error; ``CANCELLED`` if the caller cancelled, ``""`` if the call was answered.
        ended_ms: Wall clock at the end, in milliseconds.
        batches: The first batches of the call's SQL, in the order in which they ended.
        left_out: Number of further batches.
    """

    trace_id: str
    method: str
    seconds: float
    error: str
    ended_ms: int
    batches: tuple[SqlBatch, ...] = ()
    left_out: int = 0


class ClientAhead(msgspec.Struct, frozen=True):
    """The event that a client has received verdicts that this hub has not given, so the hub was restored. The hub reports it.

    Attributes:
        principal: The principal of the client.
        client: The client.
        last_mid: The last mutation of the client that the hub has decided.
        confirmed: According to the client, every mutation up to this one has been decided.
        at_ms: Wall clock, in milliseconds.
    """

    principal: str
    client: bytes
    last_mid: int
    confirmed: int
    at_ms: int


HubEvent: TypeAlias = CallServed | ClientAhead
"""An event that a hub reports to its listener."""

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
