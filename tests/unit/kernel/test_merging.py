"""The merge node: what it gives is what one database with all rows would give."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoma.contracts.execution import ExecutionMeta, OperationContext, QueryRequest, QueryResult
from atoma.contracts.query import Agg, BoundQuery, Call, Col, Exists, Join, Named, Plan
from atoma.contracts.query import Store as Source
from atoma.contracts.values import Scalar, StoredRow
from atoma.errors import QueryError
from atoma.kernel import MergeNode, hybrid
from atoma.query import bind, select
from atoma.query.normal import bind as bind_plan
from atoma.query.plans import by_ids, counted, every_row, number_of
from atoma.query.seek import cursor_of
from atoma.schema import Schema, StoreSpec

CONTEXT = OperationContext("t")


@dataclass(frozen=True)
class Thing:
    id: str
    number: int | None = None
    real: float | None = None
    text: str | None = None
    blob: bytes | None = None


THINGS = StoreSpec("t", Thing)
SCHEMA = Schema(THINGS)
VALUES: dict[str, st.SearchStrategy[Scalar]] = {
    "number": st.integers(-3, 3),
    "real": st.sampled_from([0.5, -1.5, 1e300]),
    "text": st.text("aAé😀ÿ", max_size=2),
    "blob": st.binary(max_size=2),
}
IDS = st.sampled_from(["a", "B", "é", "😀", "￿", "b", "ab"])


def sides_of(values: st.SearchStrategy[Scalar]) -> st.SearchStrategy[list[dict[str, Scalar]]]:
    return st.lists(st.dictionaries(IDS, st.none() | values, max_size=6), min_size=1, max_size=3)


SIDES = st.sampled_from(sorted(VALUES)).flatmap(lambda column: st.tuples(st.just(column), sides_of(VALUES[column])))
"""The column that the sides have, and what is in it on each of them."""


def sqlite_answer(rows: dict[str, Scalar], column: str, query: BoundQuery) -> list[str]:
    """The oracle: SQLite itself, over one table."""
    plan = query.plan
    with closing(sqlite3.connect(":memory:")) as db, db:
        db.execute(f"CREATE TABLE t (id TEXT PRIMARY KEY, {column})")
        db.executemany("INSERT INTO t VALUES (?, ?)", rows.items())
        names = [(each.expr.name, each.descending) for each in plan.order if isinstance(each.expr, Col)]
        order = ", ".join(f"{name} {'DESC' if descending else 'ASC'}" for name, descending in names)
        limit = -1 if plan.limit is None else plan.limit
        found = db.execute(f"SELECT id FROM t ORDER BY {order} LIMIT ? OFFSET ?", (limit, plan.offset)).fetchall()
    return [id for (id,) in found]


def side_answer(rows: dict[str, Scalar], column: str, query: BoundQuery) -> QueryResult:
    """One side, which honours the request it gets."""
    found = sqlite_answer(rows, column, query)
    return QueryResult(tuple(StoredRow(id, 1, 0, "main", {column: rows[id]}) for id in found))


@given(
    SIDES,
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(0, 4),
    st.integers(0, 3),
    st.sampled_from(["first", "last"]),
)
def test_a_merged_page_is_that_of_one_database(
    given: tuple[str, list[dict[str, Scalar]]],
    descending: bool,
    by_id: bool,
    limit: int | None,
    offset: int,
    winner: Any,
) -> None:
    column, sides = given
    asked_for = select(THINGS).order_by(("-" if descending else "") + ("id" if by_id else column)).offset(offset)
    query = bind(asked_for if limit is None else asked_for.limit(limit), SCHEMA)
    shared = {id: value for side in reversed(sides) for id, value in side.items()}
    sides = [{id: shared[id] for id in side} for side in sides]  # what both have is equal
    node = MergeNode(winner)
    asked = node.spread(QueryRequest(query, CONTEXT))
    results = [side_answer(side, column, asked.query) for side in sides]
    merged = node.merge(QueryRequest(query, CONTEXT), results)
    assert [row.id for row in merged.rows] == sqlite_answer(shared, column, query)
    assert [row.image[column] for row in merged.rows] == [shared[row.id] for row in merged.rows]
    more = limit is not None and len(shared) > offset + limit and merged.rows
    assert merged.meta.cursor == (cursor_of(query, merged.rows[-1]) if more else "")


@given(SIDES)
def test_a_merged_count_counts_a_row_once(given: tuple[str, list[dict[str, Scalar]]]) -> None:
    column, sides = given
    query = bind(select(THINGS), SCHEMA)
    node, request = MergeNode(), QueryRequest(counted(query), CONTEXT)
    asked = node.spread(request).query
    assert asked == query
    merged = node.merge(request, [side_answer(side, column, asked) for side in sides])
    assert (merged.rows, number_of(merged)) == ((), len({id for side in sides for id in side}))


@pytest.mark.parametrize(("winner", "kept"), [("last", "far"), ("first", "near")])
def test_of_two_rows_with_one_id_the_stated_one_counts(winner: Any, kept: str) -> None:
    near, far = (QueryResult((StoredRow("a", 1, 0, "main", {"text": value}),)) for value in ("near", "far"))
    request = QueryRequest(every_row("t"), CONTEXT)
    merged = MergeNode(winner).merge(request, [near, far])
    assert [row.image["text"] for row in merged.rows] == [kept]


def test_rows_asked_for_by_their_ids_come_by_id_and_each_once() -> None:
    node, request = MergeNode(), QueryRequest(by_ids("t", ("c", "a", "x", "b")), CONTEXT)
    assert node.spread(request) is request
    rows = [StoredRow(id, 1, 0, "main", {}) for id in "abc"]
    merged = node.merge(request, [QueryResult(tuple(rows[:2])), QueryResult(tuple(rows[1:]))])
    assert [row.id for row in merged.rows] == ["a", "b", "c"]


def test_the_cursor_of_a_merged_page_is_that_of_its_last_row() -> None:
    near = QueryResult((StoredRow("a", 1, 0, "main", {}),), meta=ExecutionMeta(cursor="after a", commit=4))
    far = QueryResult((StoredRow("b", 1, 0, "main", {}),), meta=ExecutionMeta("remote", cursor="after b"))
    for limit, cursor_at in ((1, "a"), (2, "")):
        query = every_row("t", limit)
        expected = cursor_of(query, StoredRow(cursor_at, 1, 0, "main", {})) if cursor_at else ""
        for sides in ([near, far], [far, near]):
            merged = MergeNode().merge(QueryRequest(query, CONTEXT), sides)
            assert (merged.meta.cursor, merged.meta.commit) == (expected, 4)
        assert MergeNode().merge(QueryRequest(query, CONTEXT), [QueryResult(()), QueryResult(())]).meta.cursor == ""


def test_a_count_asks_for_every_row_also_behind_a_cursor() -> None:
    page = bind(select(THINGS).order_by("number").limit(1).offset(1), SCHEMA)
    behind = select(THINGS).order_by("number").limit(1).after(cursor_of(page, StoredRow("a", 1, 0, "m", {"number": 3})))
    for query in (page, bind(behind, SCHEMA)):
        asked = MergeNode().spread(QueryRequest(counted(query), CONTEXT)).query
        assert asked.plan == bind(select(THINGS), SCHEMA).plan


@pytest.mark.parametrize("text", ["group", "columns", "join", "exists", "a count of exists"])
def test_what_cannot_be_put_together_from_sides_is_refused(text: str) -> None:
    name, count = Named("n", Col(0, "number")), Named("c", Agg("count"))
    other = Exists(Plan(Source("t"), where=Call("gt", (Col(0, "number"), Col(-1, "number")))))
    plans = {
        "group": Plan(Source("t"), group=(name.expr,), columns=(name, count)),
        "columns": Plan(Source("t"), columns=(name,)),
        "exists": Plan(Source("t"), where=other),
        "a count of exists": Plan(Source("t"), where=other, columns=(count,)),
        "join": Plan(Source("t"), joins=(Join("inner", Source("t"), Call("eq", (Col(0, "id"), Col(1, "id")))),)),
    }
    with pytest.raises(QueryError, match="query one side"):
        MergeNode().spread(QueryRequest(bind_plan(plans[text], SCHEMA.store), CONTEXT))


def test_in_hybrid_the_remote_row_counts() -> None:
    graph = hybrid("remote-x").query
    assert graph is not None
    assert [child.label for child in graph.children] == ["local-query", "remote-x"]
    assert MergeNode().winner == "last"
