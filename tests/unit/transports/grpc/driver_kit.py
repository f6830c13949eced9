"""An echo service, both ends of a connection, and a peer that speaks raw HTTP/2."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import trio
import trio.testing
from grpclib.client import StreamStreamMethod, StreamUnaryMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event, ResponseReceived, StreamReset, TrailersReceived

from atoma_transports.grpc._driver.client import GrpcClient, GrpcLimits, open_grpc_channel
from atoma_transports.grpc._driver.server import ServerCall, serve_grpc

Call = ServerCall[bytes, bytes]
LIMITS = GrpcLimits()


class Raw(CodecBase):
    """Messages are their bytes."""

    @property
    def __content_subtype__(self) -> str:
        return "proto"

    def encode(self, message: bytes, message_type: object) -> bytes:
        return message

    def decode(self, data: bytes, message_type: object) -> bytes:
        return data


async def request_of(call: Call) -> bytes:
    message = await call.recv_message()
    assert message is not None
    return message


class Echo:
    """Methods that show what a driver has to carry."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled: list[float] = []  # when, by Trio's clock
        self.sent = 0
        self.metadata: dict[str, str | bytes] = {}
        self.budget = math.nan
        self.on_start = trio.Event()
        self.fails: Callable[[], Awaitable[None]] | None = None

    async def unary(self, call: Call) -> None:
        self.started += 1
        await call.send_message(await request_of(call))

    async def count(self, call: Call) -> None:
        """Sends as many numbers as the request says, or without end for b"inf"; each as long as its second word."""
        self.started += 1
        number, _, size = (await request_of(call)).partition(b" ")
        i = 0
        while number == b"inf" or i < int(number):
            await call.send_message(b"%d" % i if not size else b"%d" % i + b"." * int(size))
            i += 1
            self.sent = i

    async def join(self, call: Call) -> None:
        await call.send_message(b"".join([message async for message in call]))

    async def chat(self, call: Call) -> None:
        async for message in call:
            await call.send_message(message)

    async def slow(self, call: Call) -> None:
        self.started += 1
        await request_of(call)
        self.budget = math.inf if call.deadline is None else call.deadline.time_remaining()
        self.on_start.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.append(trio.current_time())
            raise

    async def mute(self, call: Call) -> None:
        """Sends one number, then nothing."""
        await request_of(call)
        await call.send_message(b"0")
        await self.slow_rest()

    async def slow_rest(self) -> None:
        self.started += 1
        self.on_start.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.append(trio.current_time())
            raise

    async def unread(self, call: Call) -> None:
        """Never takes the request."""
        await self.slow_rest()

    async def fail(self, call: Call) -> None:
        self.metadata = dict(call.metadata or {})
        call.trailing["atoma-error-bin"] = bytes(range(256))
        call.trailing["plain"] = "said"
        if self.fails is not None:
            await self.fails()
        raise GRPCError(Status.NOT_FOUND, "no such row: 50 % of «ü»")

    async def nothing(self, call: Call) -> None:
        await request_of(call)

    def __mapping__(self) -> dict[str, Handler]:
        kinds = {
            "unary": Cardinality.UNARY_UNARY,
            "count": Cardinality.UNARY_STREAM,
            "join": Cardinality.STREAM_UNARY,
            "chat": Cardinality.STREAM_STREAM,
            "slow": Cardinality.UNARY_UNARY,
            "mute": Cardinality.UNARY_STREAM,
            "unread": Cardinality.UNARY_UNARY,
            "fail": Cardinality.UNARY_UNARY,
            "nothing": Cardinality.UNARY_UNARY,
        }
        return {f"/test.Echo/{name}": Handler(getattr(self, name), kind, bytes, bytes) for name, kind in kinds.items()}


class EchoStub:
    """What a generator would have made of it."""

    def __init__(self, channel: GrpcClient) -> None:
        self.unary = UnaryUnaryMethod[bytes, bytes](channel, "/test.Echo/unary", bytes, bytes)
        self.count = UnaryStreamMethod[bytes, bytes](channel, "/test.Echo/count", bytes, bytes)
        self.join = StreamUnaryMethod[bytes, bytes](channel, "/test.Echo/join", bytes, bytes)
        self.chat = StreamStreamMethod[bytes, bytes](channel, "/test.Echo/chat", bytes, bytes)
        self.slow = UnaryUnaryMethod[bytes, bytes](channel, "/test.Echo/slow", bytes, bytes)
        self.mute = UnaryStreamMethod[bytes, bytes](channel, "/test.Echo/mute", bytes, bytes)
        self.unread = UnaryUnaryMethod[bytes, bytes](channel, "/test.Echo/unread", bytes, bytes)
        self.fail = UnaryUnaryMethod[bytes, bytes](channel, "/test.Echo/fail", bytes, bytes)
        self.nothing = UnaryUnaryMethod[bytes, bytes](channel, "/test.Echo/nothing", bytes, bytes)
        self.unknown = UnaryUnaryMethod[bytes, bytes](channel, "/test.Echo/unknown", bytes, bytes)


@dataclass
class Both:
    """Two connected ends."""

    client: GrpcClient
    stub: EchoStub
    echo: Echo
    drain: trio.Event
    server: trio.CancelScope
    served: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def connected(limits: GrpcLimits = LIMITS, server_limits: GrpcLimits | None = None) -> AsyncGenerator[Both]:
    """A client and a server on a pair of streams in memory; on leaving, the server has to end by itself."""
    near, far = trio.testing.memory_stream_pair()
    echo, drain = Echo(), trio.Event()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        served = trio.Event()

        async def serve() -> None:
            with scope:
                await serve_grpc(far, echo.__mapping__(), limits=server_limits or limits, drain=drain, codec=Raw())
            served.set()

        nursery.start_soon(serve)
        async with open_grpc_channel(near, authority="test", limits=limits, codec=Raw()) as client:
            yield Both(client, EchoStub(client), echo, drain, scope, served)


@asynccontextmanager
async def serving(echo: Echo, limits: GrpcLimits = LIMITS) -> AsyncGenerator[RawPeer]:
    """A server, and a peer that may send it anything."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_grpc(far, echo.__mapping__(), limits=limits, drain=trio.Event(), codec=Raw())

        nursery.start_soon(serve)
        yield RawPeer(near, client_side=True)
        await near.aclose()


class RawPeer:
    """The other end of a connection, frame by frame, with no manners of its own."""

    def __init__(self, stream: trio.abc.Stream, *, client_side: bool) -> None:
        self.stream = stream
        self.wire = H2Connection(
            H2Configuration(
                client_side=client_side,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.wire.initiate_connection()
        self.events: list[Event] = []
        self.closed = False

    def begin(self, path: str, *fields: tuple[str, str], end: bool = False) -> int:
        stream_id = self.wire.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")]
        headers += [("te", "trailers"), ("content-type", "application/grpc"), *fields]
        self.wire.send_headers(stream_id, headers, end_stream=end)
        return stream_id

    async def send(self, *raw: bytes) -> None:
        """What h2 has made, then ``raw``; a peer that is gone already is not an error."""
        try:
            await self.stream.send_all(self.wire.data_to_send() + b"".join(raw))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.closed = True

    async def receive(self) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self.closed = True
            return
        self.events += self.wire.receive_data(data)

    async def until_closed(self) -> ConnectionTerminated | None:
        """Read until the server hangs up; what it said last."""
        while not self.closed:
            await self.receive()
        found = [event for event in self.events if isinstance(event, ConnectionTerminated)]
        return found[-1] if found else None

    async def until_closed_without_answering(self) -> None:
        """Read until the server hangs up; it never hears from this side again."""
        try:
            while await self.stream.receive_some(65536):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.closed = True

    async def status(self, stream_id: int) -> str:
        """The status that a call ends with."""
        while True:
            for event in self.events:
                if isinstance(event, (ResponseReceived, TrailersReceived)) and event.stream_id == stream_id:
                    fields = dict(cast("list[tuple[str, str]]", event.headers))
                    if "grpc-status" in fields:
                        return Status(int(fields["grpc-status"])).name
                if isinstance(event, StreamReset) and event.stream_id == stream_id:
                    return f"reset {event.error_code!r}"
            assert not self.closed, "the connection ended without a status"
            await self.receive()


def message(data: bytes, *, flag: int = 0, size: int | None = None) -> bytes:
    """``data`` framed as one gRPC message; with ``size`` its prefix lies."""
    return bytes([flag]) + (len(data) if size is None else size).to_bytes(4, "big") + data
