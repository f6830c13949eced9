"""What other programs write to the file is followed: by this project's own row by row, by any other tool as well."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest
import trio

from atoma.client import Client, open_client
from atoma.errors import DiskFull
from atoma.ports import LIVE_QUERIES, Reset, apply_batch
from atoma.ports.live import LiveInspection, LiveStats
from atoma.query import Query, col, select
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, _others
from atoma_stores.sqlite.faults import fault_vfs
from tests.scenarios.processes.ledger import LEDGER, SCHEMA, Account, fill, is_balanced, move, open_ledger, scripts

WHOLE = select(LEDGER).order_by("id")
TOP = select(LEDGER).order_by("-amount").limit(3)
RICH = select(LEDGER).where(col("amount") > 100)
QUERIES = (WHOLE, TOP, RICH)


class Reader:
    """Follows a query; what it has is what the batches say."""

    def __init__(self, query: Query[Account]) -> None:
        self.query = query
        self.rows: tuple[Account, ...] = ()
        self.batches = 0
        self.heard = trio.Event()

    async def run(self, client: Client, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with client.live(self.query) as batches:
            async for batch in batches:
                assert self.batches or isinstance(batch.changes[0], Reset)
                self.rows = apply_batch(self.rows, batch)
                if self.query is WHOLE and self.rows:
                    assert is_balanced(self.rows), f"half of a transaction at commit {batch.commit}"
                if not self.batches:
                    task_status.started()
                self.batches += 1
                self.heard.set()
                self.heard = trio.Event()

    async def until(self, rows: Sequence[Account]) -> float:
        """Wait until it shows ``rows``; for how long, in seconds."""
        began = trio.current_time()
        with trio.fail_after(60):
            while self.rows != tuple(rows):
                await self.heard.wait()
        return trio.current_time() - began


@asynccontextmanager
async def following(client: Client, *queries: Query[Account]) -> AsyncIterator[list[Reader]]:
    readers = [Reader(query) for query in queries]
    async with trio.open_nursery() as nursery:
        for reader in readers:
            await nursery.start(reader.run, client)
        yield readers
        nursery.cancel_scope.cancel()


def write_raw(path: str, sql: str) -> None:
    """What any tool does: another connection, with nothing of the engine's in it."""
    with closing(apsw.Connection(path)) as connection:
        connection.set_busy_timeout(5_000)
        connection.execute(sql)


def versions(path: str) -> dict[str, int]:
    with closing(apsw.Connection(path)) as connection:
        return {str(id): int(version) for id, version in connection.execute("SELECT id, _ver FROM accounts")}


async def run(command: Sequence[str], text: str = "") -> None:
    with trio.fail_after(60):
        done = await trio.run_process(command, stdin=text.encode(), capture_stderr=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")


def stats_of(client: Client, store: str = "accounts") -> list[LiveStats]:
    live = client._planes.find(LIVE_QUERIES)
    assert isinstance(live, LiveInspection)
    return [each for each in live.stats() if each.store == store]


async def test_nothing_is_missed_while_a_tool_and_another_program_churn(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    tool = shutil.which("sqlite3")
    async with open_ledger(path) as client:
        await fill(client)
        async with following(client, *QUERIES) as readers:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, [sys.executable, "-m", "tests.scenarios.processes.ledger", path, "60", "other"])
                nursery.start_soon(move, client, 60, "own")
                for script in scripts(60, seed=1) if tool is None else ():
                    await trio.to_thread.run_sync(write_raw, path, script)
                if tool is not None:
                    await run([tool, "-cmd", ".timeout 5000", path], "\n".join(scripts(60, seed=1)))
            for reader in readers:
                await reader.until(tuple(await client.query(reader.query)))
        by = {row.by.rstrip(".") for row in readers[0].rows}
        assert is_balanced(readers[0].rows)
        assert by & {"raw", "own", "other"}


async def test_commits_of_another_program_are_followed_row_by_row(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    async with open_ledger(path) as client, open_ledger(path) as other:
        await fill(client)
        async with following(client, *QUERIES) as readers:
            await move(other, 10, "other")
            for reader in readers:
                await reader.until(tuple(await other.query(reader.query)))
            assert [stats.reads for stats in stats_of(client)] == [1, 1, 1], "nothing was read again"
            await move(client, 5, "own")
            await move(other, 5, "other")
            for reader in readers:
                await reader.until(tuple(await client.query(reader.query)))
            assert [stats.reads for stats in stats_of(client)] == [1, 1, 1]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT OR REPLACE INTO accounts VALUES('new', 3, 100, 'raw', 0, 0, 'local')",
        "UPDATE accounts SET by='raw' WHERE place < 4",
        "UPDATE OR REPLACE accounts SET place=1 WHERE place=2",
        "DELETE FROM accounts",
        "INSERT INTO accounts SELECT id, place, 7, 'raw', 0, 0, _scope FROM accounts WHERE true "
        "ON CONFLICT(id) DO UPDATE SET amount=excluded.amount",
        "PRAGMA recursive_triggers=ON; REPLACE INTO accounts SELECT id, place, 5, 'raw', 0, 0, _scope FROM accounts",
    ],
)
async def test_raw_sql_is_heard_by_a_program_that_does_nothing(tmp_path: Path, sql: str) -> None:
    path = str(tmp_path / "ledger.db")
    async with open_ledger(path) as client:
        await fill(client)
        before = tuple(await client.query(WHOLE))
        async with following(client, TOP, RICH) as readers:
            await trio.to_thread.run_sync(write_raw, path, sql)
            rows = tuple(await client.query(WHOLE))
            assert rows != before
            for reader in readers:
                await reader.until(tuple(await client.query(reader.query)))


async def test_a_row_that_a_tool_has_written_has_another_version(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    async with open_ledger(path) as client:
        await fill(client)
        before = versions(path)
        write_raw(
            path,
            "UPDATE accounts SET amount=7 WHERE id='a01'; INSERT INTO accounts VALUES('n', 99, 1, '', 0, 0, 'local')",
        )
        after = versions(path)
        assert after["a01"] > max(before.values())
        assert len(set(after.values())) == len(after), "no two rows ever have the same version"
        await client.store(LEDGER).update("a02", amount=8)
        assert versions(path)["a02"] > max(after.values())


async def test_who_is_too_far_behind_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_others, "CHANGES_KEPT", 0)
    path = str(tmp_path / "ledger.db")
    async with open_ledger(path) as client, open_ledger(path) as other:
        await fill(client)
        async with following(client, WHOLE) as (reader,):
            await move(other, 1, "other")
            await reader.until(tuple(await client.query(WHOLE)))
            (stats,) = stats_of(client)
            assert stats.reads == 2, "what was not kept was read"


async def test_a_commit_of_many_rows_is_left_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_others, "CHANGE_BYTES_MAX", 200)
    path = str(tmp_path / "ledger.db")
    async with open_ledger(path) as client, open_ledger(path) as other:
        async with following(client, WHOLE) as (reader,):
            await fill(other)
            await reader.until(tuple(await client.query(WHOLE)))
            (stats,) = stats_of(client)
            assert (stats.rows, stats.reads) == (12, 2)


async def test_what_came_with_a_commit_that_was_undone_is_told_with_the_next(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    with fault_vfs("undone") as plan:
        failing = open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path, vfs="undone"))])
        async with failing as client, open_ledger(path) as other:
            await fill(client)
            async with following(client, WHOLE) as (reader,):
                await move(other, 1, "other")
                plan.fail("write", "full")  # the first thing that is done with the file behind that commit
                with pytest.raises(DiskFull):
                    await client.store(LEDGER).update("a00", by="undone")
                plan.heal()
                await client.store(LEDGER).update("a01", by="done")
                await reader.until(tuple(await client.query(WHOLE)))
                assert is_balanced(reader.rows)
                assert {row.by for row in reader.rows} == {"", "other", "done"}


@dataclass(frozen=True)
class EarlierAccount:
    """As it was before it was said who has written a row."""

    id: str
    place: int
    amount: int


EARLIER = StoreSpec("accounts", EarlierAccount, indexes=[Index("place", unique=True), Index("amount")])


async def test_what_a_program_of_an_earlier_schema_does_not_know_of_a_row_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    earlier = open_client(Schema(EARLIER), plugins=[LocalExecution(SQLiteEngine(path))])
    async with earlier as other, open_ledger(path) as client:
        await fill(client)
        async with following(client, TOP, RICH) as readers:
            await client.store(LEDGER).update("a00", amount=500, by="own")
            await other.store(EARLIER).update("a00", place=77)
            for reader in readers:
                await reader.until(tuple(await client.query(reader.query)))
                assert Account("a00", 77, 500, "own") in reader.rows
