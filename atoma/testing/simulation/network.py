"""A network that loses, doubles, reorders and delays frames, breaks connections, and lets one direction vanish."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from atoma.contracts.execution import (
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.sync import (
    Hint,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotReply,
    SnapshotRequest,
)
from atoma.plugins import PluginContext
from atoma.ports import SYNC_LINK, Channel, PortKey, SyncService
from atoma.testing.simulation.swarm import Swarm
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import TransportLink


class Weather:
    """What the network does to frames just now.

    Attributes:
        network: The network.
        calm: Whether faults have ended for good.
        vanishing: ``(site, direction)`` whose frames are lost.
        on_frame: Called for every frame that is delivered.
    """

    def __init__(self, network: MemoryNetwork, swarm: Swarm, dice: random.Random, counts: Counter[str]) -> None:
        self.network = network
        self.swarm = swarm
        self.dice = dice
        self.counts = counts
        self.calm = False
        self.vanishing: set[tuple[str, str]] = set()
        self.on_frame: Callable[[bytes], None] = lambda _frame: None

    def settle(self) -> None:
        """End every fault for good."""
        self.calm = True
        self.vanishing.clear()
        self.network.heal()


class Wire:
    """The faults of one connection; a :class:`atoma_transports.memory.FaultHook`."""

    def __init__(self, weather: Weather, site: str) -> None:
        self._weather = weather
        self._site = site
        self._held: dict[str, list[bytes]] = {"to-server": [], "to-client": []}

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        """Decide what becomes of ``frame``."""
        weather, swarm, dice = self._weather, self._weather.swarm, self._weather.dice
        await trio.sleep(dice.uniform(0.2, 1.0) * swarm.latency)
        weather.on_frame(frame)
        held, self._held[direction] = self._held[direction], []
        if weather.calm:
            return [frame, *held]
        if (self._site, direction) in weather.vanishing or dice.random() < swarm.drop:
            weather.counts["frames dropped"] += 1
            return held
        if dice.random() < swarm.broken:
            if dice.random() < 0.2:
                weather.counts["frames truncated"] += 1
                return [frame[: dice.randrange(len(frame))]]
            weather.counts["connections broken"] += 1
            raise trio.BrokenResourceError
        if dice.random() < swarm.reorder:
            weather.counts["frames reordered"] += 1
            self._held[direction] = [*held, frame]
            return []
        if dice.random() < swarm.double:
            weather.counts["frames doubled"] += 1
            return [frame, *held, frame]
        return [frame, *held]


class StormyTransport:
    """A :class:`atoma.ports.Transport` whose every connection has faults of its own."""

    name = "memory"

    def __init__(self, weather: Weather, site: str) -> None:
        self._weather = weather
        self._site = site

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        """Connect through the weather."""
        wire = Wire(self._weather, self._site)
        transport = MemoryTransport(self._weather.network, token=self._site, site=self._site, faults=wire)
        async with transport.connect() as channel:
            yield channel


class SplittingLink:
    """Plugin: the sync link, on which a batch of pushed mutations may arrive in two parts, the second one first.

    That is what a client with several pushes under way does to a hub, which has to refuse the gap.
    """

    id = "splitting-link"
    provides: Sequence[PortKey[object]] = (SYNC_LINK,)  # type: ignore[assignment]  # PortKey is invariant
    needs: Sequence[PortKey[object]] = ()

    def __init__(self, transport: StormyTransport, weather: Weather) -> None:
        self._link = TransportLink(transport)
        self._weather = weather

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        """Offer the link."""
        undo = context.provide(SYNC_LINK, self)
        try:
            yield
        finally:
            undo()

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[SyncService]:
        """Connect."""
        async with self._link.connect() as service:
            yield SplitPushes(service, self._weather)


class SplitPushes:
    """A service whose pushes may be split."""

    def __init__(self, service: SyncService, weather: Weather) -> None:
        self._service = service
        self._weather = weather

    async def open(self, request: OpenRequest) -> OpenReply:
        """Pass it on."""
        return await self._service.open(request)

    async def push(self, request: PushRequest) -> PushReply:
        """Send the second half first, which the hub refuses, then the first half."""
        weather, count = self._weather, len(request.mutations)
        if weather.calm or count < 2 or weather.dice.random() >= weather.swarm.split:
            return await self._service.push(request)
        cut = weather.dice.randrange(1, count)
        first, second = request.mutations[:cut], request.mutations[cut:]
        early = PushRequest(request.client_id, request.incarnation, second, first[-1].digest, request.confirmed_mid)
        reply = await self._service.push(early)
        weather.counts["gaps refused"] += reply.error is not None and reply.error.code == "OUT_OF_ORDER"
        return await self._service.push(
            PushRequest(request.client_id, request.incarnation, first, request.prev_digest, request.confirmed_mid)
        )

    async def pull(self, request: PullRequest) -> PullReply:
        """Pass it on."""
        return await self._service.pull(request)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        """Pass it on."""
        return await self._service.snapshot(request)

    def notify(self, request: NotifyRequest) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """Pass it on."""
        return self._service.notify(request)

    async def query(self, request: QueryRequest) -> QueryResult:
        """Pass it on."""
        return await self._service.query(request)

    async def write(self, request: WriteRequest) -> WriteResult:
        """Pass it on."""
        return await self._service.write(request)

    async def resolve(self, request: ResolveRequest) -> Resolution:
        """Pass it on."""
        return await self._service.resolve(request)
