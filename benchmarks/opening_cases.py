"""What a file of 100,000 rows costs to open: until the first answer, with many writes waiting, and in memory."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import trio

from atoma import Client, Plugin, Sync, open_client
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from benchmarks.live_cases import TOP, TOP_SQL
from benchmarks.measure import Row, Samples
from benchmarks.models import INSERT, SCHEMA, TODOS, raw_connection, todo, values
from benchmarks.programs import resident, running, tell

ROWS, PENDING, ROUNDS = 100_000, 20_000, 5
MIB = 1 << 20


async def opening(folder: Path) -> list[Row]:
    """W8, W9 and W12, each in a process of its own.

    Time is that of a process that has opened an empty file before, so that it has imported; memory, that of one that has not.
    """
    with closing(raw_connection(folder / "raw.db", "normal")) as raw, raw:
        raw.executemany(INSERT, [values(todo(number)) for number in range(ROWS)])
    for kind in ("plain", "synced"):
        async with open_file(folder / f"{kind}.db", kind) as client:
            await client.store(TODOS).insert_many([todo(number) for number in range(ROWS)])
    async with open_file(folder / "pending.db", "plain") as client:
        await client.store(TODOS).insert_many([todo(number) for number in range(ROWS)])
    async with open_file(folder / "pending.db", "synced") as client:
        await client.store(TODOS).insert_many([todo(ROWS + number) for number in range(PENDING)])
    samples, memory = Samples(), Samples()
    for _ in range(ROUNDS):
        for variant, kind, name in (
            ("raw apsw", "raw", "raw"),
            ("client", "plain", "plain"),
            (f"{PENDING:,} writes wait", "synced", "pending"),
        ):
            for warm in ("warm", "cold"):
                with running("benchmarks.opening_cases", kind, str(folder / f"{name}.db"), warm) as program:
                    found = program.hear()
                if warm == "warm":
                    samples.add(variant, found["seconds"])
                else:
                    memory.add(variant, found["bytes"])
    bars = {"client": "W8 ≤ 20 ms", f"{PENDING:,} writes wait": "W12 ≤ 50 ms"}
    return [
        *samples.rows(f"opening {ROWS:,} rows, to the first answer", "raw apsw", 1e3, "ms", bars),
        *memory.rows(
            f"memory for {ROWS:,} rows and a live query", "raw apsw", 1 / MIB, "MiB", {"client": "W9 ≤ 40 MiB"}
        ),
    ]


@asynccontextmanager
async def open_file(path: Path, kind: str) -> AsyncIterator[Client]:
    """A client of the file; a ``synced`` one finds no hub."""
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(path))]
    if kind == "synced":
        plugins += [Remote(MemoryTransport(MemoryNetwork())), Sync(stores=[TODOS])]
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue" if kind == "synced" else None) as client:
        yield client


async def _measure(kind: str, path: Path, warm: str) -> None:
    if kind != "raw" and warm == "warm":
        async with open_file(path.with_suffix(f".{os.getpid()}"), kind) as client, client.live(TOP) as batches:
            await anext(batches)
    gc.collect()
    before, began = resident(), time.perf_counter()
    if kind == "raw":
        with closing(raw_connection(path, "normal")) as raw:
            assert len(raw.execute(TOP_SQL).fetchall()) == 50
            tell({"seconds": time.perf_counter() - began, "bytes": resident() - before})
        return
    async with open_file(path, kind) as client:
        rows = await client.query(TOP)
        seconds = time.perf_counter() - began
        async with client.live(TOP) as batches:
            await anext(batches)
            assert len(rows) == 50
            tell({"seconds": seconds, "bytes": resident() - before})


if __name__ == "__main__":
    trio.run(_measure, sys.argv[1], Path(sys.argv[2]), sys.argv[3])
