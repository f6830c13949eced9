"""Devices on SQLite files, a real hub, and a link between them that can be cut, delayed and made to lose replies."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import trio

from atoma.client.client import Client, open_client
from atoma.contracts.execution import (
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.mutations import PendingMutation
from atoma.contracts.presence import AppearReply, AppearRequest, PresenceChange, PresenceRequest
from atoma.contracts.sync import (
    Hint,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    Outcome,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotReply,
    SnapshotRequest,
)
from atoma.errors import ChannelBroken, ConnectFailed
from atoma.hub import AllowLoopback, Hub, open_hub
from atoma.plugins import PluginContext
from atoma.ports import Environment, PortKey, seeded_environment
from atoma.ports.keys import LOCAL_DATABASE, SYNC_LINK
from atoma.ports.service import Principal, SyncService
from atoma.ports.tasks import open_tasks
from atoma.schema import Index, Schema, ScopePart, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str = ""
    lane: str = "todo"
    board: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    color: str = "white"


CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("lane")])
SERVER = StoreSpec("server_notes", Note, conflict="server_wins")
CLIENT = StoreSpec("client_notes", Note, conflict="client_wins")
MANUAL = StoreSpec("manual_notes", Note, conflict="manual")
SECRETS = StoreSpec("secrets", Note)
LABELS = StoreSpec("labels", Note, indexes=[Index("text", unique=True)])
SCHEMA = Schema(CARDS, SERVER, CLIENT, MANUAL, SECRETS, LABELS)
SYNCED = (CARDS, SERVER, CLIENT, MANUAL, LABELS)


@dataclass
class Wire:
    """A plugin that reaches the hub directly, and a switch that takes the network link down.

    Attributes:
        hub: Called for the hub at every connection.
        principal: Who connects.
        claims: What the verifier knows of them, asked at every connection.
        down: Whether the link is down.
        calls: Every call that reached the hub, by method, in order.
        lose: Methods whose next replies are lost after the hub has done its work, with how often.
        hold: Methods that wait for the event before they reach the hub.
        tamper: Changes a request or a reply on its way, by method.
        latency: Seconds that each way takes.
        outcomes: Every verdict the hub gave, lost or not, by mutation of the identity that the file has now.
    """

    hub: Callable[[], Hub]
    principal: str = "ann"
    down: bool = False
    calls: list[tuple[str, Any]] = field(default_factory=list)
    lose: dict[str, int] = field(default_factory=dict)
    hold: dict[str, trio.Event] = field(default_factory=dict)
    tamper: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    latency: Callable[[], float] = lambda: 0.0
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    connects: int = 0
    identity: bytes = b""
    claims: dict[str, str] = field(default_factory=dict[str, str])
    _cut: trio.Event = field(default_factory=trio.Event)

    id = "wire"
    provides: Sequence[PortKey[Any]] = (SYNC_LINK,)
    needs: Sequence[PortKey[Any]] = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.provide(SYNC_LINK, self)
        yield

    def cut(self) -> None:
        """Take the link down."""
        self.down = True
        self._cut.set()
        self._cut = trio.Event()

    def repair(self) -> None:
        """Bring it up again."""
        self.down = False

    def check_outcome(self, outcome: Outcome) -> None:
        """I3, I4: a mutation has one verdict for ever."""
        known = self.outcomes.setdefault(outcome.mid, outcome)
        assert (known.status, known.seq, known.error) == (outcome.status, outcome.seq, outcome.error)

    def count(self, method: str) -> int:
        """How often ``method`` has reached the hub."""
        return sum(name == method for name, _ in self.calls)

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[SyncService]:
        self.connects += 1
        if self.down:
            raise ConnectFailed("the link is down")
        cut = self._cut

        async def watch() -> None:
            await cut.wait()
            raise ChannelBroken("the link went down")

        async with open_tasks() as nursery:
            nursery.start_soon(watch)
            yield Connection(self, self.hub().service(Principal(self.principal, {**self.claims})))
            nursery.cancel_scope.cancel()


@dataclass
class Connection:
    wire: Wire
    service: SyncService

    async def _call(self, method: str, work: Callable[[Any], Awaitable[T]], request: object) -> T:
        wire = self.wire
        if method in wire.hold:
            await wire.hold[method].wait()
        await trio.sleep(wire.latency())
        wire.calls.append((method, request))
        if isinstance(request, PushRequest) and request.client_id != wire.identity:
            if wire.identity:
                wire.outcomes = {}
            wire.identity = request.client_id
        if f"{method} request" in wire.tamper:
            request = wire.tamper[f"{method} request"](request)
        reply = await work(request)
        told: object = reply
        if isinstance(told, PushReply):
            for outcome in told.outcomes:
                wire.check_outcome(outcome)
        await trio.sleep(wire.latency())
        if wire.lose.get(method, 0):
            wire.lose[method] -= 1
            raise ChannelBroken(f"the reply to {method} was lost")
        return wire.tamper[method](reply) if method in wire.tamper else reply

    async def open(self, request: OpenRequest) -> OpenReply:
        return await self._call("open", self.service.open, request)

    async def push(self, request: PushRequest) -> PushReply:
        return await self._call("push", self.service.push, request)

    async def pull(self, request: PullRequest) -> PullReply:
        return await self._call("pull", self.service.pull, request)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        return await self._call("snapshot", self.service.snapshot, request)

    def notify(self, request: NotifyRequest) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        self.wire.calls.append(("notify", request))
        if "notify request" in self.wire.tamper:
            request = self.wire.tamper["notify request"](request)
        return self.service.notify(request)

    def presence(self, request: PresenceRequest) -> AbstractAsyncContextManager[AsyncIterator[PresenceChange]]:
        self.wire.calls.append(("presence", request))
        return self.service.presence(request)

    async def appear(self, request: AppearRequest) -> AppearReply:
        return await self._call("appear", self.service.appear, request)

    async def query(self, request: QueryRequest) -> QueryResult:
        return await self._call("query", self.service.query, request)

    async def write(self, request: WriteRequest) -> WriteResult:
        return await self._call("write", self.service.write, request)

    async def resolve(self, request: ResolveRequest) -> Resolution:
        return await self._call("resolve", self.service.resolve, request)


@dataclass
class Probe:
    """Hands the test what the plugins offer one another."""

    context: PluginContext | None = None

    id = "probe"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = (LOCAL_DATABASE,)

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.context = context
        yield


@dataclass
class Device:
    """An open client with its link."""

    name: str
    client: Client
    wire: Wire
    probe: Probe

    @property
    def sync(self) -> Any:
        return self.client.sync

    def store(self, spec: StoreSpec[T]) -> Any:
        return self.client.store(spec)

    async def rows(self, spec: StoreSpec[Any] = CARDS) -> dict[str, Any]:
        return {item.id: item for item in await self.client.store(spec).query()}

    async def outbox(self) -> list[PendingMutation]:
        """Everything pending, whatever its status."""

        def read(tx: Any) -> list[PendingMutation]:
            found = (tx.outbox.by_mid(mid) for mid in range(1, tx.outbox.identity().next_mid))
            return [item for item in found if item is not None]

        return await self.inspect(read)

    def database(self) -> Any:
        assert self.probe.context is not None
        return self.probe.context.require(LOCAL_DATABASE)

    async def inspect(self, body: Callable[[Any], T]) -> T:
        found: T = await self.database().inspect(body)
        return found

    async def change(self, body: Callable[[Any], T]) -> T:
        changed: T = await self.database().apply(body)
        return changed

    async def settle(self) -> None:
        """Until nothing is left to do."""
        with trio.fail_after(600):
            await self.sync.wait_idle()


@dataclass
class World:
    """A hub on a file and any number of devices."""

    CARDS = CARDS
    SERVER = SERVER
    CLIENT = CLIENT
    MANUAL = MANUAL
    SECRETS = SECRETS
    LABELS = LABELS
    SYNCED: ClassVar[Sequence[StoreSpec[Any]]] = SYNCED
    schema: ClassVar[Schema] = SCHEMA
    Card = Card
    Note = Note

    folder: Path
    seed: int = 1
    hub: Hub | None = None
    hub_file: str = "hub.db"
    openings: int = 0

    def running_hub(self) -> Hub:
        assert self.hub is not None
        return self.hub

    def environment(self, name: str) -> Environment:
        """Another one at every opening: a second process never draws the ids of the first."""
        self.openings += 1
        return seeded_environment(random.Random(f"{self.seed} {name} {self.openings}").randrange(2**32))

    @asynccontextmanager
    async def open_hub(self, **options: Any) -> AsyncGenerator[Hub]:
        store = SQLiteHubStore(self.folder / self.hub_file)
        environment = self.environment(self.hub_file)
        async with open_hub(self.schema, store, verifier=AllowLoopback(), environment=environment, **options) as hub:
            self.hub = hub
            yield hub

    @asynccontextmanager
    async def open_device(
        self,
        name: str,
        *,
        file: str = "",
        down: bool = False,
        principal: str = "ann",
        claims: dict[str, str] | None = None,
        scopes: Sequence[str | ScopePart] = ("main",),
        plugins: Sequence[Any] | None = None,
        policy: str = "",
        history: History | None = None,
        **options: Any,
    ) -> AsyncGenerator[Device]:
        wire, probe = Wire(self.running_hub, principal, down, claims={**(claims or {})}), Probe()
        engine = LocalExecution(SQLiteEngine(self.folder / (file or f"{name}.db"), history=history))
        extra = [wire, Sync(self.SYNCED, scopes, **options)] if plugins is None else plugins
        async with open_client(
            self.schema,
            plugins=[engine, probe, *extra],
            policy=policy or ("sync-queue" if plugins is None else "direct-local"),
            environment=self.environment(name),
        ) as client:
            yield Device(name, client, wire, probe)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A folder for a hub and devices."""
    return World(tmp_path)
