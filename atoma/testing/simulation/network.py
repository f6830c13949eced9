"""A network that loses, doubles, reorders and delays frames, breaks connections, and lets one direction vanish."""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio
from msgspec.structs import replace

from atoma.contracts.sync import PushReply, PushRequest
from atoma.errors import ProtocolError
from atoma.plugins import PluginContext
from atoma.ports import SYNC_LINK, Channel, PortKey, SyncService
from atoma.testing.simulation.encounters import Encounters, Fault, State
from atoma.testing.simulation.standing import Lines, Lookout
from atoma.testing.simulation.swarm import Swarm
from atoma_transports.adapters import PassingService
from atoma_transports.frames.envelope import decode_frame
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import TransportLink

AMBUSHES_MAX = 6
FRAME_BYTES_MAX = 2**30  # they are our own


@dataclass(frozen=True, slots=True)
class Ambush:
    """A fault of a frame that waits for a device in a state."""

    fault: Fault
    state: State


class Weather:
    """The treatment of frames by the network just now.

    Attributes:
        network: The network.
        calm: Whether faults have ended for good.
        vanishing: ``(site, direction)`` whose frames are lost.
        on_frame: Called with the device, the direction and every frame that is on its way.
        lines: The connections of each device.
        hub_runs: Whether the hub does.
        lookout: Finds the moment for a fault.
        ambushes: What the next frame of a device in some state will suffer; the oldest one is given up for a new one.
    """

    def __init__(
        self,
        network: MemoryNetwork,
        swarm: Swarm,
        dice: random.Random,
        counts: Counter[str],
        encounters: Encounters,
        lookout: Lookout,
    ) -> None:
        self.network = network
        self.swarm = swarm
        self.dice = dice
        self.counts = counts
        self.meet, self.look = encounters.meet, encounters.look
        self.hub_runs = False
        self.lookout = lookout
        self.ambushes: deque[Ambush] = deque(maxlen=AMBUSHES_MAX)
        self.lines: dict[str, Lines] = defaultdict(Lines)
        self.calm = False
        self.vanishing: set[tuple[str, str]] = set()
        self.on_frame: Callable[[str, str, bytes], None] = lambda _site, _direction, _frame: None

    def is_stormy(self) -> bool:
        """Whether frames suffer anything now: a hub that is down has cut every connection."""
        return not self.calm and self.hub_runs

    def sprung(self, site: str) -> Ambush | None:
        """The ambush that a frame of this device falls into now."""
        states = self.look(site) if self.ambushes else ()
        found = next((ambush for ambush in self.ambushes if ambush.state in states), None)
        if found is not None:
            self.ambushes.remove(found)
        return found

    def settle(self) -> None:
        """End every fault for good."""
        self.calm = True
        self.vanishing.clear()
        self.network.heal()


class Wire:
    """The faults of one connection; a :class:`atoma_transports.memory.FaultHook`.

    Attributes:
        asked: Methods of the calls whose answers have not come, by their ids.
        over: Whether the device has given the connection up; what becomes of its last frames is nothing to anybody.
    """

    def __init__(self, weather: Weather, site: str) -> None:
        self.asked: dict[int, str] = {}
        self.over = False
        self._weather = weather
        self._site = site
        self._held: dict[str, list[bytes]] = {"to-server": [], "to-client": []}

    def end(self) -> None:
        """The device gives it up."""
        self.over = True

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        """Decide what becomes of ``frame``."""
        await trio.sleep(self._weather.dice.uniform(0.2, 1.0) * self._weather.swarm.latency)
        told = decode_frame(frame, FRAME_BYTES_MAX)
        if told.kind == "call":
            self.asked[told.id] = told.method
        self._weather.on_frame(self._site, direction, frame)
        delivered = self._fate(direction, frame)
        for arriving in delivered:
            self._arrives(arriving)
        return delivered

    def _arrives(self, frame: bytes) -> None:
        try:
            told = decode_frame(frame, FRAME_BYTES_MAX)
        except ProtocolError:
            return  # it was cut short
        if told.kind in ("reply", "error", "cancel"):
            self.asked.pop(told.id, None)

    def _fate(self, direction: str, frame: bytes) -> Sequence[bytes]:
        """What arrives in place of ``frame``."""
        held, self._held[direction] = self._held[direction], []
        fault = self._fault(direction)
        if fault is None or State.DOWN in self._weather.look(
            self._site
        ):  # its program ended while the frame was under way
            return [frame, *held]
        self._weather.meet(fault, self._site)
        match fault:
            case Fault.DROPPED:
                return held
            case Fault.TRUNCATED:
                return [frame[: self._weather.dice.randrange(len(frame))]]
            case Fault.REORDERED:
                self._held[direction] = [*held, frame]
                return []
            case Fault.DOUBLED:
                return [frame, *held, frame]
            case _:
                raise trio.BrokenResourceError

    def _fault(self, direction: str) -> Fault | None:
        weather, swarm, dice = self._weather, self._weather.swarm, self._weather.dice
        if self.over or not weather.is_stormy():
            return None
        if (ambush := weather.sprung(self._site)) is not None:
            return ambush.fault
        if (self._site, direction) in weather.vanishing or dice.random() < swarm.drop:
            return Fault.DROPPED
        if dice.random() < swarm.broken:
            return Fault.TRUNCATED if dice.random() < 0.2 else Fault.BROKEN
        if dice.random() < swarm.reorder:
            return Fault.REORDERED
        return Fault.DOUBLED if dice.random() < swarm.double else None


class StormyTransport:
    """A :class:`atoma.ports.Transport` whose every connection has faults of its own.

    Args:
        weather: The faults.
        site: The device.
        user: Whose token it shows.
    """

    name = "memory"

    def __init__(self, weather: Weather, site: str, user: str) -> None:
        self._weather = weather
        self._user = user
        self.site = site

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        """Connect through the weather."""
        wire, lines = Wire(self._weather, self.site), self._weather.lines[self.site]
        transport = MemoryTransport(self._weather.network, token=self._user, site=self.site, faults=wire)
        async with AsyncExitStack() as stack:
            stack.callback(wire.end)
            lines.connecting += 1
            try:
                channel = await stack.enter_async_context(transport.connect())
            finally:
                lines.connecting -= 1
            lines.open.append(wire)
            stack.callback(lines.open.remove, wire)
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
        self._site = transport.site
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
            yield SplitPushes(service, self._weather, self._site)


class SplitPushes(PassingService):
    """A service whose pushes may be split."""

    def __init__(self, service: SyncService, weather: Weather, site: str) -> None:
        super().__init__(service)
        self._weather = weather
        self._site = site

    async def push(self, request: PushRequest) -> PushReply:
        """Send the second half first, which the hub refuses, then the first half."""
        weather, count = self._weather, len(request.mutations)
        if not weather.is_stormy() or count < 2 or weather.dice.random() >= weather.swarm.split:
            return await self.service.push(request)
        if State.NEW not in weather.look(self._site):  # which would not come again
            await weather.lookout.wait_for(Fault.SPLIT, self._site)
        if not weather.is_stormy() or {State.SETTLED, State.DOWN}.intersection(weather.look(self._site)):
            return await self.service.push(request)
        weather.meet(Fault.SPLIT, self._site)
        cut = weather.dice.randrange(1, count)
        first, second = request.mutations[:cut], request.mutations[cut:]
        reply = await self.service.push(replace(request, mutations=second, prev_digest=first[-1].digest))
        weather.counts["gaps refused"] += reply.error is not None and reply.error.code == "OUT_OF_ORDER"
        return await self.service.push(replace(request, mutations=first))
