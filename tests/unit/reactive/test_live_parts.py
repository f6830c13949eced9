"""The parts of live queries by themselves, each against something simple that means the same."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from msgspec.structs import replace

from atoma.contracts.query import BoundQuery, Call, Col, Lit, Plan, Store
from atoma.contracts.values import Scalar, StoredRow
from atoma.ports import LiveBatch, Reset, apply_batch
from atoma.query.normal import bind, rebind, with_values
from atoma_stores.live.index import ANY_ROW, Needs, PredicateIndex, needs_of
from atoma_stores.live.links import links_of
from atoma_stores.live.operators import sorted_rows, window
from atoma_stores.live.operators.keys import Key, falling
from atoma_stores.live.operators.restricted import ids_above, rows_of
from atoma_stores.live.operators.sorted_rows import SortedRows
from atoma_stores.live.operators.window import Window
from atoma_stores.live.ranges import Ranges
from atoma_stores.live.rows import by_id, keep_unchanged
from tests.properties.live_plans import LANE, PLANS, bound, every
from tests.properties.live_plans import SCHEMA as PLANS_SCHEMA
from tests.unit.reactive.test_live import SCHEMA

Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["add", "add", "remove", "replace", "keep"]), st.integers(0, 30)), max_size=60
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_rows, "BLOCK", 3)
    monkeypatch.setattr(window, "SLACK_MIN", 1)


@settings(max_examples=200)
@given(steps, st.lists(st.integers(0, 30), unique=True, max_size=20))
def test_a_list_in_blocks_is_a_sorted_list(script: Sequence[Step], first: list[int]) -> None:
    rows: SortedRows[str] = SortedRows()
    model: list[tuple[Key, str]] = sorted(((number,), str(number)) for number in first)
    rows.load([key for key, _ in model], [row for _, row in model])
    for number, (act, value) in enumerate(script):
        key, keys = (value,), [key for key, _ in model]
        if act == "add" and key not in keys:
            insort(model, (key, f"{value}@{number}"))
            assert rows.add(key, f"{value}@{number}") == model.index((key, f"{value}@{number}"))
        elif act == "remove" and key in keys:
            assert rows.remove(key) == (keys.index(key), model.pop(keys.index(key))[1])
        elif act == "replace" and key in keys:
            model[keys.index(key)] = (key, f"{value}@{number}")
            assert rows.replace(key, f"{value}@{number}") == keys.index(key)
            assert rows.get(key) == f"{value}@{number}"
        elif act == "keep":
            assert rows.keep(value) == [row for _, row in model[value:]]
            del model[value:]
        assert list(rows) == [row for _, row in model]
        assert [rows.row(at) for at in range(len(rows))] == list(rows)
        assert rows.between(value // 2, value) == list(rows)[value // 2 : value]
        if model:
            assert rows.last == model[-1][0]
    with pytest.raises(IndexError):
        rows.row(len(rows))
    with pytest.raises(KeyError):
        rows.remove((99,))


ends = st.one_of(st.none(), st.integers(0, 12))


@settings(max_examples=200)
@given(
    st.lists(st.tuples(ends, ends, st.booleans()).filter(lambda each: each[:2] != (None, None)), max_size=30),
    st.integers(0, 40),
)
def test_a_tree_of_ranges_finds_what_looking_at_each_finds(
    ranges: list[tuple[int | None, int | None, bool]], built_at: int
) -> None:
    tree: Ranges[int] = Ranges()
    for number, (low, high, _) in enumerate(ranges):
        tree.add(number, low, high)
        if number == built_at:
            tree._build()  # pyright: ignore[reportPrivateUsage] - it is built by itself only when there are many
    kept = {number: each for number, each in enumerate(ranges) if each[2]}
    for number in set(range(len(ranges))) - kept.keys():
        tree.remove(number)
    assert len(tree) == len(kept)
    for value in range(-1, 14):
        found: dict[int, None] = {}
        tree.find(value, found)
        within = {
            number
            for number, (low, high, _) in kept.items()
            if (low is None or low <= value) and (high is None or value <= high)
        }
        assert set(found) == within


def test_the_index_asks_for_sets_of_columns_lists_and_ranges() -> None:
    lane, rank = Col(0, "lane"), Col(0, "rank")

    def query(*conditions: tuple[str, Col, Sequence[object]]) -> BoundQuery:
        parts = [
            Call(fn, (column, *(Lit("int" if column is rank else "text", value) for value in given)))
            for fn, column, given in conditions
        ]
        return bind(Plan(Store("cards"), where=Call("and", tuple(parts))), SCHEMA.store)

    both = needs_of(query(("eq", rank, [1]), ("eq", lane, ["a"])))
    assert (both.columns, both.values) == (("lane", "rank"), (("a", 1),))
    among = needs_of(query(("in", lane, ["a", "b"]), ("gt", rank, [1])))
    assert (among.columns, among.values) == (("lane",), (("a",), ("b",)))
    between = needs_of(query(("ge", rank, [1]), ("lt", rank, [5])))
    assert between == Needs(("rank",), None, 1, 5)
    assert needs_of(query(("ne", rank, [1]))) == ANY_ROW
    assert [str(each) for each in (both, between, ANY_ROW)] == ["lane, rank", "range of rank", "every row of the store"]
    index: PredicateIndex[str] = PredicateIndex()
    filed = {"both": both, "among": among, "between": between, "none": Needs(("lane",), ()), "rest": ANY_ROW}
    for name, needs in filed.items():
        index.add(needs, name)

    def found(lane: str | None, rank: int | None) -> set[str]:
        views: dict[str, None] = {}
        index.find(StoredRow("x", 1, 0, "main", {"lane": lane, "rank": rank}), views)
        return set(views)

    assert found("a", 1) == {"both", "among", "between", "rest"}
    assert (found("b", 9), found("c", 5), found(None, None)) == ({"among", "rest"}, {"between", "rest"}, {"rest"})
    for name, needs in filed.items():
        index.remove(needs, name)
    assert found("a", 1) == set()


@settings(max_examples=300)
@given(st.lists(st.text("a\x00é\U0001f600b", max_size=3)), st.lists(st.binary(max_size=3)), st.lists(st.integers()))
def test_values_fall_as_others_rise(texts: list[str], blobs: list[bytes], numbers: list[int]) -> None:
    for values in (texts, blobs, numbers):
        assert sorted(values, key=falling) == sorted(values, reverse=True)


shapes = st.sampled_from(
    [(None, 0, False), (None, 0, False), (None, 2, False), (2, 0, False), (3, 2, False), (2, 1, True), (1, 0, True)]
)
Shape = tuple[int | None, int, bool]
puts = st.lists(st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(0, 5))), min_size=1, max_size=4)
turns = st.tuples(puts, st.sampled_from(["put", "put and read", "read"]), st.booleans())
"""What changes, how it comes to be known, and whether it is told."""


@settings(max_examples=300)
@given(shapes, st.dictionaries(st.integers(0, 12), st.integers(0, 5)), st.lists(turns, max_size=12))
@example((None, 0, False), {1: 1, 2: 2}, [([(1, None)], "read", False), ([(3, 3)], "read", True)])
def test_a_window_tells_how_it_changed(
    shape: Shape, first: dict[int, int], script: list[tuple[list[tuple[int, int | None]], str, bool]]
) -> None:
    limit, offset, turned = shape
    every = {str(id): StoredRow(str(id), 1, 0, "main", {"rank": rank}) for id, rank in first.items()}

    def whole() -> list[StoredRow]:
        return sorted(every.values(), key=place)

    def place(row: StoredRow) -> Key:
        return (row.image["rank"], row.id)

    def shown() -> tuple[StoredRow, ...]:
        part = whole()[offset : None if limit is None else offset + limit]
        return tuple(part[::-1] if turned else part)

    found = Window(place, by_id, limit, offset, turned=turned)
    found.load(whole()[: found.capacity])
    assert found.collect() == ()
    rows = found.rows
    assert rows == shown()
    untold = 0
    for number, (group, how, told) in enumerate(script, 2):
        for name, rank in group:
            key = str(name)
            if rank is None:
                every.pop(key, None)
            else:
                every[key] = StoredRow(key, number, 0, "main", {"rank": rank})
            if how != "read":
                found.put(key, every.get(key))
        if found.lacks or how != "put":
            found.load([replace(row) for row in whole()[: found.capacity]])
        assert not found.lacks
        untold += len(group)
        if not told:
            continue
        before, changes = {row.id: row for row in rows}, found.collect()
        assert bool(changes) == (rows != shown()) or untold > 1
        untold = 0
        rows = apply_batch(rows, LiveBatch(number, changes))
        assert rows == found.rows == shown()
        assert all(before[row.id] is row for row in rows if row.id in before and before[row.id] == row)
        assert found.shown == len(rows)


def test_many_changes_of_a_whole_list_are_one_reset() -> None:
    found: Window[StoredRow] = Window(lambda row: (row.id,), by_id, None, 0)
    found.load([])
    found.collect()
    for number in range(40):
        found.put(f"k{number}", StoredRow(f"k{number}", 1, 0, "main", {}))
    assert [type(change) for change in found.collect()] == [Reset]


@pytest.mark.parametrize("name", ["with children", "there are none", "counted beside", "joined"])
def test_what_reads_a_part_again_is_in_normal_form_and_prepared_once(name: str) -> None:
    narrowed = replace(PLANS[name], where=every(PLANS[name].where, Call("eq", (LANE, Lit("text", "a")))))
    plan = with_values(bound(narrowed))
    parts = [(rows_of(plan, 5), ["k1"]), (rows_of(plan, 5), ["k1", "k2"])]
    parts += [(ids_above(plan, link, "text"), ["p1"]) for link in links_of(plan) if link.parent is not None]
    for part, values in parts:
        query = part.of(values)
        assert rebind(query, PLANS_SCHEMA.store) == query
        assert part.of([f"{value}0" for value in values]).plan is query.plan


def test_a_row_that_is_made_anew_is_made_of_the_rows_that_are_known() -> None:
    def stored(id: str, version: int = 1) -> StoredRow:
        return StoredRow(id, version, 0, "main", {"version": version})

    known = [(stored("a"), (stored("x"), stored("y"))), (stored("b"), (stored("z"), stored("x", 2)))]
    first, second = known
    new = [
        (stored("a"), (stored("x"), stored("z"), stored("x", 2))),  # one of its own, two of the other one's
        (stored("b"), (stored("z"), stored("x", 2))),
        (stored("c"), (stored("y"), stored("y", 3))),
    ]
    kept = keep_unchanged(known, new, lambda row: row[0].id)
    assert kept == new
    assert kept[1] is second
    parts = [part for row in (kept[0], kept[2]) for part in (row[0], *row[1])]
    wanted = [first[0], first[1][0], second[1][0], second[1][1], new[2][0], first[1][1], new[2][1][1]]
    assert list(map(id, parts)) == list(map(id, wanted))


def test_what_many_rows_are_joined_to_is_compared_once_for_each_of_them() -> None:
    compared = 0

    class Image(dict[str, Scalar]):
        __hash__ = None

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

    def joined(title: str) -> list[tuple[StoredRow, StoredRow]]:
        # an answer has one object for each row
        boards = [StoredRow("b", 1, 0, "main", Image(title=title)) for _ in range(200)]
        return [(StoredRow(f"c{at}", 1, 0, "main", {}), board) for at, board in enumerate(boards)]

    known, new = joined("before"), joined("now")
    kept = keep_unchanged(known, new, lambda row: row[0].id)
    assert kept == new
    assert all(row[0] is old[0] for row, old in zip(kept, known, strict=True))
    assert compared < 10 * len(known)
