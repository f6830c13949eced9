"""A million rows under a table that is scrolled: what a frame costs the user interface, and what memory it takes.

Each toolkit is measured in a process of its own, Qt where it is installed (``pip install PySide6-Essentials``).
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import trio

from atoma import open_client
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from benchmarks.measure import Row
from benchmarks.models import SCHEMA, todo, values
from benchmarks.scrolling import HOSTS, there_is

ROWS = 1_000_000
FILL = (
    "INSERT INTO todos(id, title, status, priority, weight, user, created_at, notes, _ver, _scope)"
    " VALUES(?, ?, ?, ?, ?, ?, ?, ?, 0, 'main')"
)
FRAME_BAR = "≤ 16"
GROWN_BAR = "≤ 64"


async def windows(folder: Path) -> list[Row]:
    """A table over ``ROWS`` rows: smooth scrolling, and jumps anywhere."""
    path = folder / "rows.db"
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path))]):
        pass  # the tables are made
    with (
        closing(sqlite3.connect(path)) as other,
        other,
    ):
        other.executemany(FILL, (values(todo(number)) for number in range(ROWS)))
    rows: list[Row] = []
    for host in filter(there_is, HOSTS):
        command = [sys.executable, "-m", "benchmarks.scrolling", str(path), host]
        ended = await trio.run_process(command, capture_stdout=True)
        told: dict[str, float] = json.loads(ended.stdout)
        rows += [
            Row(f"scroll {ROWS:,} rows, a frame", f"{host}, p50", told["p50_ms"], "ms"),
            Row(f"scroll {ROWS:,} rows, a frame", f"{host}, p99", told["p99_ms"], "ms", bar=FRAME_BAR),
            Row(f"scroll {ROWS:,} rows, a frame", f"{host}, p99 of its CPU", told["cpu_p99_ms"], "ms"),
            Row("a jump, until the rows are there", f"{host}, p50", told["there_ms"], "ms"),
            Row("memory that scrolling added", host, told["grown_mb"], "MB", bar=GROWN_BAR),
        ]
    return rows
