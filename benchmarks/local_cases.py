"""Local cases: point get, single writes, group commit, bulk, and what runtime and kernel add to the bare engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import trio

from atoma import Client, Environment, Schema, Store, open_client
from atoma.contracts.execution import Durability, OperationContext, WriteOptions, WriteRequest
from atoma.ports import LocalDatabase
from atoma.query.plans import by_ids
from atoma.runtime.flows import insert_entry
from atoma_stores.local import LocalExecution, LocalWriteNode
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.faults import fault_vfs
from benchmarks.measure import Row, Samples, each, each_async, watch_stalls
from benchmarks.models import INSERT, SCHEMA, SEARCHED, TODOS, Todo, raw_connection, todo, values

PRELOADED = 10_000
GETS, NORMAL_WRITES, FULL_WRITES, WRITERS, BULK = 2_000, 1_000, 60, 256, 100_000
ROUNDS, CROWD_ROUNDS = 3, 9
SLOW_FSYNC_S = 0.002


@dataclass(slots=True)
class Numbers:
    """Numbers of rows that were not given out yet, from ``next`` on."""

    next: int = 0

    def take(self, count: int) -> range:
        """So many of them."""
        first, self.next = self.next, self.next + count
        return range(first, self.next)


@dataclass(slots=True)
class Local:
    """The same rows behind raw apsw, the bare engine and a client."""

    raw: dict[Durability, apsw.Connection]
    engine: LocalDatabase
    client: Client
    fresh: Numbers = field(default_factory=lambda: Numbers(PRELOADED))

    def numbers(self, count: int) -> range:
        """Numbers of rows that are in none of the files yet."""
        return self.fresh.take(count)


@asynccontextmanager
async def open_local(folder: Path) -> AsyncIterator[Local]:
    """Three files of ``PRELOADED`` rows each, opened."""
    rows = [todo(number) for number in range(PRELOADED)]
    raw: dict[Durability, apsw.Connection] = {
        "normal": raw_connection(folder / "raw-normal.db", "normal"),
        "full": raw_connection(folder / "raw-full.db", "full"),
    }
    for connection in raw.values():
        with connection:
            connection.executemany(INSERT, [values(row) for row in rows])
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(
            SQLiteEngine(folder / "engine.db").open_database(SCHEMA, Environment(), frozenset())
        )
        plugins = [LocalExecution(SQLiteEngine(folder / "client.db"))]
        client = await stack.enter_async_context(open_client(SCHEMA, plugins=plugins))
        node = LocalWriteNode(engine)
        for start in range(0, PRELOADED, 1000):
            await engine.commit(_request(range(start, start + 1000), "normal"), [node])
        await client.store(TODOS).insert_many(rows)
        yield Local(raw, engine, client)
    for connection in raw.values():
        connection.close()


def _request(numbers: range, durability: Durability) -> WriteRequest:
    entries = tuple(insert_entry(TODOS, todo(number)) for number in numbers)
    return WriteRequest(
        entries, WriteOptions(durability=durability), OperationContext("t"), f"bench-{numbers.start}-{id(entries)}"
    )


async def point_get(local: Local) -> list[Row]:
    """One row by id, to a typed object."""
    samples = Samples()
    ids = [f"todo-{(number * 7919) % PRELOADED:09}" for number in range(GETS)]
    store = local.client.store(TODOS)

    async def from_engine(number: int) -> None:
        result = await local.engine.read(by_ids("todos", (ids[number],)))
        TODOS.decode(result.rows[0].id, result.rows[0].image)

    for _ in range(ROUNDS):
        connection = local.raw["normal"]
        samples.add(
            "raw apsw", each(lambda n: connection.execute("SELECT * FROM todos WHERE id=?", (ids[n],)).fetchone(), GETS)
        )
        samples.add("bare engine, awaited", await each_async(from_engine, GETS))
        samples.add("direct-local", await each_async(lambda n: store.get(ids[n]), GETS))
    rows = samples.rows("point get", "raw apsw", 1e6, "µs")
    added = (samples.median("direct-local") - samples.median("bare engine, awaited")) * 1e6
    ratio = samples.median("direct-local") / samples.median("bare engine, awaited")
    return [
        *rows,
        Row("point get", "runtime + kernel add", added, "µs", ratio, "bare engine, awaited", "K1 ≤ 1.5× or ≤ +4 µs"),
    ]


async def single_write(local: Local, durability: Durability, count: int) -> list[Row]:
    """One row, one transaction, one caller."""
    samples = Samples()
    store, node, connection = local.client.store(TODOS), LocalWriteNode(local.engine), local.raw[durability]
    stalls = 0.0
    for _ in range(ROUNDS):
        rows = [todo(number) for number in local.numbers(count)]
        samples.add("raw apsw", each(lambda n: connection.execute(INSERT, values(rows[n])), count))
        requests = [_request(range(number, number + 1), durability) for number in local.numbers(count)]
        samples.add("bare engine", await each_async(lambda n: local.engine.commit(requests[n], [node]), count))
        rows = [todo(number) for number in local.numbers(count)]
        async with watch_stalls() as stall:
            samples.add("direct-local", await each_async(lambda n: store.insert(rows[n], durability=durability), count))
        stalls = max(stalls, stall.longest_s)
    case = f"single write, {durability.upper()}"
    ratio = samples.median("direct-local") / samples.median("bare engine")
    bar = "K2 ≤ 1.3×" if durability == "full" else "K2 ≤ 3×"
    return [
        *samples.rows(case, "raw apsw", 1e6, "µs"),
        Row(case, "runtime + kernel", ratio, "×", ratio, "bare engine", bar),
        Row(case, "loop's longest stall", stalls * 1000, "ms"),
    ]


async def concurrent_writes(local: Local) -> list[Row]:
    """256 tasks that each write one row at FULL: group commit."""
    return await _crowd("concurrent writes, FULL", local.client.store(TODOS), local.numbers, "W2F ≥ 15×")


async def concurrent_writes_on_a_slow_disk(folder: Path) -> list[Row]:
    """The same on a disk whose fsync takes ``SLOW_FSYNC_S`` longer, as those of most machines do."""
    with fault_vfs("bench-slow-disk") as disk:
        engine = SQLiteEngine(folder / "slow.db", vfs="bench-slow-disk")
        async with open_client(SCHEMA, plugins=[LocalExecution(engine)]) as client:
            disk.on_sync = lambda: time.sleep(SLOW_FSYNC_S)
            case = f"concurrent writes, FULL, fsync made {SLOW_FSYNC_S * 1000:g} ms slower"
            rows = await _crowd(case, client.store(TODOS), Numbers().take, "W2F ≥ 15×")
            disk.on_sync = None
    return rows


async def _crowd(case: str, store: Store[Todo], numbers: Callable[[int], range], bar: str) -> list[Row]:
    """One writer and 256 in turns; and how much more than one 256 could write if nothing but the processor took time."""
    samples, busy = Samples(), Samples()
    crowd = f"{WRITERS} writers"
    stalls = 0.0
    for _ in range(CROWD_ROUNDS):
        rows = [todo(number) for number in numbers(FULL_WRITES)]
        samples.add("one writer", await each_async(lambda n: store.insert(rows[n], durability="full"), FULL_WRITES))
        rows = [todo(number) for number in numbers(WRITERS)]

        async def insert(number: int) -> None:
            await store.insert(rows[number], durability="full")

        async with watch_stalls() as stall:
            begin, used = time.perf_counter(), time.process_time()
            async with trio.open_nursery() as nursery:
                for number in range(WRITERS):
                    nursery.start_soon(insert, number)
            samples.add(crowd, (time.perf_counter() - begin) / WRITERS)
            busy.add(crowd, (time.process_time() - used) / WRITERS)
        stalls = max(stalls, stall.longest_s)
    single, rate, processor = (
        1 / each for each in (samples.median("one writer"), samples.median(crowd), busy.median(crowd))
    )
    return [
        Row(case, "one writer", single, "rows/s"),
        Row(case, crowd, rate, "rows/s", rate / single, "one writer", bar),
        Row(case, "the most that the processor allows", processor, "rows/s", processor / single, "one writer"),
        Row(case, "loop's longest stall", stalls * 1000, "ms"),
    ]


async def bulk(folder: Path) -> list[Row]:
    """100,000 typed rows in one batch into an empty file."""
    samples = Samples()
    rows = [todo(number) for number in range(BULK)]
    stalls = 0.0
    for turn in range(ROUNDS):
        connection = raw_connection(folder / f"bulk-raw-{turn}.db", "normal")

        def write(_: int, connection: apsw.Connection = connection) -> None:
            with connection:
                connection.executemany(INSERT, [values(row) for row in rows])

        samples.add("raw apsw", each(write, 1))
        connection.close()
        plugins = [LocalExecution(SQLiteEngine(folder / f"bulk-{turn}.db"))]
        async with open_client(SCHEMA, plugins=plugins) as client, watch_stalls() as stall:
            samples.add("insert_many", await each_async(lambda _: client.store(TODOS).insert_many(rows), 1))
        stalls = max(stalls, stall.longest_s)
        plugins = [LocalExecution(SQLiteEngine(folder / f"bulk-searched-{turn}.db"))]
        async with open_client(Schema(SEARCHED), plugins=plugins) as client:
            searched = "insert_many, two fields searched"
            samples.add(searched, await each_async(lambda _: client.store(SEARCHED).insert_many(rows), 1))
    case = f"bulk insert of {BULK:,}"
    return [
        *samples.rows(case, "raw apsw", 1e3, "ms", {"insert_many": "W1 ≤ 2×"}),
        Row(case, "loop's longest stall", stalls * 1000, "ms"),
    ]
