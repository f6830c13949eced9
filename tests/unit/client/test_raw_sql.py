"""SQL that a program writes itself: it reads stores, typed, and can do nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import trio

from atoma import Client, Schema, StoreSpec, open_client
from atoma.contracts.raw import SqlQuery
from atoma.errors import QueryError
from atoma.ports import Environment
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True)
class Card:
    id: str
    lane: str
    points: int
    due: date | None = None
    done: bool = False


class Lane(NamedTuple):
    name: str
    cards: int


@dataclass(frozen=True)
class Due:
    id: str
    due: date | None
    done: bool


class Points(msgspec.Struct):
    lane: str
    points: int


CARDS = StoreSpec("cards", Card)
NOTES = StoreSpec("notes", Card)
SCHEMA = Schema(CARDS, NOTES)
ROWS = [
    Card("a", "todo", 3, date(2026, 1, 1)),
    Card("b", "todo", 5, None, True),
    Card("c", "done", 8, date(2026, 2, 1)),
]


@asynccontextmanager
async def opened(path: str | Path) -> AsyncGenerator[Client]:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path))]) as client:
        await client.store(CARDS).insert_many(ROWS)
        yield client


@pytest.fixture(params=["a file", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "a.db") if request.param == "a file" else ":memory:"


@pytest.mark.paths
async def test_rows_become_what_is_asked_for(path: str) -> None:
    async with opened(path) as client:
        lanes = await client.sql(Lane, "SELECT lane, count(*) FROM cards GROUP BY lane ORDER BY lane")
        assert lanes == (Lane("done", 1), Lane("todo", 2))
        due = await client.sql(
            Due,
            "SELECT id, due, done FROM cards WHERE due < :day OR done = :done ORDER BY id",
            day=date(2026, 1, 2),
            done=True,
        )
        assert due == (Due("a", date(2026, 1, 1), False), Due("b", None, True))
        assert await client.sql(int, "SELECT sum(points) FROM cards") == (16,)
        assert await client.sql(Points, "SELECT lane, points FROM cards WHERE id = :id", id="a") == (Points("todo", 3),)
        assert await client.sql(
            dict[str, object], "WITH l AS (SELECT lane FROM cards) SELECT count(*) AS n FROM l"
        ) == ({"n": 3},)
        assert await client.sql(tuple[str, int], "SELECT id, points FROM cards LIMIT 1") == (("a", 3),)
        assert (await client.sql(dict[str, object], "SELECT * FROM cards LIMIT 1"))[0].keys() == set(CARDS.columns)
        assert await client.sql(int, "SELECT value FROM json_each('[1, 2]')") == (1, 2)
        await client.store(CARDS).insert(Card("d", "todo", 1))
        assert await client.sql(int, "SELECT count(*) FROM cards") == (4,)
        assert [card.id for card in await client.store(CARDS).query()] == ["a", "b", "c", "d"]


REFUSED = {
    "a write": "DELETE FROM cards",
    "an insert": "INSERT INTO cards(id) VALUES('x')",
    "a pragma": "PRAGMA user_version",
    "a pragma that writes": "PRAGMA journal_mode = DELETE",
    "another file": "ATTACH 'other.db' AS other",
    "two statements": "SELECT 1; SELECT 2",
    "a write behind a read": "SELECT 1; DELETE FROM cards",
    "none": "  -- nothing",
    "what no SQL is": "SELEKT 1",
    "a column of the engine": "SELECT _ver FROM cards",
    "a table of the engine": "SELECT * FROM _atoma_meta",
    "the table behind the view": "SELECT id FROM main.cards",
    "the table, under the name of a view": "WITH cards AS (SELECT _ver FROM main.cards) SELECT * FROM cards",
    "the schema": "SELECT name FROM sqlite_schema",
    "the schema by its old name": "SELECT name FROM sqlite_master",
    "a pragma as a table": "SELECT * FROM pragma_table_info('cards')",
    "an extension": "SELECT load_extension('x')",
    "an extension in an expression that no row asks for": "SELECT CASE WHEN 1 THEN 2 ELSE load_extension('x') END",
    "a transaction": "BEGIN IMMEDIATE",
    "a view of its own": "CREATE TEMP VIEW v AS SELECT 1",
    "an explanation": "EXPLAIN SELECT 1",
    "a value that is missing": "SELECT :nope",
    "a store that is not there": "SELECT * FROM nowhere",
    "a NUL": "SELECT id FROM cards \0",
    "half a character": "SELECT '\ud800' FROM cards",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_everything_else_is_refused_and_the_file_goes_on(what: str, path: str) -> None:
    async with opened(path) as client:
        with pytest.raises(QueryError):
            await client.sql(dict[str, object], REFUSED[what])
        with pytest.raises(QueryError):
            async with client.live_sql(dict[str, object], REFUSED[what]):
                pass
        with pytest.raises(QueryError):
            await client.explain_sql(REFUSED[what])
        assert await client.sql(int, "SELECT count(*) FROM cards") == (3,)
        await client.store(CARDS).update("a", points=4)
        assert (await client.store(CARDS).get("a")).points == 4  # type: ignore[union-attr]  # it is there


WRONG: dict[str, tuple[type[Any], str, dict[str, object]]] = {
    "a value too many": (int, "SELECT 1", {"day": 5}),
    "a value of no type": (int, "SELECT :it", {"it": object()}),
    "a value that no column can hold": (int, "SELECT :it", {"it": 2**70}),
    "a row of another shape": (Lane, "SELECT lane FROM cards", {}),
    "a value of another type": (int, "SELECT lane FROM cards", {}),
    "two columns for one value": (int, "SELECT 1, 2", {}),
    "two columns of one name": (dict[str, object], "SELECT id, id FROM cards", {}),
    "a text that is no UTF-8": (str, "SELECT CAST(x'ff' AS TEXT)", {}),
    "half a character that it makes": (str, "SELECT char(55296)", {}),
    "a sum of texts": (float, "SELECT atoma_sum(lane) FROM cards", {}),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_does_not_fit_is_told(what: str) -> None:
    into, text, params = WRONG[what]
    async with opened(":memory:") as client:
        with pytest.raises(QueryError, match=r"sql\(\)"):
            await client.sql(into, text, **params)


async def test_it_tells_what_it_has_read() -> None:
    engine = SQLiteEngine(":memory:")
    async with engine.open_database(SCHEMA, Environment(executor="inline"), frozenset()) as database:
        reads: dict[str, dict[str, set[str]]] = {
            "SELECT c.lane FROM cards c JOIN notes ON notes.id = c.id WHERE c.points > 1": {
                "cards": {"lane", "id", "points"},
                "notes": {"id"},
            },
            "SELECT count(*) FROM notes": {"notes": set()},
            "SELECT 1": {},
        }
        for text, read in (*reads.items(), *reads.items()):
            assert (await database.sql(SqlQuery.of(text, {}))).reads == read
            assert (await database.outline(SqlQuery.of(text, {}))).reads == read, "it need not run for that"


async def test_a_caller_that_goes_stops_the_statement(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    async with opened(tmp_path / "a.db") as client:
        with trio.fail_after(60):
            with trio.move_on_after(0.05) as scope:
                await client.sql(int, endless)
            assert scope.cancelled_caught
            assert await client.sql(int, "SELECT count(*) FROM cards") == (3,)
