"""The places of one channel: how many calls may be in flight on it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from atoma.errors import Overloaded


class CallPlaces:
    """The places for calls, or for streams, of one channel.

    Args:
        what: What is full where there is none, for the error.
        limit: How many there are.

    Attributes:
        limit: See there; it may become smaller.
    """

    __slots__ = ("_taken", "_what", "limit")

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self.limit = limit
        self._taken = 0

    @contextmanager
    def take(self) -> Generator[None]:
        """Have a place for as long as the block lasts.

        Raises:
            Overloaded: There is none.
        """
        if self._taken >= self.limit:
            raise self.full()
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    def full(self, told: str = "") -> Overloaded:
        """What is raised where there is no place; ``told`` is what the other side says of that."""
        return Overloaded(f"{self._what} ({told})" if told else self._what, self.limit)
