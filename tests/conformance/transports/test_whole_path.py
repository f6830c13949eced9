"""Clients and a hub over every transport: direct reads and writes, sync, live rows, a pulled cable.

The pigeon is a transport that only these tests know, so passing here means that a new transport touches nothing else.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import AllowLoopback, Client, Hub, Query, Schema, StoreSpec, Sync, col, open_client, open_hub
from atoma.contracts.execution import OperationContext, QueryRequest, WriteEntry, WriteOptions, WriteRequest
from atoma.contracts.query import Compare, QuerySpec, Sort
from atoma.errors import AtomaError, RemoteError, TransportError, WriteError
from atoma.plugins import Plugin
from atoma.ports import Principal, seeded_environment
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters import ServiceProxy
from atoma_transports.remote import Remote

OpenWire = Callable[..., AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    lane: str = "todo"
    board: str = "main"


CARDS = StoreSpec("cards", Card, scope="board")
SCHEMA = Schema(CARDS)


@dataclass
class Door:
    """The hub behind the token that the wires of these tests bring."""

    hub: Hub

    async def authenticate(self, token: str, peer: Any) -> Principal:
        return await self.hub.authenticate("", peer)

    def service(self, principal: Principal) -> Any:
        return self.hub.service(principal)


@asynccontextmanager
async def hub_behind(open_wire: OpenWire, folder: Path) -> AsyncGenerator[Any]:
    async with open_hub(
        SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=AllowLoopback(), environment=seeded_environment(1)
    ) as hub:
        async with open_wire(Door(hub)) as wire:
            yield wire


def client_over(wire: Any, folder: Path, seed: int, *, synced: bool) -> AbstractAsyncContextManager[Client]:
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(folder / f"{seed}.db")), Remote(wire.transport())]
    if synced:
        plugins.append(Sync(stores=[CARDS], scopes=["main"]))
    policy = "sync-queue" if synced else "direct-remote"
    return open_client(SCHEMA, plugins=plugins, policy=policy, environment=seeded_environment(seed))


async def test_direct_reads_and_writes_reach_the_hub(open_wire: OpenWire, tmp_path: Path) -> None:
    async with hub_behind(open_wire, tmp_path) as wire, client_over(wire, tmp_path, 2, synced=False) as client:
        cards = client.store(CARDS)
        await cards.insert_many(
            [Card(id=str(number), title=f"täsk {number}") for number in range(20)], confirm="strict"
        )
        await cards.update("3", lane="doing", confirm="strict")
        await cards.delete("4", confirm="strict")
        page = await cards.query(Query().where(col("lane") == "doing"))
        assert [card.title for card in page] == ["täsk 3"]
        assert page.meta.source == "remote"
        assert [step.node for step in page.meta.path] == [f"remote-{wire.transport().name}"]
        assert len(list(await cards.query())) == 19
        with pytest.raises(WriteError):
            await cards.insert(Card(id="3", title="taken"))
        await wire.cut()
        with pytest.raises((TransportError, RemoteError)):
            await cards.query()
        await wire.mend()
        assert len(list(await cards.query())) == 19


async def test_two_clients_meet_at_the_hub_whatever_the_wire_does(open_wire: OpenWire, tmp_path: Path) -> None:
    async with (
        hub_behind(open_wire, tmp_path) as wire,
        client_over(wire, tmp_path, 2, synced=True) as one,
        client_over(wire, tmp_path, 3, synced=True) as two,
    ):
        handle = await one.store(CARDS).insert(Card(id="a", title="from one"))
        with trio.fail_after(30):
            await handle.accepted()
            async with two.store(CARDS).live() as batches:
                async for _ in batches:
                    if [card.id for card in await two.store(CARDS).query()] == ["a"]:
                        break
        await wire.cut()
        await one.store(CARDS).update("a", title="offline")
        offline = await two.store(CARDS).insert(Card(id="b", title="offline too"))
        await wire.mend()
        with trio.fail_after(120):
            await offline.accepted()
            while True:
                rows = [
                    sorted((card.id, card.title) for card in await side.store(CARDS).query()) for side in (one, two)
                ]
                if rows[0] == rows[1] == [("a", "offline"), ("b", "offline too")]:
                    break
                await trio.sleep(0.1)
        assert rows[0] == rows[1]


def random_write(rng: random.Random, number: int) -> WriteRequest:
    def entry() -> WriteEntry:
        op = rng.choice(["insert", "update", "upsert", "delete"])
        whole: dict[str, Any] = {"title": rng.choice(["ä", "", "z' --"]), "lane": rng.choice(["todo", "done"])}
        values = {"insert": whole, "update": {"title": "u"}, "upsert": whole, "delete": {}}[op]
        return WriteEntry("cards", op, str(rng.randrange(6)), "main", values, replace=op == "upsert")  # type: ignore[arg-type]

    entries = tuple(entry() for _ in range(rng.randrange(1, 5)))
    options = WriteOptions(atomic=rng.random() < 0.5)
    return WriteRequest(entries, options, OperationContext("t"), f"key-{number}")


def random_query(rng: random.Random) -> QueryRequest:
    where = rng.choice([None, Compare("eq", "lane", "done"), Compare("gt", "title", "")])
    order = (Sort("title", rng.random() < 0.5), Sort("id"))
    spec = QuerySpec(where=where, order=order, limit=rng.choice([None, 2]), count=rng.random() < 0.2)
    return QueryRequest("cards", spec, OperationContext("t"))


@pytest.mark.parametrize("seed", range(5))
async def test_what_travels_gives_what_is_done_in_place(open_wire: OpenWire, seed: int) -> None:
    """Two hubs, the same random requests: one is asked directly, the other over the wire."""

    def hub() -> AbstractAsyncContextManager[Hub]:
        environment = seeded_environment(1, wall_start_ms=0)
        return open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback(), environment=environment)

    rng = random.Random(seed)
    async with hub() as near, hub() as far, open_wire(Door(far)) as wire, wire.transport().connect() as channel:
        sides = (near.service(Principal("local")), ServiceProxy(channel))
        refused = 0
        write = random_write(rng, 0)
        for number in range(1, 40):
            if rng.random() < 0.8:  # else the same request again, under the same key
                write = random_write(rng, number)
            query = random_query(rng)
            here, there = [await answer_of(side.write(write)) for side in sides]
            assert here == there
            refused += not isinstance(here, tuple) or here[0] != "confirmed"
            found, found_there = [await answer_of(side.query(query)) for side in sides]
            assert found == found_there
        assert 0 < refused < 39


async def answer_of(work: Awaitable[Any]) -> object:
    """What a caller can tell apart: status and items, rows and total and cursor, or the error's code."""
    try:
        result = await work
    except AtomaError as error:
        return getattr(error, "remote_code", error.code)
    if hasattr(result, "items"):
        return result.status, result.items
    return result.rows, result.total, result.meta.cursor
