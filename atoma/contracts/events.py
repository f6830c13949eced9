"""What the kernel and the sync lanes tell about themselves: at most once, may be lost, never on the critical path.

``at`` is when it happened, in seconds on the client's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from atoma.contracts.execution import Step, StepOutcome, WriteRequest, WriteStatus
from atoma.contracts.mutations import Op
from atoma.contracts.replica import RepairReport


@dataclass(frozen=True, slots=True)
class WriteDispatched:
    """A write is about to run; a hint, never the outbox.

    Attributes:
        request: The write as its policy carries it out: entries, options, context and key.
        at: When it began.
    """

    request: WriteRequest
    at: float = field(default=0.0, compare=False)

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


@dataclass(frozen=True, slots=True)
class WriteSettled:
    """A write has its result."""

    trace_id: str
    idem: str
    policy: str
    status: WriteStatus | None
    error: str
    path: tuple[Step, ...]
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class WriteResolved:
    """Somebody asked what became of a write.

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
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class WriteTakenBack:
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


@dataclass(frozen=True, slots=True)
class QueryFinished:
    """A query has its result, or failed with the code ``error``."""

    trace_id: str
    store: str
    policy: str
    error: str
    path: tuple[Step, ...]
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A node begins."""

    trace_id: str
    node: str
    attempt: int
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A node ended."""

    trace_id: str
    node: str
    attempt: int
    outcome: StepOutcome
    seconds: float
    error: str
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """A retry, the try number ``attempt``, begins after ``delay_s`` seconds."""

    trace_id: str
    node: str
    attempt: int
    delay_s: float
    error: str


@dataclass(frozen=True, slots=True)
class FallbackTaken:
    """An alternative is tried because of ``error``."""

    trace_id: str
    failed: str
    error: str


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """A breaker moved to ``state`` (``closed``, ``open``, ``half-open``)."""

    node: str
    state: str


@dataclass(frozen=True, slots=True)
class ConflictDetected:
    """A write came back refused or merged and something the user typed lies in the inbox."""

    scope: str
    store: str
    id: str
    code: str


@dataclass(frozen=True, slots=True)
class SyncStateChanged:
    """The sync lanes moved to ``state`` (``offline``, ``connecting``, ``repairing``, ``online``, ``stalled``, ``stopped``)."""

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class RepairStarted:
    """The file does not continue the hub's history and is being repaired."""

    cause: str
    why: str


@dataclass(frozen=True, slots=True)
class RepairDone:
    """A repair was committed."""

    report: RepairReport


@dataclass(frozen=True, slots=True)
class LostRowsExpired:
    """Rows that a restored hub had lost have waited thirty days for somebody to decide, and are not offered any more."""

    rows: int


@dataclass(frozen=True, slots=True)
class CallServed:
    """A hub has answered one call; told by the hub, not by a client.

    Attributes:
        trace_id: The caller's, ``""`` for calls of the sync lanes.
        method: What was called.
        seconds: How long it took.
        error: Code of the error, ``CANCELLED`` when the caller gave up, ``""`` when it was answered.
        ended_ms: Wall clock at the end, in milliseconds.
    """

    trace_id: str
    method: str
    seconds: float
    error: str
    ended_ms: int


@dataclass(frozen=True, slots=True)
class ClientAhead:
    """A client has heard verdicts that this hub has not given: the hub was restored, was it not? Told by the hub.

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
"""What a hub tells its listener."""

Event: TypeAlias = (
    WriteDispatched
    | WriteSettled
    | WriteResolved
    | WriteTakenBack
    | QueryFinished
    | StepStarted
    | StepFinished
    | RetryScheduled
    | FallbackTaken
    | BreakerChanged
    | ConflictDetected
    | SyncStateChanged
    | RepairStarted
    | RepairDone
    | LostRowsExpired
)
