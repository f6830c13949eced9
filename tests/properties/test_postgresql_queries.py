"""A query means on PostgreSQL what it means in plain Python, and so in SQLite: conditions, orders, cursors and every operator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import HealthCheck, event, example, given, settings
from msgspec.structs import replace

from atoma.contracts.query import BoundQuery, Call, Col, Expr, Lit, Named, Order, Plan, Store
from atoma.contracts.values import RowImage, Scalar, StoredRow
from atoma.errors import QueryError
from atoma.ports import seeded_environment
from atoma.ports.hub_queries import Fence, QueryPage
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.query.plans import counted
from atoma.query.walk import expressions, top_expressions
from atoma.schema import Schema
from tests.postgres import database
from tests.properties import test_operators as operators
from tests.properties import test_query_semantics as semantics

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

from atoma_stores.postgres.codes import ServerError
from atoma_stores.postgres.connection import SETTINGS, Connection, connect
from atoma_stores.postgres.database import refused
from atoma_stores.postgres.ddl import prepare
from atoma_stores.postgres.pool import read, take_back, write
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.hub.reads import ReadQueries, read_query
from atoma_stores.sql.hub.rows import stores_of
from atoma_stores.sql.scripts import Execute, Script
from atoma_stores.sql.spelling import UNASKED

SCHEMA = Schema(semantics.PLAIN, semantics.INDEXED, operators.THINGS)
STORES = stores_of(POSTGRESQL, SCHEMA)
QUERIES = ReadQueries(POSTGRESQL, SCHEMA, STORES)
FENCES = {name: Fence(None) for name in SCHEMA.stores}
Rows = Sequence[tuple[str, RowImage]]


class Rig:
    """A database of the tests' server, by one connection that outlives the loops of its tests."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def fill(self, rows: dict[str, Rows]) -> None:
        """Have these rows, and no others."""
        await write(self._connection, _filling(rows))

    async def ask(self, query: BoundQuery) -> QueryPage:
        """The answer.

        Raises:
            QueryError: There is none.
        """
        try:
            found = await read(
                self._connection, read_query(QUERIES, query, FENCES, max_bytes=1 << 30, max_rows=1 << 20)
            )
        except ServerError as error:
            await take_back(self._connection)
            raise refused(error) from error
        return found


def is_asked(plan: Plan) -> bool:
    """Whether PostgreSQL is asked ``plan``, which has no plan within it."""
    calls = [each for _, top in top_expressions(plan) for each in expressions(top) if isinstance(each, Call)]
    return not any(call.fn in UNASKED for call in calls)


def _filling(rows: dict[str, Rows]) -> Script[None]:
    yield [
        statement
        for store, of_store in rows.items()
        for statement in (
            Execute(f"DELETE FROM {POSTGRESQL.store(store)}"),
            *([STORES[store].put.of([_put(store, id, image) for id, image in of_store])] if of_store else ()),
        )
    ]


def _put(store: str, id: str, image: RowImage) -> tuple[Scalar, ...]:
    return (*[image[name] for name in STORES[store].columns], 0, 1, None, "main", id)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    async def open_one(dsn: str) -> Connection:
        connection = await connect(dsn, SETTINGS)
        await write(connection, prepare(SCHEMA, seeded_environment(1)))
        return connection

    with database() as dsn:
        connection = trio.run(open_one, dsn)
        yield Rig(connection)
        connection.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(table=semantics.TABLES, asked=st.lists(semantics.plans().filter(is_asked), min_size=1, max_size=8))
@example(
    table={**semantics.plain("a0", i=1), **semantics.plain("a1")},
    asked=[Plan(Store("plain"), order=(Order(Col(0, "i"), True),))],
)
async def test_rows_are_those_of_the_reference_in_their_order(
    rig: Rig, table: dict[str, RowImage], asked: list[Plan]
) -> None:
    await rig.fill({store: list(table.items()) for store in ("plain", "indexed")})
    columns = semantics.PLAIN.value_columns
    rows = [StoredRow(id, 1, 1, "main", {name: image[name] for name in columns}) for id, image in sorted(table.items())]
    for plan in asked:
        expected = evaluate(semantics.of("plain", plan), {"plain": rows})
        event("empty" if not expected else "all" if len(expected) == len(rows) else "some")
        for store in ("plain", "indexed"):
            query = bind(replace(plan, source=Store(store)), SCHEMA.store)
            found = (await rig.ask(query)).rows
            assert semantics.comparable(found) == semantics.comparable(expected), query
            whole = bind(Plan(query.plan.source, where=replace(plan, seek=None).where), SCHEMA.store)
            ((number,),) = (await rig.ask(counted(whole))).tuples
            assert number == len(evaluate(whole, {store: rows}))


def beyond_reals(value: tuple[str, object] | None) -> bool:
    """Whether it is infinite, or so near zero that it may be: PostgreSQL refuses to go there by arithmetic."""
    return (
        value is not None
        and value[0] == "float"
        and (math.isinf(number := float(str(value[1]))) or abs(number) < 1e-300)
    )


async def check_same(rig: Rig, rows: Sequence[StoredRow], kind: str, query: BoundQuery) -> None:
    try:
        expected = [operators.typed(row[0], kind) for row in evaluate(query, {"things": rows})]
    except QueryError:
        expected = None
    try:
        found = [operators.typed(row[0], kind) for row in (await rig.ask(query)).tuples]
    except QueryError:
        found = None
    if found is None and expected is not None and any(map(beyond_reals, expected)):
        return
    assert found == expected, query


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=operators.things(),
    asked=st.lists(
        operators.KINDS.flatmap(lambda kind: st.tuples(st.just(kind), operators.expressions(kind))),
        min_size=4,
        max_size=8,
    ),
)
async def test_an_operator_means_the_same(rig: Rig, rows: list[operators.Thing], asked: list[tuple[str, Expr]]) -> None:
    images = [operators.THINGS.encode(row) for row in rows]
    await rig.fill({"things": images})
    stored = [StoredRow(id, 1, 1, "main", image) for id, image in images]
    for kind, expr in asked:
        try:
            query = bind(Plan(Store("things"), columns=(Named("c", expr),)), SCHEMA.store)
        except QueryError:
            continue
        await check_same(rig, stored, kind, query)


@pytest.mark.parametrize("fn", operators.FNS)
async def test_a_function_means_the_same_of_every_column(rig: Rig, fn: str) -> None:
    images = [operators.THINGS.encode(row) for row in operators.ROWS]
    await rig.fill({"things": images})
    for id, image in images:
        for kind, expr in operators.calls(fn):
            plan = Plan(Store("things"), where=Call("eq", (Col(0, "id"), Lit("text", id))))
            query = bind(replace(plan, columns=(Named("c", expr),)), SCHEMA.store)
            await check_same(rig, [StoredRow(id, 1, 1, "main", image)], kind, query)
