"""Live cases: from the call that writes to the new result at a reader, the durable commit included.

Beside them stand raw apsw, which commits and asks again, and a lower bound: raw apsw and by hand what an engine has to do
at least, for one query and without an interface.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apsw

from atoma import Client, col, open_client, select
from atoma.query.builder import Query
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from benchmarks.measure import Row, Samples, each, each_async
from benchmarks.models import INSERT, SCHEMA, TODOS, Todo, raw_connection, todo, values

ROWS, WRITES, ROUNDS = 100_000, 300, 3
TOP = select(TODOS).where(col("status") == "open").order_by("-created_at").limit(50)
TOP_SQL = "SELECT * FROM todos WHERE status='open' ORDER BY created_at DESC, id LIMIT 50"
ALL = select(TODOS).order_by("created_at")
ALL_SQL = "SELECT * FROM todos ORDER BY created_at, id"
UPDATE = "UPDATE todos SET title=?, created_at=? WHERE id=?"
NEWEST = 1_700_000_000 + 10 * ROWS
FOLLOWED = 1_000


@dataclass(slots=True)
class Files:
    """The same rows behind raw apsw and a client."""

    raw: apsw.Connection
    client: Client
    counter: int = 0

    def number(self) -> int:
        """Another one each time."""
        self.counter += 1
        return self.counter

    def write(self, sql: str, *bindings: object) -> None:
        """One transaction of raw apsw."""
        self.raw.execute("BEGIN IMMEDIATE")
        self.raw.execute(sql, bindings)  # type: ignore[arg-type]
        self.raw.execute("COMMIT")


@asynccontextmanager
async def open_files(folder: Path) -> AsyncIterator[Files]:
    """Two files of ``ROWS`` rows each."""
    rows = [todo(number) for number in range(ROWS)]
    raw = raw_connection(folder / "live-raw.db", "normal")
    with raw:
        raw.executemany(INSERT, [values(row) for row in rows])
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(folder / "live.db"))]) as client:
        await client.store(TODOS).insert_many(rows)
        yield Files(raw, client)
    raw.close()


async def live(folder: Path) -> list[Row]:
    """Every live case over one set of files."""
    async with open_files(folder) as files:
        return [
            *await many(files),
            *await top(files),
            *await sorted_list(files),
            *await refill(files),
        ]


def _changed(number: int, id: str) -> Todo:
    return replace(todo(int(id[5:])), title=f"changed {number}", created_at=NEWEST + number, status="open")


async def followed(files: Files, query: Query[Any], count: int, *writes: Callable[[int], Awaitable[object]]) -> float:
    """Seconds for each of ``writes``, one after the other, to its batch at the reader."""
    async with files.client.live(query) as batches:
        await anext(batches)

        async def turn(_: int) -> None:
            number = files.number()
            for write in writes:
                await write(number)
                assert (await anext(batches)).changes

        return await each_async(turn, count)


async def top(files: Files) -> list[Row]:
    """W5: the newest fifty of a status; a row becomes the newest."""
    samples = Samples()
    store = files.client.store(TODOS)
    ids = [f"todo-{number * 3:09}" for number in range(0, ROWS // 3, 97)]

    def again(number: int) -> None:
        files.write(UPDATE, f"changed {number}", NEWEST + number, ids[number % len(ids)])
        assert len(files.raw.execute(TOP_SQL).fetchall()) == 50

    keys, held = _held(files, TOP_SQL)

    def least(number: int) -> None:
        id, at = ids[number % len(ids)], NEWEST + number
        files.write(UPDATE, f"changed {number}", at, id)
        _replace(keys, held, (-at, id), id)
        while len(keys) > 75:
            held.pop(keys.pop()[1])

    async def ours(number: int) -> None:
        await store.update(ids[number % len(ids)], title=f"changed {number}", created_at=NEWEST + number)

    for _ in range(ROUNDS):
        samples.add("raw apsw, asked again", each(lambda _: again(files.number()), WRITES))
        samples.add("lower bound", each(lambda _: least(files.number()), WRITES))
        samples.add("live", await followed(files, TOP, WRITES, ours))
        samples.add("write alone", await each_async(lambda _: ours(files.number()), WRITES))
    return samples.rows("W5 live top 50 of 100k, update", "raw apsw, asked again", 1e6, "µs", {"live": "W5 ≤ 1.05×"})


async def refill(files: Files) -> list[Row]:
    """W5d: a row of the newest fifty is deleted, and the next one comes up."""
    samples = Samples()
    store = files.client.store(TODOS)
    newest = [str(row[0]) for row in files.raw.execute(TOP_SQL.replace("50", str(2 * WRITES * ROUNDS)))]
    own = [row.id for row in (await files.client.query(TOP.limit(2 * WRITES * ROUNDS))).items]

    def again(_: int) -> None:
        files.write("DELETE FROM todos WHERE id=?", newest.pop(0))
        assert len(list(files.raw.execute(TOP_SQL))) == 50

    async def ours(_: int) -> None:
        await store.delete(own.pop(0))

    for _ in range(ROUNDS):
        samples.add("raw apsw, asked again", each(again, WRITES))
        samples.add("live", await followed(files, TOP, WRITES, ours))
    return samples.rows(
        "W5d live top 50, delete and refill", "raw apsw, asked again", 1e6, "µs", {"live": "W5d ≤ 1.2×"}
    )


async def sorted_list(files: Files) -> list[Row]:
    """W5S: every row, sorted; one is updated and moves."""
    samples = Samples()
    store = files.client.store(TODOS)
    ids = [f"todo-{number * 3 + 1:09}" for number in range(0, ROWS // 3, 97)]

    def again(number: int) -> None:
        files.write(UPDATE, f"changed {number}", NEWEST - number, ids[number % len(ids)])
        assert len(files.raw.execute(ALL_SQL).fetchall()) > ROWS // 2

    keys, held = _held(files, ALL_SQL, sign=1)

    def least(number: int) -> None:
        id, at = ids[number % len(ids)], NEWEST - number
        files.write(UPDATE, f"changed {number}", at, id)
        _replace(keys, held, (at, id), id)

    async def ours(number: int) -> None:
        await store.update(ids[number % len(ids)], title=f"changed {number}", created_at=NEWEST - number)

    for _ in range(ROUNDS):
        samples.add("raw apsw, asked again", each(lambda _: again(files.number()), 3))
        samples.add("lower bound", each(lambda _: least(files.number()), WRITES))
        samples.add("live", await followed(files, ALL, WRITES, ours))
        samples.add("write alone", await each_async(lambda _: ours(files.number()), WRITES))
    return samples.rows("W5S live sorted 100k, update one", "lower bound", 1e6, "µs", {"live": "W5S ≤ 6×"})


async def many(files: Files) -> list[Row]:
    """W6: a thousand live queries, of which a write concerns one; and what it takes to open them."""
    samples = Samples()
    store = files.client.store(TODOS)

    async def of(count: int) -> tuple[float, float]:
        async with AsyncExitStack() as stack:
            began = time.perf_counter()
            readers = [
                await stack.enter_async_context(
                    store.live(select(TODOS).where(col("user") == f"user-{number}").limit(20))
                )
                for number in range(count)
            ]
            for reader in readers:
                await anext(reader)
            opened = time.perf_counter() - began

            async def turn(number: int) -> None:
                await store.update(f"todo-{number % count:09}", title=f"changed {files.number()}")
                assert (await anext(readers[number % count])).changes

            return opened, await each_async(turn, WRITES)

    for _ in range(ROUNDS):
        for count in (10, FOLLOWED):
            opened, seconds = await of(count)
            samples.add(f"one of {count:,}", seconds)
            if count == FOLLOWED:
                samples.add("set-up of each", opened / count)
    few, most = samples.median("one of 10"), samples.median(f"one of {FOLLOWED:,}")
    case = f"W6 one of {FOLLOWED:,} live queries"
    return [
        Row(case, "one of 10", few * 1e6, "µs"),
        Row(case, f"one of {FOLLOWED:,}", most * 1e6, "µs", most / few, "one of 10", "W6 ≤ 1.5×"),
        Row(case, "set-up of each", samples.median("set-up of each") * 1e6, "µs"),
    ]


Places = list[tuple[int, str]]


def _held(files: Files, sql: str, sign: int = -1) -> tuple[Places, dict[str, tuple[int, str]]]:
    """The rows of a result by hand: their places in order, and the place of each."""
    keys = [(sign * int(str(row[6])), str(row[0])) for row in files.raw.execute(sql)]
    return keys, {id: (at, id) for at, id in keys}


def _replace(keys: Places, held: dict[str, tuple[int, str]], new: tuple[int, str], id: str) -> None:
    old = held.get(id)
    if old is not None:
        del keys[bisect_left(keys, old)]
    insort(keys, new)
    held[id] = new
