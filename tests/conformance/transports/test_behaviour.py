"""One script of operations, through public doors, over every transport and over none: equal results, equal errors.

What the script saw is written down without what belongs to the road: source and path of a result, trace ids, times, the
Python type that wraps an error of the hub. *In place* means that the same client asks the hub's own service, with
nothing in between.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from atoma import Client, Hub, Schema, StaticTokenVerifier, StoreSpec, Sync, col, open_client, open_hub, select
from atoma.contracts.execution import OperationContext, QueryRequest, QueryResult, ResolveRequest, WriteOptions
from atoma.contracts.execution import WriteRequest as Request
from atoma.contracts.mutations import Op
from atoma.contracts.sync import Cursor, NotifyRequest, PullRequest
from atoma.errors import AtomaError
from atoma.plugins import Plugin, PluginContext
from atoma.ports import (
    SYNC_LINK,
    Peer,
    PortKey,
    Principal,
    ServiceHost,
    SyncLink,
    SyncService,
    Transport,
    seeded_environment,
)
from atoma.testing.conformance import Ground, HookedHost, MemorySite, TransportSite
from atoma.testing.queries import rows_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.errors import explain
from atoma_transports.remote import Remote, TransportLink

TOKEN = "a-token"
LIMITS = ChannelLimits(handshake_s=10.0)
CONTEXT = OperationContext("t")
LETTERS = 450_000  # nearly a megabyte, the largest write that a server takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    lane: str = "todo"
    rank: int = 0
    weight: float | None = None
    photo: bytes = b""
    board: str = "main"


CARDS = StoreSpec("cards", Card, scope="board")
SCHEMA = Schema(CARDS)
Transcript = list[tuple[str, object]]


class InPlace:
    """The remote node and the sync link of a client that stands beside its hub."""

    id = "remote-place"
    provides: Sequence[PortKey[object]] = (SYNC_LINK,)  # type: ignore[assignment]
    needs: Sequence[PortKey[object]] = ()

    def __init__(self, host: HookedHost) -> None:
        self.host = host
        self.service = host.service(Principal("alice"))
        self.query, self.write, self.resolve = self.service.query, self.service.write, self.service.resolve

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_node(self.id, self)
        context.provide(SYNC_LINK, self)
        yield

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[SyncService]:
        yield self.service


@dataclass
class World:
    """A hub, the way to it, and what a handler is made to wait for."""

    hub: Hub
    folder: Path
    plugin: Callable[[], Plugin]
    link: SyncLink
    stranger: Callable[[], Awaitable[object]]
    held: str = ""
    arrived: int = 0
    cancelled: int = 0
    clients: list[int] = field(default_factory=list)

    async def on_call(self, moment: str, method: str) -> None:
        if (moment, method) == ("before", self.held):
            self.arrived += 1
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled += 1

    def open_client(self, policy: str) -> AbstractAsyncContextManager[Client]:
        self.clients.append(len(self.clients))
        number = len(self.clients) + 1
        plugins: list[Plugin] = [LocalExecution(SQLiteEngine(self.folder / f"{number}.db")), self.plugin()]
        if policy == "sync-queue":
            plugins.append(Sync(stores=[CARDS], scopes=["main"]))
        environment = seeded_environment(number, wall_start_ms=0)
        return open_client(SCHEMA, plugins=plugins, policy=policy, environment=environment)


@asynccontextmanager
async def open_world(site: TransportSite | None, folder: Path) -> AsyncGenerator[World]:
    environment = seeded_environment(1, wall_start_ms=0)
    store, verifier = SQLiteHubStore(folder / "hub.db"), StaticTokenVerifier({TOKEN: "alice"})
    async with open_hub(SCHEMA, store, verifier=verifier, environment=environment) as hub:

        async def on_call(moment: str, method: str) -> None:
            await world.on_call(moment, method)

        host = HookedHost(hub, on_call)
        if site is None:
            place = InPlace(host)
            peer = Peer("here", True, "place")
            world = World(hub, folder, lambda: place, place, lambda: host.authenticate("wrong", peer))
            yield world
            return
        async with site.open_site(LIMITS) as ground, ground.serve(host):

            async def stranger() -> None:
                async with ground.transport("wrong", LIMITS).connect():
                    pass

            link = TransportLink(ground.transport(TOKEN, LIMITS))
            world = World(hub, folder, lambda: Remote(ground.transport(TOKEN, LIMITS)), link, stranger)
            yield world


def told(error: AtomaError) -> tuple[str, str, bool, dict[str, str]]:
    """What an error says, whichever side of a wire it is looked at from."""
    info = explain(error, "", "")
    message = info.message.removeprefix(f"the other side answered {info.code}: ")  # whose protocol error it is
    return info.code, message, info.retryable, dict(info.info)


async def outcome(work: Awaitable[Any], of: Callable[[Any], object] = lambda result: result) -> object:
    try:
        return of(await work)
    except AtomaError as error:
        return told(error)


def rows(page: Any) -> object:
    return [(card.id, card.title, card.lane, card.rank, card.weight, card.photo) for card in page]


def items(result: Any) -> object:
    return [(item.id, item.ok, None if item.error is None else told(item.error)) for item in result.items]


async def crud(world: World, seen: Transcript) -> None:
    async with world.open_client("direct-remote") as client:
        cards = client.store(CARDS)
        first = Card(id="a", title="one", rank=2**53, weight=0.1, photo=b"\x00\xff")
        seen.append(("insert", await outcome(cards.insert(first, confirm="strict"), lambda handle: handle.value)))
        seen.append(("taken", await outcome(cards.insert(first, confirm="strict"))))
        seen.append(("get", await cards.get("a")))
        seen.append(("update", await outcome(cards.update("a", lane="doing", confirm="strict"), lambda h: h.value)))
        seen.append(("absent", await outcome(cards.update("nobody", lane="x", confirm="strict"))))
        upsert = cards.upsert(Card(id="b", title="two"), confirm="strict")
        seen.append(("upsert", await outcome(upsert, lambda handle: handle.value)))
        many = [Card(id=id, title=id) for id in ("c", "a", "d", "b")]
        seen.append(("partial", await outcome(cards.insert_many(many, confirm="strict"), items)))
        atomic = cards.insert_many([Card(id="e", title="e"), *many], confirm="strict", atomic=True)
        seen.append(("atomic", await outcome(atomic, items)))
        seen.append(("delete", await outcome(cards.delete("d", confirm="strict"), lambda handle: handle.state)))
        seen.append(("rows", rows(await cards.query(select(CARDS).order_by("id")))))


async def pages(world: World, seen: Transcript) -> None:
    async with world.open_client("direct-remote") as client:
        cards = client.store(CARDS)
        await cards.insert_many([Card(id=f"p{n:02}", title="p", rank=n % 3) for n in range(25)], confirm="strict")
        query = select(CARDS).where(col("title") == "p").order_by("-rank", "id").limit(10)
        page = await cards.query(query)
        seen.append(("page", rows(page)))
        while page.meta.cursor:
            page = await cards.query(query.after(page.meta.cursor))
            seen.append(("page", rows(page)))
        seen.append(("count", await cards.count(select(CARDS).where(col("rank") == 1))))
        seen.append(("source", (page.meta.source, len(page.meta.path))))
        await cards.delete_many([f"p{n:02}" for n in range(25)], confirm="strict")


async def texts(world: World, seen: Transcript) -> None:
    async with world.open_client("direct-remote") as client:
        cards = client.store(CARDS)
        for id in ("☃/räume", "'; --", "\u202eabc", "𝔘🦜\n\t", "x" * 190):
            title = f"{id} \x01 '\"\\ %_"
            await cards.insert(Card(id=id, title=title, weight=-0.0), confirm="strict")
            seen.append((id, rows([await cards.get(id)])))
        large = Card(id="large", title="ü" * LETTERS, photo=bytes(range(256)) * 500)
        seen.append(("large", await outcome(cards.insert(large, confirm="strict"), lambda h: h.value == large)))
        seen.append(("large again", await cards.get("large") == large))


async def refusals(world: World, seen: Transcript) -> None:
    """Requests that no store would send, by whoever speaks to the hub without one."""
    unknown = col("nonsense") == 1
    entry = Op(
        "create", "cards", "r", {"title": "r", "lane": "x", "rank": 0, "photo": b"", "weight": None}, scope="main"
    )
    moved = Op("patch", "cards", "a", {"lane": "x"}, scope="main", base_version=99)
    async with world.link.connect() as service:
        asked: list[tuple[str, Awaitable[Any]]] = [
            ("unknown field", service.query(QueryRequest(rows_of("cards", unknown), CONTEXT))),
            ("unknown store", service.query(QueryRequest(rows_of("nowhere"), CONTEXT))),
            ("malformed", service.pull(PullRequest("main", Cursor(), b"short"))),
            ("another epoch", service.pull(PullRequest("main", Cursor(b"e" * 16, 7, b"h" * 32), b"c" * 16))),
        ]
        for name, work in asked:
            seen.append((name, await outcome(work)))
        nul = replace(entry, id="n", values={**entry.values, "title": "a\x00b"})
        for name, entries, atomic in (
            ("mixed", (entry, moved), False),
            ("all or none", (entry, moved), True),
            ("with a NUL", (nul,), False),
        ):
            request = Request(entries, WriteOptions(atomic=atomic), CONTEXT, f"key-{name}")
            seen.append((name, await outcome(service.write(request), lambda result: (result.status, result.items))))
            resolution = await service.resolve(ResolveRequest(request.idem, CONTEXT))
            seen.append((f"{name} resolved", resolution.result and (resolution.result.status, resolution.result.items)))
        for name, finds, where in (
            ("a NUL", False, col("title") == "a\x00b"),
            ("no NUL", True, col("title") != "a\x00b"),
        ):
            found = await service.query(QueryRequest(rows_of("cards", where), CONTEXT))
            assert bool(found.rows) is finds
            seen.append((name, [row.id for row in found.rows]))
        fenced = await service.resolve(ResolveRequest("never", CONTEXT))
        late = Request((entry,), WriteOptions(), CONTEXT, "never")
        seen.append(("fenced", fenced.abandoned))
        seen.append(("late", await outcome(service.write(late), lambda result: (result.status, result.items))))
    seen.append(("stranger", await outcome(world.stranger())))


async def aborts(world: World, seen: Transcript) -> None:
    async with world.open_client("direct-remote") as client:
        cards = client.store(CARDS)
        world.held = "query"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cards.query)
                while not world.arrived:
                    await trio.sleep(0.005)
                scope.cancel()
        seen.append(("aborted", scope.cancelled_caught))
        with trio.move_on_after(0.2) as scope:
            await cards.query()
        seen.append(("timed out", scope.cancelled_caught))
        with trio.fail_after(60):
            while world.cancelled < world.arrived:
                await trio.sleep(0.005)
        seen.append(("handlers", (world.arrived, world.cancelled)))
        world.held = ""
        seen.append(("after", len(await cards.query())))


async def streams(world: World, seen: Transcript) -> None:
    async with world.open_client("direct-remote") as client, world.link.connect() as service:
        async with service.notify(NotifyRequest(("main", "aside"))) as hints:
            heads = {hint.scope: hint.head for hint in [await anext(hints), await anext(hints)]}
            seen.append(("heads", heads))
            for number in range(3):
                await client.store(CARDS).insert(Card(id=f"n{number}", title="n"), confirm="strict")
                hint = await anext(hints)
                seen.append(("hint", (hint.scope, hint.head - heads["main"])))


async def sync_round_trip(world: World, seen: Transcript) -> None:
    async with world.open_client("sync-queue") as one, world.open_client("sync-queue") as two:
        handles = [await one.store(CARDS).insert(Card(id=f"s{n}", title="von eins")) for n in range(3)]
        for handle in handles:
            await handle.observed()
        seen.append(("states", [handle.state for handle in handles]))
        while len(await two.store(CARDS).query(select(CARDS).where(col("title") == "von eins"))) < 3:
            await trio.sleep(0.02)
        update = await two.store(CARDS).update("s1", title="von zwei")
        delete = await two.store(CARDS).delete("s2")
        await update.observed()
        await delete.observed()
        while await one.store(CARDS).exists("s2"):
            await trio.sleep(0.02)
        ids = select(CARDS).where(col("title").like("von%")).order_by("id")
        seen.append(("one", rows(await one.store(CARDS).query(ids))))
        seen.append(("two", rows(await two.store(CARDS).query(ids))))
        seen.append(("hub", rows(await one.store(CARDS).query(ids, policy="direct-remote"))))


SCRIPT = (crud, pages, texts, refusals, aborts, streams, sync_round_trip)


async def play(site: TransportSite | None, folder: Path) -> dict[str, Transcript]:
    """What each act of the script saw."""
    folder.mkdir()
    seen: dict[str, Transcript] = {act.__name__: [] for act in SCRIPT}
    async with open_world(site, folder) as world:
        for act in SCRIPT:
            with trio.fail_after(60):
                await act(world, seen[act.__name__])
    return seen


def played(site: TransportSite | None, folder: Path) -> dict[str, Transcript]:
    virtual = site is None or site.virtual
    return trio.run(play, site, folder, clock=trio.testing.MockClock(autojump_threshold=0) if virtual else None)


@pytest.fixture(scope="module")
def in_place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Transcript]:
    return played(None, tmp_path_factory.mktemp("in-place") / "here")


def test_every_transport_brings_what_the_hub_itself_says(
    site: TransportSite, in_place: dict[str, Transcript], tmp_path: Path
) -> None:
    seen = played(site, tmp_path / site.name)
    for act, wanted in in_place.items():
        assert [name for name, _ in seen[act]] == [name for name, _ in wanted], act
        for (name, got), (_, due) in zip(seen[act], wanted, strict=True):
            assert got == due, f"{act}: {name}"


def test_the_script_sees_successes_and_refusals(in_place: dict[str, Transcript]) -> None:
    """An empty transcript would be equal everywhere."""
    assert {act: len(seen) > 3 for act, seen in in_place.items()} == {act.__name__: True for act in SCRIPT}
    crud_seen = dict(in_place["crud"])
    assert [ok for _, ok, _ in crud_seen["partial"]] == [True, False, True, False]  # type: ignore[attr-defined]
    assert crud_seen["taken"][0] == "CONFLICT"  # type: ignore[index]
    refused = dict(in_place["refusals"])
    assert [refused[name][0] for name in ("unknown field", "unknown store", "stranger")] == [  # type: ignore[index]
        "QUERY",
        "UNKNOWN_STORE",
        "UNAUTHENTICATED",
    ]
    assert dict(in_place["aborts"])["handlers"] == (2, 2)


class Forger:
    """A transport that brings a reply to the wrong question: every text of a query comes back in capitals."""

    name = "forged"
    virtual = True

    @asynccontextmanager
    async def open_site(self, limits: ChannelLimits) -> AsyncGenerator[Ground]:
        async with MemorySite().open_site(limits) as ground:

            class ForgedGround:
                faults = None

                def serve(self, host: ServiceHost) -> AbstractAsyncContextManager[object]:
                    return ground.serve(ForgedHost(host))

                def transport(self, token: str, limits: ChannelLimits) -> Transport:
                    return ground.transport(token, limits)

            yield ForgedGround()


@dataclass
class ForgedHost:
    host: ServiceHost

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return await self.host.authenticate(token, peer)

    def service(self, principal: Principal) -> SyncService:
        service = self.host.service(principal)
        honest = service.query

        async def query(request: QueryRequest) -> QueryResult:
            result = await honest(request)
            forged = [replace(row, image={**row.image, "lane": "DONE"}) for row in result.rows]
            return replace(result, rows=tuple(forged))

        service.query = query  # type: ignore[method-assign]
        return service


def test_a_difference_is_seen(in_place: dict[str, Transcript], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="crud: get"):
        test_every_transport_brings_what_the_hub_itself_says(Forger(), in_place, tmp_path)
