"""Behind a fence SQLite finds rows by the indexes it would use without one."""

from __future__ import annotations

import apsw
import pytest

from atoma.contracts.query import (
    Agg,
    Branch,
    Call,
    Col,
    Exists,
    Include,
    Join,
    Lit,
    Named,
    Order,
    Plan,
    Store,
)
from atoma.ports.hub_queries import Fence
from atoma.query.normal import bind
from atoma.query.plans import by_ids
from atoma_stores.sql.answers import prepare
from atoma_stores.sqlite.ddl import prepare_file
from atoma_stores.sqlite.functions import add_functions
from atoma_stores.sqlite.hub_driver import INTERNALS
from tests.leaks.plans import SCHEMA

ID, LANE = Col(0, "id"), Call("eq", (Col(0, "lane"), Lit("text", "todo")))
OF_CARD = Call("eq", (Col(1, "card"), ID))
JOINED = (Join("left", Store("remarks"), OF_CARD),)
REMARKS = Include(
    "remarks",
    False,
    (("id", "card"),),
    (Branch(None, Plan(Store("remarks"), order=(Order(Col(0, "stars")),), limit=3)),),
)
PLANS: dict[str, tuple[Plan, set[str]]] = {
    "a condition": (Plan(Store("cards"), where=LANE), {"_atoma_index_cards__lane__size (_scope=? AND lane=?)"}),
    "a scope and an order": (
        Plan(Store("cards"), where=Call("and", (LANE, Call("eq", (Col(0, "board"), Lit("text", "red"))))),
             order=(Order(Col(0, "size")),), limit=3),
        {"_atoma_index_cards__lane__size (_scope=? AND lane=?)"},
    ),
    "a join": (
        Plan(Store("cards"), joins=(Join("inner", Store("remarks"), OF_CARD),), where=LANE),
        {"_atoma_index_cards__lane__size (_scope=? AND lane=?)", "_atoma_index_remarks__card__stars (_scope=? AND card=?)"},
    ),
    "a left join": (
        Plan(Store("cards"), joins=JOINED, where=LANE),
        {"_atoma_index_cards__lane__size (_scope=? AND lane=?)", "_atoma_index_remarks__card__stars (_scope=? AND card=?)"},
    ),
    "groups of a left join": (
        Plan(Store("cards"), joins=JOINED, group=(ID,), columns=(Named("id", ID), Named("n", Agg("count", Col(1, "id"))))),
        {"_atoma_index_remarks__card__stars (_scope=? AND card=?)"},
    ),
    "distinct columns of a left join": (
        Plan(Store("cards"), joins=JOINED, columns=(Named("id", ID), Named("s", Col(1, "stars"))), distinct=True),
        {"_atoma_index_remarks__card__stars (_scope=? AND card=?)"},
    ),
    "rows that have others": (
        Plan(Store("cards"), where=Exists(Plan(Store("remarks"), where=Call("and", (
            Call("eq", (Col(0, "card"), Col(-1, "id"))), Call("eq", (Col(0, "board"), Col(-1, "board")))))))),
        {"_atoma_index_remarks__card__stars (_scope=? AND card=?)"},
    ),
    "children of rows": (
        Plan(Store("cards"), include=(REMARKS,)),
        {"_atoma_index_remarks__card__stars (_scope=? AND card=?)", "PRIMARY KEY (_scope=? AND id=?)"},
    ),
    "rows by their ids": (by_ids("cards", ("x1", "x2")).plan, {"PRIMARY KEY (_scope=? AND id=?)"}),
}  # fmt: skip


@pytest.mark.parametrize("scopes", [("red",), ("red", "blue"), None], ids=["one scope", "two scopes", "every scope"])
@pytest.mark.parametrize("name", PLANS)
def test_a_fence_keeps_the_use_of_indexes(name: str, scopes: tuple[str, ...] | None) -> None:
    plan, wanted = PLANS[name]
    if scopes is None and name not in ("rows by their ids", "children of rows", "a scope and an order"):
        pytest.skip("indexes begin with the scope, and nothing tells it")
    connection = apsw.Connection(":memory:")
    add_functions(connection)
    prepare_file(connection, SCHEMA, layout="hub", internals=INTERNALS)
    query = by_ids("cards", ("x1", "x2")) if name == "rows by their ids" else bind(plan, SCHEMA.store)
    by_id = name == "rows by their ids"
    prepared = prepare(query.plan, SCHEMA.store, dict.fromkeys(SCHEMA.stores, Fence(scopes)), by_id=by_id)
    if prepared.branches:
        prepared = prepared.branches[0][0].below
    statement = prepared.statement
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.bindings(query.params))
    lines = [str(row[3]) for row in rows]
    for index in wanted:
        assert any(index in line for line in lines), (index, lines)
    assert not any("MATERIALIZE" in line or line.startswith("SCAN main") for line in lines), lines
    sorts = [line for line in lines if "ORDER BY" in line]
    assert not (name == "a scope and an order" and sorts), lines
