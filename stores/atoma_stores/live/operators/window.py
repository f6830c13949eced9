"""A part of an ordered result, kept with a few rows behind it; a whole result is the same without an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from atoma.ports.live import Change, Insert, Move, Remove, Reset, ResultKey, Update
from atoma_stores.live.diff import RESET_ABOVE, diff
from atoma_stores.live.operators.keys import Key
from atoma_stores.live.operators.sorted_rows import SortedRows
from atoma_stores.live.rows import KeyOf, keep_unchanged, same

R = TypeVar("R")

SLACK_MIN = 8


def slack_of(limit: int) -> int:
    """Return how many rows are kept behind a window of ``limit`` rows, to replace those that leave it at once."""
    return max(SLACK_MIN, limit // 2)


def capacity_of(limit: int | None, offset: int) -> int | None:
    """Return how many rows a window of ``limit`` rows after ``offset`` rows holds at most; None for all."""
    return None if limit is None else offset + limit + slack_of(limit)


class Window(Generic[R]):
    """The rows of an ordered result from ``offset`` on, at most ``limit``.

    It holds every row of the result up to a bound, or all of them. Any number of rows may be changed by :meth:`put`;
    :meth:`collect` returns what has changed in the window since the last time.

    Args:
        sort: Returns the position of a row.
        key_of: Makes the key of a row.
        limit: Maximum number of rows that are shown; None for all.
        offset: Number of rows before them that are not shown.
        turned: Whether the rows are shown in reverse order.
    """

    def __init__(
        self, sort: Callable[[R], Key], key_of: KeyOf[R], limit: int | None, offset: int, *, turned: bool = False
    ) -> None:
        self._sort = sort
        self._key_of = key_of
        self._start = offset
        self._end = None if limit is None else offset + limit
        self.capacity = capacity_of(limit, offset)
        self._turned = turned
        self._follows = limit is None and not offset and not turned  # every change of a row is a change of the result
        self._rows: SortedRows[R] = SortedRows()
        self._places: dict[ResultKey, Key] = {}
        self._bound: Key | None = None
        self._before: list[R] | None = None  # what was shown at the last collection; None while nothing has changed
        self._changes: list[Change[R]] = []
        self._exact = True  # whether `_changes` has everything that has happened since
        self._told: dict[ResultKey, R] = {}  # what the rows were that have changed since; they may become that again
        self._moved = 0  # the number of rows that were added, removed or moved since
        self._loaded = False

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lacks(self) -> bool:
        """Whether it may have to show rows that it does not hold."""
        return self._bound is not None and self._end is not None and len(self._rows) < self._end

    @property
    def shown(self) -> int:
        """The number of rows that are shown."""
        held = len(self._rows) if self._end is None else min(len(self._rows), self._end)
        return max(held - self._start, 0)

    @property
    def rows(self) -> tuple[R, ...]:
        """The rows that are shown."""
        return tuple(self._shown())

    def holds(self, key: ResultKey) -> bool:
        """Whether it holds the row of that key, shown or not."""
        return key in self._places

    def admits(self, row: R) -> bool:
        """Whether ``row`` would be within its bound, so that it would hold the row."""
        return self.keeps(self._sort(row))

    def find(self, key: ResultKey) -> R | None:
        """Return the row of that key; None if it does not hold one."""
        place = self._places.get(key)
        return None if place is None else self._rows.get(place)

    def known(self, key: ResultKey) -> list[R]:
        """Return the row of that key and, where it has changed since the last :meth:`collect`, what it was then."""
        return [row for row in (self.find(key), self._told.get(key)) if row is not None]

    def held(self) -> list[R]:
        """Every row that it holds."""
        return list(self._rows)

    def load(self, rows: Sequence[R]) -> None:
        """Hold ``rows`` from now on: the first rows of the result, up to :attr:`capacity`."""
        kept: Sequence[R] = rows
        if self._loaded:
            self._begin()
            if self._follows and self._before is None:  # otherwise it was read before, and none of that is reported yet
                if self._changes:
                    # it is no longer known what was shown before: the next batch is a Reset
                    self._moved = RESET_ABOVE + len(self._changes) + len(rows)
                else:
                    self._before = list(self._rows)
            self._exact = False
            known = [*self._rows, *(self._before or ()), *self._told.values()]
            kept = keep_unchanged(known, rows, self._key_of)
        self._loaded = True
        keys = list(map(self._sort, kept))
        self._rows.load(keys, kept)
        self._places = dict(zip(map(self._key_of, kept), keys, strict=True))
        self._bound = keys[-1] if keys and len(kept) == self.capacity else None

    def put(self, key: ResultKey, row: R | None) -> None:
        """Replace the row of ``key`` by ``row``; None if the result no longer has it."""
        place = self._places.get(key)
        if row is None:
            if place is not None:
                self._remove(key, place)
            return
        told = self._told.get(key)
        if told is not None and same(told, row):
            row = told
        new = self._sort(row)
        if place is None:
            if self.keeps(new):
                self._insert(key, new, row)
        elif place == new:
            held = self._rows.get(place)
            if not same(held, row):
                self._told.setdefault(key, held)
                self._update(place, row)
        elif self.keeps(new):
            self._move(key, place, new, row)
        else:
            self._remove(key, place)

    def keeps(self, place: Key) -> bool:
        """Whether that position is within its bound."""
        return self._bound is None or place <= self._bound

    def collect(self) -> tuple[Change[R], ...]:
        """Return the changes of what is shown since the last call."""
        before, changes = self._before, self._changes
        if self._told:
            self._told = {}
        if before is None and not changes:
            self._exact = True
            return ()
        if self._follows and self._moved > max(RESET_ABOVE, self.shown // 2):
            changes = [Reset(self.rows)]
        elif not self._exact:
            changes = list(diff(before or (), self._shown(), self._key_of))
        self._before, self._changes, self._exact, self._moved = None, [], True, 0
        self._trim()
        return tuple(changes)

    def _shown(self) -> list[R]:
        shown = self._rows.between(self._start, len(self._rows) if self._end is None else self._end)
        return shown[::-1] if self._turned else shown

    def _begin(self) -> None:
        """Note that something is about to change."""
        if self._follows:
            return
        if self._before is None:
            self._before = self._shown()
        else:
            self._exact = False  # the changes of one row are known at once; those of several are found by comparison
        if self._turned or self._end is None:
            self._exact = False

    def _insert(self, key: ResultKey, new: Key, row: R) -> None:
        self._begin()
        self._places[key] = new
        at = self._rows.add(new, row)
        self._moved += 1
        if self._follows:
            self._changes.append(Insert(at, row))
        elif self._exact:
            self._tell_insert(at)

    def _tell_insert(self, at: int) -> None:
        assert self._end is not None
        if at >= self._end or len(self._rows) <= self._start:
            return
        shown = max(at, self._start) - self._start
        if len(self._rows) > self._end:
            self._changes.append(Remove(self._end - self._start - 1, self._key_of(self._rows.row(self._end))))
        self._changes.append(Insert(shown, self._rows.row(shown + self._start)))

    def _remove(self, key: ResultKey, place: Key) -> None:
        self._begin()
        del self._places[key]
        at, row = self._rows.remove(place)
        self._told.setdefault(key, row)
        self._moved += 1
        if self._follows:
            self._changes.append(Remove(at, key))
        elif self._exact:
            self._tell_remove(at, row)

    def _tell_remove(self, at: int, row: R) -> None:
        assert self._end is not None
        if at >= self._end or len(self._rows) < self._start:
            return
        gone = row if at >= self._start else self._rows.row(self._start - 1)
        self._changes.append(Remove(max(at, self._start) - self._start, self._key_of(gone)))
        if len(self._rows) >= self._end:
            self._changes.append(Insert(self._end - self._start - 1, self._rows.row(self._end - 1)))

    def _update(self, place: Key, row: R) -> None:
        self._begin()
        at = self._rows.replace(place, row)
        if self._follows:
            self._changes.append(Update(at, row))
        elif self._exact and self._is_shown(at):
            self._changes.append(Update(at - self._start, row))

    def _move(self, key: ResultKey, place: Key, new: Key, row: R) -> None:
        self._begin()
        start, held = self._rows.remove(place)
        self._told.setdefault(key, held)
        end = self._rows.add(new, row)
        self._places[key] = new
        self._moved += start != end
        if self._follows:
            self._changes.append(Move(start, end, row) if start != end else Update(end, row))
        elif self._is_shown(start) and self._is_shown(end):
            if self._exact:
                at = end - self._start
                self._changes.append(Move(start - self._start, at, row) if start != end else Update(at, row))
        else:
            self._exact = False

    def _is_shown(self, at: int) -> bool:
        return self._start <= at and (self._end is None or at < self._end)

    def _trim(self) -> None:
        if self.capacity is not None and len(self._rows) > 2 * self.capacity:
            for row in self._rows.keep(self.capacity):
                del self._places[self._key_of(row)]
            self._bound = self._rows.last
