"""Breakers, bulkheads and caches: the steps that remember something between requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Literal, TypeAlias

import trio

from atoma.contracts.events import BreakerChanged
from atoma.contracts.execution import QueryRequest, QueryResult, Source
from atoma.errors import AtomaError, CircuitOpen, Overloaded
from atoma.kernel._parts import Parts, end
from atoma.kernel.combinators import BreakerStep, BulkheadStep, CacheStep
from atoma.kernel.events import EventDispatch
from atoma.kernel.outcomes import classify
from atoma.kernel.types import Frame, GuardInfo, Req, Res, Run

BreakerName: TypeAlias = Literal["closed", "open", "half-open"]


class Breaker:
    """The state of one breaker: closed → open after failures in a row → half-open after the cooldown → closed.

    Args:
        what: The nodes it guards.
        spec: Its settings.
        events: Told of every change.
    """

    __slots__ = ("_events", "_failures", "_opened", "_probing", "_spec", "_what", "state")

    def __init__(self, what: str, spec: BreakerStep, events: EventDispatch) -> None:
        self.state: BreakerName = "closed"
        self._what = what
        self._spec = spec
        self._events = events
        self._failures: deque[float] = deque(maxlen=spec.failures)
        self._opened = 0.0
        self._probing = False

    def enter(self, now: float) -> bool:
        """Let a call through; True when it is the probe.

        Raises:
            CircuitOpen: It is open, or another call is the probe.
        """
        if self.state == "closed":
            return False
        left = self._opened + self._spec.cooldown_s - now
        if self.state == "open" and left <= 0:
            self._move("half-open")
        if self.state == "open" or self._probing:
            raise CircuitOpen(self._what, max(left, 0.0))
        self._probing = True
        return True

    def leave(self, now: float, *, probe: bool, good: bool | None) -> None:
        """Note how a call ended; None when it was cancelled, which says nothing about the node."""
        if probe:
            self._probing = False
            if good:
                self._failures.clear()
                self._move("closed")
            elif good is not None:
                self._open(now)
        elif self.state == "closed" and good is not None:
            if good:
                self._failures.clear()
                return
            self._failures.append(now)
            full = len(self._failures) == self._spec.failures
            if full and now - self._failures[0] <= self._spec.window_s:
                self._open(now)

    def _open(self, now: float) -> None:
        self._opened = now
        self._move("open")

    def _move(self, state: BreakerName) -> None:
        self.state = state
        self._events.emit(BreakerChanged(self._what, state))

    def info(self, now: float) -> GuardInfo:
        """The state now."""
        left = max(self._opened + self._spec.cooldown_s - now, 0.0) if self.state == "open" else 0.0
        return GuardInfo("breaker", self._what, self.state, running=len(self._failures), retry_after_s=left)


def run_breaker(parts: Parts, step: Run[Req, Res], what: str, spec: BreakerStep) -> Run[Req, Res]:
    """Refuse calls while the breaker is open."""
    key = (what, spec.failures, spec.window_s, spec.cooldown_s)
    breaker = parts.breakers.setdefault(key, Breaker(what, spec, parts.events))
    events, clock = parts.events, parts.environment.clock

    async def run(request: Req, frame: Frame) -> Res:
        now = clock()
        try:
            probe = breaker.enter(now)
        except CircuitOpen as error:
            end(events, frame, what, "skipped", now, now, error.code, f"breaker {breaker.state}")
            raise
        good: bool | None = None
        try:
            result = await step(request, frame.noted("breaker half-open") if probe else frame)
            good = True
        except AtomaError as error:
            good = classify(error) == "rejected"
            raise
        finally:
            breaker.leave(clock(), probe=probe, good=good)
        return result

    return run


class Bulkhead:
    """The state of one bulkhead.

    Args:
        what: The nodes it guards.
        spec: Its bounds.
    """

    __slots__ = ("_places", "_spec", "_what")

    def __init__(self, what: str, spec: BulkheadStep) -> None:
        self._what = what
        self._spec = spec
        self._places = trio.Semaphore(spec.limit)

    async def enter(self) -> None:
        """Take a place, waiting in order for one.

        Raises:
            Overloaded: As many as may are waiting already.
        """
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            pass
        else:
            return
        if self._places.statistics().tasks_waiting >= self._spec.queue:
            raise Overloaded(f"the bulkhead of {self._what!r}", self._spec.limit + self._spec.queue)
        await self._places.acquire()

    def leave(self) -> None:
        """Give the place to the next that waits."""
        self._places.release()

    def info(self) -> GuardInfo:
        """The state now."""
        free, waiting = self._places.value, self._places.statistics().tasks_waiting
        state = "free" if free else "full"
        return GuardInfo("bulkhead", self._what, state, running=self._spec.limit - free, waiting=waiting)


def run_bulkhead(parts: Parts, step: Run[Req, Res], what: str, spec: BulkheadStep) -> Run[Req, Res]:
    """Bound concurrent calls and those that wait."""
    bulkhead = parts.bulkheads.setdefault((what, spec.limit, spec.queue), Bulkhead(what, spec))
    events, clock = parts.events, parts.environment.clock

    async def run(request: Req, frame: Frame) -> Res:
        try:
            await bulkhead.enter()
        except Overloaded as error:
            now = clock()
            end(events, frame, what, "skipped", now, now, error.code, "bulkhead full")
            raise
        try:
            return await step(request, frame)
        finally:
            bulkhead.leave()

    return run


class _Entry:
    """A result, or one on its way."""

    __slots__ = ("done", "error", "expires", "result", "source")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.expires = 0.0
        self.result: QueryResult | None = None
        self.source: Source = "local"
        self.error: AtomaError | None = None


def run_cache(
    parts: Parts, step: Run[QueryRequest, QueryResult], what: str, spec: CacheStep
) -> Run[QueryRequest, QueryResult]:
    """Share recent and running results; a change of the store makes them stale at once."""
    entries: dict[Hashable, _Entry] = {}
    events, clock, generations = parts.events, parts.environment.clock, parts.generations

    async def lead(key: Hashable, request: QueryRequest, frame: Frame) -> QueryResult:
        entry = entries[key] = _Entry()
        if len(entries) > parts.limits.cached:
            entries.pop(next(iter(entries)))
        try:
            entry.result = await step(request, frame)
            entry.expires = clock() + spec.ttl_s
            entry.source = frame.trail.source or "local"
            return entry.result
        except AtomaError as error:
            entry.error = error
            raise
        finally:
            if entry.result is None and entries.get(key) is entry:
                del entries[key]
            entry.done.set()

    async def run(request: QueryRequest, frame: Frame) -> QueryResult:
        chosen = spec.key(request) if spec.key is not None else request.query
        key = (request.store, generations.get(request.store, 0), chosen)
        started = clock()
        note = "cached"
        while True:
            entry = entries.get(key)
            if entry is None or (entry.result is not None and clock() >= entry.expires):
                return await lead(key, request, frame)
            if not entry.done.is_set():
                note = "shared"
                await entry.done.wait()
            if entry.result is not None:
                end(events, frame, what, "ok", started, clock(), "", note, entry.source)
                return entry.result
            if entry.error is not None:
                code = entry.error.code
                end(events, frame, what, "failed", started, clock(), code, note)
                raise entry.error.with_traceback(None)
            # its leader was cancelled: whoever wakes first leads now

    return run


__all__ = ["Breaker", "Bulkhead", "run_breaker", "run_bulkhead", "run_cache"]
