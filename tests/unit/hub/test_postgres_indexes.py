"""Indexes on PostgreSQL as a store declares them: made, used, unique where they say so, and made anew when they say something else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from atoma import Index, Schema, StoreSpec, col, select
from atoma.errors import MigrationError
from atoma.ports import seeded_environment
from atoma.ports.hub_queries import Fence
from atoma.query.binding import bind
from tests.unit.hub.homes import PostgreSQLHome
from tests.unit.hub.kit import hub_on
from tests.unit.stores.test_indexes import KINDS, OPEN, ROWS, query, tasks

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

from atoma_stores.postgres.connection import SETTINGS, connect
from atoma_stores.postgres.ddl import prepare
from atoma_stores.postgres.pool import read, write
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.hub.reads import ReadQueries, read_query
from atoma_stores.sql.hub.rows import stores_of
from atoma_stores.sql.scripts import Execute, Script


@dataclass(frozen=True)
class Paper:
    id: str
    meta: dict[str, Any] = field(default_factory=dict[str, Any])


PAPERS: StoreSpec[Any] = StoreSpec("tasks", Paper, indexes=[Index(col("meta").path("$.year", int))])
PAPER_ROWS = [Paper(f"p{number:03}", {"year": 1900 + number % 50}) for number in range(150)]
USED: dict[str, tuple[StoreSpec[Any], Any, Any]] = {
    **{name: (tasks(index), make, ROWS) for name, (index, make) in KINDS.items() if not name.startswith("for what")},
    "a nullable field in its order": (tasks(Index("due")), query(order=("due",), limit=5), ROWS),
    "a nullable field backwards": (tasks(Index("-due")), query(order=("-due",), limit=5), ROWS),
    "a part of a document": (
        PAPERS,
        lambda spec: select(spec).where(col("meta").path("$.year", int) == 1907),
        PAPER_ROWS,
    ),
}


def _filling(spec: StoreSpec[Any], rows: Any) -> Script[None]:
    put = stores_of(POSTGRESQL, Schema(spec))[spec.name].put
    images = [spec.encode(row) for row in rows]
    yield [put.of([(*[image[name] for name in spec.value_columns], 0, 1, None, "main", id) for id, image in images])]


def _explaining(asked: Execute) -> Script[str]:
    *_, lines = yield [
        # of so few rows every one is read, else
        Execute("SELECT set_config('enable_seqscan', 'off', true)"),
        Execute(f"EXPLAIN {asked.sql}", asked.values),
    ]
    return "\n".join(str(row[0]) for row in lines)


@pytest.mark.parametrize("name", USED)
async def test_an_index_is_made_and_used_and_the_answer_is_the_same(pg: PostgreSQLHome, name: str) -> None:
    spec, make, rows = USED[name]
    schema = Schema(spec)
    connection = await connect(pg.address(), SETTINGS)
    try:
        await write(connection, prepare(schema, seeded_environment(1)))
        await write(connection, _filling(spec, rows))
        pg.ask("ANALYZE atoma.tasks")
        queries = ReadQueries(POSTGRESQL, schema, stores_of(POSTGRESQL, schema))

        def ask() -> Any:
            return read_query(
                queries, bind(make(spec), schema), {"tasks": Fence(("main",))}, max_bytes=1 << 30, max_rows=1 << 20
            )

        asked = next(ask())[0]
        plan = await read(connection, _explaining(asked))
        ((index,),) = pg.ask(
            "SELECT indexname::text FROM pg_indexes WHERE indexname LIKE '\\_atoma%' AND schemaname='atoma'"
        )
        assert str(index) in plan, plan
        if "order" in name or "backwards" in name or name == "descending":
            assert "Sort Key" not in plan or "Presorted Key" in plan, plan
        found = [row.id for row in (await read(connection, ask())).rows]
        pg.ask(f'DROP INDEX atoma."{index}"')
        assert found == [row.id for row in (await read(connection, ask())).rows] != []
    finally:
        connection.close()


async def test_an_index_that_says_something_else_is_made_anew(pg: PostgreSQLHome) -> None:
    long = Index("lane", "due", "title", "weight", "done", col("title").lower(), col("title").upper())
    for index in (Index("due"), Index("-due"), Index("due", where=OPEN), Index("lane", unique=True, where=OPEN), long):
        for _ in range(2):
            async with hub_on(pg.store(), schema=Schema(tasks(index))):
                pass
        ((name, sql),) = pg.ask(
            "SELECT indexname::text, indexdef FROM pg_indexes WHERE indexname LIKE '\\_atoma%' AND schemaname='atoma'"
        )
        assert (" DESC" in str(sql), " WHERE " in str(sql), "UNIQUE" in str(sql)) == (
            index.keys[0].descending, index.where is not None, index.unique,
        )  # fmt: skip
        assert "(_scope, " in str(sql)
        assert len(str(name)) <= 63


async def test_rows_that_are_equal_under_a_new_unique_index_are_told(pg: PostgreSQLHome) -> None:
    plain, unique = tasks(), tasks(Index("lane", unique=True, where=OPEN))
    async with hub_on(pg.store(), schema=Schema(plain)):
        pg.ask(
            "INSERT INTO atoma.tasks(_scope, id, _ver, lane, title, done, weight) "
            "SELECT 'main', n::text, 0, 'a', '', n/3, 0 FROM generate_series(1, 3) AS n"
        )
    with pytest.raises(MigrationError, match="an index cannot be made: another tasks row has a value"):
        async with hub_on(pg.store(), schema=Schema(unique)):
            raise AssertionError("opened")
    pg.ask("UPDATE atoma.tasks SET done=1 WHERE id='1'")
    async with hub_on(pg.store(), schema=Schema(unique)):
        pass
