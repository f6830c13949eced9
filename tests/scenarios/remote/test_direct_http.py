"""Clients and a hub over real HTTP: one request per operation, nothing answered in its place, errors as they were."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import AllowLoopback, Client, Hub, Schema, StoreSpec, Sync, col, open_client, open_hub, select
from atoma.contracts.execution import OperationContext, QueryRequest, WriteOptions, WriteRequest, path_of
from atoma.contracts.mutations import Op
from atoma.contracts.values import ErrorInfo, RowImage
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ConflictError,
    QueryError,
    RemoteError,
    StoreCorrupt,
    TransportError,
    ValidationError,
    WriteError,
    WriteRejected,
)
from atoma.plugins import Plugin
from atoma.ports import Principal, seeded_environment
from atoma.testing.queries import rows_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.adapters import ServiceProxy
from atoma_transports.http.client import HttpTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server

REQUEST = re.compile(rb"POST (/v1/\w+) HTTP/1\.1\r\n")
PATIENCE_S = 60


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
    """Forwards bytes to the hub's port, and reads the request lines that pass; can be cut."""

    target: int
    port: int = 0
    requests: list[str] = field(default_factory=list)
    cut: bool = False
    live: list[trio.CancelScope] = field(default_factory=list)

    async def forward(self, client: trio.SocketStream) -> None:
        if self.cut:
            return
        async with await trio.open_tcp_stream("127.0.0.1", self.target) as hub, trio.open_nursery() as nursery:
            self.live.append(nursery.cancel_scope)
            nursery.start_soon(self.pump, client, hub, nursery.cancel_scope, True)
            nursery.start_soon(self.pump, hub, client, nursery.cancel_scope, False)

    async def pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope, count: bool
    ) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                if count:
                    self.requests.extend(path.decode() for path in REQUEST.findall(bytes(data)))
                await sink.send_all(data)
        both.cancel()

    def pull_the_plug(self) -> None:
        self.cut = True
        for scope in self.live:
            scope.cancel()

    def asked(self) -> list[str]:
        """What was asked, without the question at connecting whether the hub is there; forgets it."""
        found = [path for path in self.requests if path != "/v1/cancel"]
        self.requests.clear()
        return found


@dataclass
class World:
    hub: Hub
    road: Road
    folder: Path

    def transport(self) -> HttpTransport:
        return HttpTransport(f"http://127.0.0.1:{self.road.port}")

    @asynccontextmanager
    async def client(self, seed: int, *, synced: bool = False, policy: str = "direct-http") -> AsyncGenerator[Client]:
        plugins: list[Plugin] = [
            LocalExecution(SQLiteEngine(self.folder / f"{seed}.db")),
            Remote(self.transport()),
        ]
        if synced:
            plugins.append(Sync(stores=[CARDS], scopes=["main"]))
        environment = seeded_environment(seed)
        async with open_client(SCHEMA, plugins=plugins, policy=policy, environment=environment) as client:
            yield client


@asynccontextmanager
async def open_world(folder: Path) -> AsyncGenerator[World]:
    hub_store = SQLiteHubStore(folder / "hub.db")
    async with (
        open_hub(SCHEMA, hub_store, verifier=AllowLoopback(), environment=seeded_environment(1)) as hub,
        open_server(hub, "127.0.0.1:0") as address,
        trio.open_nursery() as nursery,
    ):
        road = Road(int(address.rpartition(":")[2]))
        listeners = await nursery.start(trio.serve_tcp, road.forward, 0)
        road.port = listeners[0].socket.getsockname()[1]
        yield World(hub, road, folder)
        nursery.cancel_scope.cancel()


both = pytest.mark.parametrize("confirm", ["optimistic", "strict"])
"""A write whose answer is waited for by its handle, and one that waits for it itself."""


def shown(confirm: str) -> list[str]:
    """What stands in a trail before the node is asked."""
    return ["overlay"] if confirm == "optimistic" else []


@both
async def test_direct_http_is_one_request_and_asks_no_local_node(tmp_path: Path, confirm: Any) -> None:
    async with open_world(tmp_path) as world, world.client(2) as client:
        cards = client.store(CARDS)
        await cards.query()
        world.road.asked()
        handle = await cards.insert(Card(id="a", title="over HTTP"), confirm=confirm)
        await handle.accepted()
        assert world.road.asked() == ["/v1/write"]
        assert handle.meta.source == "remote"
        assert [step.node for step in handle.meta.path] == [*shown(confirm), "remote-http"]
        page = await cards.query(select(CARDS).where(col("title") == "over HTTP"))
        assert world.road.asked() == ["/v1/query"]
        assert [card.id for card in page] == ["a"]
        assert page.meta.source == "remote"
        assert [step.node for step in page.meta.path] == ["remote-http"]
        many = await cards.insert_many([Card(id=str(number), title="many") for number in range(50)], confirm=confirm)
        assert many.status == ("confirmed" if confirm == "strict" else "undecided")
        for item in many:
            assert item.handle is not None
            await item.handle.accepted()
            assert item.handle.meta.source == "remote"
        assert world.road.asked() == ["/v1/write"]


async def test_without_the_hub_direct_http_is_an_error_and_no_silent_local_answer(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.client(2) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="here", title="on this device"), policy="direct-local")
        assert len(list(await cards.query(policy="direct-local"))) == 1
        assert list(await cards.query()) == []
        world.road.pull_the_plug()
        with pytest.raises(TransportError):
            await cards.query()
        with pytest.raises(TransportError) as lost:
            await cards.insert(Card(id="b", title="lost"), confirm="strict")
        assert lost.value.maybe_sent is False
        assert [(step.node, step.outcome) for step in path_of(lost.value)] == [("remote-http", "failed")]
        with pytest.raises(TransportError):
            await cards.get("here")
        assert [card.id for card in await cards.query(policy="direct-local")] == ["here"]
        world.road.cut = False
        with trio.fail_after(PATIENCE_S):  # it comes back by itself
            while True:
                with contextlib.suppress(TransportError):
                    assert list(await cards.query()) == []
                    break
                await trio.sleep(0.05)


async def test_without_the_hub_a_default_write_is_undecided_and_never_confirmed(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.client(2) as client:
        cards = client.store(CARDS)
        world.road.pull_the_plug()
        with pytest.raises(TransportError):
            await cards.query()
        many = await cards.insert_many([Card(id="a", title="one"), Card(id="b", title="two")])
        assert many.status == "undecided"
        handles = [item.handle for item in many if item.handle is not None]
        handles += [await cards.insert(Card(id="c", title="three"))]
        assert handles[-1].state == "undecided"
        assert [(step.node, step.outcome) for step in handles[-1].meta.path] == [("overlay", "ok")]
        for handle in handles:
            with pytest.raises(WriteRejected, match="taken back"), trio.fail_after(PATIENCE_S):
                await handle.accepted()
            assert handle.state == "rejected"
            assert handle.meta.source == "local", "nobody remote has answered"
            assert {step.outcome for step in handle.meta.path[1:]} == {"failed"}
            assert {step.node for step in handle.meta.path[1:]} == {"remote-http"}
        assert list(await cards.query(policy="direct-local")) == [], "and nothing of it is left here"


async def test_writes_of_one_moment_reach_the_hub_in_one_request(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.transport().connect() as channel:
        service = ServiceProxy(channel)
        world.road.asked()
        results: list[Any] = []

        async def write(number: int) -> None:
            entry = Op("create", "cards", str(number), {"title": "t", "lane": "todo"}, scope="main")
            request = WriteRequest((entry,), WriteOptions(), OperationContext("t"), f"key-{number}")
            results.append(await service.write(request))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(write, number)
        assert world.road.asked() == ["/v1/batch"]
        assert {result.status for result in results} == {"confirmed"}
        assert sorted(int(result.items[0].id) for result in results) == list(range(20))


@both
async def test_crud_through_the_hub(tmp_path: Path, confirm: Any) -> None:
    async with open_world(tmp_path) as world, world.client(2) as one, world.client(3) as two:
        here, there = one.store(CARDS), two.store(CARDS)
        await (await here.insert(Card(id="a", title="ünï ☃"), confirm=confirm)).accepted()
        found = await there.get("a")
        assert found is not None
        assert found.title == "ünï ☃"
        await (await there.update("a", lane="doing", confirm=confirm)).accepted()
        page = await here.query(select(here.spec).where(col("lane") == "doing").order_by("-id").limit(5))
        assert [card.id for card in page] == ["a"]
        assert await here.count(select(here.spec)) == 1
        await (await here.delete("a", confirm=confirm)).accepted()
        assert await there.get("a") is None
        with pytest.raises(WriteError):
            await (await here.update("a", lane="done", confirm=confirm)).accepted()


async def test_two_devices_sync_over_http(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path) as world,
        world.client(2, synced=True, policy="sync-queue") as one,
        world.client(3, synced=True, policy="sync-queue") as two,
    ):
        with trio.fail_after(PATIENCE_S):
            handle = await one.store(CARDS).insert(Card(id="a", title="from one"))
            await handle.accepted()
            async with two.store(CARDS).live() as batches:
                async for _ in batches:
                    if [card.id for card in await two.store(CARDS).query()] == ["a"]:
                        break
            world.road.pull_the_plug()
            await one.store(CARDS).update("a", title="offline")
            offline = await two.store(CARDS).insert(Card(id="b", title="offline too"))
            world.road.cut = False
            await offline.accepted()
            wanted = [("a", "offline"), ("b", "offline too")]
            for side in (one, two):
                while sorted((card.id, card.title) for card in await side.store(CARDS).query()) != wanted:
                    await trio.sleep(0.05)
        assert handle.state == "observed"


@dataclass
class Failing:
    """A host whose service raises what it is told to."""

    failure: Exception

    async def authenticate(self, token: str, peer: Any) -> Principal:
        return Principal("ann")

    def service(self, principal: Principal) -> Any:
        return self

    async def query(self, request: QueryRequest) -> Any:
        raise self.failure


FAILURES: list[tuple[Exception, tuple[type[AtomaError], str, bool, float, dict[str, str]]]] = [
    (
        RemoteError("läter", remote_code="RATE_LIMITED", remote_retryable=True, retry_after_s=1.5, info={"a": "ß"}),
        (RemoteError, "RATE_LIMITED", True, 1.5, {"a": "ß"}),
    ),
    (
        RemoteError("of a future version", remote_code="NEW_CODE", remote_retryable=True),
        (RemoteError, "NEW_CODE", True, 0, {}),
    ),
    (QueryError("no field 'x'"), (RemoteError, "QUERY", False, 0, {})),
    (
        ConflictError("it moved", store="cards", id="a"),
        (RemoteError, "CONFLICT", False, 0, {"store": "cards", "id": "a"}),
    ),
    (
        ValidationError("too long", store="cards", field="title", value="secret"),
        (RemoteError, "INVALID", False, 0, {"store": "cards", "field": "title"}),
    ),
    (AuthenticationError("expired"), (AuthenticationError, "UNAUTHENTICATED", False, 0, {})),
    (StoreCorrupt("near 'SELECT secret'"), (RemoteError, "CORRUPT", False, 0, {})),
]


@pytest.mark.parametrize("together", [1, 3], ids=["alone", "in a batch"])
async def test_errors_come_back_as_they_were(together: int) -> None:
    """Code, kind, retryable, wait and details, on a request of its own and in a batch."""
    request = QueryRequest(rows_of("cards"), OperationContext("t"))
    for failure, expected in FAILURES:
        async with open_server(Failing(failure), "127.0.0.1:0") as address:
            async with HttpTransport(f"http://{address}").connect() as channel:
                errors: list[AtomaError] = []

                async def ask(channel: Any = channel, errors: list[AtomaError] = errors) -> None:
                    with pytest.raises(AtomaError) as caught:
                        await ServiceProxy(channel).query(request)
                    errors.append(caught.value)

                async with trio.open_nursery() as nursery:
                    for _ in range(together):
                        nursery.start_soon(ask)
                assert len(errors) == together
                for error in errors:
                    remote = isinstance(error, RemoteError)
                    code = error.remote_code if isinstance(error, RemoteError) else error.code
                    retryable = error.remote_retryable if isinstance(error, RemoteError) else error.retryable
                    wait_s = error.retry_after_s if isinstance(error, RemoteError) else 0
                    info = error.info if isinstance(error, RemoteError) else {}
                    assert (type(error), code, retryable, wait_s, info) == expected
                    assert "SELECT" not in str(error)
                    assert remote or str(error) == str(failure)


async def test_refusals_of_single_items_come_back_with_their_index(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.transport().connect() as channel:
        near, far = world.hub.service(Principal("local")), ServiceProxy(channel)
        whole: RowImage = {"title": "t", "lane": "todo"}

        def write(key: str, *entries: Op) -> WriteRequest:
            return WriteRequest(entries, WriteOptions(atomic=False), OperationContext("t"), key)

        await far.write(write("k0", Op("create", "cards", "taken", whole, scope="main")))

        def mixed(key: str, prefix: str) -> WriteRequest:
            return write(
                key,
                Op("create", "cards", f"{prefix}1", whole, scope="main"),
                Op("create", "cards", "taken", whole, scope="main"),
                Op("patch", "cards", f"{prefix}-none", {"title": "u"}, scope="main"),
                Op("patch", "cards", "taken", {"title": "u"}, scope="main", base_version=10**6),
                Op("create", "cards", f"{prefix}2", whole, scope="main"),
            )

        here, there = await near.write(mixed("k1", "n")), await far.write(mixed("k2", "f"))
        assert there.status == here.status == "partial"
        assert [item.ok for item in there.items] == [True, False, False, False, True]
        errors = [item.error for item in there.items]
        assert [error.code if error else "" for error in errors] == [
            item.error.code if item.error else "" for item in here.items
        ]
        for item, local in zip(there.items, here.items, strict=True):
            if isinstance(local.error, ErrorInfo) and item.id == local.id:
                assert item.error == local.error
