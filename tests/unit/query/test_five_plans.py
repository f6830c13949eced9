"""Plans of every kind, built by hand: checked, in normal form, on the wire and back, in plain Python, and as SQL on a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from atoma.contracts.execution import OperationContext, QueryRequest, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.contracts.query import (
    Agg,
    BoundQuery,
    Branch,
    Call,
    Col,
    Derived,
    Exists,
    Expr,
    Include,
    Join,
    Link,
    Lit,
    Named,
    Order,
    Plan,
    Scalar,
    Seek,
    Store,
)
from atoma.contracts.values import RowImage, StoredRow, TableRows
from atoma.errors import ProtocolError
from atoma.hub import Hub, StaticTokenVerifier, open_hub
from atoma.ports import LocalTx, seeded_environment
from atoma.ports.service import Principal
from atoma.query.binding import bind as bind_rows
from atoma.query.builder import col, select
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind, rebind
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.sqlite.engine import SQLiteEngine, SQLiteLocalDatabase
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters.operations import QUERIES
from atoma_transports.grpc.convert import pack, unpack
from atoma_transports.protocol.json_mapping import decode_json, encode_json
from atoma_transports.protocol.operations import OpsReply, QueryCall, RemoteOp
from atoma_transports.protocol.plans import decode_query, encode_query


@dataclass
class Card:
    id: str
    board: str
    lane: str | None
    priority: int
    weight: float | None
    kind: str
    about: str | None


@dataclass
class Remark:
    id: str
    card: str | None
    author: str | None
    text: str
    made: int


@dataclass
class User:
    id: str
    name: str


@dataclass
class Tagged:
    id: str
    card: str
    label: str


CARDS = StoreSpec("cards", Card, indexes=[Index("lane", "priority")])
REMARKS = StoreSpec("remarks", Remark, indexes=[Index("card", "made")])
USERS = StoreSpec("users", User)
VIDEOS = StoreSpec("videos", User)
TAGGED = StoreSpec("tagged", Tagged)
SCHEMA = Schema(CARDS, REMARKS, USERS, VIDEOS, TAGGED)


def _card(lane: str | None, priority: int, weight: float | None, kind: str, about: str | None) -> RowImage:
    return {"board": "b", "lane": lane, "priority": priority, "weight": weight, "kind": kind, "about": about}


ROWS: dict[str, dict[str, RowImage]] = {
    "cards": {
        "c1": _card("todo", 3, 0.1, "user", "u1"),
        "c2": _card("todo", 1, 0.2, "video", "v1"),
        "c3": _card(None, 2, None, "user", "nobody"),
        "c4": _card("done", 5, 1e16, "video", None),
        "c5": _card("done", 4, 1.0, "user", "u2"),
        "c6": _card("done", 4, -1e16, "other", "u2"),
    },
    "remarks": {
        f"r{number}": {
            "card": f"c{1 + number % 4}" if number % 5 else None,
            "author": f"u{number % 3}",
            "text": "urgent" if number % 4 == 0 else "later",
            "made": number % 7,
        }
        for number in range(20)
    },
    "users": {"u1": {"name": "Ada"}, "u2": {"name": "Bob"}},
    "videos": {"v1": {"name": "Film"}},
    "tagged": {f"t{number}": {"card": f"c{1 + number % 3}", "label": f"u{1 + number % 2}"} for number in range(5)},
}

LANE, PRIORITY, WEIGHT, ID = Col(0, "lane"), Col(0, "priority"), Col(0, "weight"), Col(0, "id")
URGENT = Plan(
    Store("remarks"),
    where=Call(
        "and", (Call("eq", (Col(0, "card"), Col(-1, "id"))), Call("eq", (Col(0, "text"), Lit("text", "urgent"))))
    ),
)
COUNT_OF_REMARKS = Scalar(
    Plan(Store("remarks"), where=Call("eq", (Col(0, "card"), Col(-1, "id"))), columns=(Named("n", Agg("count")),))
)
PLANS: dict[str, Plan] = {
    "a join": Plan(
        Store("cards"),
        joins=(Join("inner", Store("remarks"), Call("eq", (Col(1, "card"), ID))),),
        where=Call("gt", (PRIORITY, Lit("int", 1))),
        order=(Order(Col(1, "made"), True),),
        limit=7,
    ),
    "a left join of columns": Plan(
        Store("remarks"),
        joins=(Join("left", Store("users"), Call("eq", (Col(0, "author"), Col(1, "id")))),),
        columns=(Named("text", Col(0, "text")), Named("name", Col(1, "name"))),
        where=Call("is_null", (Col(1, "id"),)),
    ),
    "an aggregate": Plan(
        Store("cards"),
        group=(LANE,),
        columns=(
            Named("lane", LANE),
            Named("n", Agg("count")),
            Named("sum", Agg("sum", PRIORITY)),
            Named("exact", Agg("sum", WEIGHT)),
            Named("mean", Agg("avg", WEIGHT)),
            Named("high", Agg("count", where=Call("gt", (PRIORITY, Lit("int", 3))))),
            Named("kinds", Agg("count", Col(0, "kind"), distinct=True)),
            Named("last", Agg("max", PRIORITY)),
        ),
        having=Call("ge", (Agg("count"), Lit("int", 1))),
        order=(Order(Agg("count"), True),),
    ),
    "an aggregate over everything": Plan(
        Store("cards"), where=Call("eq", (LANE, Lit("text", "no such"))), columns=(Named("n", Agg("count")), Named("s", Agg("sum", PRIORITY)))
    ),
    "a correlated count": Plan(
        Store("cards"), columns=(Named("id", ID), Named("remarks", COUNT_OF_REMARKS)), order=(Order(COUNT_OF_REMARKS, True),)
    ),
    "rows for which others exist": Plan(Store("cards"), where=Exists(URGENT)),
    "rows for which none exist": Plan(Store("cards"), where=Exists(URGENT, negated=True)),
    "distinct rows": Plan(Store("cards"), columns=(Named("lane", LANE),), distinct=True),
    "a derived table": Plan(
        Store("cards"),
        joins=(
            Join(
                "inner",
                Derived(
                    Plan(
                        Store("cards"),
                        group=(LANE,),
                        columns=(Named("lane", LANE), Named("n", Agg("count"))),
                        order=(Order(Agg("count"), True),),
                        limit=1,
                    )
                ),
                Call("is_same", (LANE, Col(1, "c0"))),
            ),
        ),
        columns=(Named("id", ID), Named("n", Col(1, "c1"))),
    ),
    "an include with a limit per parent": Plan(
        Store("cards"),
        order=(Order(PRIORITY, True),),
        include=(
            Include(
                "remarks",
                False,
                (("id", "card"),),
                (
                    Branch(
                        None,
                        Plan(
                            Store("remarks"),
                            order=(Order(Col(0, "made"), True),),
                            limit=2,
                            include=(Include("author", True, (("author", "id"),), (Branch(None, Plan(Store("users"))),)),),
                        ),
                    ),
                ),
            ),
        ),
    ),
    "an include of all children": Plan(
        Store("cards"),
        limit=4,
        include=(
            Include(
                "urgent",
                False,
                (("id", "card"),),
                (Branch(None, Plan(Store("remarks"), where=Call("eq", (Col(0, "text"), Lit("text", "urgent"))))),),
            ),
        ),
    ),
    "an include through a store": Plan(
        Store("cards"),
        include=(
            Include(
                "labels",
                False,
                (("id", "id"),),
                (Branch(None, Plan(Store("users"), order=(Order(Col(0, "name")),))),),
                through=Link("tagged", "card", "label"),
            ),
        ),
    ),
    "an include with variants": Plan(
        Store("cards"),
        include=(
            Include(
                "about",
                True,
                (("about", "id"),),
                (Branch("user", Plan(Store("users"))), Branch("video", Plan(Store("videos")))),
                kind="kind",
            ),
        ),
    ),
    "the page before a row": Plan(
        Store("cards"),
        order=(Order(PRIORITY, True),),
        seek=Seek((Lit("int", 2), Lit("text", "c3")), forward=False),
        limit=3,
    ),
}  # fmt: skip


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SQLiteLocalDatabase]:
    async with SQLiteEngine(folder / "plans.db").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:

        def body(tx: LocalTx) -> None:
            for store, rows in ROWS.items():
                tx.base.put_many(store, "main", ((id, image, 1) for id, image in rows.items()))

        await db.apply(body)
        yield db


TABLES = {store: [StoredRow(id, 1, 1, "main", image) for id, image in rows.items()] for store, rows in ROWS.items()}


def plain(answer: Any) -> Any:
    """Rows by their ids, tuples as they are, with the types of values."""
    if isinstance(answer, StoredRow):
        return answer.id
    if isinstance(answer, (tuple, list, TableRows)):
        return [plain(each) for each in answer]  # pyright: ignore[reportUnknownVariableType]
    return (type(answer).__name__, answer)


@pytest.mark.parametrize("name", PLANS)
async def test_a_plan_means_the_same_in_python_and_in_sqlite(name: str, tmp_path: Path) -> None:
    bound = bind(PLANS[name], SCHEMA.store)
    expected = evaluate(bound, TABLES)
    async with opened(tmp_path) as db:
        result = await db.read(bound)
    assert plain(result.rows or result.tuples) == plain(expected)
    assert expected, "a plan that finds nothing shows nothing"


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_comes_back_from_the_wire_as_it_went(name: str) -> None:
    bound = bind(PLANS[name], SCHEMA.store)
    assert decode_query(encode_query(bound)) == bound
    call = QueryCall((RemoteOp(0, "query", "cards", query=encode_query(bound)),))
    told = decode_json(encode_json(call), QueryCall)
    assert decode_query(told.ops[0].query) == bound


@pytest.mark.parametrize("name", PLANS)
def test_the_normal_form_is_its_own(name: str) -> None:
    bound = bind(PLANS[name], SCHEMA.store)
    assert rebind(bound, SCHEMA.store) == bound


@asynccontextmanager
async def hub_with_rows() -> AsyncIterator[Hub]:
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=StaticTokenVerifier({"t": "ada"})) as hub:
        service = hub.service(Principal("ada"))
        for store, rows in ROWS.items():
            entries = tuple(Op("create", store, id, image) for id, image in rows.items())
            await service.write(WriteRequest(entries, WriteOptions(atomic=True), OperationContext("trace"), store))
        yield hub


async def test_a_hub_answers_every_plan_as_a_device_does() -> None:
    async with hub_with_rows() as hub:
        service = hub.service(Principal("ada"))
        for name, plan in PLANS.items():
            expected = evaluate(bind(plan, SCHEMA.store), TABLES)
            for query in (BoundQuery(plan), bind(plan, SCHEMA.store)):
                request = QueryRequest(decode_query(encode_query(query)), OperationContext("trace"))
                result = await service.query(request)
                assert plain(result.rows or result.tuples) == plain(expected), name


@pytest.mark.parametrize("json", [False, True])
async def test_an_answer_of_every_shape_comes_back_from_the_wire(json: bool) -> None:
    async with hub_with_rows() as hub:
        for name, plan in PLANS.items():
            request = QueryRequest(bind(plan, SCHEMA.store), OperationContext("trace"))
            result = await hub.service(Principal("ada")).query(request)
            reply = QUERIES.to_reply(request, result)
            told = decode_json(encode_json(reply), OpsReply) if json else unpack(pack(reply), OpsReply)
            read = QUERIES.to_result(request, told)
            assert (read.rows, read.tuples) == (result.rows, result.tuples), name
            if result.tuples:
                other = structs.replace(reply.results[0], tuples=(("x",) * 10,))
                with pytest.raises(ProtocolError):
                    QUERIES.to_result(request, OpsReply((other,)))


def test_the_answers_are_the_ones_a_person_expects() -> None:
    def answer(name: str) -> Any:
        return evaluate(bind(PLANS[name], SCHEMA.store), TABLES)

    assert answer("an aggregate") == [
        ("done", 3, 13, 1.0, 1 / 3, 3, 3, 5),
        ("todo", 2, 4, 0.30000000000000004, 0.15000000000000002, 0, 2, 3),
        (None, 1, 2, None, None, 0, 1, 2),
    ]
    assert answer("an aggregate over everything") == [(0, None)]
    assert [(row.id, about and about.id) for row, about in answer("an include with variants")] == [
        ("c1", "u1"), ("c2", "v1"), ("c3", None), ("c4", None), ("c5", "u2"), ("c6", None)
    ]  # fmt: skip
    assert [(row.id, [label.id for label in labels]) for row, labels in answer("an include through a store")][:3] == [
        ("c1", ["u1", "u2"]),
        ("c2", ["u1", "u2"]),
        ("c3", ["u1"]),
    ]
    assert [row.id for row in answer("the page before a row")] == ["c5", "c6", "c1"]


def test_two_spellings_of_a_query_are_one_plan_and_its_values_stand_beside_it() -> None:
    one = Call("eq", (LANE, Lit("text", "todo")))
    other = Call("gt", (PRIORITY, Lit("int", 3)))
    turned = Call("lt", (Lit("int", 3), PRIORITY))
    spelt: list[BoundQuery] = [
        bind(Plan(Store("cards"), where=Call("and", args)), SCHEMA.store)
        for args in ((one, other), (turned, one), (Call("and", (other,)), one))
    ]
    assert spelt[0] == spelt[1] == spelt[2]
    assert sorted(map(str, spelt[0].params)) == ["3", "todo"]
    again = bind(Plan(Store("cards"), where=Call("and", (Call("eq", (LANE, Lit("text", "x"))), other))), SCHEMA.store)
    assert again.plan == spelt[0].plan


def test_two_spellings_are_one_wherever_they_stand() -> None:
    one, other = Call("eq", (LANE, Lit("text", "todo"))), Call("gt", (PRIORITY, Lit("int", 3)))
    within = (Call("and", (one, other)), Call("and", (Call("lt", (Lit("int", 3), PRIORITY)), one, one)))
    places: dict[str, Callable[[Expr], Plan]] = {
        "a subquery": lambda where: Plan(Store("cards"), where=Exists(Plan(Store("cards"), where=where))),
        "a derived table": lambda where: Plan(
            Derived(Plan(Store("cards"), where=where, columns=(Named("id", ID),))), columns=(Named("id", Col(0, "c0")),)
        ),
        "an aggregate of some": lambda where: Plan(Store("cards"), columns=(Named("n", Agg("count", where=where)),)),
        "a column": lambda where: Plan(Store("cards"), columns=(Named("fits", where),)),
        "having": lambda where: Plan(
            Store("cards"), group=(LANE, PRIORITY), columns=(Named("lane", LANE),), having=where
        ),
        "an include": lambda where: Plan(
            Store("cards"),
            include=(Include("same", False, (("id", "id"),), (Branch(None, Plan(Store("cards"), where=where)),)),),
        ),
    }
    for place, plan in places.items():
        assert bind(plan(within[0]), SCHEMA.store) == bind(plan(within[1]), SCHEMA.store), place


def test_a_query_that_is_kept_is_bound_once_for_each_schema() -> None:
    query = select(CARDS).where(col("priority") > 3)
    bound = bind_rows(query, SCHEMA)
    assert bind_rows(query, SCHEMA) is bound
    assert bind_rows(query.limit(1), SCHEMA) != bound
    other = Schema(CARDS)
    assert bind_rows(query, other) == bound
    assert bind_rows(query, other) is not bound
    assert bind_rows(query, SCHEMA) is bound
