"""From one result to the next: the changes that turn the old rows into the new ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeVar

from atoma.ports.live import Change, Insert, Move, Remove, Reset, ResultKey, Update
from atoma_stores.live.rows import KeyOf, same

R = TypeVar("R")

RESET_ABOVE = 32
"""With more insertions, removals and moves than this, and than half of the result, a ``Reset`` is shorter."""
MOVE_COST_MAX = 2_000_000
"""Moves times rows above which finding the positions costs more than sending the rows."""


def diff(old: Sequence[R], new: Sequence[R], key_of: KeyOf[R]) -> tuple[Change[R], ...]:
    """Return the changes that lead from ``old`` to ``new``, in the order to apply them; empty if they are equal.

    Removals come first (from the end), then insertions and moves from the front, then updates in place. A row moves only
    if it is not in the longest run of rows that kept their order.
    """
    old_keys, new_keys = list(map(key_of, old)), list(map(key_of, new))
    first, old_end, new_end = _differing_part(old_keys, new_keys)
    before, after = old_keys[first:old_end], new_keys[first:new_end]
    updates = _updates(old[:first], new[:first], 0)
    updates += _updates(old[old_end:], new[new_end:], new_end)
    if not before and not after:
        return tuple(updates)
    source = {key: at for at, key in enumerate(before)}
    target = set(after)
    if len(source) < len(before) or len(target) < len(after):
        return (Reset(tuple(new)),)  # with a repeated key, positions by key mean nothing
    removed = [at for at, key in enumerate(before) if key not in target]
    kept = [source[key] for key in after if key in source]
    settled = set(_longest_increasing(kept))
    moved = len(kept) - len(settled)
    structural = len(removed) + (len(after) - len(kept)) + moved
    if structural > max(RESET_ABOVE, len(new) // 2) or moved * len(after) > MOVE_COST_MAX:
        return (Reset(tuple(new)),)
    changes: list[Change[R]] = [Remove(first + at, before[at]) for at in reversed(removed)]
    changes += _placements(before, after, new[first:new_end], source, settled, first)
    for at, key in enumerate(after, first):
        place = source.get(key, -1)
        if place in settled and not same(old[first + place], new[at]):
            updates.append(Update(at, new[at]))
    return (*changes, *updates)


def _differing_part(old: Sequence[ResultKey], new: Sequence[ResultKey]) -> tuple[int, int, int]:
    """Return ``(first, end in old, end in new)`` of the part between the longest common head and tail of keys."""
    first, old_end, new_end = 0, len(old), len(new)
    shorter = min(old_end, new_end)
    while first < shorter and old[first] == new[first]:
        first += 1
    while old_end > first and new_end > first and old[old_end - 1] == new[new_end - 1]:
        old_end -= 1
        new_end -= 1
    return first, old_end, new_end


def _updates(old: Sequence[R], new: Sequence[R], offset: int) -> list[Change[R]]:
    pairs = enumerate(zip(old, new, strict=True), offset)
    return [Update(at, after) for at, (before, after) in pairs if before is not after and not same(before, after)]


def _placements(
    before: Sequence[ResultKey],
    after: Sequence[ResultKey],
    rows: Sequence[R],
    source: dict[ResultKey, int],
    settled: set[int],
    first: int,
) -> list[Change[R]]:
    """Return insertions and moves, front to back: each row is put right behind its predecessor in ``after``."""
    wanted = set(after)
    current = [key for key in before if key in wanted]
    unsettled = len(current) - len(settled)
    changes: list[Change[R]] = []
    for at, (key, row) in enumerate(zip(after, rows, strict=True)):
        place = source.get(key)
        if place in settled:
            continue
        if place is not None:
            start = current.index(key)
            del current[start]
            unsettled -= 1
        else:
            start = -1
        # once every row is settled, the position is the target's own; before, rows that will leave may be in front
        behind = at if not unsettled or at == 0 else current.index(after[at - 1]) + 1
        current.insert(behind, key)
        changes.append(Insert(first + behind, row) if start < 0 else Move(first + start, first + behind, row))
    return changes


def _longest_increasing(values: Sequence[int]) -> list[int]:
    """Return the members of one longest increasing subsequence of distinct ``values``."""
    tails: list[int] = []  # smallest last value of a run of each length
    holders: list[int] = []  # the index of that last value in `values`
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
