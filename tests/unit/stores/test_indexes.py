"""Every kind of index: made when the file is opened, on a device and on a hub, used by SQLite, and kept as it was declared."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from atoma import AllowLoopback, Environment, Index, Rows, Schema, StoreSpec, col, open_hub, select
from atoma.client import Client, open_client
from atoma.contracts.execution import WriteRequest
from atoma.contracts.mutations import Op
from atoma.errors import ConflictError, SchemaError
from atoma.ports.service import Principal
from atoma.query import Condition
from atoma.query.indexes import CheckedIndex, indexes_of
from atoma_stores.local import LocalExecution
from atoma_stores.sql.indexes import index_columns, row_text
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite.connections import open_existing
from atoma_stores.sqlite.stored_schema import stored_schema
from tests.unit.hub.homes import home_of
from tests.unit.hub.kit import direct


@dataclass(frozen=True)
class Task:
    id: str
    lane: str = "todo"
    due: int | None = None
    title: str = ""
    done: bool = False
    weight: float = 0.0


@dataclass(frozen=True)
class Paper:
    id: str
    title: str
    meta: dict[str, object]


ANY: StoreSpec[Any] = StoreSpec("tasks", Task)


def tasks(*indexes: Index) -> StoreSpec[Task]:
    return StoreSpec("tasks", Task, indexes=indexes)


ROWS = [
    Task(f"t{n:03}", "todo" if n % 3 else "doing", n % 7 or None, f"Task {n}", n % 2 == 0, n / 4) for n in range(150)
]


@asynccontextmanager
async def opened(path: Path, spec: StoreSpec[Task]) -> AsyncGenerator[Client]:
    async with open_client(Schema(spec), plugins=[LocalExecution(SQLiteEngine(path))]) as client:
        yield client


def query(
    *conditions: Any, order: tuple[str, ...] = (), limit: int | None = None
) -> Callable[[StoreSpec[Task]], Rows[Task]]:
    def make(spec: StoreSpec[Task]) -> Rows[Task]:
        rows = select(spec).where(*conditions)
        rows = rows.order_by(*order) if order else rows
        return rows if limit is None else rows.limit(limit)

    return make


OPEN = col("done") == False  # noqa: E712 - it makes a condition
KINDS: dict[str, tuple[Index, Callable[[StoreSpec[Task]], Rows[Task]]]] = {
    "compound": (Index("lane", "due"), query(col("lane") == "todo", col("due") > 3, order=("due",))),
    "descending": (Index("lane", "-due"), query(col("lane") == "todo", order=("-due",), limit=5)),
    "partial": (Index("due", where=OPEN), query(OPEN, col("due") == 3)),
    "partial, by what is there": (
        Index("title", where=col("due").not_null()),
        query(col("title") == "Task 8", col("due") == 1),
    ),
    "partial, of several conditions": (
        Index("due", where=(col("lane") == "todo") & (col("weight") >= 0.25)),
        query(col("lane") == "todo", col("weight") >= 0.25, col("due") == 2),
    ),
    "unique": (Index("title", unique=True), query(col("title") == "Task 8")),
    "unique and partial": (Index("title", unique=True, where=OPEN), query(OPEN, col("title") == "Task 9")),
    "of an expression": (Index(col("title").lower()), query(col("title").lower() == "task 8")),
    "of an expression and a field": (
        Index("lane", col("title").length()),
        query(col("lane") == "todo", col("title").length() == 6),
    ),
    "for what texts begin with": (Index("title"), query(col("title").starts("Task 14", exact=True), order=("title",))),
}


@pytest.mark.paths
@pytest.mark.parametrize("name", KINDS)
async def test_an_index_is_made_at_once_or_later_and_used(name: str, tmp_path: Path) -> None:
    index, make = KINDS[name]
    plain, indexed = tasks(), tasks(index)
    async with opened(tmp_path / "a.db", plain) as client:
        await client.store(plain).insert_many(ROWS)
        expected = [row.id for row in await client.query(make(plain))]
    assert expected
    async with opened(tmp_path / "a.db", indexed) as client:
        found = await client.explain(make(indexed))
        assert all(each.index.startswith("_atoma_") and not each.scans for each in found.sources), found
        assert found.warnings == ()
        assert [row.id for row in await client.query(make(indexed))] == expected
    async with opened(tmp_path / "b.db", indexed) as client:
        await client.store(indexed).insert_many(ROWS)
        assert [row.id for row in await client.query(make(indexed))] == expected


def indexes_in(path: Path) -> dict[str, str]:
    with open_existing(str(path), writing=False) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type='index' AND sql NOT NULL AND name GLOB '_atoma_*tasks*'"
        )
        return {str(name): str(sql) for name, sql in rows}


async def test_a_hub_has_the_same_ones_within_scopes(tmp_path: Path) -> None:
    spec = tasks(*(index for index, _ in KINDS.values()))
    async with open_hub(Schema(spec), SQLiteHubStore(tmp_path / "hub.db"), verifier=AllowLoopback()):
        pass
    made = indexes_in(tmp_path / "hub.db")
    assert len(made) == len({index for index, _ in KINDS.values()})
    assert all("(_scope, " in sql for sql in made.values())
    assert sum(" WHERE " in sql for sql in made.values()) == 4


async def test_an_index_that_says_something_else_is_made_anew(tmp_path: Path) -> None:
    path, sql = tmp_path / "a.db", ""
    for index in (Index("due"), Index("-due"), Index("due", where=OPEN), Index("due", where=col("done") == True)):  # noqa: E712
        async with opened(path, tasks(index)):
            pass
        (sql,) = indexes_in(path).values()
        assert (" DESC" in sql, " WHERE " in sql) == (index.keys[0].descending, index.where is not None)
    assert sql.endswith('("due") WHERE ("done" = 1)')
    async with opened(path, tasks()):
        pass
    assert indexes_in(path) == {}


async def test_a_tool_that_opens_the_file_leaves_them_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    spec = tasks(*(index for index, _ in KINDS.values()))
    async with opened(path, spec):
        pass
    before = indexes_in(path)
    with open_existing(str(path), writing=False) as connection:
        schema = stored_schema(connection, "client")
    assert indexes_of(schema.store("tasks")) != ()
    assert [told(each) for each in indexes_of(schema.store("tasks"))] == [told(each) for each in indexes_of(spec)]
    async with open_client(schema, plugins=[LocalExecution(SQLiteEngine(path))]):
        pass
    assert indexes_in(path) == before


async def test_a_tool_leaves_out_what_it_cannot_read_without_the_program(tmp_path: Path) -> None:
    """A part of a document: the document is a text to whoever has the file alone."""
    papers = StoreSpec("papers", Paper, indexes=[Index(col("meta").path("$.year", int)), Index("title")])
    async with open_client(Schema(papers), plugins=[LocalExecution(SQLiteEngine(tmp_path / "a.db"))]):
        pass
    with open_existing(str(tmp_path / "a.db"), writing=False) as connection:
        found = stored_schema(connection, "client").store("papers")
    assert [index.said for index in indexes_of(found)] == ["title"]


def told(index: CheckedIndex) -> tuple[object, ...]:
    return index.unique, index_columns(ANY, index), index.where and row_text(index.where, ANY)


UNIQUE = {
    "partial": (Index("title", unique=True, where=OPEN), Task("b", title="x"), Task("b", title="x", done=True)),
    "of an expression": (Index(col("title").lower(), unique=True), Task("b", title="X"), Task("b", title="y")),
    "of both": (
        Index(col("title").lower(), "lane", unique=True, where=OPEN),
        Task("b", title="X"),
        Task("b", title="X", lane="c"),
    ),
}


@pytest.mark.paths
@pytest.mark.parametrize("synced", [False, True], ids=["kept by SQLite", "checked by the engine"])
@pytest.mark.parametrize("name", UNIQUE)
async def test_a_unique_index_holds_among_its_rows(name: str, synced: bool, tmp_path: Path) -> None:
    index, refused, taken = UNIQUE[name]
    spec = tasks(index)
    engine = SQLiteEngine(tmp_path / "a.db")
    async with engine.open_database(
        Schema(spec), Environment(executor="inline"), frozenset({"tasks"} if synced else ())
    ) as database:

        def write(task: Task) -> Callable[[Any], object]:
            id, image = spec.encode(task)

            def body(tx: Any) -> object:
                tx.rows.enforce_unique = True
                return tx.rows.put("tasks", id, "main", image)

            return body

        await database.apply(write(Task("a", title="x")))
        with pytest.raises(ConflictError, match=r"another row has the same (?!index)\w"):
            await database.apply(write(refused))
        await database.apply(write(taken))
        await database.apply(write(Task("a", title="x", due=5)))  # it is not in its own way


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("name", UNIQUE)
async def test_a_hub_holds_it_too(name: str, kind: str, tmp_path: Path) -> None:
    index, refused, taken = UNIQUE[name]
    spec = tasks(index)

    def insert(task: Task) -> WriteRequest:
        id, image = spec.encode(task)
        return direct(Op("create", "tasks", id, image), idem=f"{task}")

    with home_of(kind, tmp_path) as home:
        async with open_hub(Schema(spec), home.store(), verifier=AllowLoopback()) as hub:
            service = hub.service(Principal("ann"))
            answers = [await service.write(insert(task)) for task in (Task("a", title="x"), refused, taken)]
            assert [answer.items[0].ok for answer in answers] == [True, False, True]


REFUSED = {
    "an unknown field": (Index("nope"), "unknown field 'nope'"),
    "an unknown field in an expression": (Index(col("nope").lower()), "has no field 'nope'"),
    "a condition over another type": (Index("due", where=col("title") == 5), "tasks.title wants str"),
    "a function that is ours": (Index(col("due") + col("due")), r"an index cannot use \+: other tools"),
    "a value within what it sorts by": (
        Index(col("title").substr(1, 3)),
        "no query finds an index over an expression with",
    ),
    "a condition that is ours": (Index("due", where=col("weight").to_int() == 1), r"an index cannot use to_int\(\)"),
    "no condition": (Index("due", where=cast("Condition", col("due"))), "a bool is wanted"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_an_index_that_cannot_be_is_refused_before_anything_is_touched(name: str, tmp_path: Path) -> None:
    index, words = REFUSED[name]
    with pytest.raises(SchemaError, match=words):
        async with opened(tmp_path / "a.db", tasks(index)):
            pytest.fail("it must not open")


async def test_the_planner_of_a_hub_is_told_of_the_indexes_that_there_are_and_of_no_others(tmp_path: Path) -> None:
    async def told_at(path: Path, *indexes: Index) -> list[str]:
        async with open_hub(Schema(tasks(*indexes)), SQLiteHubStore(path), verifier=AllowLoopback()):
            pass
        with open_existing(str(path), writing=False) as connection:
            return sorted(map(str, connection.execute("SELECT tbl, idx, stat FROM sqlite_stat1").fetchall()))

    new = await told_at(tmp_path / "new.db", Index("due"), Index("title"))
    await told_at(tmp_path / "a.db", Index("lane"), Index("due"))
    assert await told_at(tmp_path / "a.db", Index("due"), Index("title")) == new
    assert len(new) == 3
