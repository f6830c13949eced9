"""From one result to the next: the changes that turn the old rows into the new ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from atoma.contracts.values import StoredRow
from atoma.ports.live import Change, Insert, Move, Remove, Reset, Update

RESET_ABOVE = 32
"""With more insertions, removals and moves than this, and than half the result, a ``Reset`` says it shorter."""
MOVE_COST_MAX = 2_000_000
"""Moves times rows: beyond it finding the positions costs more than sending the rows."""


def keep_unchanged(old: Sequence[StoredRow], new: Sequence[StoredRow]) -> tuple[StoredRow, ...]:
    """``new`` with every row that shows what the old row of the same id did replaced by that very object."""
    known = {row.id: row for row in old}
    return tuple([before if (before := known.get(row.id)) is not None and _same(before, row) else row for row in new])


def diff(old: Sequence[StoredRow], new: Sequence[StoredRow]) -> tuple[Change[StoredRow], ...]:
    """The changes that lead from ``old`` to ``new``, to be applied in order; empty when they are equal.

    Removals come first (from the end), then insertions and moves from the front, then updates in place. A row moves only
    if it left the longest run of rows that kept their order.
    """
    first, old_end, new_end = _differing_part(old, new)
    before, after = old[first:old_end], new[first:new_end]
    updates = _updates(old[:first], new[:first], 0)
    updates += _updates(old[old_end:], new[new_end:], new_end)
    if not before and not after:
        return tuple(updates)
    source = {row.id: at for at, row in enumerate(before)}
    target = {row.id for row in after}
    if len(source) < len(before) or len(target) < len(after):
        return (Reset(tuple(new)),)  # an id twice (a list of ids may ask for it): positions by id mean nothing
    removed = [at for at, row in enumerate(before) if row.id not in target]
    kept = [source[row.id] for row in after if row.id in source]
    settled = set(_longest_increasing(kept))
    moved = len(kept) - len(settled)
    structural = len(removed) + (len(after) - len(kept)) + moved
    if structural > max(RESET_ABOVE, len(new) // 2) or moved * len(after) > MOVE_COST_MAX:
        return (Reset(tuple(new)),)
    changes: list[Change[StoredRow]] = [Remove(first + at, before[at].id) for at in reversed(removed)]
    changes += _placements(before, after, source, settled, first)
    for at, row in enumerate(after, first):
        place = source.get(row.id, -1)
        if place in settled and not _same(before[place], row):
            updates.append(Update(at, row))
    return (*changes, *updates)


def _differing_part(old: Sequence[StoredRow], new: Sequence[StoredRow]) -> tuple[int, int, int]:
    """``(first, end in old, end in new)`` of the part between the longest common head and tail of ids."""
    first, old_end, new_end = 0, len(old), len(new)
    shorter = min(old_end, new_end)
    while first < shorter and old[first].id == new[first].id:
        first += 1
    while old_end > first and new_end > first and old[old_end - 1].id == new[new_end - 1].id:
        old_end -= 1
        new_end -= 1
    return first, old_end, new_end


def _same(one: StoredRow, other: StoredRow) -> bool:
    """Whether both show the same; where the hub has confirmed a row is no change that anybody sees."""
    return one is other or (one.version == other.version and one.image == other.image and one.scope == other.scope)


def _updates(old: Sequence[StoredRow], new: Sequence[StoredRow], offset: int) -> list[Change[StoredRow]]:
    pairs = enumerate(zip(old, new, strict=True), offset)
    return [Update(at, after) for at, (before, after) in pairs if not _same(before, after)]


def _placements(
    before: Sequence[StoredRow], after: Sequence[StoredRow], source: dict[str, int], settled: set[int], first: int
) -> list[Change[StoredRow]]:
    """Insertions and moves, front to back: each row is put right behind the one that precedes it in ``after``."""
    wanted = {row.id for row in after}
    current = [row.id for row in before if row.id in wanted]
    unsettled = len(current) - len(settled)
    changes: list[Change[StoredRow]] = []
    for at, row in enumerate(after):
        place = source.get(row.id)
        if place in settled:
            continue
        if place is not None:
            start = current.index(row.id)
            del current[start]
            unsettled -= 1
        else:
            start = -1
        # with every row settled the position is the target's own; else rows that will leave may stand in front
        behind = at if not unsettled or at == 0 else current.index(after[at - 1].id) + 1
        current.insert(behind, row.id)
        changes.append(Insert(first + behind, row) if start < 0 else Move(first + start, first + behind, row))
    return changes


def _longest_increasing(values: Sequence[int]) -> list[int]:
    """Members of one longest increasing subsequence of distinct ``values``."""
    tails: list[int] = []  # smallest last value of a run of each length
    holders: list[int] = []  # where in `values` that last value stands
    previous: list[int] = []
    for at, value in enumerate(values):
        length = bisect_left(tails, value)
        if length == len(tails):
            tails.append(value)
            holders.append(at)
        else:
            tails[length] = value
            holders[length] = at
        previous.append(holders[length - 1] if length else -1)
    run: list[int] = []
    at = holders[-1] if holders else -1
    while at >= 0:
        run.append(values[at])
        at = previous[at]
    return run
