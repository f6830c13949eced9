"""One hub small enough to read, reached over every transport, and over one that only this file knows."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from atoma.contracts.execution import (
    ExecutionMeta,
    QueryRequest,
    QueryResult,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.sync import (
    Cursor,
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
    StoreChanges,
)
from atoma.contracts.values import StoredRow
from atoma.errors import AuthenticationError, ConnectFailed
from atoma.ports import Channel, Peer, Principal, ServiceHost, SyncService, Transport
from atoma.testing.cable import Cable, open_cable
from atoma_transports.adapters import ChannelLimits, MessagePipe, open_channel
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.serving import open_server, serve_pipe
from atoma_transports.websocket import WebSocketTransport

TOKEN = "a-secret"
LIMITS = ChannelLimits(ping_s=0.5, pong_s=1.0, slow_s=1.5, handshake_s=3.0, calls=250)


async def nothing() -> None:
    """The hook that lets everything pass."""


@dataclass
class TinyHub:
    """A host with one service: rows in a dict, one answer per idempotency key, and doors for tests."""

    rows: dict[str, StoredRow] = field(default_factory=dict)
    answers: dict[str, WriteResult] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    pulled: list[str] = field(default_factory=list)
    sent_hints: int = 0
    active: int = 0
    cancelled: int = 0
    deadlines: list[float] = field(default_factory=list)
    before_apply: Callable[[], Awaitable[None]] = nothing
    after_apply: Callable[[], Awaitable[None]] = nothing
    on_pull: Callable[[], Awaitable[None]] = nothing
    failure: Exception | None = None
    hints: int = 0
    peers: list[Peer] = field(default_factory=list)

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        self.peers.append(peer)
        if token != TOKEN:
            raise AuthenticationError("the token is not known here")
        return Principal("alice")

    def service(self, principal: Principal) -> SyncService:
        return TinyService(self, principal)

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        self.active += 1
        self.deadlines.append(trio.current_effective_deadline())
        try:
            yield
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.active -= 1


@dataclass
class TinyService:
    hub: TinyHub
    principal: Principal

    async def open(self, request: OpenRequest) -> OpenReply:
        return OpenReply(b"hub", b"epoch", self.principal.subject, request.tail_mid, b"", ())

    async def push(self, request: PushRequest) -> PushReply:
        async with self.hub.working():
            await self.hub.before_apply()
            done = tuple(Outcome(m.mid, "applied", "main", seq=m.mid) for m in request.mutations)
            self.hub.applied.extend(str(m.mid) for m in request.mutations)
            await self.hub.after_apply()
            return PushReply(done, done[-1].mid if done else 0)

    async def pull(self, request: PullRequest) -> PullReply:
        """One row with a text of ``max_bytes`` letters."""
        async with self.hub.working():
            self.hub.pulled.append(request.scope)
            await self.hub.on_pull()
            if self.hub.failure is not None:
                raise self.hub.failure
            row = (1, "id", "ü" * (request.max_bytes // 2), b"\x00\xff", 1.5, None, -(2**63))
            page = StoreChanges("notes", 1, ("id", "text", "blob", "real", "null", "int"), (row,), ((2, "gone"),))
            return PullReply(request.scope, request.cursor, Cursor(b"e", 2, b"h"), (page,), head=2)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        return SnapshotReply(request.scope, Cursor(), (), request.token + b"+", done=True)

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        async def heads() -> AsyncGenerator[Hint]:
            for number in range(self.hub.hints):
                self.hub.sent_hints += 1
                yield Hint(request.scopes[0], number)
                await trio.lowlevel.checkpoint()
            if self.hub.failure is not None:
                raise self.hub.failure

        async with self.hub.working():
            yield heads()

    async def query(self, request: QueryRequest) -> QueryResult:
        wanted = request.query.ids
        rows = tuple(row for row in self.hub.rows.values() if wanted is None or row.id in wanted)
        return QueryResult(rows, len(rows) if request.query.count else None, ExecutionMeta(cursor="next"))

    async def write(self, request: WriteRequest) -> WriteResult:
        async with self.hub.working():
            await self.hub.before_apply()
            answer = self.hub.answers.get(request.idem)
            if answer is None:
                items = []
                for entry in request.entries:
                    self.hub.applied.append(entry.id)
                    self.hub.rows[entry.id] = StoredRow(entry.id, 1, 1, entry.scope, entry.values)
                    items.append(WriteItemResult(entry.id, True, True, 1, entry.values))
                answer = WriteResult(status_of(tuple(items)), tuple(items))
                self.hub.answers[request.idem] = answer
            await self.hub.after_apply()
            return answer


class Wire(Protocol):
    """A hub, the way to it, and the means to disturb it."""

    hub: TinyHub
    host: ServiceHost

    def transport(self, token: str = TOKEN, limits: ChannelLimits = LIMITS) -> Transport: ...
    def raw_pipe(self) -> AbstractAsyncContextManager[MessagePipe]: ...
    async def cut(self) -> None: ...
    async def mend(self) -> None: ...
    async def mute(self) -> None: ...
    async def stop(self) -> None: ...
    async def start(self) -> None: ...


class _Stoppable:
    """A server that can be stopped and started in the middle of a test."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.hub = TinyHub()
        self.host: ServiceHost = self.hub
        self.nursery = nursery
        self._stopping = trio.Event()
        self._stopped = trio.Event()

    def serving(self) -> AbstractAsyncContextManager[object]:
        raise NotImplementedError

    async def start(self) -> None:
        self._stopping, self._stopped = trio.Event(), trio.Event()
        await self.nursery.start(self._serve)

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        async with self.serving():
            task_status.started()
            await self._stopping.wait()
        self._stopped.set()

    async def stop(self) -> None:
        self._stopping.set()
        await self._stopped.wait()


class MemoryWire(_Stoppable):
    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.network = MemoryNetwork(limits=LIMITS)

    def serving(self) -> AbstractAsyncContextManager[object]:
        return self.network.listen(self.host)

    def transport(self, token: str = TOKEN, limits: ChannelLimits = LIMITS) -> Transport:
        return MemoryTransport(self.network, token=token, limits=limits)

    @asynccontextmanager
    async def raw_pipe(self) -> AsyncGenerator[MessagePipe]:
        yield await self.network.connect("raw", None)

    async def cut(self) -> None:
        self.network.partition()

    async def mute(self) -> None:
        self.network.partition(silent=True)

    async def mend(self) -> None:
        self.network.heal()


class RawWebSocket:
    """The library's own client, so that nothing of ours stands between the test and the server."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection

    async def send(self, message: bytes) -> None:
        await self.connection.send_message(message)

    async def receive(self) -> bytes:
        try:
            message = await self.connection.get_message()
        except ConnectionClosed:
            raise trio.EndOfChannel from None
        assert isinstance(message, bytes)
        return message

    async def aclose(self) -> None:
        await self.connection.aclose()


class WebSocketWire(_Stoppable):
    """Real sockets, with a cable between client and server."""

    def __init__(self, nursery: trio.Nursery, port: int, cable: Cable) -> None:
        super().__init__(nursery)
        self.address = f"127.0.0.1:{port}"
        self.cable = cable

    def serving(self) -> AbstractAsyncContextManager[object]:
        return open_server(self.host, self.address, limits=LIMITS)

    def transport(self, token: str = TOKEN, limits: ChannelLimits = LIMITS) -> Transport:
        return WebSocketTransport(f"ws://{self.cable.address}/sync", token=token, limits=limits)

    @asynccontextmanager
    async def raw_pipe(self) -> AsyncGenerator[MessagePipe]:
        async with await trio.open_tcp_stream("127.0.0.1", self.cable.port) as stream, trio.open_nursery() as nursery:
            yield RawWebSocket(await wrap_client_stream(nursery, stream, self.cable.address, "/sync"))
            nursery.cancel_scope.cancel()

    async def cut(self) -> None:
        self.cable.cut()

    async def mute(self) -> None:
        self.cable.mute()

    async def mend(self) -> None:
        self.cable.mend()


class PigeonPipe:
    """Messages as lines of base64 on a byte stream: everything that a new transport has to bring."""

    def __init__(self, loft: PigeonWire, stream: trio.abc.Stream) -> None:
        self._loft = loft
        self._stream = stream
        self._text = b""

    async def send(self, message: bytes) -> None:
        if self._loft.lost:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_all(base64.b64encode(message) + b"\n")

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


class PigeonTransport:
    """The transport that nobody knows: a name and ``connect``."""

    name = "pigeon"

    def __init__(self, loft: PigeonWire, token: str, limits: ChannelLimits) -> None:
        self._loft, self._token, self._limits = loft, token, limits

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        async with open_channel(await self._loft.fly(), token=self._token, limits=self._limits) as channel:
            yield channel


class PigeonWire(_Stoppable):
    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.lost = False
        self.refusing = False
        self.birds: list[trio.abc.Stream] = []
        self.drain: trio.Event | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        self.drain = trio.Event()
        async with trio.open_nursery() as self.flights:
            yield
            self.drain.set()
            self.flights.cancel_scope.deadline = trio.current_time() + 1
            self.drain = None

    async def fly(self) -> PigeonPipe:
        if self.drain is None or self.refusing:
            raise ConnectFailed("no pigeon flies today")
        ours, theirs = trio.testing.memory_stream_pair()
        self.birds += [ours, theirs]
        self.flights.start_soon(self._land, PigeonPipe(self, theirs), self.drain)
        return PigeonPipe(self, ours)

    async def _land(self, pipe: PigeonPipe, drain: trio.Event) -> None:
        await serve_pipe(pipe, self.host, Peer("loft", True, "pigeon"), limits=LIMITS, drain=drain)

    def transport(self, token: str = TOKEN, limits: ChannelLimits = LIMITS) -> Transport:
        return PigeonTransport(self, token, limits)

    @asynccontextmanager
    async def raw_pipe(self) -> AsyncGenerator[MessagePipe]:
        yield await self.fly()

    async def cut(self) -> None:
        self.refusing = True
        for bird in self.birds:
            await trio.aclose_forcefully(bird)

    async def mute(self) -> None:
        self.lost = True

    async def mend(self) -> None:
        self.lost = self.refusing = False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def open_wire_of(kind: str, host: ServiceHost | None) -> AsyncGenerator[Wire]:
    port = free_port()
    async with open_cable(port) as cable, trio.open_nursery() as nursery:
        wires: dict[str, Callable[[], Wire]] = {
            "memory": lambda: MemoryWire(nursery),
            "websocket": lambda: WebSocketWire(nursery, port, cable),
            "pigeon": lambda: PigeonWire(nursery),
        }
        wire = wires[kind]()
        wire.host = host or wire.hub
        await wire.start()
        yield wire
        nursery.cancel_scope.cancel()


@pytest.fixture(
    params=[
        pytest.param("memory", marks=pytest.mark.virtual_time),
        "websocket",
        pytest.param("pigeon", marks=pytest.mark.virtual_time),
    ]
)
def open_wire(request: pytest.FixtureRequest) -> Callable[..., AbstractAsyncContextManager[Wire]]:
    """Opens a hub (a tiny one, when none is given) and the way to it, on the transport under test."""
    return lambda host=None: open_wire_of(request.param, host)
