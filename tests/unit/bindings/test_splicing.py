"""Edits of a list that is known in part: an independent list follows them, and rows that stay keep their place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoma.bindings.splicing import Changed, Edit, Inserted, Removed, resized, shifted, spliced

LIMIT = 6
KEYS = st.lists(st.integers(0, 30), unique=True, max_size=14)


def followed(keys: list[int | None], edits: list[Edit]) -> list[int | None]:
    """What a view makes of edits: rows that came in are not known yet."""
    keys = list(keys)
    for edit in edits:
        match edit:
            case Inserted(at=at, count=count):
                assert 0 <= at <= len(keys)
                keys[at:at] = [None] * count
            case Removed(at=at, count=count):
                assert count > 0
                assert 0 <= at <= at + count <= len(keys)
                del keys[at : at + count]
            case Changed(at=at, count=count):
                assert 0 <= at <= at + count <= len(keys)
    return keys


@given(old=KEYS, new=KEYS, first=st.integers(0, 8), begin=st.integers(0, 8))
def test_a_view_that_follows_the_edits_has_every_known_row_at_its_number(
    old: list[int], new: list[int], first: int, begin: int
) -> None:
    """``first`` and ``begin`` rows are above; of the rest six are known, as a window has them."""
    known, now = old[:LIMIT], new[:LIMIT]
    behind, to_behind = len(old) - len(known), len(new) - len(now)
    edits = spliced(first, known, now, lambda key: key, behind=behind, to_behind=to_behind)
    before: list[int | None] = [*[None] * first, *known, *[None] * behind]
    total = len(followed(before, edits))
    edits += resized(first, len(now), total, begin, begin + len(new))
    after = followed(before, edits)
    assert len(after) == begin + len(new)
    for place, key in enumerate(now):
        assert after[begin + place] in (key, None), "a view would show another row as this one"


@given(old=KEYS, gone=st.sets(st.integers(0, 30)), first=st.integers(0, 8))
def test_rows_that_stay_are_followed_and_the_others_leave(old: list[int], gone: set[int], first: int) -> None:
    """The whole list is known: then nothing is guessed."""
    new = [key for key in old if key not in gone]
    edits = spliced(first, old, new, lambda key: key, behind=0, to_behind=0)
    assert followed([*[None] * first, *old], edits) == [*[None] * first, *new]
    for place, key in enumerate(old):
        if key in new:
            assert shifted(first + place, edits) == first + new.index(key)


def test_a_row_above_the_others_moves_them_and_the_last_one_leaves_the_window_only() -> None:
    edits = spliced(10, [1, 2, 3], [0, 1, 2], lambda key: key, behind=4, to_behind=5)
    assert edits == [Inserted(10, 1)]


def test_the_rows_that_a_view_knows_move_with_the_edits() -> None:
    rows, first, total = ("a", "b", "c"), 5, 20
    assert Inserted(0, 2).applied(first, rows, total) == (7, rows, 22)
    assert Inserted(6, 1).applied(first, rows, total) == (5, ("a", None, "b", "c"), 21)
    assert Inserted(19, 1).applied(first, rows, total) == (5, rows, 21)
    assert Removed(0, 2).applied(first, rows, total) == (3, rows, 18)
    assert Removed(4, 2).applied(first, rows, total) == (4, ("b", "c"), 18)
    assert Removed(6, 1).applied(first, rows, total) == (5, ("a", "c"), 19)
    assert Removed(7, 9).applied(first, rows, total) == (5, ("a", "b"), 11)
    assert Removed(12, 3).applied(first, rows, total) == (5, rows, 17)
