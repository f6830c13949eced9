"""A port whose connections are streams in memory, so that time is virtual; every handler on it, with what a peer sends by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame

from atoma.contracts.codec import encode
from atoma.contracts.sync import Cursor, PullRequest
from atoma.ports import Peer
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.fairness import Fairness
from atoma_transports.frames.envelope import Auth, encode_frame
from atoma_transports.grpc.convert import pack
from atoma_transports.grpc.handler import GrpcHandler
from atoma_transports.http import HttpHandler
from atoma_transports.serving.addresses import Origins
from atoma_transports.serving.handlers import Hosting, ProtocolHandler
from atoma_transports.serving.places import ConnectionSlots
from atoma_transports.websocket.handler import WebSocketHandler
from tests.unit.transports.http.kit import Hub

PULL = PullRequest("main", Cursor(b"e", 1, b"h"), b"a client of ours", max_bytes=10)
HANDLERS: dict[str, ProtocolHandler] = {"websocket": WebSocketHandler(), "grpc": GrpcHandler(), "http": HttpHandler()}


@dataclass
class Wired:
    """One connection."""

    stream: trio.abc.Stream
    received: bytearray = field(default_factory=bytearray)

    async def send(self, *data: bytes) -> None:
        await self.stream.send_all(b"".join(data))

    async def until(self, mark: bytes) -> bytes:
        """Everything up to ``mark``, which has to come."""
        while mark not in self.received:
            data = await self.stream.receive_some()
            assert data, f"it hung up after {bytes(self.received)!r}"
            self.received += data
        end = self.received.index(mark) + len(mark)
        found = bytes(self.received[:end])
        del self.received[:end]
        return found

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        try:
            while data := await self.stream.receive_some():
                self.received += data
        except trio.BrokenResourceError:
            pass
        return bytes(self.received)


class Port:
    """Serves a hub that answers pulls with their scope."""

    def __init__(self, nursery: trio.Nursery, limits: ChannelLimits, *, loopback: bool, proxy: bool) -> None:
        self.hub = Hub()
        self.fairness = Fairness()
        self.places = ConnectionSlots(limits)
        self._nursery = nursery
        self._limits = limits
        self._proxy = proxy
        self._peer = Peer("192.0.2.1", loopback, "memory")
        self._origins = Origins(["192.0.2.1"] if proxy else [])

    def connect(self, handler: str, *, lockstep: bool = False) -> Wired:
        """A connection to ``handler``; in ``lockstep`` nothing is sent before it is received."""
        ours, theirs = trio.testing.lockstep_stream_pair() if lockstep else trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, HANDLERS[handler], theirs)
        return Wired(ours)

    async def _serve(self, handler: ProtocolHandler, stream: trio.abc.Stream) -> None:
        with self.places.enter(self._peer.address, proxy=self._proxy) as place:
            hosting = Hosting(
                self.hub, self._peer, lambda name: True, self._limits, trio.Event(), self._origins, place, self.fairness
            )
            with place.scope:
                await handler.serve(stream, hosting)
        await trio.aclose_forcefully(stream)

    def connections(self, subject: str = "alice") -> int:
        """How many connections the principal has."""
        return self.fairness.of(subject).connections


@asynccontextmanager
async def open_port(
    limits: ChannelLimits | None = None, *, loopback: bool = True, proxy: bool = False
) -> AsyncGenerator[Port]:
    """Serve on a port in memory."""
    async with trio.open_nursery() as nursery:
        yield Port(nursery, limits or ChannelLimits(), loopback=loopback, proxy=proxy)
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------------- HTTP


def _head(request: str, fields: Mapping[str, str]) -> bytes:
    lines = [f"{request} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def http_head(path: str = "/v1/pull", token: str = "alice", **fields: str) -> bytes:
    """The head of a request whose body comes in chunks, or has the length that is given."""
    given = {"host": "localhost", "content-type": "application/vnd.msgpack"}
    if token:
        given["authorization"] = f"Bearer {token}"
    given |= {name.replace("_", "-"): value for name, value in fields.items()}
    if "content-length" not in given:
        given["transfer-encoding"] = "chunked"
    return _head(f"POST {path}", given)


def http_call(token: str = "alice", **fields: str) -> bytes:
    """A whole pull."""
    body = encode(PULL)
    return http_head(token=token, content_length=str(len(body)), **fields) + body


def chunks(data: bytes, size: int = 1) -> bytes:
    """``data`` in chunks of ``size`` bytes, to its end."""
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# ---------------------------------------------------------------------- WebSocket


def upgrade(**fields: str) -> bytes:
    """The opening handshake."""
    given = {
        "Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13",
    }  # fmt: skip
    given |= {name.replace("_", "-"): value for name, value in fields.items()}
    return _head("GET /sync", given)


BINARY, CONTINUATION, PING = 2, 0, 9


def ws_frame(data: bytes = b"", opcode: int = BINARY, *, final: bool = True) -> bytes:
    """One short frame of a client, whose mask is zero."""
    head = bytes([(0x80 if final else 0) | opcode])
    if len(data) < 126:
        return head + bytes([0x80 | len(data), 0, 0, 0, 0]) + data
    return head + b"\xfe" + len(data).to_bytes(2, "big") + bytes(4) + data


def fragments(data: bytes, size: int = 1) -> bytes:
    """``data`` as a message in frames of so many bytes."""
    return b"".join(
        ws_frame(data[at : at + size], CONTINUATION if at else BINARY, final=at + size >= len(data))
        for at in range(0, len(data), size)
    )


def ws_auth(token: str = "alice") -> bytes:
    """The first message."""
    return ws_frame(encode_frame("auth", payload=encode(Auth(token))))


def ws_call(request: PullRequest = PULL) -> bytes:
    """A pull, as a message."""
    return encode_frame("call", 1, encode(request), method="pull")


# ---------------------------------------------------------------------- gRPC

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()


def grpc_head(
    id: int = 1, token: str = "alice", path: str = "/atoma.sync.v1.Sync/Pull", extra: Sequence[tuple[str, str]] = ()
) -> bytes:
    """The headers of a call."""
    fields = [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"), ("te", "trailers"),
        ("content-type", "application/grpc"), *([("authorization", f"Bearer {token}")] if token else []), *extra,
    ]  # fmt: skip
    return HeadersFrame(id, Encoder().encode(fields), flags=["END_HEADERS"]).serialize()


def grpc_message() -> bytes:
    """A pull, as its message."""
    packed = pack(PULL)
    return b"\0" + len(packed).to_bytes(4, "big") + packed


def grpc_data(data: bytes, id: int = 1, *, end: bool = False, padding: int = 0) -> bytes:
    """A frame of a message."""
    flags = [*(["END_STREAM"] if end else []), *(["PADDED"] if padding else [])]
    return DataFrame(id, data, pad_length=padding, flags=flags).serialize()


def serialized(frame: Frame) -> bytes:
    """``frame`` as it goes over the wire."""
    return frame.serialize()
