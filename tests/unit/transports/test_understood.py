"""A hub says what it understands of queries when it greets, and nobody asks it for more."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoma.client import open_client
from atoma.contracts.events import CallServed, HubEvent
from atoma.contracts.execution import OperationContext, QueryRequest, QueryResult
from atoma.contracts.limits import BOUNDS, Bounds
from atoma.contracts.query import BoundQuery, Call, Col, Lit, Plan, Store
from atoma.contracts.sync import OpenRequest
from atoma.contracts.understood import UNDERSTOOD, Understood
from atoma.errors import QueryError, RemoteError
from atoma.hub import Hub, ReadBudget, StaticTokenVerifier, open_hub
from atoma.plugins import Plugin
from atoma.ports import Announced, Channel, Peer, SyncService, Transport
from atoma.ports.service import Principal
from atoma.query import bind, col, select
from atoma.query.normal import bind as bind_plan
from atoma.query.plans import every_row
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters import PassingService, ServiceProxy
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.unit.hub.kit import CARDS, SCHEMA

WIRES = pytest.mark.parametrize("wire", ["memory", "websocket", "grpc", "http"])
LOWER = bind_plan(
    Plan(Store("cards"), where=Call("eq", (Call("lower", (Col(0, "title"),)), Lit("text", "a")))), SCHEMA.store
)
OLD = Understood()
NO_LOWER = Understood((1, 2), tuple(name for name in UNDERSTOOD.functions if name != "lower"))
LATER = Understood((2,), UNDERSTOOD.functions)


class Says:
    """A hub that says of itself what it does not understand.

    Args:
        hub: The hub.
        told: What it says.
    """

    def __init__(self, hub: Hub, told: Understood) -> None:
        self._hub = hub
        self.understood = told

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return await self._hub.authenticate(token, peer)

    def service(self, principal: Principal) -> SyncService:
        return self._hub.service(principal)


@asynccontextmanager
async def reached(
    wire: str, told: Understood | None = None, *, bounds: Bounds = BOUNDS
) -> AsyncGenerator[tuple[Transport, list[str]]]:
    """A transport to a hub, and the calls that arrive there."""
    calls: list[str] = []

    def hear(event: HubEvent) -> None:
        if isinstance(event, CallServed):
            calls.append(event.method)

    store, verifier, reads = SQLiteHubStore(":memory:"), StaticTokenVerifier({"t": "ada"}), ReadBudget(bounds=bounds)
    async with open_hub(SCHEMA, store, verifier=verifier, reads=reads, listener=hear) as hub:
        host = hub if told is None else Says(hub, told)
        network = MemoryNetwork()
        async with network.listen(host), open_server(host, "127.0.0.1:0") as address:
            roads: dict[str, Transport] = {
                "memory": MemoryTransport(network, token="t"),
                "websocket": WebSocketTransport(f"ws://{address}/sync", token="t"),
                "grpc": GrpcTransport(f"grpc://{address}", token="t"),
                "http": HttpTransport(f"http://{address}", token="t"),
            }
            yield roads[wire], calls


async def ask(channel: Channel, query: BoundQuery) -> None:
    await ServiceProxy(channel).query(QueryRequest(query, OperationContext("trace")))


@WIRES
async def test_a_hub_says_what_it_understands(wire: str) -> None:
    async with reached(wire, bounds=Bounds(values=5)) as (transport, _), transport.connect() as channel:
        assert isinstance(channel, Announced)
        told = await channel.understood()
        assert told == Understood((1,), UNDERSTOOD.functions, {"values": 5}, SCHEMA.forms, UNDERSTOOD.edits)
        assert {"eq", "lower", "count"} <= set(UNDERSTOOD.functions)
        assert "inc" in UNDERSTOOD.edits


class Replaced:
    """A hub in whose place an older one is while connections that need none, as over HTTP, go on."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.understood = UNDERSTOOD
        self.refused = 0

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return await self._hub.authenticate(token, peer)

    def service(self, principal: Principal) -> SyncService:
        return Older(self, self._hub.service(principal))


class Older(PassingService):
    """Answers as a hub that does not know ``lower``, once there is one."""

    def __init__(self, host: Replaced, service: SyncService) -> None:
        super().__init__(service)
        self._host = host

    async def query(self, request: QueryRequest) -> QueryResult:
        if self._host.understood is NO_LOWER:
            self._host.refused += 1
            raise RemoteError("no such function", remote_code="UNSUPPORTED")
        return await super().query(request)


async def test_over_http_a_hub_that_does_not_understand_is_asked_again_what_it_does() -> None:
    store, verifier = SQLiteHubStore(":memory:"), StaticTokenVerifier({"t": "ada"})
    async with open_hub(SCHEMA, store, verifier=verifier) as hub:
        host = Replaced(hub)
        async with (
            open_server(host, "127.0.0.1:0") as address,
            HttpTransport(f"http://{address}", token="t").connect() as channel,
        ):
            await ask(channel, LOWER)
            host.understood = NO_LOWER
            with pytest.raises(
                RemoteError, match="UNSUPPORTED: no such function"
            ):  # what it said is believed for a minute
                await ask(channel, LOWER)
            with pytest.raises(RemoteError, match=r"the hub does not know the function lower\(\)"):
                await ask(channel, LOWER)
            assert host.refused == 1


@WIRES
@pytest.mark.parametrize(
    ("told", "query", "words"),
    [
        (NO_LOWER, LOWER, r"where: the hub does not know the function lower\(\)"),
        (LATER, every_row("cards"), "the hub understands plans of version 2, and this is one of version 1"),
        (OLD, every_row("cards"), "the hub understands plans of none"),
    ],
)
async def test_what_a_hub_does_not_understand_is_not_sent(
    wire: str, told: Understood, query: BoundQuery, words: str
) -> None:
    async with reached(wire, told) as (transport, calls), transport.connect() as channel:
        with pytest.raises(RemoteError, match=words) as refused:
            await ask(channel, query)
        assert refused.value.remote_code == "UNSUPPORTED"
        assert refused.value.info == ({"function": "lower"} if query is LOWER else {})
        assert calls == []
        if told is NO_LOWER:
            await ask(channel, every_row("cards"))
            assert calls == ["query"]


@WIRES
async def test_to_sync_goes_on_with_a_hub_that_understands_no_plans(wire: str) -> None:
    async with reached(wire, OLD) as (transport, calls), transport.connect() as channel:
        opened = await ServiceProxy(channel).open(OpenRequest(b"c" * 16, 1, 1, SCHEMA.hash, ("main",), 0, 0))
        assert opened.principal == "ada"
        assert calls == ["open"]


@WIRES
async def test_a_lower_bound_is_the_same_sentence_before_anything_is_sent(wire: str) -> None:
    bounds = Bounds(values=2, pattern_bytes=3)
    sizes = select(CARDS).where(col("title").in_(["a", "b", "c"]))
    pattern = select(CARDS).where(col("title").like("long%"))
    async with reached(wire, bounds=bounds) as (transport, calls), transport.connect() as channel:
        for query, words in ((sizes, "at most 2 values, got 3"), (pattern, "at most 3 bytes, this one has 5")):
            bound = bind(query, SCHEMA)
            with pytest.raises(RemoteError, match=words) as before:
                await ask(channel, bound)
            assert (before.value.remote_code, calls) == ("UNSUPPORTED", [])
            async with open_hub(
                SCHEMA,
                SQLiteHubStore(":memory:"),
                verifier=StaticTokenVerifier({"t": "ada"}),
                reads=ReadBudget(bounds=bounds),
            ) as hub:
                with pytest.raises(RemoteError, match=words) as there:
                    await hub.service(Principal("ada")).query(QueryRequest(bound, OperationContext("trace")))
            assert str(there.value).removeprefix("QUERY: ") == str(before.value).removeprefix("UNSUPPORTED: ")
        await ask(channel, bind(select(CARDS).where(col("title").in_(["a", "b"])), SCHEMA))
        assert calls == ["query"]


def test_bounds_are_told_where_they_are_lower_and_never_make_higher_ones() -> None:
    assert Bounds().lower() == {}
    assert Bounds(depth=3, values=5_000).lower() == {"depth": 3}
    assert Bounds.lowered({"depth": 3, "values": 5_000, "unheard_of": 1}) == Bounds(depth=3)
    with pytest.raises(QueryError, match="nested at most 3 deep"):
        nested = Call("not", (Call("not", (Call("not", (Call("eq", (Col(0, "title"), Lit("text", "a"))),)),)),))
        bind_plan(Plan(Store("cards"), where=nested), SCHEMA.store, Bounds(depth=3))


@WIRES
async def test_a_policy_goes_on_and_shows_why(wire: str, tmp_path: Path) -> None:
    async with reached(wire, OLD) as (transport, calls):
        plugins: list[Plugin] = [LocalExecution(SQLiteEngine(tmp_path / "a.db")), Remote(transport)]
        async with open_client(SCHEMA, plugins=plugins, policy="remote-first") as client:
            page = await client.query(select(CARDS))
    assert page.meta.source == "local"
    assert [(step.node, step.error, step.note) for step in page.meta.path] == [
        (f"remote-{wire}", "UNSUPPORTED", ""),
        ("local-query", "", "fallback: UNSUPPORTED"),
    ]
    assert calls == []
