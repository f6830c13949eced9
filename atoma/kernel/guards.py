"""Breakers and bulkheads: what remembers something between requests, shared by the steps with the same nodes."""

from __future__ import annotations

from collections import deque
from typing import Literal, TypeAlias

import trio

from atoma.contracts.events import BreakerChanged
from atoma.errors import CircuitOpen, Overloaded
from atoma.kernel.combinators import BreakerStep, BulkheadStep
from atoma.kernel.events import EventDispatch
from atoma.kernel.types import GuardInfo

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
        """Note how a call ended; None when it was cancelled or never made, which says nothing about the node."""
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


__all__ = ["Breaker", "BreakerName", "Bulkhead"]
