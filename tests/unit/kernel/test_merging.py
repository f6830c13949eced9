"""The merge node: what it gives is what one database with all rows would give."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoma.contracts.execution import ExecutionMeta, OperationContext, QueryRequest, QueryResult
from atoma.contracts.query import QuerySpec, Sort
from atoma.contracts.values import Scalar, StoredRow
from atoma.kernel import MergeNode, hybrid

CONTEXT = OperationContext("t")
VALUES: st.SearchStrategy[Scalar] = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.sampled_from([0.5, -1.5, 1e300]),
    st.text("aAé😀ÿ", max_size=2),
    st.binary(max_size=2),
)
IDS = st.sampled_from(["a", "B", "é", "😀", "￿", "b", "ab"])
SIDES = st.lists(st.dictionaries(IDS, VALUES, max_size=6), min_size=1, max_size=3)


def sqlite_answer(rows: dict[str, Scalar], query: QuerySpec) -> list[str]:
    """The oracle: SQLite itself, over one table."""
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE TABLE t (id TEXT PRIMARY KEY, v)")
        db.executemany("INSERT INTO t VALUES (?, ?)", rows.items())
        order = ", ".join(f"{sort.field} {'DESC' if sort.descending else 'ASC'}" for sort in query.order)
        limit = -1 if query.limit is None else query.limit
        found = db.execute(f"SELECT id FROM t ORDER BY {order} LIMIT ? OFFSET ?", (limit, query.offset)).fetchall()
    db.close()
    return [id for (id,) in found]


def side_answer(rows: dict[str, Scalar], query: QuerySpec) -> QueryResult:
    """One side, which honours the request it gets."""
    found = list(rows) if query.ids is None and not query.order else sqlite_answer(rows, query)
    return QueryResult(tuple(StoredRow(id, 1, 0, "main", {"v": rows[id]}) for id in found))


@given(
    SIDES,
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(0, 4),
    st.integers(0, 3),
    st.sampled_from(["first", "last"]),
)
def test_a_merged_page_is_that_of_one_database(
    sides: list[dict[str, Scalar]], descending: bool, by_id: bool, limit: int | None, offset: int, winner: Any
) -> None:
    order = (Sort("id", descending),) if by_id else (Sort("v", descending), Sort("id"))
    query = QuerySpec(order=order, limit=limit, offset=offset)
    shared = {id: value for side in reversed(sides) for id, value in side.items()}
    sides = [{id: shared[id] for id in side} for side in sides]  # what both have is equal
    node = MergeNode(winner)
    asked = node.spread(QueryRequest("t", query, CONTEXT))
    results = [side_answer(side, asked.query) for side in sides]
    merged = node.merge(QueryRequest("t", query, CONTEXT), results)
    assert [row.id for row in merged.rows] == sqlite_answer(shared, query)
    assert [row.image["v"] for row in merged.rows] == [shared[row.id] for row in merged.rows]


@given(SIDES)
def test_a_merged_count_counts_a_row_once(sides: list[dict[str, Scalar]]) -> None:
    node, request = MergeNode(), QueryRequest("t", QuerySpec(count=True, limit=1, offset=1), CONTEXT)
    asked = node.spread(request).query
    assert (asked.count, asked.limit, asked.offset) == (False, None, 0)
    results = [side_answer(side, QuerySpec(order=(Sort("id"),))) for side in sides]
    merged = node.merge(request, results)
    assert (merged.rows, merged.total) == ((), len({id for side in sides for id in side}))


@pytest.mark.parametrize(("winner", "kept"), [("last", "far"), ("first", "near")])
def test_of_two_rows_with_one_id_the_stated_one_counts(winner: Any, kept: str) -> None:
    near, far = (QueryResult((StoredRow("a", 1, 0, "main", {"v": value}),)) for value in ("near", "far"))
    request = QueryRequest("t", QuerySpec(order=(Sort("id"),)), CONTEXT)
    merged = MergeNode(winner).merge(request, [near, far])
    assert [row.image["v"] for row in merged.rows] == [kept]


def test_ids_are_answered_in_the_order_asked_for() -> None:
    node, request = MergeNode(), QueryRequest("t", QuerySpec(ids=("c", "a", "x", "b")), CONTEXT)
    assert node.spread(request) is request
    rows = [StoredRow(id, 1, 0, "main", {}) for id in "abc"]
    merged = node.merge(request, [QueryResult(tuple(rows[:2])), QueryResult(tuple(rows[1:]))])
    assert [row.id for row in merged.rows] == ["c", "a", "b"]


def test_the_cursor_of_a_merged_page_is_that_of_its_last_row() -> None:
    near = QueryResult((StoredRow("a", 1, 0, "main", {}),), meta=ExecutionMeta(cursor="after a", commit=4))
    far = QueryResult((StoredRow("b", 1, 0, "main", {}),), meta=ExecutionMeta("remote", cursor="after b"))
    request = QueryRequest("t", QuerySpec(order=(Sort("id"),), limit=2), CONTEXT)
    for sides in ([near, far], [far, near]):
        merged = MergeNode().merge(request, sides)
        assert (merged.meta.cursor, merged.meta.commit) == ("after b", 4)
    assert MergeNode().merge(request, [QueryResult(()), QueryResult(())]).meta.cursor == ""


def test_a_count_asks_for_every_row_also_behind_a_cursor() -> None:
    asked = MergeNode().spread(QueryRequest("t", QuerySpec(count=True, after=("somewhere",), limit=1), CONTEXT)).query
    assert (asked.count, asked.after, asked.limit) == (False, None, None)


def test_in_hybrid_the_remote_row_counts() -> None:
    graph = hybrid("remote-x").query
    assert graph is not None
    assert [child.label for child in graph.children] == ["local-query", "remote-x"]
    assert MergeNode().winner == "last"
