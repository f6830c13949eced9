"""W10: rows replicated between two files of one process, and raw apsw that carries the same rows by hand.

By hand means: read a page, encode it, decode it, write it in one transaction. Numbers, conflicts and identities are left out,
which a replication cannot do without, so that the figure is a lower bound.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import apsw
import msgspec

from atoma import AllowLoopback, Client, Sync, open_client, open_hub
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from benchmarks.measure import Row, Samples, watch_stalls
from benchmarks.models import INSERT, SCHEMA, TODOS, raw_connection, todo, values

PULLED, PUSHED, PAGE, ROUNDS = 100_000, 10_000, 1_000, 3


async def replication(folder: Path) -> list[Row]:
    """A new device pulls what a hub has, and one that was away pushes what it wrote."""
    pull, push = Samples(), Samples()
    network, nowhere = MemoryNetwork(), MemoryNetwork()
    stalls = 0.0
    by_hand = Hands(folder)
    async with (
        open_hub(SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=AllowLoopback()) as hub,
        network.listen(hub),
    ):
        async with _open_device(folder / "first.db", network) as first:
            await first.store(TODOS).insert_many([todo(number) for number in range(PULLED)])
            await first.sync.wait_idle()
        for turn in range(ROUNDS):
            pull.add("raw apsw, by hand", by_hand.pull(turn))
            async with watch_stalls() as stall:
                began = time.perf_counter()
                async with _open_device(folder / f"pulling-{turn}.db", network) as device:
                    await device.sync.wait_idle()
                    pull.add("first sync of a device", time.perf_counter() - began)
                    assert await device.store(TODOS).count() >= PULLED
            stalls = max(stalls, stall.longest_s)
        for turn in range(ROUNDS):
            first_number = PULLED + turn * PUSHED
            push.add("raw apsw, by hand", by_hand.push(turn, first_number))
            path = folder / f"pulling-{turn}.db"
            async with _open_device(path, network) as device:  # what others have pushed is no part of its own push
                await device.sync.wait_idle()
            async with _open_device(path, nowhere) as away:
                await away.store(TODOS).insert_many([todo(first_number + number) for number in range(PUSHED)])
            async with watch_stalls() as stall:
                began = time.perf_counter()
                async with _open_device(path, network) as back:
                    await back.sync.wait_idle()
                    push.add("a device that was away", time.perf_counter() - began)
                    assert not await back.sync.outbox.entries()
            stalls = max(stalls, stall.longest_s)
    by_hand.close()
    hand = "raw apsw, by hand"
    return [
        *pull.rows(f"W10 pull of {PULLED:,}", hand, 1e3, "ms", {"first sync of a device": "W10 ≤ 2×"}),
        *push.rows(f"W10 push of {PUSHED:,}", hand, 1e3, "ms", {"a device that was away": "W10 ≤ 3×"}),
        Row("W10", "loop's longest stall", stalls * 1000, "ms"),
    ]


@asynccontextmanager
async def _open_device(path: Path, network: MemoryNetwork) -> AsyncIterator[Client]:
    plugins = [LocalExecution(SQLiteEngine(path)), Remote(MemoryTransport(network)), Sync(stores=[TODOS])]
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
        yield client


class Hands:
    """A hub's file with the rows, and device's files that pages are carried to and from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hub = raw_connection(folder / "raw-hub.db", "full")
        self._hub.execute("CREATE TABLE log(seq INTEGER PRIMARY KEY, id TEXT NOT NULL, body BLOB NOT NULL) STRICT")
        with self._hub:
            self._hub.executemany(INSERT, [values(todo(number)) for number in range(PULLED)])

    def close(self) -> None:
        self._hub.close()

    def pull(self, turn: int) -> float:
        """Seconds to carry every row of the hub to a new file."""
        began = time.perf_counter()
        with closing(raw_connection(self._folder / f"raw-pulling-{turn}.db", "normal")) as device:
            rows = self._hub.execute("SELECT * FROM todos ORDER BY rowid LIMIT ?", (PULLED,)).fetchall()
            for first in range(0, len(rows), PAGE):
                page = msgspec.msgpack.decode(msgspec.msgpack.encode(rows[first : first + PAGE]))
                with device:
                    device.executemany(INSERT, page)
        return time.perf_counter() - began

    def push(self, turn: int, first_number: int) -> float:
        """Seconds to carry the entries of an outbox to the hub, which logs them, and to empty the outbox."""
        with closing(raw_connection(self._folder / f"raw-pulling-{turn}.db", "normal")) as device:
            self._write_outbox(device, first_number)
            began = time.perf_counter()
            for first in range(0, PUSHED, PAGE):
                span = (first, first + PAGE)
                read = device.execute("SELECT mid, body FROM outbox WHERE mid >= ? AND mid < ?", span).fetchall()
                page = msgspec.msgpack.decode(msgspec.msgpack.encode(read))
                with self._hub:
                    rows = [msgspec.msgpack.decode(body) for _, body in page]
                    self._hub.executemany(INSERT, rows)
                    log = [(row[0], body) for row, (_, body) in zip(rows, page, strict=True)]
                    self._hub.executemany("INSERT INTO log(id, body) VALUES (?, ?)", log)
                with device:
                    device.execute("DELETE FROM outbox WHERE mid >= ? AND mid < ?", span)
            return time.perf_counter() - began

    @staticmethod
    def _write_outbox(device: apsw.Connection, first_number: int) -> None:
        device.execute("CREATE TABLE outbox(mid INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT")
        rows = [values(todo(first_number + number)) for number in range(PUSHED)]
        with device:
            device.executemany(INSERT, rows)
            device.executemany(
                "INSERT INTO outbox VALUES (?, ?)", [(mid, msgspec.msgpack.encode(row)) for mid, row in enumerate(rows)]
            )
