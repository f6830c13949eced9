"""A hub as a process: ``python -m benchmarks.hub_program WHERE``, a file or ``postgresql://…``, prints its port and obeys.

Each line of standard input is an order, answered with one line: ``{"do": "push", …}`` with the fields of a
:class:`benchmarks.hub_load.Load` pushes to this hub from within its process, ``{"do": "hear", …}`` does so and listens for what
others commit, ``{"do": "fill", "scope": …, "rows": …}`` writes rows, ``{"do": "look"}`` tells CPU, memory and rows that were
read for snapshots. Anybody is let in as whoever the token says, so that many are many.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict

import trio

from atoma import Schema, open_hub
from atoma.contracts.mutations import Op
from atoma.hub import Hub, open_garbage_collection
from atoma.ports import Environment, Peer, Principal
from atoma.ports.hub import HubDatabase, HubStore, ScanPage
from atoma_stores.sqlite import SQLiteHubStore
from atoma_stores.sqlite.hub_store import SQLiteHubDatabase
from atoma_transports.serving import open_server
from benchmarks.hub_load import Load, listen, push
from benchmarks.programs import resident, tell
from tests.unit.hub.kit import SCHEMA, Client, card

FILL_OPS, FILL_PUSH = 500, 8
"""Rows in a mutation, and mutations in a push."""


class Everybody:
    """A verifier to which a token is a name."""

    async def verify(self, token: str, peer: Peer) -> Principal:
        return Principal(token)


class Opened:
    """A store whose groups, and the rows that are read of it for snapshots, can be counted while it is open."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self.groups: Callable[[], int] = int
        self.scanned = 0

    @asynccontextmanager
    async def open_hub_database(self, schema: Schema, environment: Environment) -> AsyncIterator[HubDatabase]:
        async with self._store.open_hub_database(schema, environment) as database:
            self.groups, scan = lambda: _groups(database), database.scan

            async def counted(*place: object, **bounds: object) -> ScanPage:
                page = await scan(*place, **bounds)
                self.scanned += len(page.rows)
                return page

            database.scan = counted
            yield database


def _groups(database: HubDatabase) -> int:
    if isinstance(database, SQLiteHubDatabase):
        return database.database.statistics.commits
    from atoma_stores.postgres.database import PostgreSQLHubDatabase

    assert isinstance(database, PostgreSQLHubDatabase)
    return database.figures.groups


def store_at(where: str) -> HubStore:
    """The store of hubs there."""
    if not where.startswith("postgresql://"):
        return SQLiteHubStore(where)
    from atoma_stores.postgres import PostgreSQLHubStore

    return PostgreSQLHubStore(where)


async def heard(hub: Hub, load: Load) -> dict[str, object]:
    """What was committed here, and which hints came."""
    told: list[tuple[str, int, float]] = []
    hints: list[tuple[str, int, float]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, hub, load.scopes, hints)
        done = await push(hub, load, told=told)
        await trio.sleep(1.5)  # what was committed last is heard of by then, by the poll at the latest
        nursery.cancel_scope.cancel()
    return {"mutations": done.mutations, "seconds": done.seconds, "told": told, "hints": hints}


async def fill(hub: Hub, scope: str, rows: int) -> None:
    """Write small rows, many in a mutation, so that it is soon done."""
    client = Client.of(hub, f"fill-{scope}", "owner")
    for start in range(0, rows, FILL_PUSH * FILL_OPS):
        first = len(client.mutations) + 1
        for of in range(start, min(start + FILL_PUSH * FILL_OPS, rows), FILL_OPS):
            numbers = range(of, min(of + FILL_OPS, rows))
            client.write(
                *(Op("create", "cards", f"{scope}-{at:07}", card(f"card {at}")) for at in numbers), scope=scope
            )
        reply = await client.push(first)
        assert reply.error is None, reply.error
        assert {outcome.status for outcome in reply.outcomes} == {"applied"}


async def obey(where: str) -> None:
    """Serve, and do what standard input says until it ends."""
    store = Opened(store_at(where))
    async with open_hub(SCHEMA, store, verifier=Everybody()) as hub:
        # a port has places for 5,000 connections, so ten thousand take two
        async with (
            open_server(hub, "127.0.0.1:0") as address,
            open_server(hub, "127.0.0.1:0") as other,
            open_garbage_collection(),
        ):
            tell({"port": int(address.rpartition(":")[2]), "second": int(other.rpartition(":")[2])})
            while line := await trio.to_thread.run_sync(sys.stdin.readline):
                order = json.loads(line)
                match order.pop("do"):
                    case "push":
                        tell(asdict(await push(hub, Load(**order), store.groups)))
                    case "hear":
                        tell(await heard(hub, Load(**order)))
                    case "fill":
                        await fill(hub, order["scope"], order["rows"])
                        tell({})
                    case _:
                        told = {"cpu_s": time.process_time(), "resident": resident(), "scanned": store.scanned}
                        tell({**told, "sessions": len(hub.sessions())})


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    trio.run(obey, sys.argv[1])
