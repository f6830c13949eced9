"""The difference of two results: replaying it on the old one gives the new one, and it says no more than it must."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from atoma.contracts.values import StoredRow
from atoma.ports import Insert, LiveBatch, Move, Remove, Reset, Update, apply_batch
from atoma_stores.live.diff import diff
from atoma_stores.live.rows import by_id, keep_unchanged

Results = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), unique_by=lambda row: row[0], max_size=12)


def row(name: object, version: int = 1) -> StoredRow:
    return StoredRow(str(name), version, 0, "main", {"n": version})


def rows(*names: object) -> tuple[StoredRow, ...]:
    return tuple(row(name) for name in names)


def replay(old: tuple[StoredRow, ...], new: tuple[StoredRow, ...]) -> tuple[StoredRow, ...]:
    return apply_batch(old, LiveBatch(1, diff(old, new, by_id)))


@settings(max_examples=300)
@given(Results, Results)
def test_replaying_the_difference_gives_the_new_result(
    old_rows: list[tuple[int, int]], new_rows: list[tuple[int, int]]
) -> None:
    old = tuple(row(*item) for item in old_rows)
    new = tuple(row(*item) for item in new_rows)
    assert replay(old, new) == new
    assert not any(isinstance(change, Reset) for change in diff(old, new, by_id))


@settings(max_examples=150)
@given(Results, Results)
def test_it_is_as_short_as_it_can_be(old_rows: list[tuple[int, int]], new_rows: list[tuple[int, int]]) -> None:
    old = tuple(row(*item) for item in old_rows)
    new = tuple(row(*item) for item in new_rows)
    old_ids, new_ids = [item.id for item in old], [item.id for item in new]
    kept = longest_common_subsequence(old_ids, new_ids)
    changed_in_place = sum(item in new and old[old_ids.index(item.id)] == item for item in old)
    shared = len(set(old_ids) & set(new_ids))
    structural = (len(old) - shared) + (len(new) - shared) + (shared - kept)
    found = diff(old, new, by_id)
    assert sum(not isinstance(change, Update) for change in found) == structural
    assert len(found) <= structural + shared - changed_in_place


def longest_common_subsequence(one: list[str], other: list[str]) -> int:
    best = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for a, left in enumerate(one, 1):
        for b, right in enumerate(other, 1):
            best[a][b] = best[a - 1][b - 1] + 1 if left == right else max(best[a - 1][b], best[a][b - 1])
    return best[-1][-1]


def test_the_usual_steps_are_one_change_each() -> None:
    abc = rows("a", "b", "c")
    assert diff(abc, abc, by_id) == ()
    assert diff(abc, rows("a", "b", "x", "c"), by_id) == (Insert(2, row("x")),)
    assert diff(abc, rows("a", "c"), by_id) == (Remove(1, "b"),)
    assert diff(abc, (row("a"), row("b", 2), row("c")), by_id) == (Update(1, row("b", 2)),)
    assert diff(abc, (row("c", 2), row("a"), row("b")), by_id) == (Move(2, 0, row("c", 2)),)
    assert diff(abc, (row("b"), row("c"), row("a")), by_id) == (Move(0, 2, row("a")),)
    assert diff(abc, rows("x", "a", "b"), by_id) == (Remove(2, "c"), Insert(0, row("x")))


def test_a_small_change_of_a_large_result_stays_small() -> None:
    old = rows(*range(1000))
    assert len(diff(old, old[:500] + old[501:], by_id)) == 1
    assert diff(old, (*old[1:], old[0]), by_id) == (Move(0, 999, old[0]),)
    touched = tuple(row(at, 2) for at in range(1000))
    assert len(diff(old, touched, by_id)) == 1000
    assert all(isinstance(change, Update) for change in diff(old, touched, by_id))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (rows(*range(100)), rows(*range(200, 300))),
        (rows(*range(100)), ()),
        (rows(*range(100)), rows(*reversed(range(100)))),
        (rows("a", "b", "a", "c"), rows("b", "a", "a")),
    ],
)
def test_a_change_of_everything_is_one_reset(old: tuple[StoredRow, ...], new: tuple[StoredRow, ...]) -> None:
    assert diff(old, new, by_id) == (Reset(new),)


def test_that_the_hub_has_confirmed_a_row_is_no_change_of_it() -> None:
    old = rows("a", "b")
    new = tuple(StoredRow(one.id, one.version, one.seq + 7, one.scope, one.image) for one in old)
    assert diff(old, new, by_id) == ()
    assert all(kept is before for kept, before in zip(keep_unchanged(old, new, by_id), old, strict=True))


def test_unchanged_rows_stay_the_same_objects() -> None:
    old = rows("a", "b", "c")
    new = tuple(keep_unchanged(old, (row("c"), row("b", 2), row("a"), row("d")), by_id))
    assert (new[0] is old[2], new[2] is old[0]) == (True, True)
    assert new[1] == row("b", 2)
    replayed = replay(old, new)
    assert (replayed[0] is old[2], replayed[2] is old[0], replayed == new) == (True, True, True)


@pytest.mark.parametrize(
    "change", [Insert(4, row("x")), Insert(-1, row("x")), Remove(3, "x"), Update(3, row("x")), Move(0, 3, row("a"))]
)
def test_a_batch_of_another_result_is_refused(change: Insert[StoredRow]) -> None:
    with pytest.raises(IndexError, match="apply every batch"):
        apply_batch(rows("a", "b", "c"), LiveBatch(1, (change,)))
