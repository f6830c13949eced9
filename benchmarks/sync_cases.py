"""Replication cases: what sync costs a local write, and how fast a table goes up and comes down."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import airportsdata

from atoma import Client, Schema, StaticTokenVerifier, Sync, open_client, open_hub
from atoma.contracts.execution import Durability
from atoma.demo.models import AIRPORT_SCHEMA, AIRPORTS
from atoma.demo.story import airports_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from benchmarks.measure import Row, Samples, each_async, watch_stalls
from benchmarks.models import SCHEMA, TODOS, todo

ROUNDS = 3
WRITES: dict[Durability, int] = {"normal": 500, "full": 60}
TOKEN = "bench"


@asynccontextmanager
async def open_hub_at(schema: Schema, path: Path) -> AsyncIterator[str]:
    """A hub that serves on a free loopback port; the block gets its address."""
    verifier = StaticTokenVerifier({TOKEN: "bench"})
    async with open_hub(schema, SQLiteHubStore(path), verifier=verifier) as hub:
        async with open_server(hub, "127.0.0.1:0") as address:
            yield address


@asynccontextmanager
async def open_synced(schema: Schema, path: Path, address: str) -> AsyncIterator[Client]:
    """A client that replicates every store of ``schema``."""
    plugins = [
        LocalExecution(SQLiteEngine(path)),
        Remote(WebSocketTransport(f"ws://{address}/sync", token=TOKEN)),
        Sync(stores=list(schema.stores)),
    ]
    async with open_client(schema, plugins=plugins, policy="sync-queue") as client:
        yield client


async def write_with_sync(folder: Path) -> list[Row]:
    """A local write with the outbox beside it, over the same write without; the hub is out of reach."""
    rows: list[Row] = []
    async with (
        open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(folder / "without.db"))]) as plain,
        open_synced(SCHEMA, folder / "with.db", "127.0.0.1:9") as synced,
    ):
        first = 0
        for durability, count in WRITES.items():
            samples = Samples()
            for _ in range(ROUNDS):
                for variant, client in (("without sync", plain), ("with sync", synced)):
                    store = client.store(TODOS)
                    items = [todo(first + number) for number in range(count)]
                    samples.add(
                        variant,
                        await each_async(lambda n: store.insert(items[n], durability=durability), count),
                    )
                first += count
            base, value = samples.median("without sync"), samples.median("with sync")
            case = f"local write with sync, {durability.upper()}"
            bar = "S7 ≤ 1.7×" if durability == "full" else "S7 ≤ 2.5×"
            rows.append(Row(case, "without sync", base * 1e6, "µs"))
            rows.append(Row(case, "with sync", value * 1e6, "µs", value / base, "without sync", bar))
    return rows


async def airports(folder: Path) -> list[Row]:
    """28,000 airports: up from A as single mutations, down to an empty B as a snapshot."""
    known = airports_of(airportsdata.load())
    async with open_hub_at(AIRPORT_SCHEMA, folder / "hub.db") as address:
        async with open_synced(AIRPORT_SCHEMA, folder / "a.db", address) as a:
            begin = time.perf_counter()
            (await a.store(AIRPORTS).insert_many(known)).raise_for_errors()
            loaded = time.perf_counter()
            await a.sync.wait_idle()
            pushed = time.perf_counter()
            async with open_synced(AIRPORT_SCHEMA, folder / "b.db", address) as b, watch_stalls() as stall:
                opened = time.perf_counter()
                await b.sync.wait_idle()
                pulled = time.perf_counter()
                assert await b.store(AIRPORTS).count() == len(known)
    case = f"{len(known):,} airports"
    return [
        Row(case, "insert_many under sync-queue", len(known) / (loaded - begin), "rows/s"),
        Row(case, "push, decided one by one", len(known) / (pushed - loaded), "rows/s", bar="S1 ≥ 2,000"),
        Row(case, "first sync of an empty device", len(known) / (pulled - opened), "rows/s"),
        Row(case, "loop's longest stall in it", stall.longest_s * 1000, "ms"),
    ]
