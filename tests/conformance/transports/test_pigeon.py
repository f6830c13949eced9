"""A transport that only this file knows keeps every promise and carries everything: a new one touches nothing else."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from atoma import AllowLoopback, Client, Schema, StoreSpec, Sync, open_client, open_hub, select
from atoma.errors import ConnectFailed
from atoma.plugins import Plugin, PluginContext
from atoma.ports import SYNC_LINK, Channel, Peer, PortKey, ServiceHost, Transport, seeded_environment
from atoma.testing.conformance import TRANSPORT_CHECKS, Ground, HookedHost, check_promise
from atoma.testing.network_link import Direction
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames import MessagePipe, open_channel, serve_pipe
from atoma_transports.remote import adapt

pytestmark = pytest.mark.virtual_time


class PigeonPipe:
    """Messages as lines of base64 on a byte stream: everything that a new transport has to bring."""

    def __init__(self, loft: Loft, stream: trio.abc.Stream, direction: Direction) -> None:
        self._loft = loft
        self._stream = stream
        self._direction: Direction = direction
        self._text = b""

    async def send(self, message: bytes) -> None:
        await self._loft.weather(self._direction, base64.b64encode(message) + b"\n", self._stream)

    async def receive(self) -> bytes:
        while b"\n" not in self._text:
            data = await self._stream.receive_some()
            if not data:
                raise trio.EndOfChannel
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        return base64.b64decode(line)

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass
class PigeonTransport:
    """The transport that nobody knows: a name and ``connect``."""

    loft: Loft
    token: str
    limits: ChannelLimits
    name: str = "pigeon"

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        async with open_channel(await self.loft.fly(), token=self.token, limits=self.limits) as channel:
            yield channel


@dataclass
class Loft:
    """Where pigeons start and land; also the weather they fly in."""

    limits: ChannelLimits
    drain: trio.Event | None = None
    lost: bool = False
    refusing: bool = False
    delay_s: float = 0.0
    birds: list[trio.abc.Stream] = field(default_factory=list)
    left: dict[Direction, int] = field(default_factory=dict)

    @asynccontextmanager
    async def serve(self, host: ServiceHost) -> AsyncGenerator[None]:
        self.drain, self.host = trio.Event(), host
        async with trio.open_nursery() as self.flights:
            yield
            self.drain.set()
            self.flights.cancel_scope.deadline = trio.current_time() + 1
            self.drain = None

    async def fly(self) -> MessagePipe:
        if self.drain is None or self.refusing:
            raise ConnectFailed("no pigeon flies today")
        ours, theirs = trio.testing.memory_stream_pair()
        self.birds += [ours, theirs]
        self.flights.start_soon(self._land, PigeonPipe(self, theirs, "to-client"), self.drain)
        return PigeonPipe(self, ours, "to-server")

    async def _land(self, pipe: MessagePipe, drain: trio.Event) -> None:
        await serve_pipe(pipe, self.host, Peer("loft", True, "pigeon"), limits=self.limits, drain=drain)

    def transport(self, token: str, limits: ChannelLimits) -> Transport:
        return PigeonTransport(self, token, limits)

    @asynccontextmanager
    async def open_pipe(self) -> AsyncGenerator[MessagePipe]:
        yield await self.fly()

    @property
    def faults(self) -> Loft:
        return self

    async def weather(self, direction: Direction, line: bytes, stream: trio.abc.Stream) -> None:
        await trio.sleep(self.delay_s)
        left = self.left.get(direction)
        if self.lost:
            return
        if left is not None and len(line) > left:
            del self.left[direction]
            await stream.send_all(line[:left])
            await self.let_go()
            raise trio.BrokenResourceError
        if left is not None:
            self.left[direction] = left - len(line)
        await stream.send_all(line)

    async def let_go(self) -> None:
        for bird in self.birds:
            await trio.aclose_forcefully(bird)

    async def cut(self) -> None:
        self.refusing = True
        await self.let_go()

    async def mute(self) -> None:
        self.lost = True

    async def truncate(self, direction: Direction, after: int) -> None:
        self.left[direction] = after

    async def slow(self, delay_s: float) -> None:
        self.delay_s = delay_s

    async def repair(self) -> None:
        self.lost = self.refusing = False
        self.delay_s = 0.0
        self.left.clear()


@dataclass(frozen=True)
class PigeonSite:
    name: str = "pigeon"
    virtual: bool = True

    @asynccontextmanager
    async def open_site(self, limits: ChannelLimits) -> AsyncGenerator[Ground]:
        yield Loft(limits)


@pytest.mark.parametrize("check", TRANSPORT_CHECKS)
async def test_a_transport_that_nobody_knows_keeps_every_promise(check: str) -> None:
    await check_promise(PigeonSite(), TRANSPORT_CHECKS[check])


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str


CARDS = StoreSpec("cards", Card)
SCHEMA = Schema(CARDS)


async def seen(client: Client) -> list[tuple[str, str]]:
    return [(card.id, card.title) for card in await client.store(CARDS).query(select(CARDS).order_by("id"))]


async def nothing(*_told: str) -> None:
    pass


@dataclass
class PigeonHouse:
    """The plugin that brings the pigeons: registering the transport is all that it does."""

    transport: Transport
    id: str = "pigeon-house"
    provides: Sequence[PortKey[Any]] = (SYNC_LINK,)
    needs: Sequence[PortKey[Any]] = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_transport(self.transport, adapt)
        yield


async def test_it_carries_crud_and_sync(tmp_path: Path) -> None:
    loft = Loft(ChannelLimits())

    def client_of(number: int, policy: str) -> AbstractAsyncContextManager[Client]:
        engine = SQLiteEngine(tmp_path / f"{number}.db")
        plugins: list[Plugin] = [LocalExecution(engine), PigeonHouse(PigeonTransport(loft, "any", ChannelLimits()))]
        if policy == "sync-queue":
            plugins.append(Sync(stores=[CARDS]))
        return open_client(SCHEMA, plugins=plugins, policy=policy, environment=seeded_environment(number))

    store = SQLiteHubStore(tmp_path / "hub.db")
    async with (
        open_hub(SCHEMA, store, verifier=AllowLoopback(), environment=seeded_environment(1)) as hub,
        loft.serve(HookedHost(hub, nothing, token="")),
        client_of(2, "direct-remote") as direct,
        client_of(3, "sync-queue") as one,
        client_of(4, "sync-queue") as two,
    ):
        await direct.store(CARDS).insert_many([Card(id=name, title="ä") for name in "abc"], confirm="strict")
        await direct.store(CARDS).update("b", title="ö", confirm="strict")
        await direct.store(CARDS).delete("c", confirm="strict")
        page = await direct.store(CARDS).query()
        assert [step.node for step in page.meta.path] == ["remote-pigeon"]
        handle = await one.store(CARDS).insert(Card(id="d", title="offline"))
        with trio.fail_after(60):
            await handle.accepted()
            while await seen(two) != [("a", "ä"), ("b", "ö"), ("d", "offline")]:
                await trio.sleep(0.1)
            while await seen(one) != await seen(two):
                await trio.sleep(0.1)
        assert await seen(direct) == await seen(one) == await seen(two)
