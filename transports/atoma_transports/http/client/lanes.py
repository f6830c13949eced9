"""The lanes of the batch engine: their bounds, calls that wait, and the batches they are taken in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from atoma.contracts.survey import VALUES_MAX, Survey
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ChannelBroken, ConfigurationError, Overloaded, ProtocolError
from atoma_transports.calls.methods import LaneName
from atoma_transports.http.client.messages import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRules:
    """Bounds of one lane.

    Attributes:
        requests: Requests in flight.
        calls: Calls that are joined into one request.
        bytes: Bytes of the calls that are joined; a call that is larger travels alone.
        queue: Calls that wait for a request; one more is refused with ``Overloaded``.
        queue_bytes: Bytes of the calls that wait; a call beyond is refused unless it waits alone.

    Raises:
        ConfigurationError: A bound is less than one.
    """

    requests: int = 4
    calls: int = 64
    bytes: int = 1024 * 1024
    queue: int = 256
    queue_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("requests", "calls", "bytes", "queue", "queue_bytes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"LaneRules({name}=…) is at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """Bounds of the three lanes, which never wait for each other.

    Each request takes a connection while it is under way, and a server has 16 for a principal unless it says otherwise.

    Attributes:
        query: Direct queries, and questions for the outcome of a write.
        write: Direct writes.
        sync: Everything that replication asks: ``open``, ``push``, ``pull``, ``snapshot``.
    """

    query: LaneRules = field(default_factory=LaneRules)
    write: LaneRules = field(default_factory=LaneRules)
    sync: LaneRules = field(default_factory=lambda: LaneRules(requests=10))

    def lanes(self) -> Iterator[tuple[LaneName, LaneRules]]:
        """Each lane with its bounds."""
        yield "query", self.query
        yield "write", self.write
        yield "sync", self.sync

    @property
    def requests(self) -> int:
        """Requests in flight over all lanes."""
        return sum(rules.requests for _, rules in self.lanes())


CALL_BYTES = 96  # what an envelope adds to a call, about
CALL_VALUES = 1_000  # a call of so many bytes, or fewer, is not looked into
ENVELOPE_VALUES = 16


@dataclass(slots=True, eq=False)
class QueuedCall:
    """One call, from the moment it is made until its reply.

    Attributes:
        id: Its id, unique in the engine.
        method: What is called.
        body: The encoded message.
        trace_id: The caller's trace.
        deadline: The caller's deadline, on Trio's clock.
        batch: The request in which it travels; None while it waits.
        done: Set once one of the three below says how it ended.
        payload: The encoded reply.
        refused: The error the other side answered with.
        failure: Why there is no answer.
        values: How many values the message holds, or more: a server takes a bounded number in one request.
    """

    id: int
    method: str
    body: bytes
    trace_id: str
    deadline: float
    batch: CallBatch | None = None
    done: trio.Event = field(default_factory=trio.Event)
    payload: bytes | None = None
    refused: ErrorInfo | None = None
    failure: AtomaError | None = None
    values: int = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.body)
        self.values = size if size <= CALL_VALUES else Survey().finish(self.body).values

    def fail(self, error: AtomaError, *, sent: bool) -> None:
        """End the call with an error of its own, which says what ``error`` says: each caller adds its own trace."""
        outcome = "the outcome of the call is unknown" if sent else "the call was not sent"
        text = str(error)
        if outcome not in text:
            text = f"{text}; {outcome}"
        kind = ProtocolError if isinstance(error, ProtocolError) else ChannelBroken
        self.failure = kind(text, maybe_sent=sent)
        self.done.set()


@dataclass(slots=True, eq=False)
class CallBatch:
    """Calls that travel in one request.

    Attributes:
        open: The calls that still wait for their reply, by id.
        id: Its name at the other side; empty for a call that is alone and needs no envelope.
        request: The request, once it is made.
        scope: Around everything that is done for it.
        begun: Set once the other side has begun to answer, so that it knows the batch.
        over: Set once nothing is expected any more.
        dropped: Ids of calls that were cancelled and that the other side does not know of yet.
        telling: Whether somebody is telling the other side.
    """

    open: dict[int, QueuedCall]
    id: str = ""
    request: Request | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    begun: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    dropped: list[int] = field(default_factory=list[int])
    telling: bool = False

    @property
    def sent(self) -> bool:
        """Whether the other side may have seen it."""
        return self.request is not None and self.request.sent.is_set()

    def fail(self, error: AtomaError, *, sent: bool | None = None) -> None:
        """End every call that still waits."""
        maybe_sent = self.sent if sent is None else sent
        for call in self.open.values():
            call.fail(error, sent=maybe_sent)
        self.open.clear()

    def refuse(self, info: ErrorInfo) -> None:
        """Answer every call that still waits with an error."""
        for call in self.open.values():
            call.refused = info
            call.done.set()
        self.open.clear()


class CallLane:
    """The queue of one lane, bounded in calls and in bytes.

    Attributes:
        work: Woken when there may be something to do.
        active: Requests in flight.
    """

    def __init__(self, name: LaneName, rules: LaneRules) -> None:
        self.work = trio.lowlevel.ParkingLot()
        self.active = 0
        self._name = name
        self._rules = rules
        self._queue: deque[QueuedCall] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def ready(self) -> bool:
        """Whether a batch can be taken."""
        return bool(self._queue) and self.active < self._rules.requests

    def put(self, call: QueuedCall) -> None:
        """Let ``call`` wait for its turn.

        Raises:
            Overloaded: The queue is full; nothing was taken and nothing is dropped for it.
        """
        if len(self._queue) >= self._rules.queue:
            raise Overloaded(f"the queue of calls in the lane {self._name!r}", self._rules.queue)
        if self._queue and self._bytes + len(call.body) > self._rules.queue_bytes:
            raise Overloaded(f"the queue of bytes in the lane {self._name!r}", self._rules.queue_bytes)
        self._queue.append(call)
        self._bytes += len(call.body)
        self.work.unpark()

    def withdraw(self, call: QueuedCall) -> None:
        """Take back a call that still waits."""
        self._queue.remove(call)
        self._bytes -= len(call.body)

    def take(self) -> CallBatch:
        """The calls that have waited longest, as many as fit into one request."""
        calls: list[QueuedCall] = []
        room, values = self._rules.bytes, VALUES_MAX
        while self._queue and len(calls) < self._rules.calls:
            room -= len(self._queue[0].body) + CALL_BYTES
            values -= self._queue[0].values + ENVELOPE_VALUES
            if calls and (room < 0 or values < 0):
                break
            call = self._queue.popleft()
            self._bytes -= len(call.body)
            calls.append(call)
        batch = CallBatch({call.id: call for call in calls})
        for call in calls:
            call.batch = batch
        return batch

    def fail(self, error: AtomaError) -> None:
        """End every call that waits: certainly nothing of them was sent."""
        while self._queue:
            self._queue.popleft().fail(error, sent=False)
        self._bytes = 0
