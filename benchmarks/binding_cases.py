"""What a call costs through each binding, beside the native client, ``asyncio.to_thread`` and aiosqlite; what ``import`` costs."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiosqlite
import apsw
import trio

from atoma import open_client
from atoma.bindings import aio, blocking
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from benchmarks.measure import Row
from benchmarks.models import INSERT, SCHEMA, TODOS, raw_connection, todo, values

PRELOADED, CALLS, ROUNDS = 1_000, 1_000, 3
IMPORTS = 9
IMPORT_BAR_MS = 150
SELECT = "SELECT * FROM todos WHERE id = ?"
Spent = dict[str, list[tuple[float, float]]]
"""Variant → seconds per call of each round: by the clock, and of the processor, all threads together."""


def ids() -> list[str]:
    return [f"todo-{(number * 7919) % PRELOADED:09}" for number in range(CALLS)]


class Timer:
    """Takes the time of ``CALLS`` calls."""

    def __init__(self, spent: Spent, variant: str) -> None:
        self._spent = spent.setdefault(variant, [])

    def __enter__(self) -> None:
        self._begin = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        ends = time.perf_counter(), time.process_time()
        self._spent.append(((ends[0] - self._begin[0]) / CALLS, (ends[1] - self._begin[1]) / CALLS))


async def bindings(folder: Path) -> list[Row]:
    """One row by id, 1,000 times in turn through each way."""
    spent: Spent = {}
    async with open_client(SCHEMA, plugins=_plugins(folder / "rows.db")) as client:
        await client.store(TODOS).insert_many([todo(number) for number in range(PRELOADED)])
    with raw_connection(folder / "raw.db", "normal") as raw:
        raw.executemany(INSERT, [values(todo(number)) for number in range(PRELOADED)])
    raw.close()
    for _ in range(ROUNDS):
        async with open_client(SCHEMA, plugins=_plugins(folder / "rows.db")) as client:
            store = client.store(TODOS)
            with Timer(spent, "native"):
                for id in ids():
                    await store.get(id)
        await trio.to_thread.run_sync(_blocking_round, folder, spent)
        await trio.to_thread.run_sync(lambda: asyncio.run(_asyncio_round(folder, spent)))
    return [*_rows(spent), await trio.to_thread.run_sync(_imports)]


def _plugins(path: Path) -> list[LocalExecution]:
    return [LocalExecution(SQLiteEngine(path))]


def _blocking_round(folder: Path, spent: Spent) -> None:
    with blocking.open_client(SCHEMA, plugins=_plugins(folder / "rows.db")) as client:
        store = client.store(TODOS)
        with Timer(spent, "blocking"):
            for id in ids():
                store.get(id)


async def _asyncio_round(folder: Path, spent: Spent) -> None:
    async with aio.open_client(SCHEMA, plugins=_plugins(folder / "rows.db")) as client:
        await _timed(spent, "aio", client.store(TODOS).get)
        sql = apsw.Connection(str(folder / "raw.db"))

        def select(id: str) -> object:
            return sql.execute(SELECT, (id,)).fetchall()

        await _timed(spent, "apsw in asyncio.to_thread", lambda id: asyncio.to_thread(select, id))
        sql.close()
    async with aiosqlite.connect(folder / "raw.db") as other:
        await _timed(spent, "aiosqlite", lambda id: other.execute_fetchall(SELECT, (id,)))


async def _timed(spent: Spent, variant: str, call: Callable[[str], Awaitable[object]]) -> None:
    with Timer(spent, variant):
        for id in ids():
            await call(id)


def _rows(spent: Spent) -> list[Row]:
    medians = {
        variant: tuple(statistics.median(column) for column in zip(*rounds, strict=True))
        for variant, rounds in spent.items()
    }
    rows: list[Row] = []
    for place, what in enumerate(("clock", "CPU")):
        base = medians["native"][place]
        rows += [
            Row(f"get by id, {what}", variant, told[place] * 1e6, "µs", told[place] / base, "native")
            for variant, told in medians.items()
        ]
    return rows


def _imports() -> Row:
    """Processor time of ``import atoma`` beyond that of ``import trio``, in fresh processes that take turns.

    Both are read as bytecode, as installers leave them: a checkout may have none, and then its compiler is measured.
    """
    clock = "import time; begin = time.process_time(); import {}; print(time.process_time() - begin)"
    spent: dict[str, list[float]] = {"trio": [], "atoma": []}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for number in range(1 + IMPORTS):
            for name, times in spent.items():
                command = [sys.executable, "-c", clock.format(name)]
                told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
                if number:  # the first writes the bytecode
                    times.append(float(told))
    beyond = (statistics.median(spent["atoma"]) - statistics.median(spent["trio"])) * 1e3
    return Row("import atoma, CPU", "beyond import trio", beyond, "ms", bar=f"≤ {IMPORT_BAR_MS}")
