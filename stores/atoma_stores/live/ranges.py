"""Ranges, found by a value within them: a balanced tree in an array, which has the highest end below each place."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

V = TypeVar("V")

PENDING_MAX = 64
"""The number of ranges that are searched one by one before the tree is built again."""


class Ranges(Generic[V]):
    """Ranges of values of one type, each of which belongs to a member; both ends are included, None is no end."""

    def __init__(self) -> None:
        self._members: dict[V, tuple[Any, Any]] = {}
        self._new: dict[V, tuple[Any, Any]] = {}  # not in the tree yet
        self._open: list[tuple[Any, V]] = []  # those without a beginning, by their ends
        self._tree: list[tuple[Any, Any, V]] = []  # the others, by their beginnings
        self._ends: list[Any] = []  # for each place of the tree, the highest end within its part; None for no end
        self._gone = 0

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: V, low: Any, high: Any) -> None:
        """Add the range of ``member``."""
        self._members[member] = self._new[member] = (low, high)

    def remove(self, member: V) -> None:
        """Remove the range of ``member``."""
        del self._members[member]
        if self._new.pop(member, None) is None:
            self._gone += 1

    def find(self, value: Any, found: dict[V, None]) -> None:
        """Add to ``found`` every member whose range contains ``value``."""
        if len(self._new) > PENDING_MAX or self._gone > PENDING_MAX + len(self._tree) // 4:
            self._build()
        for member, (low, high) in self._new.items():
            if (low is None or low <= value) and (high is None or value <= high):
                found[member] = None
        members = self._members
        for high, member in self._open:
            if high < value:
                break
            if member in members:
                found[member] = None
        parts = [(0, len(self._tree))]
        while parts:
            start, end = parts.pop()
            if start >= end:
                continue
            middle = (start + end) // 2
            last = self._ends[middle]
            if last is not None and last < value:
                continue
            parts.append((start, middle))
            low, high, member = self._tree[middle]
            if low <= value:
                parts.append((middle + 1, end))
                if (high is None or value <= high) and member in members:
                    found[member] = None

    def _build(self) -> None:
        self._new.clear()
        self._gone = 0
        every = [(low, high, member) for member, (low, high) in self._members.items()]
        self._open = sorted(
            [(each[1], each[2]) for each in every if each[0] is None], key=lambda each: each[0], reverse=True
        )
        self._tree = sorted([each for each in every if each[0] is not None], key=lambda each: each[0])
        self._ends = [None] * len(self._tree)
        self._fill(0, len(self._tree))

    def _fill(self, start: int, end: int) -> tuple[bool, Any]:
        """Fill in a part of the tree and return ``(it is not empty, its highest end)``; None is higher than all others."""
        if start >= end:
            return False, None
        middle = (start + end) // 2
        highest = self._tree[middle][1]
        for there, other in (self._fill(start, middle), self._fill(middle + 1, end)):
            if there and highest is not None and (other is None or other > highest):
                highest = other
        self._ends[middle] = highest
        return True, highest
