"""Walks out of what a real hub answers, or a network does: here it is made to answer so, by doors that everybody has."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import apsw
import trio
import trio.testing

from atoma.contracts.sync import Limits
from atoma.errors import TokenExpired
from atoma.hub import ReadBudget
from atoma.ports import Peer, Principal
from atoma.schema import Drop, Index, Schema, StoreSpec
from atoma.sync.push import STALL_FAILURES
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.memory import MemoryNetwork
from tests.scenarios.sync.conftest import CARDS, CLIENT, LABELS, MANUAL, SECRETS, SERVER, Device, World
from tests.scenarios.sync.networks import device, serving
from tests.scenarios.sync.ways import AT_ONCE_S, device_with, free, hub_with, insert, is_told, stoppable, stuck

# ---------------------------------------------------------------- tokens and connections


class SignIn:
    """What gives the device its tokens."""

    def __init__(self, token: str) -> None:
        self.token = token

    async def __call__(self) -> str:
        return self.token


async def no_token(world: World) -> None:
    """The token is wrong, until the user has signed in again."""
    network, sign_in = MemoryNetwork(), SignIn("guess")
    async with serving(world, network), device(world, network, "a", sign_in) as a:
        await insert(world, a)
        await stuck(a, "UNAUTHENTICATED")
        sign_in.token = "secret"
        await free(a)


class Identities:
    """A verifier whose tokens are good for an hour each, and which can take its time."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}
        self.takes_s = 0.0

    async def verify(self, token: str, peer: Peer) -> Principal:
        await trio.sleep(self.takes_s)
        left_s = 3_600.0 - (trio.current_time() - self.since.setdefault(token, trio.current_time()))
        if left_s <= 0:
            raise TokenExpired("the token has expired")
        return Principal("ann", expires_in_s=left_s)


async def token_expired(world: World) -> None:
    network, sign_in = MemoryNetwork(), SignIn("of the first hour")
    async with (
        serving(world, network, verifier=Identities()),
        device(world, network, "a", sign_in) as a,
    ):
        await a.settle()
        await trio.sleep(2 * 3_600)
        await insert(world, a)
        a.sync.poke()
        await stuck(a, "AUTH_EXPIRED")
        sign_in.token = "of the third"
        await free(a)


async def identities_away(world: World) -> None:
    """What verifies tokens does not answer, so that nobody gets in; it is no fault of the token."""
    network, identities = MemoryNetwork(limits=ChannelLimits(handshake_s=5.0)), Identities()
    identities.takes_s = 60.0
    async with serving(world, network, verifier=identities), device(world, network, "a") as a:
        await insert(world, a)
        await stuck(a, "CONNECT_FAILED", within_s=10)
        assert "TIMEOUT: looking at the token took too long" in a.sync.status.reason
        identities.takes_s = 0.0
        await free(a)


async def session_ended(world: World) -> None:
    """The operator ends it; nobody has to do anything. Whether the hub's word or the broken connection is told first, nobody promises."""
    network, told = MemoryNetwork(), list[Any]()
    async with serving(world, network) as hub, device(world, network, "a") as a:
        await a.settle()
        a.sync.subscribe(told.append)
        assert await hub.end("ann") == 1
        await insert(world, a)
        await free(a, poke=False)
        assert any(is_told(status, code) for status in told for code in ("SESSION_ENDED", "CHANNEL_BROKEN"))


async def too_many_connections(world: World) -> None:
    """The user has as many connections as one may have, until another device leaves."""
    network = MemoryNetwork(limits=ChannelLimits(connections=1))
    async with serving(world, network), stoppable(device(world, network, "phone")) as leave:
        async with device(world, network, "a") as a:
            await insert(world, a)
            await stuck(a, "CONNECT_FAILED")
            assert "OVERLOADED: you have 1 connections" in a.sync.status.reason
            await trio.sleep(60)
            assert len(await a.outbox()) == 1
            await leave()
            await free(a)


class Damage:
    """A way on which the second half of each frame from the hub is damaged while it rains."""

    def __init__(self) -> None:
        self.rains = False

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        if not self.rains or direction == "up":
            return (frame,)
        half = len(frame) // 2
        return (frame[:half] + bytes(255 - byte for byte in frame[half:]),)


async def damaged_on_the_way(world: World) -> None:
    network, way = MemoryNetwork(), Damage()
    async with serving(world, network), device(world, network, "a", faults=way) as a:
        await a.settle()
        way.rains = True
        await insert(world, a)
        await stuck(a, "MALFORMED")
        way.rains = False
        await free(a)


# ---------------------------------------------------------------- the hub and its program


async def hub_closing(world: World) -> None:
    """It says so to whoever is still connected; the next one takes what waits."""
    async with stoppable(world.open_hub()) as stop, world.open_device("a", down=True) as a:
        await stop()
        a.wire.repair()
        await insert(world, a)
        a.sync.poke()
        await stuck(a, "UNAVAILABLE")
        async with world.open_hub():
            await free(a)


async def too_many_calls(world: World) -> None:
    """A server that takes few calls at a time, and a device with many scopes: they take turns, and nobody has to do anything."""
    network, told = MemoryNetwork(limits=ChannelLimits(calls=2)), list[Any]()
    async with serving(world, network), device(world, network, "a", scopes=("main", *"123456")) as a:
        a.sync.subscribe(told.append)
        await insert(world, a)
        await free(a, poke=False)
        assert any(is_told(status, "OVERLOADED") for status in told)


class SlowFile(apsw.VFSFile):
    """A file on a disk of which each read takes a while."""

    def xRead(self, amount: int, offset: int) -> bytes:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(READ_S)
        return super().xRead(amount, offset)


class SlowDisk(apsw.VFS):
    """A disk that is slow to read, by virtual time."""

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return SlowFile("", name, flags)


READ_S = 0.125
ROWS = 1_500


@asynccontextmanager
async def hub_on_slow_disk(world: World, budget: ReadBudget, *, page: int) -> AsyncGenerator[Device]:
    """It has more rows than it reads in a moment; with a device that has none of them yet."""
    async with hub_with(world), world.open_device("b") as b:
        await b.store(world.CARDS).insert_many([world.Card(id=str(n), title="x" * 100) for n in range(ROWS)])
        await b.settle()
    disk = SlowDisk("a-slow-disk", "")
    try:
        limits = Limits(page_changes=page)
        hub = hub_with(world, vfs="a-slow-disk", reads=budget, limits=limits)
        async with hub, world.open_device("a", down=True) as a:
            await insert(world, a)
            a.wire.repair()
            a.sync.poke()
            yield a
    finally:
        disk.unregister()


async def reads_take_too_long(world: World) -> None:
    """What was read is remembered, so that the next try comes further."""
    async with hub_on_slow_disk(world, ReadBudget(query_s=2.0, seconds_per_s=1_000.0), page=ROWS) as a:
        await stuck(a, "TIMEOUT", within_s=60)
        await free(a)
        assert len(await a.rows()) == ROWS + 1


async def too_much_is_read(world: World) -> None:
    """Nobody has to do anything: the device waits for as long as it is told."""
    async with hub_on_slow_disk(world, ReadBudget(query_s=600.0, seconds_per_s=0.125), page=ROWS // 5) as a:
        await stuck(a, "RATE_LIMITED", within_s=60)
        await free(a, poke=False)
        assert len(await a.rows()) == ROWS + 1


class Broken:
    """Rules that ask something else who may do what, which is away for a while."""

    def __init__(self) -> None:
        self.away = False

    def scope_access(self, principal: Principal, scope: str) -> str:
        if self.away:
            raise OSError("the directory of users cannot be reached")
        return "write"


async def rules_fail(world: World, code: str = "INTERNAL", within_s: float = AT_ONCE_S) -> None:
    """First each request is made again; in the end the session is given up, which is told as well."""
    rules = Broken()
    async with world.open_hub(rules=rules), world.open_device("a") as a:
        await a.settle()
        rules.away = True
        await insert(world, a)
        await stuck(a, code, within_s=within_s)
        rules.away = False
        await free(a)


async def rules_fail_for_long(world: World) -> None:
    await rules_fail(world, "PUSH_STALLED", STALL_FAILURES * 60)


# ---------------------------------------------------------------- two versions of one program


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainNote:
    """A note of the next version, which has no colour."""

    id: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedCard:
    """A card as another program declares it."""

    id: str
    title: Decimal = Decimal(0)
    lane: str = "todo"
    board: str = "main"


PLAIN = StoreSpec("manual_notes", PlainNote, conflict="manual")
NEXT = Schema(CARDS, SERVER, CLIENT, PLAIN, SECRETS, LABELS, version=2, steps={2: [Drop("manual_notes.color")]})
PRICED = StoreSpec("cards", PricedCard, scope="board", indexes=[Index("lane")])
OTHERWISE = Schema(PRICED, SERVER, CLIENT, MANUAL, SECRETS, LABELS)


async def device_newer(world: World) -> None:
    """It waits until the hub's program is of its version."""
    async with stoppable(hub_with(world)) as stop, device_with(world, schema=NEXT, synced=(CARDS,)) as a:
        await insert(world, a)
        await stuck(a, "SCHEMA_TOO_NEW")
        await stop()
        async with hub_with(world, schema=NEXT):
            await free(a)


async def device_too_old(world: World) -> None:
    """Nothing leads back to what it knows; a new version of it goes on with what waits."""
    async with hub_with(world, schema=NEXT):
        async with device_with(world) as a:
            await insert(world, a)
            await stuck(a, "SCHEMA_TOO_OLD")
        async with device_with(world, schema=NEXT, synced=(CARDS,)) as a:
            await free(a)


async def hub_that_reads_otherwise(world: World) -> None:
    """Its program declares a field with another type; a corrected one begins with a file of its own."""
    async with stoppable(hub_with(world, schema=OTHERWISE)) as stop, device_with(world) as a:
        await insert(world, a)
        await stuck(a, "SCHEMA_MISMATCH")
        assert {method for method, _ in a.wire.calls} == {"open"}
        await stop()
        world.hub_file = "corrected.db"
        async with hub_with(world):
            await free(a)
