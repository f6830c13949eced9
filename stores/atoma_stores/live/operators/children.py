"""The children of one row of a live result, sorted."""

from __future__ import annotations

from bisect import bisect_left

from atoma.contracts.values import StoredRow
from atoma_stores.live.operators.keys import Key
from atoma_stores.live.operators.window import capacity_of
from atoma_stores.live.rows import same


class Children:
    """The children of one row, sorted: all of them, or the first ones up to a bound.

    Args:
        keys: Their sort keys.
        rows: The children.
        limit: At most so many are shown; None for all.
        whole: Whether there are no others.
    """

    __slots__ = ("_bound", "_keys", "_limit", "_rows")

    def __init__(self, keys: list[Key], rows: list[StoredRow], limit: int | None, *, whole: bool) -> None:
        self._keys = keys
        self._rows = rows
        self._limit = limit
        self._bound = None if whole else keys[-1]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lacks(self) -> bool:
        """Whether more have to be shown than are known."""
        return self._bound is not None and self._limit is not None and len(self._rows) < self._limit

    @property
    def shown(self) -> tuple[StoredRow, ...]:
        """The children that are shown."""
        return tuple(self._rows[: self._limit])

    def change(self, before: Key | None, after: Key | None, row: StoredRow | None) -> None:
        """Replace the child with the sort key ``before`` by ``row``, which has the key ``after``; None where it was, or is, no child."""
        if before is not None and before != after:
            at = bisect_left(self._keys, before)
            if at < len(self._keys) and self._keys[at] == before:
                del self._keys[at], self._rows[at]
        if after is None or row is None or (self._bound is not None and after > self._bound):
            return
        at = bisect_left(self._keys, after)
        if at == len(self._keys) or self._keys[at] != after:
            self._keys.insert(at, after)
            self._rows.insert(at, row)
            self._trim()
        elif not same(self._rows[at], row):
            self._rows[at] = row

    def _trim(self) -> None:
        capacity = capacity_of(self._limit, 0)
        if capacity is not None and len(self._rows) > 2 * capacity:
            del self._keys[capacity:], self._rows[capacity:]
            self._bound = self._keys[-1]
