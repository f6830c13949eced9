"""The database under the engine and the hub: group commit, snapshots, cancelling, failing disks, closing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio
import trio.testing

from atoma.errors import (
    AtomaError,
    ClosedError,
    ConflictError,
    DiskFull,
    Overloaded,
    QueryError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
)
from atoma.ports import Environment
from atoma_stores.sqlite import _threads
from atoma_stores.sqlite._readers import snapshot
from atoma_stores.sqlite.database import CHECKPOINT_EVERY_CALLS, READERS_MAX, Database, open_database
from atoma_stores.sqlite.faults import fault_vfs
from tests.unit.stores.kit import atoma_threads, inline, until


def put(value: int) -> Callable[[apsw.Connection], int]:
    def body(connection: apsw.Connection) -> int:
        connection.execute("INSERT INTO t(a) VALUES(?)", (value,))
        return value

    return body


def create(connection: apsw.Connection) -> None:
    connection.execute("CREATE TABLE t(a INTEGER NOT NULL) STRICT")


def fill(connection: apsw.Connection, rows: int) -> None:
    connection.executemany("INSERT INTO t VALUES(?)", ((n,) for n in range(rows)))


def put_blob(connection: apsw.Connection) -> None:
    connection.execute("INSERT INTO t VALUES(zeroblob(40000))")


def create_blobs(connection: apsw.Connection) -> None:
    connection.execute("CREATE TABLE t(a BLOB) STRICT")


def values(connection: apsw.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT a FROM t ORDER BY a")]


def count(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM t").get)


@pytest.fixture(params=["file", "inline file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Environment]:
    if request.param == "memory":
        return ":memory:", Environment()
    return str(tmp_path / "a.db"), inline() if request.param == "inline file" else Environment()


@pytest.mark.paths
async def test_units_commit_and_read_back_in_every_topology(place: tuple[str, Environment]) -> None:
    async with open_database(place[0], environment=place[1]) as db:
        await db.transact(create)
        assert await db.transact(put(1)) == 1
        assert await db.transact(put(2), durability="normal") == 2
        assert await db.transact(put(3), bulk=True) == 3
        assert await db.read(values) == await db.read_in_pool(values) == [1, 2, 3]
        for call in (db.read, db.read_in_pool, db.transact, partial(db.transact, durability="normal")):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call(count)
            assert scope.cancelled_caught, "every call notices that it is not wanted any more"


@pytest.mark.paths
async def test_writes_without_a_pause_keep_nobody_from_his_turn(place: tuple[str, Environment]) -> None:
    async with open_database(place[0], environment=place[1], durability="normal") as db, trio.open_nursery() as nursery:
        await db.transact(create)
        turn = trio.Event()

        async def come() -> None:
            turn.set()

        nursery.start_soon(come)
        for value in range(2 * CHECKPOINT_EVERY_CALLS):
            await db.transact(put(value))
        assert turn.is_set()


@pytest.mark.paths
async def test_a_unit_that_raises_undoes_its_own_work_only(place: tuple[str, Environment]) -> None:
    async with open_database(place[0], environment=place[1]) as db:
        await db.transact(create)

        async def one(value: int) -> None:
            def body(connection: apsw.Connection) -> None:
                put(value)(connection)
                if value % 3 == 0:
                    raise LookupError(value)

            if value % 3 == 0:
                with pytest.raises(LookupError, match=str(value)):
                    await db.transact(body)
            else:
                await db.transact(body)

        async with trio.open_nursery() as nursery:
            for value in range(60):
                nursery.start_soon(one, value)
        assert await db.read(values) == [value for value in range(60) if value % 3]


async def test_256_writers_share_their_fsyncs(tmp_path: Path) -> None:
    with fault_vfs("counting") as plan:
        async with open_database(str(tmp_path / "a.db"), environment=Environment(), vfs="counting") as db:
            await db.transact(create)
            before, syncs = db.statistics, plan.done["sync"]
            told: list[int] = []
            async with trio.open_nursery() as nursery:
                for value in range(256):
                    nursery.start_soon(partial(db.transact, put(value), on_commit=told.append))
            after = db.statistics
            assert after.units - before.units == 256
            assert after.commits - before.commits <= 16
            assert plan.done["sync"] - syncs <= 16
            assert await db.read(count) == 256
            order = await db.read(lambda c: [row[0] for row in c.execute("SELECT a FROM t ORDER BY rowid")])
            assert told == order  # heard in commit order


async def test_full_means_an_fsync_and_normal_means_none(tmp_path: Path) -> None:
    with fault_vfs("syncing") as plan:
        async with open_database(str(tmp_path / "a.db"), environment=Environment(), vfs="syncing") as db:
            await db.transact(create)
            at = plan.done["sync"]
            await db.transact(put(1), durability="normal")
            assert plan.done["sync"] == at
            assert db.statistics.inline_commits == 1
            await db.transact(put(2), durability="full")
            assert plan.done["sync"] > at
            assert db.statistics.inline_commits == 1
            await db.transact(put(3), durability="normal")
            assert db.statistics.inline_commits == 2, "nobody waits for the thread any more"
            assert await db.transact(lambda c: c.pragma("synchronous"), durability="normal") == 1, (
                "checkpoints are synced"
            )


@pytest.mark.paths
@pytest.mark.parametrize("before", ["this program", "one before it", "another one"])
async def test_full_goes_for_what_it_finds_as_well(tmp_path: Path, before: str) -> None:
    """A unit that has nothing to write promises what is there already, and SQLite syncs nothing for it by itself."""
    opened = partial(open_database, str(tmp_path / "a.db"), environment=inline(), vfs="syncing")

    async def syncs(work: Callable[[], Awaitable[object]]) -> int:
        at = plan.done["sync"]
        await work()
        return plan.done["sync"] - at

    with fault_vfs("syncing") as plan:
        async with opened() as db:
            await db.transact(create, durability="full")
            if before != "another one":
                await db.transact(put(1), durability="normal")
            if before == "this program":
                assert await syncs(lambda: db.transact(count, durability="normal")) == 0
                assert await syncs(lambda: db.transact(count, durability="full")) == 1
                assert await syncs(lambda: db.transact(count, durability="full")) == 0, "there is nothing left"
                await db.transact(put(2), durability="normal")
                assert await syncs(db.flush) == 1
                assert await syncs(db.flush) == 0
            if before == "another one":
                async with opened() as other:
                    await other.transact(put(1), durability="normal")
                    assert await syncs(db.flush) == 1
                    assert await syncs(db.flush) == 0
        if before == "one before it":
            async with opened() as db:
                assert await syncs(lambda: db.transact(count, durability="full")) >= 1, "it may have been killed"
                assert await syncs(db.flush) == 0


async def test_a_flush_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_database(str(path), environment=inline()) as db:
        await db.transact(lambda connection: connection.pragma("user_version", 7), durability="normal")
        await db.flush()
        assert await db.read(lambda connection: connection.pragma("user_version")) == 7
    async with open_database(":memory:", environment=inline()) as db:
        assert db.statistics.checkpoints == 0, "there is nothing to copy back"
        await db.flush()
    with pytest.raises(ClosedError):
        await db.flush()


async def test_a_flush_that_cannot_ask_the_file_says_so(tmp_path: Path) -> None:
    stops: list[bool] = []
    async with open_database(str(tmp_path / "a.db"), environment=inline()) as db:
        await db.transact(create)
        await db.transact(lambda c: c.set_progress_handler(lambda: bool(stops), 1))
        await db.flush()
        stops.append(True)
        with pytest.raises(AtomaError):
            await db.flush()
        stops.clear()
        await db.flush()


@pytest.mark.paths
async def test_a_read_is_one_snapshot(tmp_path: Path) -> None:
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        await db.transact(create)
        await db.transact(put(1))
        begun, written = threading.Event(), threading.Event()

        def twice(connection: apsw.Connection) -> tuple[int, int]:
            first = count(connection)
            begun.set()
            assert written.wait(10)
            return first, count(connection)

        async with trio.open_nursery() as nursery:

            async def write() -> None:
                await until(begun.is_set)
                await db.transact(put(2))
                written.set()

            nursery.start_soon(write)
            assert await db.read_in_pool(twice) == (1, 1)
        assert await db.read(count) == 2


async def test_a_long_read_moves_to_the_pool_and_the_loop_goes_on(tmp_path: Path) -> None:
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        await db.transact(create)
        await db.transact(lambda c: fill(c, 2_000))
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            pairs = await db.read(lambda c: c.execute("SELECT count(*) FROM t x, t y WHERE x.a <= y.a").get)
            nursery.cancel_scope.cancel()
        assert pairs == 2_000 * 2_001 // 2
        assert db.statistics.moved_reads == 1
        assert beats > 1


def stubborn(gate: threading.Event, begun: threading.Event | None = None) -> Callable[[apsw.Connection], int]:
    """A read that no interrupt reaches; it sets ``begun`` when it is on its thread."""

    def body(connection: apsw.Connection) -> int:
        if begun is not None:
            begun.set()
        assert gate.wait(30)
        return 1

    return body


@pytest.mark.paths
async def test_a_read_for_somebody_else_says_what_it_took_also_when_it_fails(place: tuple[str, Environment]) -> None:
    spent: list[float] = []
    async with open_database(place[0], environment=place[1]) as db:
        await db.transact(create)
        assert await db.read_within(count, 60.0, spent.append) == 0
        with pytest.raises(QueryError):
            await db.read_within(lambda c: c.execute("SELECT nothing"), 60.0, spent.append)
    assert len(spent) == 2


async def test_a_read_for_somebody_else_never_takes_the_last_thread(tmp_path: Path, gate: threading.Event) -> None:
    spent: list[float] = []
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        await db.transact(create)
        async with trio.open_nursery() as nursery:
            for _ in range(READERS_MAX + 3):
                nursery.start_soon(db.read_within, stubborn(gate), 60.0, spent.append)
            await until(lambda: db.statistics.reading == READERS_MAX - 1)
            assert await db.read_in_pool(count) == 0
            assert db.statistics.reading == READERS_MAX - 1
            gate.set()
        assert len(spent) == READERS_MAX + 3


async def test_reads_that_do_not_end_are_counted_and_close_the_pool_to_strangers_only(
    tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "INTERRUPTED_S", 0.01)  # after which a caller who has given up goes on
    spent: list[float] = []

    async def give_up(db: Database) -> None:
        begun = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.read_within, stubborn(gate, begun), 0.03, spent.append)
            await until(begun.is_set)
            nursery.cancel_scope.cancel()

    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        await db.transact(create)
        assert db.statistics.stuck == 0
        await give_up(db)
        await until(lambda: db.statistics.stuck == 1)
        assert await db.read_within(count, 60.0, spent.append) == 0, "one stuck thread is not half of them"
        for _ in range(READERS_MAX // 2 - 1):
            await give_up(db)
        await until(lambda: db.statistics.stuck == READERS_MAX // 2)
        with pytest.raises(Overloaded, match="reads do not end"):
            await db.read_within(count, 60.0, spent.append)
        assert await db.read_in_pool(count) == 0
        assert await db.read_at_once(count) == 0
        gate.set()
        await until(lambda: db.statistics.stuck == 0)
        assert await db.read_within(count, 60.0, spent.append) == 0
        assert len(spent) == 2 + READERS_MAX // 2
        assert min(spent[0], spent[2]) > 0.01, "what did not end is counted as well"


async def test_a_read_that_takes_long_is_not_tried_to_its_end_on_the_loop(tmp_path: Path) -> None:
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        await db.transact(create)
        await db.transact(lambda c: fill(c, 2_000))
        assert await db.read_at_once(count) == 2_000
        assert await db.read_at_once(lambda c: c.execute("SELECT count(*) FROM t x, t y WHERE x.a <= y.a").get) is None
        assert "atoma-reader" not in atoma_threads()


@pytest.mark.paths
async def test_readers_cannot_write(tmp_path: Path) -> None:
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        await db.transact(create)
        for read in (db.read, db.read_in_pool):
            with pytest.raises(StoreError, match="may not be written"):
                await read(put(1))
        with pytest.raises(QueryError, match="no such table: nowhere"):
            await db.read(lambda c: c.execute("SELECT * FROM nowhere").get)


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


def held(gate: threading.Event, begun: threading.Event, value: int) -> Callable[[apsw.Connection], int]:
    def body(connection: apsw.Connection) -> int:
        begun.set()
        assert gate.wait(10)
        return put(value)(connection)

    return body


async def test_cancelled_before_its_turn_a_unit_is_taken_out(tmp_path: Path, gate: threading.Event) -> None:
    begun = threading.Event()
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        await db.transact(create)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.transact, held(gate, begun, 1))
            await until(begun.is_set)
            with trio.CancelScope() as scope:
                scope.cancel()
                await db.transact(put(2))  # cancelled before it is even queued
            assert scope.cancelled_caught
            with trio.move_on_after(0.01) as scope:
                await db.transact(put(3))  # cancelled in the queue
            assert scope.cancelled_caught
            gate.set()
        assert await db.read(values) == [1]


async def test_cancelled_after_its_beginning_a_unit_is_committed_and_answered(
    tmp_path: Path, gate: threading.Event
) -> None:
    begun = threading.Event()
    told: list[int] = []
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        await db.transact(create)
        answer = 0
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    await until(begun.is_set)
                    scope.cancel()
                    gate.set()

                nursery.start_soon(cancel)
                answer = await db.transact(held(gate, begun, 1), on_commit=told.append)
        assert answer == 1
        assert told == [1]
        assert await db.read(values) == [1]


async def test_closing_finishes_what_is_queued_and_leaves_no_thread(tmp_path: Path, gate: threading.Event) -> None:
    begun = threading.Event()
    path = tmp_path / "a.db"
    answers: list[int] = []

    async def write(db: Database, body: Callable[[apsw.Connection], int]) -> None:
        answers.append(await db.transact(body))

    async with trio.open_nursery() as nursery:
        async with open_database(str(path), environment=Environment()) as db:
            await db.transact(create)
            assert await db.read_in_pool(count) == 0
            assert sorted(atoma_threads()) == ["atoma-checkpoint", "atoma-reader", "atoma-writer"]
            nursery.start_soon(write, db, held(gate, begun, 1))
            await until(begun.is_set)
            nursery.start_soon(write, db, put(2))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(trio.to_thread.run_sync, gate.set)
    assert sorted(answers) == [1, 2]
    assert atoma_threads() == []
    assert list(tmp_path.iterdir()) == [path]  # no -wal, no -shm: everything is checkpointed
    with closing(sqlite3.connect(path)) as other, other:
        assert [row[0] for row in other.execute("SELECT a FROM t ORDER BY a")] == [1, 2]
    other.close()
    for call in (db.transact, db.read, db.read_in_pool):
        with pytest.raises(ClosedError):
            await call(count)


class Clinging:
    """What runs jobs and does not let go."""

    def run(self, jobs: Sequence[_threads.Job[str]]) -> None:
        for job in jobs:
            job.succeed(job.body)

    def tidy(self) -> None:
        pass

    def close(self) -> None:
        raise apsw.BusyError("it is in use")


async def test_a_thread_that_cannot_let_go_ends_all_the_same_and_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    queue: _threads.JobQueue[str] = _threads.JobQueue()
    worker = _threads.Worker("atoma-clinging", queue, Clinging, thread=True)
    assert await _threads.wait_for(_threads.Job("done"), queue) == "done"
    queue.stop()
    await worker.join()
    assert atoma_threads() == []
    assert "atoma-clinging: what its thread holds was not let go of" in caplog.text
    assert "it is in use" in caplog.text


async def test_closing_when_cancelled_is_as_orderly(tmp_path: Path, gate: threading.Event) -> None:
    begun = threading.Event()
    with trio.CancelScope() as scope:
        async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
            await db.transact(create)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(db.transact, held(gate, begun, 1))
                await until(begun.is_set)
                scope.cancel()
                gate.set()
    assert atoma_threads() == []
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        assert await db.read(values) == [1]


@pytest.mark.paths
async def test_a_full_disk_is_typed_and_harms_nothing_before_or_after(tmp_path: Path) -> None:
    def big(connection: apsw.Connection) -> None:
        for value in range(5_000):
            connection.execute("INSERT INTO t VALUES(?)", (value + 1_000_000_000,))

    with fault_vfs("filling") as plan:
        async with open_database(str(tmp_path / "a.db"), environment=Environment(), vfs="filling") as db:
            await db.transact(create)
            await db.transact(put(1))
            for skip in (0, 1, 3):
                plan.fail("write", "full", skip=skip)
                with pytest.raises(DiskFull, match="nothing was written"):
                    await db.transact(big)
                plan.heal()
                assert await db.read(values) == [1]
            await db.transact(put(2))
        async with open_database(str(tmp_path / "a.db"), environment=Environment(), vfs="filling") as db:
            assert await db.read(values) == [1, 2]


async def test_when_sqlite_gives_a_group_up_its_units_fail_and_the_later_ones_run_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    async with open_database(path, environment=Environment()) as db:
        await db.transact(create)
        gate, begun = threading.Event(), threading.Event()
        failed: list[int] = []

        async def one(value: int) -> None:
            def body(connection: apsw.Connection) -> None:
                put(value)(connection)
                if value == 5:
                    # what a full disk does: the statement's conflict clause takes the whole transaction back
                    connection.execute("CREATE TABLE full_disk(a INTEGER PRIMARY KEY) STRICT")
                    connection.execute("INSERT INTO full_disk VALUES(1)")
                    connection.execute("INSERT OR ROLLBACK INTO full_disk VALUES(1)")

            try:
                await db.transact(body)
            except ConflictError:
                failed.append(value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.transact, held(gate, begun, 0))
            await until(begun.is_set)
            for value in range(1, 10):
                nursery.start_soon(one, value)
                await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert sorted(failed) == [1, 2, 3, 4, 5]
        assert await db.read(values) == [0, 6, 7, 8, 9]


@pytest.mark.paths
async def test_what_cannot_be_written_for_a_whole_group_fails_it_and_nothing_else(
    place: tuple[str, Environment],
) -> None:
    full = [True]

    def last(connection: apsw.Connection) -> None:
        if full[0]:
            raise apsw.FullError("the disk is full")

    async with open_database(place[0], environment=place[1]) as db:
        await db.transact(create)
        db.before_commit(last, lambda: None)
        with pytest.raises(DiskFull):
            await db.transact(put(1))
        full[0] = False
        assert await db.transact(put(2)) == 2
        assert await db.read(values) == [2]


async def test_a_peek_shows_nothing_that_its_caller_is_not_told_yet(tmp_path: Path, gate: threading.Event) -> None:
    begun = threading.Event()
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        await db.transact(create)
        assert db.peek(count) == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.transact, held(gate, begun, 1))
            await until(begun.is_set)
            assert db.peek(count) is None, "it may be committed at any moment"
            gate.set()
        assert db.peek(count) == 1
    assert db.peek(count) is None, "closed"


@pytest.mark.paths
async def test_a_file_whose_disk_is_full_is_closed_with_its_log(tmp_path: Path) -> None:
    with fault_vfs("full-at-the-end") as plan:
        async with open_database(str(tmp_path / "a.db"), environment=Environment(), vfs="full-at-the-end") as db:
            await db.transact(create)
            await db.transact(put(1))
            plan.fail("write", "full")
        assert plan.failed["full"] == 1, "nobody tries again"
        plan.heal()
        async with open_database(str(tmp_path / "a.db"), environment=Environment(), vfs="full-at-the-end") as db:
            assert await db.read(values) == [1]


@pytest.mark.paths
async def test_a_commit_that_leaves_doubt_poisons_the_connection(tmp_path: Path) -> None:
    with fault_vfs("failing") as plan:
        async with open_database(str(tmp_path / "a.db"), environment=Environment(), vfs="failing") as db:
            await db.transact(create)
            await db.transact(put(1))
            plan.fail("sync", "io", once=True)
            with pytest.raises(StoreError, match="whether the write is in the file shows when it is opened again"):
                await db.transact(put(2))
            for call in (db.transact, db.read, db.read_in_pool):
                with pytest.raises(StoreError, match="refuses every call"):
                    await call(count)
        async with open_database(str(tmp_path / "a.db"), environment=Environment(), vfs="failing") as db:
            assert (await db.read(values))[0] == 1
            await db.transact(put(3))


async def test_another_process_is_waited_for_without_stopping_the_loop(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    async with open_database(path, environment=Environment()) as db:
        await db.transact(create)
        other = apsw.Connection(path)  # not sqlite3: POSIX locks do not tell two libraries of one process apart
        other.execute("BEGIN IMMEDIATE")
        done = False

        async def write() -> None:
            nonlocal done
            await db.transact(put(1), durability="normal")
            done = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.sleep(0.05)
            assert not done
            assert await db.read(count) == 0  # readers are not held up
            other.execute("COMMIT")
        other.close()
        assert await db.read(values) == [1]


async def test_a_file_that_is_held_too_long_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoma_stores.sqlite._writer.BUSY_MS", 50)
    path = str(tmp_path / "a.db")
    async with open_database(path, environment=Environment()) as db:
        await db.transact(create)
        other = apsw.Connection(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await db.transact(put(1))
        other.execute("COMMIT")
        other.close()
        await db.transact(put(2))
        assert await db.read(values) == [2]


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 4_000])
async def test_what_is_no_database_is_corrupt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        async with open_database(str(path), environment=Environment()):
            raise AssertionError("opened")
    assert path.read_bytes() == content
    assert atoma_threads() == []


@pytest.mark.paths
async def test_a_damaged_page_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_database(str(path), environment=Environment()) as db:
        await db.transact(create)
        await db.transact(lambda c: fill(c, 9_000))
    damaged = bytearray(path.read_bytes())
    damaged[2 * 4096 : 4 * 4096] = b"\xff" * 8192
    path.write_bytes(damaged)
    async with open_database(str(path), environment=Environment()) as db:
        with pytest.raises(StoreCorrupt, match="damaged"):
            await db.read_in_pool(count)


async def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="check folder and permissions"):
        async with open_database(str(tmp_path / "no" / "a.db"), environment=Environment()):
            raise AssertionError("opened")


@pytest.mark.parametrize("bulk", [False, True])
async def test_checkpoints_keep_the_wal_short_even_without_a_pause(
    tmp_path: Path, bulk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoma_stores.sqlite._writer.WAL_PAGES_MAX", 512)
    path = tmp_path / "a.db"
    longest = 0
    async with open_database(str(path), environment=Environment(), durability="normal") as db:
        await db.transact(create_blobs)
        for _ in range(700):  # 29 MB
            await db.transact(put_blob, bulk=bulk)
        longest = (tmp_path / "a.db-wal").stat().st_size  # the file never shrinks while it is in use
        assert longest < 12_000_000  # 4 * 512 pages, and a quarter of 512 more
        assert await db.read_in_pool(count) == 700
    assert not (tmp_path / "a.db-wal").exists()


@pytest.mark.virtual_time
async def test_virtual_time_stands_still_while_sqlite_works(tmp_path: Path) -> None:
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        assert db.topology == "inline"
        await db.transact(create)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 3_600)
            for value in range(50):
                await db.transact(put(value))
            assert trio.current_time() < 1
            nursery.cancel_scope.cancel()
        assert atoma_threads() == []


@pytest.mark.paths
async def test_connections_are_hardened(tmp_path: Path) -> None:
    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as db:
        with pytest.raises(AtomaError):
            await db.transact(lambda c: c.execute("SELECT load_extension('x')").get)
        with pytest.raises(AtomaError):
            await db.transact(lambda c: c.execute('SELECT "no such column"').get)
        assert await db.transact(lambda c: c.pragma("trusted_schema")) == 0
        for call in (db.transact, db.read, db.read_in_pool):
            assert await call(lambda c: c.pragma("temp_store")) == 2, "what is sorted is not left on the disk"


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_snapshot_ends_also_when_its_beginning_is_what_gets_interrupted(at: int) -> None:
    connection = apsw.Connection(":memory:")
    steps = iter(range(1, 100))
    connection.set_progress_handler(lambda: next(steps) == at, 1)
    with pytest.raises(apsw.InterruptError):
        snapshot(connection, lambda connection: connection.execute("SELECT 1").get)
    connection.set_progress_handler(None)
    assert not connection.in_transaction
    assert snapshot(connection, lambda connection: connection.execute("SELECT 2").get) == 2


async def test_a_snapshot_ends_also_when_its_end_is_what_gets_interrupted() -> None:
    connection = apsw.Connection(":memory:")
    asked: list[int] = []

    def interrupt_once() -> bool:
        asked.append(1)
        return len(asked) == 1

    def body(connection: apsw.Connection) -> int:
        connection.set_progress_handler(interrupt_once, 1)  # the very next step is in the ROLLBACK
        return 1

    assert snapshot(connection, body) == 1
    assert asked
    assert not connection.in_transaction
    connection.set_progress_handler(None)
    assert snapshot(connection, lambda connection: connection.execute("SELECT 2").get) == 2
