"""Clients and a hub over every transport: direct reads and writes, sync, live rows, a broken link, a lost answer."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import AllowLoopback, Client, Hub, Schema, StoreSpec, Sync, col, open_client, open_hub, select
from atoma.contracts.execution import OperationContext, QueryRequest, ResolveRequest, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op, OpKind
from atoma.errors import AtomaError, ChannelBroken, RemoteError, TransportError, WriteError
from atoma.plugins import Plugin
from atoma.ports import Principal, Transport, seeded_environment
from atoma.testing.conformance import Faults, Ground, HookedHost, TransportSite
from atoma.testing.queries import count_of, rows_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.remote import Remote

LIMITS = ChannelLimits(ping_s=0.5, pong_s=2.0, handshake_s=5.0)
LARGE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    lane: str = "todo"
    board: str = "main"


CARDS = StoreSpec("cards", Card, scope="board")
SCHEMA = Schema(CARDS)


@dataclass
class Road:
    """A hub that is served, the way to it, and what can be done to that."""

    hub: Hub
    ground: Ground
    on_call: Callable[[str, str], Awaitable[object]] | None = None
    repaired: trio.Event = field(default_factory=trio.Event)

    def transport(self) -> Transport:
        return self.ground.transport("any", LIMITS)

    @property
    def faults(self) -> Faults:
        assert self.ground.faults is not None
        return self.ground.faults

    async def hook(self, moment: str, method: str) -> None:
        if self.on_call is not None:
            await self.on_call(moment, method)


@asynccontextmanager
async def hub_behind(site: TransportSite, path: Path | str) -> AsyncGenerator[Road]:
    opening = open_hub(SCHEMA, SQLiteHubStore(path), verifier=AllowLoopback(), environment=seeded_environment(1))
    async with opening as hub, site.open_site(LIMITS) as ground:
        road = Road(hub, ground)
        async with ground.serve(HookedHost(hub, road.hook, token="")):
            yield road


def client_over(road: Road, folder: Path, seed: int, *, synced: bool) -> AbstractAsyncContextManager[Client]:
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(folder / f"{seed}.db")), Remote(road.transport())]
    if synced:
        plugins.append(Sync(stores=[CARDS], scopes=["main"]))
    policy = "sync-queue" if synced else "direct-remote"
    return open_client(SCHEMA, plugins=plugins, policy=policy, environment=seeded_environment(seed))


async def test_direct_reads_and_writes_reach_the_hub(site: TransportSite, tmp_path: Path) -> None:
    async with hub_behind(site, tmp_path / "hub.db") as road, client_over(road, tmp_path, 2, synced=False) as client:
        cards = client.store(CARDS)
        await cards.insert_many(
            [Card(id=str(number), title=f"täsk {number}") for number in range(20)], confirm="strict"
        )
        await cards.update("3", lane="doing", confirm="strict")
        await cards.delete("4", confirm="strict")
        page = await cards.query(select(CARDS).where(col("lane") == "doing"))
        assert [card.title for card in page] == ["täsk 3"]
        assert page.meta.source == "remote"
        assert [step.node for step in page.meta.path] == [f"remote-{road.transport().name}"]
        assert len(list(await cards.query())) == 19
        with pytest.raises(WriteError):
            await cards.insert(Card(id="3", title="taken"))
        await road.faults.cut()
        with pytest.raises((TransportError, RemoteError)):
            await cards.query()
        await road.faults.repair()
        assert len(list(await cards.query())) == 19


NEVER_READ: dict[str, Callable[[Any, str], Awaitable[Any]]] = {
    "update": lambda cards, confirm: cards.update("1", title="mine", confirm=confirm),
    "update_many": lambda cards, confirm: cards.update_many({"1": {"title": "mine"}}, confirm=confirm),
    "upsert": lambda cards, confirm: cards.upsert({"id": "1", "title": "mine"}, confirm=confirm),
    "upsert_many": lambda cards, confirm: cards.upsert_many([Card(id="1", title="mine")], confirm=confirm),
    "delete": lambda cards, confirm: cards.delete("1", confirm=confirm),
    "delete_many": lambda cards, confirm: cards.delete_many(["1", "2"], confirm=confirm),
}


@pytest.mark.parametrize("confirm", ["strict", "optimistic"])
@pytest.mark.parametrize("write", NEVER_READ)
async def test_a_direct_write_of_a_row_that_was_never_read_here(
    site: TransportSite, tmp_path: Path, write: str, confirm: str
) -> None:
    """Its scope is a field, and this device knows nothing of the row: the hub decides, and here is what there is."""
    async with hub_behind(site, tmp_path / "hub.db") as road:
        async with client_over(road, tmp_path, 3, synced=False) as other:
            await other.store(CARDS).insert_many([Card(id=id, title="theirs") for id in "12"], confirm="strict")
        async with client_over(road, tmp_path, 2, synced=False) as client:
            cards = client.store(CARDS)
            result = await NEVER_READ[write](cards, confirm)
            if confirm == "optimistic" and not hasattr(result, "items"):
                await result.accepted()
            for item in getattr(result, "items", ()):
                assert item.ok, item.error
                await item.handle.accepted()
            there = {card.id: card.title for card in await cards.query()}
            here = {card.id: card.title for card in await cards.query(policy="direct-local")}
        if "delete" in write:
            assert there == ({} if write == "delete_many" else {"2": "theirs"})
        else:
            assert there == {"1": "mine", "2": "theirs"}
        assert here == there, "the query has just brought what is there"


def breaking(road: Road, moment: str, method: str) -> list[str]:
    """Have the link break for a moment the first time that ``method`` is at ``moment``; tells when it did."""
    broken: list[str] = []

    async def break_once(at: str, called: str) -> None:
        if (at, called) == (moment, method) and not broken:
            broken.append(called)
            await road.faults.cut()
            with trio.CancelScope(shield=True):  # the cut cancels this very handler
                await trio.sleep(0.05)
                await road.faults.repair()
                road.repaired.set()

    road.on_call = break_once
    return broken


@pytest.mark.parametrize("method", ["push", "pull"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_answer_lost_while_syncing_loses_and_doubles_nothing(
    site: TransportSite, tmp_path: Path, moment: str, method: str
) -> None:
    async with hub_behind(site, tmp_path / "hub.db") as road:
        broken = breaking(road, moment, method)
        async with client_over(road, tmp_path, 2, synced=True) as client:
            handle = await client.store(CARDS).insert(Card(id="a", title="ä"))
            with trio.fail_after(60):
                assert await handle.accepted() == 1
                await handle.observed()
            assert broken == [method]
        async with road.transport().connect() as channel:
            rows = (await ServiceProxy(channel).query(QueryRequest(rows_of("cards"), OperationContext("t")))).rows
        assert [(row.id, row.seq, row.image["title"]) for row in rows] == [("a", 1, "ä")]


@pytest.mark.parametrize("fault", ["request cut off", "reply cut off", "slow", "restart"])
async def test_sync_gets_through_whatever_the_road_does(site: TransportSite, tmp_path: Path, fault: str) -> None:
    """Two devices, rows too large for one packet: after the fault both hold what both wrote, each row once."""
    opening = open_hub(
        SCHEMA, SQLiteHubStore(tmp_path / "hub.db"), verifier=AllowLoopback(), environment=seeded_environment(1)
    )
    async with opening as hub, site.open_site(LIMITS) as ground, AsyncExitStack() as clients:
        road = Road(hub, ground)
        host = HookedHost(hub, road.hook, token="")
        sides = [await clients.enter_async_context(client_over(road, tmp_path, n, synced=True)) for n in (2, 3)]
        async with ground.serve(host):
            with trio.fail_after(60):
                await (await sides[0].store(CARDS).insert(Card(id="first", title="x"))).observed()
                if fault in ("request cut off", "reply cut off"):
                    await road.faults.truncate("to-server" if fault == "request cut off" else "to-client", 60_000)
                elif fault == "slow":
                    await road.faults.slow(0.05)
                if fault != "restart":
                    await write_and_meet(sides)
        if fault == "restart":
            for side in sides:
                await side.store(CARDS).insert(Card(id=f"while away {side is sides[0]}", title="y"))
            async with ground.serve(host):
                with trio.fail_after(60):
                    await write_and_meet(sides)
        rows = [sorted((card.id, len(card.title)) for card in await side.store(CARDS).query()) for side in sides]
        away = [("while away False", 1), ("while away True", 1)] if fault == "restart" else []
        assert rows[0] == rows[1] == [("0", LARGE), ("1", LARGE), ("first", 1), *away]


async def write_and_meet(sides: Sequence[Client]) -> None:
    """Each side writes a large row, and sees both."""
    handles = [await side.store(CARDS).insert(Card(id=str(n), title="ü" * LARGE)) for n, side in enumerate(sides)]
    for handle in handles:
        await handle.observed()
    while True:
        ids = [{card.id for card in await side.store(CARDS).query()} for side in sides]
        if ids[0] == ids[1] and {"0", "1", "first"} <= ids[0]:
            return
        await trio.sleep(0.05)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_direct_write_whose_answer_is_lost_is_resolved_by_its_key(site: TransportSite, moment: str) -> None:
    entry = Op("create", "cards", "a", {"title": "ä", "lane": "todo"}, scope="main")
    request = WriteRequest((entry,), WriteOptions(), OperationContext("t"), "key-1")
    async with hub_behind(site, ":memory:") as road:
        broken = breaking(road, moment, "write")
        async with road.transport().connect() as channel:
            with pytest.raises(ChannelBroken) as lost:
                await ServiceProxy(channel).write(request)
            assert lost.value.maybe_sent
        with trio.fail_after(60):
            await road.repaired.wait()
        async with road.transport().connect() as channel:
            service = ServiceProxy(channel)
            resolution = await service.resolve(ResolveRequest("key-1", OperationContext("t")))
            again = await service.write(request)
            rows = (await service.query(QueryRequest(rows_of("cards"), OperationContext("t")))).rows
    assert broken == ["write"]
    if moment == "before":
        assert resolution.abandoned
        assert (again.status, again.items[0].error and again.items[0].error.code) == ("rejected", "ABANDONED")
        assert rows == ()
    else:
        assert resolution.result is not None
        assert resolution.result.items == again.items
        assert [row.id for row in rows] == ["a"]


async def test_two_clients_meet_at_the_hub_whatever_the_wire_does(site: TransportSite, tmp_path: Path) -> None:
    async with (
        hub_behind(site, tmp_path / "hub.db") as road,
        client_over(road, tmp_path, 2, synced=True) as one,
        client_over(road, tmp_path, 3, synced=True) as two,
    ):
        handle = await one.store(CARDS).insert(Card(id="a", title="from one"))
        with trio.fail_after(30):
            await handle.accepted()
            async with two.store(CARDS).live() as batches:
                async for _ in batches:
                    if [card.id for card in await two.store(CARDS).query()] == ["a"]:
                        break
        await road.faults.cut()
        await one.store(CARDS).update("a", title="offline")
        offline = await two.store(CARDS).insert(Card(id="b", title="offline too"))
        await road.faults.repair()
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
    def entry() -> Op:
        kind: OpKind = rng.choice(["create", "patch", "replace", "upsert", "delete"])
        whole: dict[str, Any] = {"title": rng.choice(["ä", "", "z' --"]), "lane": rng.choice(["todo", "done"])}
        values: dict[OpKind, Any] = {"create": whole, "patch": {"title": "u"}, "replace": whole, "upsert": whole}
        return Op(kind, "cards", str(rng.randrange(6)), values.get(kind, {}), scope="main")

    entries = tuple(entry() for _ in range(rng.randrange(1, 5)))
    options = WriteOptions(atomic=rng.random() < 0.5)
    return WriteRequest(entries, options, OperationContext("t"), f"key-{number}")


def random_query(rng: random.Random) -> QueryRequest:
    where = rng.choice([(), (col("lane") == "done",), (col("title") > "",)])
    order = (rng.choice(["title", "-title"]), "id")
    query = rows_of("cards", *where, order_by=order, limit=rng.choice([None, 2]))
    return QueryRequest(count_of("cards", *where) if rng.random() < 0.2 else query, OperationContext("t"))


@pytest.mark.parametrize("seed", range(5))
async def test_what_travels_gives_what_is_done_in_place(site: TransportSite, seed: int) -> None:
    """Two hubs, the same random requests: one is asked directly, the other over the wire."""

    environment = seeded_environment(1, wall_start_ms=0)
    near_hub = open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback(), environment=environment)
    rng = random.Random(seed)
    async with near_hub as near, hub_behind(site, ":memory:") as road, road.transport().connect() as channel:
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
    """What a caller can tell apart: status and items, rows, tuples and cursor, or the error's code."""
    try:
        result = await work
    except AtomaError as error:
        return getattr(error, "remote_code", error.code)
    if hasattr(result, "items"):
        return result.status, result.items
    return result.rows, result.tuples, result.meta.cursor
