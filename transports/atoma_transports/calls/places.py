"""The places of one channel, which bound the number of calls in flight."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from atoma.errors import Overloaded


class CallPlaces:
    """The places for calls, or for streams, of one channel.

    Args:
        what: The message of the error when all places are taken.
        limit: The number of places.

    Attributes:
        limit: As above; it may become smaller.
    """

    __slots__ = ("_taken", "_what", "limit")

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self.limit = limit
        self._taken = 0

    @contextmanager
    def take(self) -> Generator[None]:
        """Take a place for the duration of the block.

        Raises:
            Overloaded: All places are taken.
        """
        if self._taken >= self.limit:
            raise self.full()
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    def full(self, told: str = "") -> Overloaded:
        """Return the error for a channel without a free place; ``told`` is the reason that the other side gives."""
        return Overloaded(f"{self._what} ({told})" if told else self._what, self.limit)
