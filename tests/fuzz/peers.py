"""Peers that speak to a hub by hand, one for each handler: what a hostile program would have to write."""

from __future__ import annotations

import abc
import base64
from collections.abc import Iterable
from typing import Any, cast

import h11
import msgspec
import trio
from hpack import Decoder, Encoder
from hpack.struct import NeverIndexedHeaderTuple
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
)
from hyperframe.frame import Frame as Http2Frame
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection
from wsproto.frame_protocol import CloseReason

from atoma.codes import CODES
from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma.testing.queries import count_of
from atoma_transports.frames.envelope import SERVER_KINDS, Auth, Frame, decode_frame, encode_frame
from atoma_transports.grpc.convert import pack
from atoma_transports.http.envelope import Failure
from atoma_transports.memory.network import MemoryPipe
from atoma_transports.protocol import QueryCall, RemoteOp
from atoma_transports.protocol.json_mapping import encode_json
from atoma_transports.protocol.plans import encode_query
from tests.fuzz.stage import TOKEN, Stage, check_words

QUESTION = QueryCall((RemoteOp(0, "query", "cards", query=encode_query(count_of("cards"))),))
"""What every peer asks to see whether the hub still answers it."""
LOST = (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
RECEIVED_MAX = 4 * 1024 * 1024


def check_info(info: ErrorInfo) -> None:
    """An error is one of the table, and what a peer did is nothing that went wrong inside."""
    assert info.code in CODES or info.code.isupper(), info
    assert info.code != "INTERNAL", info
    check_words(msgspec.json.encode(info))


class Peer(abc.ABC):
    """One connection.

    Attributes:
        closed: The server has hung up.
        mute: It does not even answer when it is asked whether it is there.
        answers: How many questions it has answered.
    """

    def __init__(self) -> None:
        self.closed = False
        self.mute = False
        self.answers = 0
        self.received = 0

    @abc.abstractmethod
    async def begin(self) -> None:
        """Become an authenticated session."""

    @abc.abstractmethod
    async def ask(self) -> None:
        """Send the question."""

    @abc.abstractmethod
    async def attack(self, data: bytes) -> None:
        """Send what is hostile."""

    @abc.abstractmethod
    async def take(self) -> None:
        """Wait for the next that the server says, and see that it may say that."""

    @abc.abstractmethod
    async def end(self) -> None:
        """Send no more."""

    @abc.abstractmethod
    async def hang_up(self) -> None:
        """Close."""

    async def until_answered(self) -> bool:
        """Read until the question is answered (true), or the connection is closed (false)."""
        before = self.answers
        try:
            await self.ask()
        except LOST:
            pass  # what the server said before it hung up is read still
        while self.answers == before and not self.closed:
            await self.step()
        return self.answers > before

    async def until_closed(self) -> None:
        while not self.closed:
            await self.step()

    async def step(self) -> None:
        try:
            await self.take()
        except LOST:
            self.closed = True

    def count(self, size: int) -> None:
        self.received += size
        assert self.received < RECEIVED_MAX, "the server says more than it was asked for"


class FramePeer(Peer):
    """Speaks frames over a pipe in memory."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage
        self._pipe: MemoryPipe | None = None
        self._asked = 2**40
        self._welcome = False
        self.answered: set[int] = set()

    async def send(self, message: bytes) -> None:
        assert self._pipe is not None
        await self._pipe.send(message)

    async def receive(self) -> bytes:
        assert self._pipe is not None
        return await self._pipe.receive()

    async def connect(self) -> None:
        self._pipe = await self._stage.network.connect("peer", None)

    async def begin(self) -> None:
        await self.connect()
        await self.send(encode_frame("auth", payload=encode(Auth(TOKEN))))
        while not self._welcome:
            await self.take()

    async def ask(self) -> None:
        self._asked += 1
        await self.send(encode_frame("call", self._asked, encode(QUESTION), method="query"))

    async def attack(self, data: bytes) -> None:
        for frame in split(data):
            await self.send(frame)

    async def take(self) -> None:
        message = await self.receive()
        self.count(len(message))
        frame = decode_frame(message, self._stage.limits.frame_bytes)
        assert frame.kind in SERVER_KINDS
        self.answered.add(frame.id)
        await self._take_frame(frame)

    async def _take_frame(self, frame: Frame) -> None:
        check_words(frame.payload)
        if frame.kind == "welcome":
            self._welcome = True
        elif frame.kind == "ping" and not self.mute:
            await self.send(encode_frame("pong"))
        elif frame.kind == "error":
            info = decode(frame.payload, ErrorInfo)
            check_info(info)
            if frame.id == self._asked and info.code == "OVERLOADED":
                self.answers += 1  # it has itself to blame: its streams run still
        elif frame.kind == "reply" and frame.id == self._asked:
            self.answers += 1

    async def end(self) -> None:
        await self.hang_up()  # a pipe has no halves

    async def hang_up(self) -> None:
        if self._pipe is not None:
            await self._pipe.aclose()


def split(data: bytes) -> list[bytes]:
    """The frames in ``data``, each after three bytes of length."""
    found: list[bytes] = []
    while len(data) >= 3:
        size = int.from_bytes(data[:3], "big")
        found.append(data[3 : 3 + size])
        data = data[3 + size :]
    return found


def joined(*frames: bytes) -> bytes:
    """The opposite."""
    return b"".join(len(frame).to_bytes(3, "big") + frame for frame in frames)


class WebSocketPeer(FramePeer):
    """Speaks frames over WebSocket; is hostile in bytes."""

    UPGRADE = (
        b"GET /sync HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )

    async def connect(self) -> None:
        self.stream = self._stage.dial()
        self.socket = Connection(ConnectionType.CLIENT)
        self._messages: list[bytes] = []
        await self.stream.send_all(self.UPGRADE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += await self.stream.receive_some()
        assert head.startswith(b"HTTP/1.1 101"), head

    async def send(self, message: bytes) -> None:
        await self.stream.send_all(self.socket.send(BytesMessage(data=message)))

    async def attack(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        while not self._messages:
            data = bytes(await self.stream.receive_some())
            if not data:
                raise trio.EndOfChannel
            self.socket.receive_data(data)
            for event in self.socket.events():
                if isinstance(event, BytesMessage):
                    self._messages.append(bytes(event.data))
                elif isinstance(event, CloseConnection):
                    assert event.code in (*CloseReason, *(code.websocket for code in CODES.values())), event
                    assert event.code != 1011, event
                    check_words((event.reason or "").encode())
        return self._messages.pop(0)

    async def end(self) -> None:
        await cast("trio.abc.HalfCloseableStream", self.stream).send_eof()

    async def hang_up(self) -> None:
        await trio.aclose_forcefully(self.stream)


class HttpPeer(Peer):
    """Speaks HTTP/1.1."""

    BODY = encode_json(QUESTION)
    QUESTION = (
        b"POST /v1/query HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer a-secret\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    ) + BODY

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stream = stage.dial()
        self._http = h11.Connection(h11.CLIENT)
        self._http.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        self._http.send(h11.EndOfMessage())
        self._status = 0
        self._body = b""

    async def begin(self) -> None:
        assert await self.until_answered()

    async def ask(self) -> None:
        await self.stream.send_all(self.QUESTION)

    async def attack(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def take(self) -> None:
        event: Any = self._http.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await self.stream.receive_some())
            if not data:
                raise trio.EndOfChannel
            self.count(len(data))
            check_words(data)
            self._http.receive_data(data)
        elif isinstance(event, h11.Response):
            assert event.status_code not in (500, 101), event
            self._status, self._body = event.status_code, b""
        elif isinstance(event, h11.Data):
            self._body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            self._take_answer()
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise trio.EndOfChannel

    def _take_answer(self) -> None:
        if self._body.startswith(b'{"error":'):
            check_info(msgspec.json.decode(self._body, type=Failure).error)
        elif self._body.startswith(b'{"version":1,"replies"'):
            for reply in msgspec.json.decode(self._body)["replies"]:
                if "error" in reply:
                    check_info(msgspec.convert(reply["error"], ErrorInfo))
        if self._status == 200 and b'"tuples":[' in self._body:
            self.answers += 1
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            raise trio.EndOfChannel
        self._http.start_next_cycle()
        self._http.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        self._http.send(h11.EndOfMessage())

    async def end(self) -> None:
        await cast("trio.abc.HalfCloseableStream", self.stream).send_eof()

    async def hang_up(self) -> None:
        await trio.aclose_forcefully(self.stream)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/atoma.sync.v1.Sync/Query",
    ":authority": "hub",
    "te": "trailers",
    "content-type": "application/grpc",
    "authorization": f"Bearer {TOKEN}",
}


def block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Headers spelled out, whatever either side remembers."""
    return Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in headers], huffman=False)


def headers_frame(id: int, headers: Iterable[tuple[str, str]] = (), *flags: str, data: bytes | None = None) -> bytes:
    """The frame that begins a call."""
    frame = HeadersFrame(id, block(headers) if data is None else data, flags=list(flags or ("END_HEADERS",)))
    return bytes(frame.serialize())


def data_frame(id: int, data: bytes, *flags: str) -> bytes:
    """A frame of a call's data."""
    return bytes(DataFrame(id, data, flags=list(flags)).serialize())


def prefixed(message: bytes, flag: int = 0, size: int | None = None) -> bytes:
    """A message as gRPC frames it; with ``size`` the prefix lies."""
    return bytes([flag]) + (len(message) if size is None else size).to_bytes(4, "big") + message


class GrpcPeer(Peer):
    """Speaks gRPC on HTTP/2, with no library that would refuse to be used badly."""

    FIRST_ID, LATER_ID = 1, 100_001

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stream = stage.dial()
        self._asked = 0
        self._read = b""
        self._headers = Decoder()
        self._block = b""
        self.statuses: dict[int, str] = {}

    async def connect(self) -> None:
        await self.stream.send_all(PREFACE + SettingsFrame(0).serialize())

    async def begin(self) -> None:
        await self.connect()
        assert await self.until_answered()

    async def ask(self) -> None:
        self._asked = max(self._asked + 2, self.LATER_ID) if self._asked else self.FIRST_ID
        data = data_frame(self._asked, prefixed(pack(QUESTION)), "END_STREAM")
        await self.stream.send_all(headers_frame(self._asked, HEADERS.items()) + data)

    async def attack(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def take(self) -> None:
        data = bytes(await self.stream.receive_some())
        if not data:
            raise trio.EndOfChannel
        self.count(len(data))
        self._read += data
        while len(self._read) >= 9:
            frame, size = Http2Frame.parse_frame_header(memoryview(self._read[:9]))
            if len(self._read) < 9 + size:
                break
            frame.parse_body(memoryview(self._read[9 : 9 + size]))
            self._read = self._read[9 + size :]
            await self._take_frame(frame)

    async def _take_frame(self, frame: Http2Frame) -> None:
        if isinstance(frame, (HeadersFrame, ContinuationFrame)):
            self._block += frame.data
            if "END_HEADERS" in frame.flags:
                fields = dict(cast("list[tuple[str, str]]", self._headers.decode(self._block)))
                self._block = b""
                self._take_fields(frame.stream_id, fields)
        elif isinstance(frame, DataFrame):
            check_words(frame.data)
        elif isinstance(frame, GoAwayFrame):
            check_words(frame.additional_data)
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            await self.stream.send_all(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags and not self.mute:
            await self.stream.send_all(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())

    def _take_fields(self, id: int, fields: dict[str, str]) -> None:
        told = fields.get("atoma-error-bin")
        check_words(repr({name: value for name, value in fields.items() if name != "atoma-error-bin"}).encode())
        if told is not None:
            check_info(decode(base64.b64decode(told + "=" * (-len(told) % 4)), ErrorInfo))
        status = fields.get("grpc-status")
        if status is not None:
            assert 0 <= int(status) <= 16
            self.statuses[id] = status
            if id == self._asked and status in ("0", "8"):  # RESOURCE_EXHAUSTED: it made itself too small, or too busy
                self.answers += 1

    async def end(self) -> None:
        await cast("trio.abc.HalfCloseableStream", self.stream).send_eof()

    async def hang_up(self) -> None:
        await trio.aclose_forcefully(self.stream)
