"""Those who wait for the same thing, by the address that they come from: no address keeps the others out."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Crowds(Generic[T]):
    """A crowd for each address, in which those who came first stand in front."""

    __slots__ = ("_count", "_of")

    def __init__(self) -> None:
        self._of: dict[str, dict[T, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, address: str, one: T) -> None:
        """Have ``one``, who is not there, wait behind the others from ``address``."""
        self._of.setdefault(address, {})[one] = None
        self._count += 1

    def remove(self, address: str, one: T) -> None:
        """Take ``one``, who is there, out."""
        crowd = self._of[address]
        del crowd[one]
        self._count -= 1
        if not crowd:
            del self._of[address]

    def surplus(self) -> T:
        """Who has to go when they are too many: of the address with the most of them, the one that came first."""
        largest = max(self._of.values(), key=len)
        return next(iter(largest))

    def take(self) -> T:
        """Who is next, taken out: one address after the other has its turn, and sends the one that came first."""
        address = next(iter(self._of))
        crowd = self._of.pop(address)
        one = next(iter(crowd))
        del crowd[one]
        self._count -= 1
        if crowd:
            self._of[address] = crowd
        return one

    def everybody(self) -> list[T]:
        """All who wait."""
        return [one for crowd in self._of.values() for one in crowd]
