"""What a loop sends its host without being asked: in order, within a bound, never at the loop's expense."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from atoma.ports.live import LiveBatch, apply_batch
from atoma.runtime.observable import OpenLive

if TYPE_CHECKING:
    from reactivex import abc

T = TypeVar("T")

QUEUE_LIMIT = 1024
"""Values that may wait for a listener; more push the oldest out."""


_log = logging.getLogger("atoma.bindings")


class Delivery(Generic[T]):
    """A listener of the host as the loop calls it.

    Values wait until the host comes for them. A listener that raises is logged and harms nobody; one that is too slow loses
    the oldest values, with a line in the log.

    Args:
        listener: Called by the host, value by value.
        fetch: Lets the host call a function, soon, in its own place.
    """

    def __init__(self, listener: Callable[[T], object], fetch: Callable[[Callable[[], None]], None]) -> None:
        self._listener = listener
        self._fetch = fetch
        self._lock = threading.Lock()
        self._waiting: deque[T] = deque(maxlen=QUEUE_LIMIT)
        self._fetched = False
        self._losing = False
        self._closed = False

    def __call__(self, value: T) -> None:
        """Take a value, in the loop's thread."""
        with self._lock:
            lost = len(self._waiting) == QUEUE_LIMIT
            self._waiting.append(value)
            first_lost, self._losing = lost and not self._losing, lost
            if self._fetched:
                fetch = False
            else:
                fetch = self._fetched = True
        if first_lost:
            _log.warning("a listener is too slow: it loses the oldest of %d values", QUEUE_LIMIT)
        if fetch:
            self._fetch(self._empty)

    def close(self) -> None:
        """Hand over nothing more."""
        self._closed = True

    def _empty(self) -> None:
        """Hand over what waits; runs in one place of the host at a time."""
        while True:
            with self._lock:
                if self._closed or not self._waiting:
                    self._fetched = False
                    return
                value = self._waiting.popleft()
            try:
                self._listener(value)
            except Exception:
                _log.exception("a listener failed on %s", type(value).__name__)


class Telling(Generic[T]):
    """An observer as what it follows notifies it; one that raises is logged, and receives nothing more.

    Args:
        observer: The observer.
    """

    def __init__(self, observer: abc.ObserverBase[T]) -> None:
        self._observer = observer

    def next(self, value: T) -> bool:
        """Deliver a value; whether the observer wants more."""
        try:
            self._observer.on_next(value)
        except Exception:
            _log.exception("an observer failed and was unsubscribed")
            return False
        return True

    def end(self, error: Exception | None) -> None:
        """Deliver the end."""
        try:
            if error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(error)
        except Exception:
            _log.exception("an observer failed while it received the end")


@asynccontextmanager
async def open_results(open_live: OpenLive[T]) -> AsyncGenerator[AsyncIterator[tuple[T, ...]]]:
    """A subscription to a live query that gives the whole result at each step."""
    async with open_live() as batches:
        yield _Results(batches)


class _Results(AsyncIterator[tuple[T, ...]]):
    def __init__(self, batches: AsyncIterator[LiveBatch[T]]) -> None:
        self._batches = batches
        self._rows: tuple[T, ...] = ()

    async def __anext__(self) -> tuple[T, ...]:
        self._rows = apply_batch(self._rows, await anext(self._batches))
        return self._rows
