"""Those who are told of something at once, on the thread on which it happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, ParamSpec

from atoma.errors import ConfigurationError

P = ParamSpec("P")

LISTENERS_MAX = 10_000
"""So many listen to one thing at most: more were registered in a loop, by somebody who never calls the undo."""

_log = logging.getLogger("atoma.listeners")


class Listeners(Generic[P]):
    """The listeners of one thing, in the order in which they came.

    Args:
        what: What they listen to, for the log and for whoever is refused.
        limit: How many there may be.
    """

    __slots__ = ("_count", "_limit", "_listeners", "_what")

    def __init__(self, what: str, limit: int = LISTENERS_MAX) -> None:
        self._what = what
        self._limit = limit
        self._listeners: dict[int, Callable[P, None]] = {}
        self._count = 0

    def add(self, listener: Callable[P, None]) -> Callable[[], None]:
        """Tell ``listener``, too, from the next time on; returns the undo, after which it is told nothing more.

        Raises:
            ConfigurationError: There are as many as there may be.
        """
        if len(self._listeners) >= self._limit:
            raise ConfigurationError(
                f"{self._limit} listeners of {self._what} are registered already: call what subscribing returns when it is not needed "
                "any more"
            )
        self._count += 1
        number = self._count
        self._listeners[number] = listener

        def undo() -> None:
            self._listeners.pop(number, None)

        return undo

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call every listener; one that raises is logged and keeps nobody from hearing.

        Who comes meanwhile is told from the next time on, who goes meanwhile is told nothing any more.
        """
        for number, listener in tuple(self._listeners.items()):
            if number not in self._listeners:
                continue
            try:
                listener(*args, **kwargs)
            except Exception:
                _log.exception("a listener of %s failed", self._what)
