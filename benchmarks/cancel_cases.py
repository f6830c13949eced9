"""What a cancel costs: from the cancel at the caller to an idle SQLite connection and an ended handler at the hub."""

from __future__ import annotations

import functools
import operator
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from atoma import Client, Hub, Schema, StaticTokenVerifier, StoreSpec, col, open_client, open_hub, select
from atoma.plugins import Plugin
from atoma.ports import Environment, Transport
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite.database import Database
from atoma_stores.sqlite.hub_store import SQLiteHubDatabase
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from benchmarks.measure import Row

ROWS, LETTERS, PATTERNS, CANCELS, BATCH = 4_000, 2_000, 250, 100, 500
WORKING_S, POLL_S = 0.01, 0.0002
TOKEN = "bench"
BAR = "K3 ≤ 100 ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    id: str
    text: str


PAPERS = StoreSpec("papers", Paper)
SCHEMA = Schema(PAPERS)
SLOW = select(PAPERS).where(
    functools.reduce(operator.or_, (col("text").like(f"%m{number}%") for number in range(PATTERNS)))
)
"""Ten seconds of work for SQLite."""


class OpenedHubStore:
    """A hub's file whose figures can be read while it is open."""

    def __init__(self, path: Path) -> None:
        self._store = SQLiteHubStore(path)
        self.files: list[Database] = []

    @asynccontextmanager
    async def open_hub_database(self, schema: Schema, environment: Environment) -> AsyncIterator[SQLiteHubDatabase]:
        async with self._store.open_hub_database(schema, environment) as database:
            self.files.append(database.database)
            yield database


@asynccontextmanager
async def open_transport(kind: str, hub: Hub) -> AsyncIterator[Transport]:
    """A way to the hub."""
    if kind == "memory":
        network = MemoryNetwork()
        async with network.listen(hub):
            yield MemoryTransport(network, token=TOKEN)
    else:
        async with open_server(hub, "127.0.0.1:0") as address:
            yield _over_sockets(kind, address)


def _over_sockets(kind: str, address: str) -> Transport:
    if kind == "grpc":
        return GrpcTransport(f"grpc://{address}", token=TOKEN)
    if kind == "http":
        return HttpTransport(f"http://{address}", token=TOKEN)
    return WebSocketTransport(f"ws://{address}/sync", token=TOKEN)


async def cancel(folder: Path) -> list[Row]:
    """Cancel a query that keeps the hub's SQLite busy, over each transport, and one that runs in the local file."""
    rows: list[Row] = []
    for kind in ("memory", "websocket", "grpc", "http"):
        store = OpenedHubStore(folder / f"{kind}-hub.db")
        async with open_hub(SCHEMA, store, verifier=StaticTokenVerifier({TOKEN: "bench"})) as hub:
            async with open_transport(kind, hub) as transport:
                plugins: list[Plugin] = [LocalExecution(SQLiteEngine(folder / f"{kind}.db")), Remote(transport)]
                async with open_client(SCHEMA, plugins=plugins) as client:
                    await _fill(client, "direct-remote")
                    (file,) = store.files
                    at_the_hub = functools.partial(_is_busy, hub, file)
                    delays = [await _one(client, "direct-remote", at_the_hub) for _ in range(CANCELS)]
                    rows += _rows("cancel → idle hub handler and SQLite", kind, delays)
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(folder / "local.db"))]) as client:
        await _fill(client, "direct-local")
        delays = [await _one(client, "direct-local", None) for _ in range(CANCELS)]
    return rows + _rows("cancel → idle local SQLite", "reader pool", delays)


async def _fill(client: Client, policy: str) -> None:
    papers = [Paper(id=f"{number:06}", text="m-" * (LETTERS // 2)) for number in range(ROWS)]
    for start in range(0, ROWS, BATCH):
        batch = papers[start : start + BATCH]
        (await client.store(PAPERS).insert_many(batch, policy=policy, confirm="strict", atomic=True)).raise_for_errors()


def _is_busy(hub: Hub, file: Database) -> bool:
    return hub.calls > 0 or file.statistics.reading > 0


async def _one(client: Client, policy: str, is_busy: Callable[[], bool] | None) -> float:
    """Seconds from the cancel until nothing runs; without ``is_busy`` the call itself returns only then."""
    scope = trio.CancelScope()

    async def ask() -> None:
        with scope:
            await client.store(PAPERS).query(SLOW, policy=policy)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(WORKING_S)
        if is_busy is not None:
            assert is_busy(), "the query is not as slow as it has to be"
        begin = trio.current_time()
        scope.cancel()
        if is_busy is not None:
            while is_busy():
                await trio.sleep(POLL_S)
            return trio.current_time() - begin
    assert scope.cancelled_caught, "the query is not as slow as it has to be"
    return trio.current_time() - begin


def _rows(case: str, variant: str, delays: list[float]) -> list[Row]:
    ordered = sorted(delays)
    return [
        Row(case, f"{variant}, p50", statistics.median(ordered) * 1000, "ms", bar=BAR),
        Row(case, f"{variant}, p99", ordered[int(len(ordered) * 0.99)] * 1000, "ms", bar=BAR),
    ]
