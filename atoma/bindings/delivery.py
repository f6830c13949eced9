"""What a loop tells its host without being asked: in order, within a bound, never at the loop's expense."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

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
    """An observer as a live query tells it; one that raises is logged, and hears nothing more.

    Args:
        observer: The observer.
    """

    def __init__(self, observer: abc.ObserverBase[tuple[T, ...]]) -> None:
        self._observer = observer

    def next(self, rows: tuple[T, ...]) -> bool:
        """Tell the result; whether the observer wants to hear more."""
        try:
            self._observer.on_next(rows)
        except Exception:
            _log.exception("an observer of a live query failed and was unsubscribed")
            return False
        return True

    def end(self, error: Exception | None) -> None:
        """Tell the end."""
        try:
            if error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(error)
        except Exception:
            _log.exception("an observer of a live query failed while it was told the end")
