"""How the part of a list that is known becomes another one: edits that a view can follow."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Inserted(msgspec.Struct, frozen=True):
    """``count`` rows came in at number ``at``."""

    at: int
    count: int

    def applied(self, first: int, rows: Sequence[T | None], total: int) -> tuple[int, Sequence[T | None], int]:
        """What is known behind the edit: the rows that came in are not."""
        place, total = self.at - first, total + self.count
        if place <= 0:
            return first + self.count, rows, total
        if place >= len(rows):
            return first, rows, total
        return first, (*rows[:place], *[None] * self.count, *rows[place:]), total


class Removed(msgspec.Struct, frozen=True):
    """The ``count`` rows from number ``at`` on left."""

    at: int
    count: int

    def applied(self, first: int, rows: Sequence[T | None], total: int) -> tuple[int, Sequence[T | None], int]:
        """What is known behind the edit."""
        begin, end, total = self.at - first, self.at + self.count - first, total - self.count
        before = max(0, min(end, 0) - begin) if begin < 0 else 0
        rows = (*rows[: max(0, begin)], *rows[max(0, end) :])
        return first - before, rows, total


class Changed(msgspec.Struct, frozen=True):
    """The ``count`` rows from number ``at`` on are others, or have other values; their number stays."""

    at: int
    count: int

    def applied(self, first: int, rows: Sequence[T | None], total: int) -> tuple[int, Sequence[T | None], int]:
        """What is known behind the edit: as before."""
        return first, rows, total


Edit = Inserted | Removed | Changed


def shifted(number: int, edits: Iterable[Edit]) -> int:
    """Where the row with this number is after the edits; a row that left gives the number of the one in its place."""
    for edit in edits:
        if isinstance(edit, Inserted) and edit.at <= number:
            number += edit.count
        elif isinstance(edit, Removed) and edit.at <= number:
            number = max(edit.at, number - edit.count)
    return number


def spliced(
    first: int, old: Sequence[T], new: Sequence[T], key: Callable[[T], Hashable], *, behind: int, to_behind: int
) -> list[Edit]:
    """Edits that make ``new`` of the known rows ``old``, which begin at number ``first``.

    Rows that stay keep their order; one that moved against the others leaves and comes in.

    Args:
        first: The number of the first row of both.
        old: What was known.
        new: What is known now.
        key: Tells rows apart.
        behind: How many rows there were behind ``old``: so many of the last ones of ``new`` may come from there.
        to_behind: How many there are behind ``new``: so many of the last ones of ``old`` may be there now.
    """
    before, now = [key(row) for row in old], [key(row) for row in new]
    kept = _kept(before, now)
    removed, inserted = list(_gaps(before, kept)), list(_gaps(now, kept))
    came = _strangers(now, inserted, set(before), behind)
    if came:
        inserted[-1] = (inserted[-1][0], len(now) - came)
    elif went := _strangers(before, removed, set(now), to_behind):
        removed[-1] = (removed[-1][0], len(before) - went)
    edits: list[Edit] = [Removed(first + begin, end - begin) for begin, end in reversed(removed) if end > begin]
    edits += [Inserted(first + begin, end - begin) for begin, end in inserted if end > begin]
    return edits


def resized(first: int, known: int, total: int, to_first: int, to_total: int) -> list[Edit]:
    """Edits outside of the ``known`` rows, which begin at number ``first``, so that they begin at another one of another total."""
    edits: list[Edit] = []
    if above := to_first - first:
        edits.append(Inserted(max(0, first), above) if above > 0 else Removed(to_first, -above))
    if below := to_total - total - above:
        end = to_first + known
        edits.append(Inserted(min(end, total + above), below) if below > 0 else Removed(end, -below))
    return edits


def _kept(before: Sequence[Hashable], now: Sequence[Hashable]) -> set[Hashable]:
    """A largest set of keys that are in both in the same order."""
    places = {key: place for place, key in enumerate(now)}
    ends: list[int] = []  # the least place at which a run of each length ends
    runs: list[tuple[int, Hashable]] = []  # the run before each key of ``before``, and the key
    last: list[int] = []
    for key in before:
        place = places.get(key)
        if place is None:
            continue
        length = bisect_left(ends, place)
        runs.append((last[length - 1] if length else -1, key))
        if length == len(ends):
            ends.append(place)
            last.append(len(runs) - 1)
        else:
            ends[length], last[length] = place, len(runs) - 1
    kept: set[Hashable] = set()
    at = last[-1] if last else -1
    while at >= 0:
        at, key = runs[at]
        kept.add(key)
    return kept


def _strangers(keys: Sequence[Hashable], gaps: Sequence[tuple[int, int]], known: set[Hashable], at_most: int) -> int:
    """How many keys at the end are in the last gap and not among ``known``."""
    if not gaps or gaps[-1][1] != len(keys):
        return 0
    run = itertools.takewhile(lambda key: key not in known, reversed(keys[gaps[-1][0] :]))
    return min(at_most, sum(1 for _ in run))


def _gaps(keys: Sequence[Hashable], kept: set[Hashable]) -> Iterator[tuple[int, int]]:
    """The runs of keys that are not kept."""
    begin: int | None = None
    for place, key in enumerate(keys):
        if key not in kept:
            begin = place if begin is None else begin
        elif begin is not None:
            yield begin, place
            begin = None
    if begin is not None:
        yield begin, len(keys)
