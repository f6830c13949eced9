"""Reads that ask for the same at the same time are carried out once, and nobody notices who went."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest
import trio
import trio.testing

from atoma import Environment, Schema, StoreSpec
from atoma.contracts.execution import QueryResult
from atoma.contracts.query import Agg, BoundQuery, Call, Col, Join, Lit, Named, Plan, Store
from atoma.errors import QueryError
from atoma.query.normal import bind
from atoma.testing.queries import rows_of
from atoma_stores.sqlite.engine import SQLiteEngine, SQLiteLocalDatabase


@dataclass(frozen=True)
class Item:
    id: str
    n: int


SCHEMA = Schema(StoreSpec("items", Item))
SIZE = 2_500


def pairs(least: int, *, fails: bool = False) -> BoundQuery:
    """A query that takes SQLite some tenths of a second: it looks at every pair of rows."""
    first = Call("add", (Col(0, "n"), Lit("int", 2**63 - 1))) if fails else Col(0, "n")
    on = Call("or", (Call("gt", (first, Lit("int", least))), Call("lt", (Col(1, "n"), Lit("int", 0)))))
    return bind(
        Plan(Store("items"), joins=(Join("inner", Store("items"), on),), columns=(Named("n", Agg("count")),)),
        SCHEMA.store,
    )


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SQLiteLocalDatabase]:
    async with SQLiteEngine(path).open_database(SCHEMA, Environment(), frozenset()) as database:
        await database.apply(
            lambda tx: tx.rows.insert_many(
                "items", [f"{n:04}" for n in range(SIZE)], ["main"] * SIZE, [{"n": n} for n in range(SIZE)]
            )
        )
        yield database


async def test_reads_of_one_query_are_one(tmp_path: Path) -> None:
    answers: list[QueryResult] = []

    async def ask(query: BoundQuery) -> None:
        answers.append(await database.read(query))

    async with opened(tmp_path / "a.db") as database:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(ask, pairs(10))
            nursery.start_soon(ask, pairs(11))  # another value: another query
        assert database.shared_reads == 5
        assert len({id(answer) for answer in answers}) == 2
        again = await database.read(pairs(10))
        assert again.tuples in [answer.tuples for answer in answers]
        assert database.shared_reads == 5  # what has ended answers nobody


async def test_who_goes_takes_nobody_along(tmp_path: Path) -> None:
    answers: list[QueryResult] = []
    first = trio.CancelScope()

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            answers.append(await database.read(pairs(10)))

    async with opened(tmp_path / "a.db") as database:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, first)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(ask, trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
        assert first.cancelled_caught
        assert len(answers) == 3
        assert database.shared_reads == 2


async def test_a_waiting_reader_that_goes_leaves_the_others(tmp_path: Path) -> None:
    answers: list[QueryResult] = []
    waiting = trio.CancelScope()

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            answers.append(await database.read(pairs(10)))

    async with opened(tmp_path / "a.db") as database:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, waiting)
            nursery.start_soon(ask, trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            waiting.cancel()
        assert waiting.cancelled_caught
        assert (len(answers), database.shared_reads) == (2, 1)


async def test_a_read_sees_what_was_written_before_it(tmp_path: Path) -> None:
    answers: list[int] = []

    async def ask() -> None:
        answers.append((await database.read(pairs(-1))).tuples[0][0])  # type: ignore[arg-type]  # it is an int

    async with opened(tmp_path / "a.db") as database, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await database.apply(lambda tx: tx.rows.put("items", "new", "main", {"n": 1}))
        await ask()
        assert answers[-1] == (SIZE + 1) ** 2
        assert database.shared_reads == 0


@pytest.mark.paths
async def test_each_reader_has_its_own_error(tmp_path: Path) -> None:
    failures: list[QueryError] = []

    async def ask() -> None:
        with pytest.raises(QueryError, match="integer overflow") as failed:
            await database.read(pairs(0, fails=True))
        failures.append(failed.value)

    async with opened(tmp_path / "a.db") as database:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert len({id(failure) for failure in failures}) == 3


LARGE = Plan(Store("items"), where=Call("ge", (Col(0, "n"), Lit("int", SIZE))), columns=(Named("n", Agg("count")),))


@pytest.mark.parametrize("asked", [rows_of("items", limit=2), bind(LARGE, SCHEMA.store)], ids=["rows", "a number"])
async def test_an_answer_and_its_commit_are_one_snapshot(tmp_path: Path, asked: BoundQuery) -> None:
    async with opened(tmp_path / "a.db") as database:
        answer = database._reader.answer(asked)
    connection, other = apsw.Connection(str(tmp_path / "a.db")), apsw.Connection(str(tmp_path / "a.db"))
    seen: list[str] = []

    def meanwhile(_: object, sql: str, bindings: object) -> bool:
        if seen:  # somebody commits before each statement but the first
            with other:
                other.execute("UPDATE items SET n=n+10000")
                other.execute("UPDATE _atoma_meta SET value=value+1 WHERE key='commit'")
        seen.append(sql)
        return True

    before = answer(connection)
    connection.exec_trace = meanwhile
    during = answer(connection)
    connection.exec_trace = None
    after = answer(connection)
    connection.close()
    other.close()
    assert len(seen) > 1
    assert (during.rows, during.tuples, during.meta.commit) == (before.rows, before.tuples, before.meta.commit)
    assert after.meta.commit > before.meta.commit
    assert (after.rows, after.tuples) != (before.rows, before.tuples)
