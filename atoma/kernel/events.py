"""Delivery of events to listeners: after the fact, at most once, and never at the expense of a request."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import trio

from atoma.contracts.events import Event

_log = logging.getLogger("atoma.events")

QUEUE_LIMIT = 4096
"""Maximum number of events that wait for the delivery task; more are dropped and counted."""


class EventDispatch:
    """A bounded queue of events between the kernel and its listeners.

    ``emit`` only appends, so a listener that is slow, or that raises, never delays or fails a request. Delivery is in
    order of emission, at most once; when listeners cannot keep up, new events are dropped and counted. Nothing is kept
    while nobody listens.

    The client runs :meth:`deliver` in its nursery and calls :meth:`flush` when it closes.

    Attributes:
        listeners: The listeners, in order of subscription; if there are none, no event needs to
            be made.
        lost: The number of events that were dropped.
    """

    __slots__ = ("_arrived", "_queue", "listeners", "lost")

    def __init__(self) -> None:
        self.listeners: tuple[Callable[[Event], None], ...] = ()
        self.lost = 0
        self._queue: deque[Event] = deque()
        self._arrived = trio.Event()

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Send every event to a listener from now on; call the returned function to stop. Listeners are synchronous and must not block."""
        entry = _Listener(listener)
        self.listeners = (*self.listeners, entry)

        def undo() -> None:
            self.listeners = tuple(other for other in self.listeners if other is not entry)

        return undo

    def emit(self, event: Event) -> None:
        """Queue ``event``; drop it when nobody listens or the queue is full."""
        if not self.listeners:
            return
        if len(self._queue) >= QUEUE_LIMIT:
            self.lost += 1
            return
        self._queue.append(event)
        if not self._arrived.is_set():
            self._arrived.set()

    def flush(self) -> None:
        """Deliver now what is queued now; events that listeners emit meanwhile wait for the next time."""
        for _ in range(len(self._queue)):
            event = self._queue.popleft()
            for listener in self.listeners:
                listener(event)

    async def deliver(self) -> None:
        """Deliver events until cancelled; what is still queued then is left to :meth:`flush`."""
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            self.flush()
            await trio.lowlevel.checkpoint()


class _Listener:
    """A subscription: an exception goes to the log, the other listeners still get the event."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[Event], None]) -> None:
        self._call = call

    def __call__(self, event: Event) -> None:
        try:
            self._call(event)
        except Exception:
            _log.exception("a listener failed on %s", type(event).__name__)


__all__ = ["QUEUE_LIMIT", "EventDispatch"]
