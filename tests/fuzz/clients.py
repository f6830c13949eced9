"""Our transports against servers that are right until they say one hostile thing."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import trio
import trio.testing
from hyperframe.frame import (
    Frame,
    GoAwayFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import strategies as st

from atoma.codes import CODES
from atoma.contracts.codec import encode
from atoma.contracts.sync import Hint, NotifyRequest
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, AuthenticationError, ProtocolError, RemoteError, TransportError
from atoma.ports import Transport
from atoma.ports.tasks import open_tasks, single_error
from atoma_transports.frames.envelope import Welcome, encode_frame
from atoma_transports.grpc import GrpcTransport
from atoma_transports.grpc.convert import pack
from atoma_transports.grpc.messages import HelloReply
from atoma_transports.http.client import HttpTransport
from atoma_transports.http.envelope import Failure, pack_record
from atoma_transports.protocol import OpsReply, RemoteOpResult
from atoma_transports.websocket import WebSocketTransport
from tests.fuzz.attacks import FRAMES, socket_frame
from tests.fuzz.decoders import frames, wrong_records
from tests.fuzz.grammar import messages
from tests.fuzz.hostile import damaged, twisted, twisted_json, twisted_msgpack, twisted_protobuf
from tests.fuzz.peers import PREFACE, QUESTION, data_frame, headers_frame, prefixed
from tests.fuzz.spelling import write_msgpack
from tests.fuzz.stage import STRICT, WITHIN_S, Errors, tasks

ALLOWED = (TransportError, RemoteError, ProtocolError, AuthenticationError)
"""What a caller may get from a server that does not keep to the protocol."""
ANSWER = OpsReply((RemoteOpResult(0, tuples=((0,),)),))
Script = Callable[[trio.abc.Stream, bytes, bool], Awaitable[None]]


@dataclass(frozen=True)
class Reply:
    """What the server says in place of an answer.

    Attributes:
        data: The bytes.
        first: In place of the greeting.
        ends: It hangs up after it; otherwise it falls silent.
        streams: The client reads a stream.
        calls: How many calls it makes at once otherwise.
    """

    data: bytes
    first: bool = False
    ends: bool = False
    streams: bool = False
    calls: int = 1


async def until(stream: trio.abc.Stream, mark: bytes) -> None:
    """Read until ``mark`` has come."""
    seen = b""
    while mark not in seen:
        data = await stream.receive_some()
        if not data:
            raise trio.BrokenResourceError
        seen = seen[-len(mark) :] + data


# ---------------------------------------------------------------------- WebSocket, and the frames in it

UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: atoma.v1\r\n\r\n"
)
WELCOME = encode_frame("welcome", payload=encode(Welcome("alice", 256 * 1024, 8)))


def spoken(*messages: bytes) -> bytes:
    """Frames as a WebSocket server sends them."""
    return b"".join(socket_frame(message, mask=False) for message in messages)


async def websocket_server(stream: trio.abc.Stream, data: bytes, first: bool) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    if first and data.startswith(b"HTTP"):
        await stream.send_all(data)
        return
    key = head.lower().partition(b"sec-websocket-key: ")[2].partition(b"\r\n")[0]
    place = head.lower().find(key)
    digest = hashlib.sha1(head[place : place + len(key)] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    await stream.send_all(UPGRADED % base64.b64encode(digest))
    await stream.receive_some()
    if not first:
        await stream.send_all(spoken(WELCOME))
        await stream.receive_some()
    await stream.send_all(data)


@st.composite
def hostile_frames(draw: st.DrawFn, *, streams: bool) -> list[bytes]:
    """What a server should not say about call 1."""
    way = draw(st.sampled_from(["reply", "error", "strange", "any", "items", "twice", "last words"]))
    if way == "reply":
        return [encode_frame("reply", 1, draw(twisted_msgpack(draw(messages(OpsReply)))))]
    if way == "error":
        return [encode_frame("error", 1, draw(twisted_msgpack(draw(messages(ErrorInfo)))))]
    if way == "strange":
        return [draw(st.sampled_from(FRAMES))]
    if way == "any":
        return [write_msgpack(draw(frames().flatmap(twisted)))]
    if way == "items":
        item = encode_frame("item", 1, encode(Hint("main", 1)) if draw(st.booleans()) else b"\xc1")
        return [item] * draw(st.integers(1, 40))
    if way == "twice":
        return [encode_frame("end" if streams else "reply", 1, encode(ANSWER))] * 2
    return [encode_frame("error", 0, encode(ErrorInfo(draw(st.sampled_from(sorted(CODES))), "it is over")))]


WEBSOCKET_BYTES: tuple[bytes, ...] = (
    socket_frame(b"x"), socket_frame(b"text", opcode=1, mask=False), socket_frame(b"x", size=2**63, mask=False),
    socket_frame(b"x", size=2**40, mask=False), socket_frame(b"x" * 300_000, mask=False),
    socket_frame(b"\x03\xed", opcode=8, mask=False), socket_frame(b"\x11\x31UNAUTHENTICATED: go", opcode=8, mask=False),
    socket_frame(b"x" * 126, opcode=9, mask=False), socket_frame(b"", opcode=0, mask=False), b"\x82", b"HTTP/1.1 400\r\n",
    socket_frame(b"", opcode=15, mask=False), socket_frame(b"a", final=False, mask=False) * 2,
    socket_frame(b"p", opcode=9, mask=False) * 300,
)  # fmt: skip
NOT_UPGRADED: tuple[bytes, ...] = (
    b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 403\r\n\r\n", b"HTTP/9.9 \xff\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\ncontent-length: 99999999999\r\n\r\nx", b"HTTP/1.1 101 x\r\n" + b"a: b\r\n" * 20_000, b"HTTP/1.1 1",
    UPGRADED % b"wrong", (UPGRADED % b"wrong").replace(b"atoma.v1", b"other"), b"HTTP/1.1 302 Found\r\nLocation: //[\r\n\r\n",
)  # fmt: skip


@st.composite
def by_websocket(draw: st.DrawFn) -> Reply:
    """What a WebSocket server may say."""
    first, ends, streams = draw(st.integers(0, 3)) == 0, draw(st.booleans()), draw(st.booleans())
    way = draw(st.sampled_from(["frames", "frames", "bytes", "damaged"]))
    if first and draw(st.booleans()):
        return Reply(draw(st.sampled_from(NOT_UPGRADED)), True, ends)
    if way == "bytes":
        return Reply(draw(st.sampled_from(WEBSOCKET_BYTES)), first, ends, streams)
    if first:
        wrong = draw(twisted_msgpack(draw(messages(Welcome))).map(lambda data: encode_frame("welcome", payload=data)))
        data = spoken(wrong)
    else:
        data = spoken(*draw(hostile_frames(streams=streams)))
    return Reply(draw(damaged(data)) if way == "damaged" else data, first, ends, streams)


# ---------------------------------------------------------------------- HTTP


def http_answer(body: bytes, content: str = "application/vnd.msgpack", status: str = "200 OK", **fields: str) -> bytes:
    """A response with its length."""
    given = {"content-type": content, "content-length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body


def chunked(body: bytes, content: str = "application/vnd.atoma.items") -> bytes:
    """A response in one chunk."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


async def http_server(stream: trio.abc.Stream, data: bytes, first: bool) -> None:
    if not first:
        await until(stream, b"\r\n\r\n")
        await stream.send_all(http_answer(encode({})))
    await until(stream, b"\r\n\r\n")
    await stream.send_all(data)


HTTP_ANSWERS: tuple[bytes, ...] = (
    b"", b"x", b"\0" * 50, b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 999 x\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\nx",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 300, http_answer(b"<html>", "text/html"), http_answer(b"", ""), http_answer(b"x" * 300_000),
    http_answer(b"x", content_length="100"), http_answer(b"x", content_length="-1"), http_answer(b"x", content_length="9" * 30),
    http_answer(b"x", big="y" * 200_000), http_answer(b"", status="204 No Content"), http_answer(b"\xc1", status="500 x"),
    http_answer(b"x", status="302 Found", location="http://["), http_answer(b"", status="503 x", retry_after="\xb2"),
    http_answer(b"", status="429 x", retry_after="9" * 5000), http_answer(b"{", "application/json", "503 x"),
    http_answer(b"[" * 100_000, "application/json", "400 x"), http_answer(b"\x91" * 100_000), chunked(b"q\0\0\0\0"),
    http_answer(b"x", transfer_encoding="chunked", content_length="") + b"zz\r\n", b"HTTP/1.1 200 OK\r\n" + b"a" * 200_000,
    http_answer(b"x", transfer_encoding="gzip", content_length=""), chunked(pack_record("z") + b"x" * 10_000),
    chunked(pack_record("i", b"\xc1")), chunked(b"i\xff\xff\xff\xff"), chunked(pack_record("e", b"\xc1")), chunked(b""),
)  # fmt: skip


@st.composite
def by_http(draw: st.DrawFn) -> Reply:
    """What an HTTP server may say."""
    first, ends, streams = draw(st.integers(0, 3)) == 0, draw(st.booleans()), draw(st.booleans())
    way = draw(st.sampled_from(["strange", "reply", "refusal", "records", "damaged"]))
    calls = draw(st.integers(1, 2))
    if way == "strange":
        return Reply(draw(st.sampled_from(HTTP_ANSWERS)), first, ends, streams, calls)
    if way == "records":
        return Reply(chunked(draw(wrong_records(2))), False, ends, streams, 2)
    if way == "reply":
        data = http_answer(draw(twisted_msgpack(draw(messages(OpsReply)))))
    elif way == "refusal":
        body = draw(messages(Failure))
        data = draw(st.one_of(
            twisted_msgpack(body).map(lambda wire: http_answer(wire, status="503 x")),
            twisted_json(body).map(lambda wire: http_answer(wire, "application/json", "409 x")),
        ))  # fmt: skip
    else:
        data = draw(damaged(http_answer(encode(ANSWER))))
    return Reply(data, first, ends)


# ---------------------------------------------------------------------- gRPC

GREETING = pack(HelloReply("alice", 256 * 1024, 8, None))


def grpc_answer(
    id: int, data: bytes, head: dict[str, str] | None = None, trailers: dict[str, str] | None = None
) -> bytes:
    """An answer whose headers, data and trailers are given."""
    head = {":status": "200", "content-type": "application/grpc+proto"} if head is None else head
    trailers = {"grpc-status": "0"} if trailers is None else trailers
    answer = headers_frame(id, head.items()) + (data_frame(id, data) if data else b"")
    return answer + headers_frame(id, trailers.items(), "END_HEADERS", "END_STREAM")


class Requests:
    """Reads HTTP/2 only as far as to see that a call was asked."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._read = b""

    async def until_asked(self, id: int) -> None:
        """Read to the end of the request of call ``id``."""
        while True:
            self._read = self._read.removeprefix(PREFACE)
            while len(self._read) >= 9 and not PREFACE.startswith(self._read[: len(PREFACE)]):
                frame, size = Frame.parse_frame_header(memoryview(self._read[:9]))
                if len(self._read) < 9 + size:
                    break
                self._read = self._read[9 + size :]
                if frame.stream_id == id and "END_STREAM" in frame.flags:
                    return
            data = await self._stream.receive_some()
            if not data:
                raise trio.BrokenResourceError
            self._read += data


async def grpc_server(stream: trio.abc.Stream, data: bytes, first: bool) -> None:
    await stream.send_all(SettingsFrame(0).serialize())
    requests = Requests(stream)
    await requests.until_asked(1)
    if not first:
        await stream.send_all(SettingsFrame(0, flags=["ACK"]).serialize() + grpc_answer(1, prefixed(GREETING)))
        await requests.until_asked(3)
    await stream.send_all(data)


def grpc_bytes(id: int) -> tuple[bytes, ...]:
    """What nobody should answer to call ``id``."""
    ok = {":status": "200", "content-type": "application/grpc"}
    data = prefixed(pack(ANSWER))
    return (
        grpc_answer(id, b""), grpc_answer(id, b"\0\0"), grpc_answer(id, prefixed(b"x", size=2**32 - 1)), grpc_answer(id, data * 2),
        grpc_answer(id, prefixed(b"x", flag=1)), grpc_answer(id, data, {":status": "500"}), grpc_answer(id, data, {":status": "x"}),
        grpc_answer(id, data, {}), grpc_answer(id, data, {":status": "200", "content-type": "text/html"}),
        grpc_answer(id, data, ok | {"grpc-encoding": "gzip"}), grpc_answer(id, data, ok, {}), grpc_answer(id, data, ok, {"grpc-status": "x"}),
        grpc_answer(id, data, ok, {"grpc-status": "99"}), grpc_answer(id, data, ok, {"grpc-status": "-1"}),
        grpc_answer(id, data, ok, {"grpc-status": "13", "grpc-message": "%ff%"}),
        grpc_answer(id, data, ok, {"grpc-status": "3", "atoma-error-bin": "%%%"}),
        grpc_answer(id, data, ok, {"grpc-status": "3", "atoma-error-bin": "wQ"}),
        grpc_answer(id, data, ok, {"grpc-status": "0", "x": "y" * 100_000}), headers_frame(id, ok.items(), "END_HEADERS", "END_STREAM"),
        grpc_answer(id, data, ok, {"grpc-status": "3", "grpc-status-details-bin": "////"}), headers_frame(id, data=b"\xff" * 30),
        data_frame(id, data), data_frame(id + 2, data), headers_frame(id + 2, ok.items()), headers_frame(2, ok.items()),
        PushPromiseFrame(id, 2, data=b"\x82", flags=["END_HEADERS"]).serialize(), RstStreamFrame(id, 99).serialize(),
        RstStreamFrame(id + 2, 1).serialize(), GoAwayFrame(0, 0, 0).serialize(), GoAwayFrame(0, 99, 11).serialize(),
        GoAwayFrame(0, id, 0, additional_data=b"\xff" * 500).serialize(), WindowUpdateFrame(0, 2**31 - 1).serialize() * 2,
        WindowUpdateFrame(id, 2**31 - 1).serialize() * 2, SettingsFrame(0, {4: 0}).serialize(), SettingsFrame(0, {3: 0}).serialize(),
        b"\0\0\x06\x04\0\0\0\0\0\0\x04\xff\xff\xff\xff", b"\0\0\x06\x04\0\0\0\0\0\0\x02\0\0\0\x01", PingFrame(0, b"12345678").serialize() * 2000,
        b"\xff\xff\xff\0\0\0\0\0\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 40, b"\0\0\x01\0\x08\0\0\0" + bytes([id]) + b"\xff",
        headers_frame(id, {":status": "103"}.items()) * 200,
    )  # fmt: skip


@st.composite
def by_grpc(draw: st.DrawFn) -> Reply:
    """What a gRPC server may say."""
    first, ends, streams = draw(st.integers(0, 3)) == 0, draw(st.booleans()), draw(st.booleans())
    id = 1 if first else 3
    way = draw(st.sampled_from(["strange", "strange", "message", "damaged"]))
    if way == "strange":
        return Reply(draw(st.sampled_from(grpc_bytes(id))), first, ends, streams)
    kind = HelloReply if first else Hint if streams else OpsReply
    data = grpc_answer(id, prefixed(draw(twisted_protobuf(draw(messages(kind)))))[:16_000])
    return Reply(draw(damaged(data)) if way == "damaged" else data, first, ends, streams)


# ---------------------------------------------------------------------- one client against one server


@dataclass(frozen=True)
class Client:
    """A transport, its server, and what that may say."""

    transport: Callable[[], Transport]
    server: Script
    replies: st.SearchStrategy[Reply]
    real_sockets: bool = False


CLIENTS: dict[str, Client] = {
    "websocket": Client(
        lambda: WebSocketTransport("ws://127.0.0.1:9/sync", token="a-secret", limits=STRICT),
        websocket_server,
        by_websocket(),
    ),
    "http": Client(
        lambda: HttpTransport("http://127.0.0.1:9", token="a-secret", limits=STRICT), http_server, by_http(), True
    ),
    "grpc": Client(lambda: GrpcTransport("127.0.0.1:9", token="a-secret", limits=STRICT), grpc_server, by_grpc()),
}


@contextmanager
def dialled(client: Client, reply: Reply, nursery: trio.Nursery) -> Generator[None]:
    """Whoever connects gets the hostile server."""

    async def serve(stream: trio.abc.Stream) -> None:
        try:
            await client.server(stream, reply.data, reply.first)
            if not reply.ends:
                while await stream.receive_some():
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def connect(*_arguments: object, **_options: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours: trio.abc.Stream
        theirs: trio.abc.Stream
        if client.real_sockets:
            left, right = socket.socketpair()
            ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (left, right))
        else:
            ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(serve, theirs)
        return ours

    keep_alive = "atoma_transports.http.client.network.keep_alive"  # sets options that only TCP has
    with mock.patch("trio.open_tcp_stream", connect), mock.patch(keep_alive):
        yield


async def use(client: Client, reply: Reply) -> None:
    """What a client does: connect, call or listen, leave."""
    async with client.transport().connect() as channel:
        if reply.streams:
            async with channel.stream("notify", NotifyRequest(("main",))) as items:
                async for _ in items:
                    pass
        else:
            async with open_tasks() as nursery:
                for _ in range(reply.calls):
                    nursery.start_soon(channel.call, "query", QUESTION)


async def meet(client: Client, reply: Reply) -> AtomaError | None:
    """The error that the client gets, if any: typed, within a second, nothing left, nothing in the log."""
    found: AtomaError | None = None
    before = tasks()
    with Errors().listening() as errors:
        async with trio.open_nursery() as nursery:
            with dialled(client, reply, nursery), trio.move_on_after(WITHIN_S) as patience:
                try:
                    await use(client, reply)
                except ALLOWED as error:
                    found = error
            assert not patience.cancelled_caught, "the caller was kept waiting"
            nursery.cancel_scope.cancel()
    assert tasks() == before, "a task was left"
    assert errors.texts == [], f"the log speaks of what a server did: {errors.texts}"
    if found is not None:
        assert len(str(found)) < 5000
    return found


def check_meeting(name: str, reply: Reply) -> AtomaError | None:
    """:func:`meet` in virtual time and a world of its own."""
    found: list[AtomaError | None] = []

    async def run() -> None:
        found.append(await meet(CLIENTS[name], reply))

    try:
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        failure = single_error(group)
    else:
        return found[0]
    raise failure


KNOWN_REPLIES: dict[str, tuple[bytes, ...]] = {
    "websocket": (*WEBSOCKET_BYTES, *(spoken(frame) for frame in FRAMES)),
    "http": HTTP_ANSWERS,
    "grpc": grpc_bytes(3),
}
"""Replies that need no chance, by transport."""
