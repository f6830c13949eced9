"""A sorted list in blocks: adding, removing and access by position are cheap, however long it is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from atoma_stores.live.operators.keys import Key

R = TypeVar("R")

BLOCK = 1_000


class SortedRows(Generic[R]):
    """Rows in the order of their keys, no two of which are equal."""

    __slots__ = ("_keys", "_lasts", "_rows", "_size")

    def __init__(self) -> None:
        self._keys: list[list[Key]] = []
        self._rows: list[list[R]] = []
        self._lasts: list[Key] = []  # the last key of each block
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[R]:
        for block in self._rows:
            yield from block

    def load(self, keys: Sequence[Key], rows: Sequence[R]) -> None:
        """Replace all rows by ``rows``, whose ``keys`` are in order."""
        starts = range(0, len(keys), BLOCK)
        self._keys = [list(keys[start : start + BLOCK]) for start in starts]
        self._rows = [list(rows[start : start + BLOCK]) for start in starts]
        self._lasts = [block[-1] for block in self._keys]
        self._size = len(keys)

    @property
    def last(self) -> Key:
        """The last of all keys.

        Raises:
            IndexError: There is none.
        """
        return self._lasts[-1]

    def row(self, at: int) -> R:
        """Return the row at a position.

        Raises:
            IndexError: There is none.
        """
        if not 0 <= at < self._size:
            raise IndexError(at)
        for block in self._rows:
            if at < len(block):
                return block[at]
            at -= len(block)
        raise IndexError(at)

    def between(self, start: int, end: int) -> list[R]:
        """Return the rows from position ``start`` up to ``end``, as far as there are any."""
        if len(self._rows) == 1:
            return self._rows[0][start:end]
        found: list[R] = []
        for block in self._rows:
            if end <= 0:
                break
            if start < len(block):
                found += block[max(start, 0) : end]
            start -= len(block)
            end -= len(block)
        return found

    def add(self, key: Key, row: R) -> int:
        """Insert a row at the position of its key, and return that position."""
        if not self._lasts:
            self.load([key], [row])
            return 0
        number = min(bisect_left(self._lasts, key), len(self._lasts) - 1)
        keys = self._keys[number]
        at = bisect_left(keys, key)
        keys.insert(at, key)
        self._rows[number].insert(at, row)
        self._size += 1
        place = self._before(number) + at
        if at == len(keys) - 1:
            self._lasts[number] = key
        if len(keys) > 2 * BLOCK:
            self._split(number)
        return place

    def remove(self, key: Key) -> tuple[int, R]:
        """Remove the row of ``key``, and return its position and the row."""
        number, at = self._find(key)
        keys, rows = self._keys[number], self._rows[number]
        del keys[at]
        row = rows.pop(at)
        self._size -= 1
        place = self._before(number) + at
        if not keys:
            del self._keys[number], self._rows[number], self._lasts[number]
        elif at == len(keys):
            self._lasts[number] = keys[-1]
        return place, row

    def replace(self, key: Key, row: R) -> int:
        """Replace the row of ``key`` by ``row``, and return its position."""
        number, at = self._find(key)
        self._rows[number][at] = row
        return self._before(number) + at

    def get(self, key: Key) -> R:
        """Return the row of ``key``.

        Raises:
            KeyError: There is none.
        """
        number, at = self._find(key)
        return self._rows[number][at]

    def keep(self, count: int) -> list[R]:
        """Drop all but the first ``count`` rows, and return those that were dropped."""
        gone = self.between(count, self._size)
        while self._size > count:
            rows = self._rows[-1]
            excess = min(self._size - count, len(rows))
            del rows[len(rows) - excess :], self._keys[-1][len(self._keys[-1]) - excess :]
            self._size -= excess
            if rows:
                self._lasts[-1] = self._keys[-1][-1]
            else:
                del self._rows[-1], self._keys[-1], self._lasts[-1]
        return gone

    def _find(self, key: Key) -> tuple[int, int]:
        number = bisect_left(self._lasts, key)
        if number < len(self._keys):
            keys = self._keys[number]
            at = bisect_left(keys, key)
            if at < len(keys) and keys[at] == key:
                return number, at
        raise KeyError(key)

    def _before(self, number: int) -> int:
        return sum(map(len, self._keys[:number])) if number else 0

    def _split(self, number: int) -> None:
        keys, rows = self._keys[number], self._rows[number]
        self._keys[number : number + 1] = [keys[:BLOCK], keys[BLOCK:]]
        self._rows[number : number + 1] = [rows[:BLOCK], rows[BLOCK:]]
        self._lasts[number : number + 1] = [keys[BLOCK - 1], keys[-1]]
