"""Where reads and writes run when every choice is forced: in the same thread every time, with the same answers."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import get_args

import apsw
import pytest
import trio

from atoma.ports import Environment
from atoma.query.plans import by_ids
from atoma_stores.sqlite.database import open_database
from atoma_stores.sqlite.paths import Paths, ReadPath, Writes, forced_paths
from tests.unit.stores.kit import atoma_threads, insert, opened, update

EVERY = [Paths(reads, writes) for reads in get_args(ReadPath) for writes in get_args(Writes)]


def name(thread: threading.Thread) -> str:
    return "loop" if thread is threading.main_thread() else thread.name


def put(number: int, connection: apsw.Connection) -> None:
    connection.execute("INSERT INTO t VALUES(?)", (number,))


async def who_works(path: Path) -> tuple[set[str], set[str]]:
    """The threads in which reads and writes of every kind have run."""
    readers: set[str] = set()
    writers: set[str] = set()

    def write(connection: apsw.Connection) -> None:
        writers.add(name(threading.current_thread()))
        connection.execute("CREATE TABLE IF NOT EXISTS t(a)")

    def read(connection: apsw.Connection) -> object:
        readers.add(name(threading.current_thread()))
        return connection.execute("SELECT a FROM t").fetchall()

    async with open_database(str(path), environment=Environment()) as database:
        for full in (False, True):
            for bulk in (False, True):
                await database.transact(write, durability="full" if full else "normal", bulk=bulk)
        for _ in range(3):
            await database.read(read)
            await database.read(read, one_snapshot=True)
            await database.read_in_pool(read)
        async with database.open_snapshot() as held:
            assert await held.read(read) == []
            await database.transact(partial(put, 1))
            assert await held.read(read) == [], "the file as it was"
    return readers, writers


WHO_READS = {
    "quick": {"loop", "atoma-reader"},
    "loop": {"loop"},
    "moved": {"loop", "atoma-reader", "atoma-snapshot"},
    "pool": {"atoma-reader", "atoma-snapshot"},
}
WHO_WRITES = {"quick": {"loop", "atoma-writer"}, "loop": {"loop"}, "thread": {"atoma-writer"}}


@pytest.mark.parametrize("paths", EVERY, ids=str)
async def test_every_read_and_write_takes_the_path_that_is_forced(tmp_path: Path, paths: Paths) -> None:
    with forced_paths(paths):
        assert await who_works(tmp_path / "a.db") == (WHO_READS[paths.reads], WHO_WRITES[paths.writes])
    assert atoma_threads() == []


async def test_nothing_is_forced_beyond_the_block(tmp_path: Path) -> None:
    with forced_paths(Paths("pool", "thread")):
        pass
    assert await who_works(tmp_path / "a.db") == (WHO_READS["quick"], WHO_WRITES["quick"])


@pytest.mark.virtual_time
@pytest.mark.parametrize("paths", EVERY, ids=str)
async def test_on_virtual_time_the_paths_are_taken_in_steps_and_no_time_goes_by(tmp_path: Path, paths: Paths) -> None:
    with forced_paths(paths):
        async with open_database(str(tmp_path / "a.db"), environment=Environment()) as database:
            assert database.topology == "file"
            await database.transact(lambda connection: connection.execute("CREATE TABLE t(a)"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 3_600)
                for number in range(40):
                    await database.transact(partial(put, number))
                    assert await database.read(lambda c: c.execute("SELECT count(*) FROM t").get) == number + 1
                    assert await database.read_in_pool(lambda c: c.execute("SELECT max(a) FROM t").get) == number
                nursery.cancel_scope.cancel()
        assert trio.current_time() < 1
        assert atoma_threads() == []
        assert not (tmp_path / "a.db-wal").exists(), "closed in order"


@pytest.mark.virtual_time
async def test_in_steps_too_units_share_transactions_and_can_be_withdrawn(tmp_path: Path) -> None:
    with forced_paths(Paths("pool", "thread")):
        async with open_database(str(tmp_path / "a.db"), environment=Environment()) as database:
            await database.transact(lambda connection: connection.execute("CREATE TABLE t(a)"))
            before = database.statistics

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(database.transact, partial(put, number))
            assert database.statistics.commits - before.commits < 20 == database.statistics.units - before.units
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(database.transact, partial(put, 99))
                    await trio.lowlevel.checkpoint()
                    scope.cancel()
            rows = await database.read(lambda c: [row[0] for row in c.execute("SELECT a FROM t ORDER BY a")])
            assert rows[:20] == list(range(20))


@pytest.mark.parametrize("paths", EVERY, ids=str)
async def test_a_row_that_is_not_there_is_told_with_its_commit_on_every_path(tmp_path: Path, paths: Paths) -> None:
    """In the pool every read has a transaction around it, and SQLite has no transaction in a transaction."""
    with forced_paths(paths):
        async with opened(tmp_path / "a.db") as db:
            assert await db.get("1") is None
            await db.write(insert("1"))
            await db.write(update("1", lane="done"))
            absent = await db.db.read(by_ids("cards", ("2",)))
            assert (absent.rows, absent.meta.commit) == ((), 2)
            there = await db.db.read(by_ids("cards", ("1",)))
            assert ([row.id for row in there.rows], there.meta.commit) == (["1"], 2)
