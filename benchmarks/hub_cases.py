"""What a hub decides in a second, and for how much CPU: on a file, and on PostgreSQL beside it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from atoma.contracts.mutations import Op
from atoma.hub import Hub
from atoma.ports.hub import HubStore
from atoma_stores.sqlite import SQLiteHubStore
from benchmarks.measure import Row
from tests.postgres import NoPostgreSQL, Server
from tests.unit.hub.kit import Client, card, hub_on

SECONDS = 2.5
SHAPES = {"256 clients × 1": (256, 1), "8 clients × 50": (8, 50)}
BARS = {
    ("one scope", "256 clients × 1"): "≥ 2,500", ("one scope", "8 clients × 50"): "≥ 4,000",
    ("eight scopes", "256 clients × 1"): "≥ 2,500", ("eight scopes", "8 clients × 50"): "≥ 5,000",
}  # fmt: skip


async def pushes(folder: Path) -> list[Row]:
    """Pushes of one and of fifty, into one scope and into eight: a file, and one and two hubs on PostgreSQL.

    Load, hubs and the server share this machine; the CPU is that of this process, the load in it, and of no server.
    """
    rows: list[Row] = []
    try:
        server = Server(fsync="on", full_page_writes="on", synchronous_commit="on")
    except NoPostgreSQL:
        server = None
    try:
        for shape, (clients, size) in SHAPES.items():
            for scopes, count in (("one scope", 1), ("eight scopes", 8)):
                case = f"hub: {scopes}, {shape}"
                path = folder / f"{scopes}-{clients}.db"
                async with _hubs([SQLiteHubStore(path)]) as hubs:
                    file_s, file_us = await _load(hubs, clients, size, count)
                rows.append(Row(case, "SQLite", file_s, "mutations/s"))
                rows.append(Row(case, "SQLite: CPU with the load", file_us, "µs a mutation"))
                for number in (1, 2) if server is not None else ():
                    from atoma_stores.postgres import PostgreSQLHubStore

                    assert server is not None
                    address = server.dsn(server.new_database())
                    async with _hubs([PostgreSQLHubStore(address) for _ in range(number)]) as hubs:
                        found_s, found_us = await _load(hubs, clients, size, count)
                    variant = f"PostgreSQL, {number} hub{'s' if number > 1 else ''}"
                    bar = BARS[scopes, shape] if number == 1 else ""
                    rows.append(Row(case, variant, found_s, "mutations/s", found_s / file_s, "SQLite", bar))
                    rows.append(Row(case, f"{variant}: CPU", found_us, "µs a mutation", found_us / file_us, "SQLite"))
    finally:
        if server is not None:
            server.close()
    return rows


@asynccontextmanager
async def _hubs(stores: list[HubStore]) -> AsyncIterator[list[Hub]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(hub_on(store)) for store in stores]


async def _load(hubs: list[Hub], clients: int, size: int, scopes: int) -> tuple[float, float]:
    """Mutations in a second, and microseconds of CPU for each."""
    done = 0
    counting = False

    async def push(number: int) -> None:
        nonlocal done
        client = Client.of(hubs[number % len(hubs)], f"c{number}")
        while True:
            first = len(client.mutations) + 1
            for at in range(size):
                client.write(Op("create", "cards", f"{number}-{first + at}", card("t")), scope=f"s{number % scopes}")
            reply = await client.push(first)
            assert reply.error is None
            done += len(reply.outcomes) if counting else 0

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(push, number)
        await trio.sleep(0.7)  # every client is known, and statements are prepared
        counting, began, before = True, time.perf_counter(), time.process_time()
        await trio.sleep(SECONDS)
        took, cpu = time.perf_counter() - began, time.process_time() - before
        nursery.cancel_scope.cancel()
    return done / took, cpu / max(done, 1) * 1e6
