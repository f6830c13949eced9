"""One WebSocket connection: how it closes, what it says then, and what it does not buffer."""

from __future__ import annotations

import functools
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionRejected
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from atoma.codes import CODES
from atoma.contracts.codec import decode, encode
from atoma.contracts.failures import refusal
from atoma.contracts.sync import Cursor, PullReply, PullRequest
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, AuthenticationError, ChannelBroken, ConnectFailed, ProtocolError, RemoteError
from atoma.ports import Peer, Principal, SyncService
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames import open_channel, serve_pipe
from atoma_transports.frames.envelope import Auth, decode_frame, encode_frame
from atoma_transports.serving import open_server
from atoma_transports.streams import PrefixedStream
from atoma_transports.websocket import WebSocketTransport
from atoma_transports.websocket.handshake import answer_upgrade, ask_for_upgrade
from atoma_transports.websocket.pipe import WebSocketPipe, close_error, close_words
from tests.unit.transports.kit import Unasked

virtual = pytest.mark.virtual_time
HUGE = 10 * 1024 * 1024


class Host(Unasked):
    """Knows one token; answers pulls with as many letters as were asked for."""

    def __init__(self) -> None:
        self.gate: trio.Event | None = None

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        if token != "t":
            raise AuthenticationError("not known here")
        return Principal("alice")

    def service(self, principal: Principal) -> SyncService:
        return self

    async def pull(self, request: PullRequest) -> PullReply:
        if self.gate is not None:
            await self.gate.wait()
        return PullReply("x" * request.max_bytes, request.cursor, request.cursor, head=5)


def pull(size: int = 1) -> PullRequest:
    return PullRequest("main", Cursor(), b"c", max_bytes=size)


class Foreigner:
    """A WebSocket client or server made of wsproto alone, on one end of a stream."""

    def __init__(self, stream: trio.abc.Stream, side: ConnectionType) -> None:
        self.stream = stream
        self.protocol = Connection(side)
        self.waiting: list[Event] = []

    async def say(self, event: Event) -> None:
        await self.stream.send_all(self.protocol.send(event))

    async def heard(self) -> Event | None:
        """The next event; None when the stream has ended."""
        while not self.waiting:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.protocol.receive_data(bytes(data))
            self.waiting += self.protocol.events()
        return self.waiting.pop(0)

    async def frame(self) -> tuple[str, bytes]:
        event = await self.heard()
        assert isinstance(event, BytesMessage)
        frame = decode_frame(bytes(event.data), 10**7)
        return frame.kind, frame.payload

    async def come_in(self) -> None:
        await self.say(BytesMessage(data=encode_frame("auth", payload=encode(Auth("t")))))
        assert (await self.frame())[0] == "welcome"


@asynccontextmanager
async def foreign_client(
    host: Host | None = None, limits: ChannelLimits | None = None, drain: trio.Event | None = None
) -> AsyncGenerator[tuple[Foreigner, trio.Nursery]]:
    """A server of ours on virtual time, and a stranger as its client."""
    limits = limits or ChannelLimits()
    ours, theirs = trio.testing.memory_stream_pair()
    pipe = WebSocketPipe(ours, ConnectionType.SERVER, b"", message_bytes=limits.first_frame_bytes)
    async with trio.open_nursery() as nursery:
        peer = Peer("127.0.0.1", True, "websocket")
        nursery.start_soon(functools.partial(serve_pipe, pipe, host or Host(), peer, limits=limits, drain=drain))
        yield Foreigner(theirs, ConnectionType.CLIENT), nursery
        nursery.cancel_scope.cancel()


async def goodbye(foreigner: Foreigner) -> tuple[int, str]:
    """How the server closes, its pings left out; answers like a polite client."""
    while True:
        event = await foreigner.heard()
        if isinstance(event, CloseConnection):
            if foreigner.protocol.state is ConnectionState.REMOTE_CLOSING:
                await foreigner.say(event.response())
            assert await foreigner.heard() is None
            return int(event.code), event.reason or ""
        assert isinstance(event, BytesMessage), event


@virtual
async def test_close_codes_tell_a_stranger_why() -> None:
    async with foreign_client() as (client, _):
        await client.say(BytesMessage(data=encode_frame("auth", payload=encode(Auth("wrong")))))
        assert (await client.frame())[0] == "error"
        assert await goodbye(client) == (4401, "UNAUTHENTICATED: not known here")
    async with foreign_client() as (client, _):
        await client.come_in()
        await client.say(BytesMessage(data=b"\xc1"))
        code, reason = await goodbye(client)
        assert (code, reason.partition(":")[0]) == (4400, "MALFORMED")
    async with foreign_client() as (client, _):
        await client.come_in()
        await client.say(TextMessage(data="hello"))
        assert (await goodbye(client))[0] == 4400
    async with foreign_client() as (client, _):
        await client.come_in()
        await client.stream.send_all(b"\x8f\x80\x00\x00\x00\x00")  # an opcode that does not exist
        assert (await goodbye(client))[0] == 1002
    drain = trio.Event()
    async with foreign_client(drain=drain) as (client, _):
        await client.come_in()
        drain.set()
        assert await goodbye(client) == (1012, "UNAVAILABLE: the server is shutting down")
    async with foreign_client() as (client, nursery):
        await client.come_in()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert (await goodbye(client))[0] == 1012


@virtual
async def test_a_stranger_cannot_make_the_server_buffer_much() -> None:
    limits = ChannelLimits()
    async with foreign_client(limits=limits) as (client, nursery):
        sent = 0
        begun = client.protocol.send(BytesMessage(data=bytes(HUGE)))  # one frame that says it is large

        async def pour() -> None:
            nonlocal sent
            for start in range(0, HUGE, 4096):
                try:
                    await client.stream.send_all(begun[start : start + 4096])
                except trio.BrokenResourceError:
                    return
                sent = start + 4096

        nursery.start_soon(pour)
        assert (await client.frame())[0] == "error"
        assert sent <= limits.first_frame_bytes + 2 * 65536
        while not isinstance(event := await client.heard(), CloseConnection):
            assert event is not None
        assert event.code == 1009


@virtual
async def test_a_client_that_asks_and_takes_no_answer_is_not_read_any_further() -> None:
    """The answers to what needs no handler are bounded, too: pings, calls of methods that are not there."""
    for frame in (encode_frame("ping"), encode_frame("call", 7, method="none")):
        ours, theirs = trio.testing.memory_stream_pair()
        pipe = WebSocketPipe(ours, ConnectionType.SERVER, b"", message_bytes=1_000_000)
        never, reads = trio.Event(), 0

        async def count() -> None:
            nonlocal reads
            reads += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_pipe, pipe, Host(), Peer("127.0.0.1", True, "websocket"))
            client = Foreigner(theirs, ConnectionType.CLIENT)
            await client.come_in()
            ours.send_stream.send_all_hook = never.wait
            ours.receive_stream.receive_some_hook = count
            one = client.protocol.send(BytesMessage(data=frame))
            await theirs.send_all(one * 100_000)  # some megabytes: 64 KiB are read at once
            await trio.testing.wait_all_tasks_blocked()
            assert 0 < reads < 8
            nursery.cancel_scope.cancel()


@virtual
async def test_room_for_an_answer_that_is_given_up_goes_to_the_next_one() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    pipe = WebSocketPipe(ours, ConnectionType.SERVER, b"", message_bytes=1_000)
    deliver, taken, host = ours.send_stream.send_all_hook, trio.Event(), Host()
    assert deliver is not None

    async def deliver_later() -> None:
        await taken.wait()
        await deliver()

    peer, limits = Peer("127.0.0.1", True, "websocket"), ChannelLimits(queue_bytes=1_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(serve_pipe, pipe, host, peer, limits=limits))
        client = Foreigner(theirs, ConnectionType.CLIENT)
        await client.come_in()
        ours.send_stream.send_all_hook = deliver_later
        for id in range(1, 6):
            await client.say(BytesMessage(data=encode_frame("call", id, encode(pull(2_000)), method="pull")))
            await trio.testing.wait_all_tasks_blocked()
        host.gate = trio.Event()  # the fourth and the fifth wait for room: they are made from now on
        taken.set()
        await trio.testing.wait_all_tasks_blocked()
        await client.say(BytesMessage(data=encode_frame("cancel", 4)))
        await trio.testing.wait_all_tasks_blocked()
        host.gate.set()
        with trio.fail_after(60):
            answered: list[int] = []
            while len(answered) < 4:
                event = await client.heard()
                assert isinstance(event, BytesMessage)
                answered.append(decode_frame(bytes(event.data), 10_000).id)
        assert answered == [1, 2, 3, 5]
        nursery.cancel_scope.cancel()


@virtual
async def test_after_the_welcome_messages_are_as_large_as_the_limit_says() -> None:
    limits = ChannelLimits(frame_bytes=1024 * 1024)
    async with foreign_client(limits=limits) as (client, _):
        await client.come_in()
        padded = encode_frame("call", 1, encode(pull()), method="pull")
        half = len(padded) // 2
        await client.say(BytesMessage(data=padded[:half], message_finished=False))
        await client.say(Ping(payload=b"between"))
        await client.say(BytesMessage(data=padded[half:]))
        assert isinstance(pong := await client.heard(), Pong)
        assert bytes(pong.payload) == b"between"
        assert (await client.frame())[0] == "reply"
        for _ in range(20):  # fragments of one byte are put together, too
            small = b"".join(client.protocol.send(BytesMessage(data=b"x", message_finished=False)) for _ in range(1000))
            await client.stream.send_all(small)
        for _ in range(17):
            await client.say(BytesMessage(data=bytes(65536), message_finished=False))
        assert (await goodbye(client))[0] == 1009


@virtual
async def test_a_frame_that_takes_minutes_is_no_lost_connection() -> None:
    limits = ChannelLimits()
    async with foreign_client(limits=limits) as (client, _):
        await client.come_in()
        data = client.protocol.send(BytesMessage(data=encode_frame("call", 1, encode(pull()), method="pull")))
        for start in range(len(data)):
            await trio.sleep((limits.ping_s + limits.pong_s) / 2)
            await client.stream.send_all(data[start : start + 1])
        while (kind := (await client.frame())[0]) in ("ping", "pong"):
            pass
        assert kind == "reply"
        began = trio.current_time()
        while await client.heard() is not None:
            pass
        assert trio.current_time() - began < 40  # silence is still noticed


SLOW_BYTES_S = 20_000


async def crawl(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
    """A slow line with a large buffer in front of it."""
    while data := await source.receive_some(4096):
        await trio.sleep(len(data) / SLOW_BYTES_S)
        await target.send_all(data)


@virtual
async def test_on_a_slow_line_with_large_buffers_pages_of_minutes_pass_in_both_directions() -> None:
    ours, near = trio.testing.memory_stream_pair()
    far, theirs = trio.testing.memory_stream_pair()
    client = WebSocketPipe(ours, ConnectionType.CLIENT, b"", message_bytes=65536)
    server = WebSocketPipe(theirs, ConnectionType.SERVER, b"", message_bytes=65536)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crawl, near, far)
        nursery.start_soon(crawl, far, near)
        limits = ChannelLimits(query_bytes=3_000_000)
        nursery.start_soon(
            functools.partial(serve_pipe, server, Host(), Peer("line", True, "websocket"), limits=limits)
        )
        async with open_channel(client, token="t") as channel:
            service = ServiceProxy(channel)
            for size_up, size_down in ((1, 2_000_000), (2_000_000, 1)):
                await service.pull(pull())
                began = trio.current_time()
                request = PullRequest("s" * size_up, Cursor(), b"c", max_bytes=size_down)
                assert len((await service.pull(request)).scope) == size_down
                assert trio.current_time() - began > 99
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("code", sorted(name for name, code in CODES.items() if code.websocket))
def test_every_close_code_comes_back_as_its_error(code: str) -> None:
    number, reason = close_words(refusal(code, "why ☃" * 100))
    assert number == CODES[code].websocket
    assert len(reason.encode()) <= 123
    error = close_error(number, reason)
    assert isinstance(error, AtomaError)
    told = error.remote_code if isinstance(error, RemoteError) else error.code
    assert told == (code if not isinstance(error, ProtocolError) else "MALFORMED")
    assert isinstance(close_error(number, ""), AtomaError)  # another program, or a proxy


def test_an_ordinary_end_and_an_unknown_number() -> None:
    assert isinstance(close_error(1000, ""), trio.EndOfChannel)
    assert isinstance(close_error(1001, "UNAUTHENTICATED: no"), trio.EndOfChannel)
    assert isinstance(close_error(4999, "?"), trio.BrokenResourceError)
    assert close_words(ErrorInfo("SCOPE_REVOKED", "x", False))[0] == 1000
    assert close_words(ErrorInfo("MADE_UP", "x", False))[0] == 1000


@asynccontextmanager
async def foreign_server(limits: ChannelLimits | None = None) -> AsyncGenerator[tuple[Foreigner, ServiceProxy]]:
    """A client of ours that is welcome at a stranger's."""
    ours, theirs = trio.testing.memory_stream_pair()
    server = Foreigner(theirs, ConnectionType.SERVER)
    pipe = WebSocketPipe(ours, ConnectionType.CLIENT, b"", message_bytes=65536)
    hello = encode_frame("welcome", payload=encode({"principal": "alice", "frame_bytes": 2**20, "calls": 9}))
    async with trio.open_nursery() as nursery:

        async def greet() -> None:
            assert (await server.frame())[0] == "auth"
            await server.say(BytesMessage(data=hello))

        nursery.start_soon(greet)
        async with open_channel(pipe, token="t", limits=limits) as channel:
            yield server, ServiceProxy(channel)


CLOSES = [
    (4401, "AUTH_EXPIRED: it is over", AuthenticationError, "AUTH_EXPIRED"),
    (4401, "", AuthenticationError, "UNAUTHENTICATED"),
    (4403, "PERMISSION_DENIED: not you", RemoteError, "PERMISSION_DENIED"),
    (4400, "MALFORMED: what?", ProtocolError, "MALFORMED"),
    (1011, "", ChannelBroken, "INTERNAL"),
    (1012, "", ChannelBroken, "UNAVAILABLE"),
    (1013, "", ChannelBroken, "OVERLOADED"),
    (1000, "", ChannelBroken, "lost"),
]


@virtual
@pytest.mark.parametrize(("number", "reason", "kind", "word"), CLOSES)
async def test_a_close_without_an_error_frame_is_told_as_what_it_means(
    number: int, reason: str, kind: type[AtomaError], word: str
) -> None:
    async with foreign_server() as (server, service):
        began = trio.current_time()
        await server.say(CloseConnection(code=number, reason=reason or None))
        reply = await server.heard()
        assert isinstance(reply, CloseConnection)  # at once, though the channel's block goes on
        with pytest.raises(kind) as caught:
            await service.pull(pull())
        error = caught.value
        assert word in f"{error.remote_code if isinstance(error, RemoteError) else error.code} {error}"
        assert trio.current_time() == began


@virtual
async def test_at_the_handshake_too() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    server = Foreigner(theirs, ConnectionType.SERVER)
    await server.say(CloseConnection(code=1013, reason=None))
    pipe = WebSocketPipe(ours, ConnectionType.CLIENT, b"", message_bytes=65536)
    with pytest.raises(ConnectFailed, match="OVERLOADED"):
        async with open_channel(pipe, token="t"):
            raise AssertionError("came in")


@virtual
async def test_closing_waits_for_nobody_who_answers() -> None:
    async with trio.open_nursery() as nursery:
        began = 0.0
        async with foreign_server() as (server, _):

            async def answer() -> None:
                event = await server.heard()
                assert isinstance(event, CloseConnection)
                assert event.code == 1000
                await server.say(event.response())

            nursery.start_soon(answer)
            began = trio.current_time()
        assert trio.current_time() == began
        async with foreign_server() as (_, _):
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(ChannelLimits().close_s)  # nobody answers


async def test_closing_a_real_connection_is_prompt() -> None:
    async with open_server(Host(), "127.0.0.1:0", limits=ChannelLimits(close_s=30)) as address:
        transport = WebSocketTransport(f"ws://{address}/sync", token="t", limits=ChannelLimits(close_s=30))
        with trio.fail_after(25):  # less than one wait for a goodbye
            for size in (1, 2_000_000):
                async with transport.connect() as channel:
                    assert len((await ServiceProxy(channel).pull(pull(size))).scope) == size


async def test_a_server_with_many_connections_stops_within_a_second_even_when_clients_are_deaf() -> None:
    async with trio.open_nursery() as nursery:
        serving = trio.CancelScope()
        bound: list[str] = []
        ready = trio.Event()

        async def run() -> None:
            with serving:
                async with open_server(Host(), "127.0.0.1:0", limits=ChannelLimits(connections=100)) as address:
                    bound.append(address)
                    ready.set()
                    await trio.sleep_forever()
            stopped.append(trio.current_time())

        stopped: list[float] = []
        nursery.start_soon(run)
        await ready.wait()
        host, _, port = bound[0].rpartition(":")
        deaf = []
        for _ in range(100):
            stream = await trio.open_tcp_stream(host, int(port))
            await ask_for_upgrade(stream, bound[0], "/sync")
            client = Foreigner(stream, ConnectionType.CLIENT)
            await client.come_in()
            deaf.append(client)
        cancelled = trio.current_time()
        serving.cancel()
        while not stopped:
            await trio.sleep(0.01)
        assert stopped[0] - cancelled < 1.0 + 4.0  # one second, and what a busy machine adds
        for client in deaf:
            await trio.aclose_forcefully(client.stream)


@virtual
async def test_the_subprotocol_is_accepted_when_it_is_offered_and_never_asked_for() -> None:
    for offer, accepted in (("atoma.v1", True), ("other, atoma.v1", True), ("other", False), ("", False)):
        ours, theirs = trio.testing.memory_stream_pair()
        fields = f"Sec-WebSocket-Protocol: {offer}\r\n" if offer else ""
        await theirs.send_all(
            f"GET /sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{fields}"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nrest".encode()
        )
        assert await answer_upgrade(ours) == b"rest"
        answer = bytes(await theirs.receive_some(65536)).lower()
        assert answer.startswith(b"http/1.1 101")
        assert (b"sec-websocket-protocol: atoma.v1" in answer) == accepted


@virtual
async def test_a_ping_that_comes_while_a_message_goes_out_is_answered_after_it() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    pipe = WebSocketPipe(theirs, ConnectionType.SERVER, b"", message_bytes=1_000)
    stranger, taken = Foreigner(ours, ConnectionType.CLIENT), trio.Event()
    deliver = theirs.send_stream.send_all_hook
    assert deliver is not None

    async def deliver_later() -> None:
        await taken.wait()
        await deliver()

    theirs.send_stream.send_all_hook = deliver_later
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe.send, b"message")
        nursery.start_soon(pipe.receive)
        await trio.testing.wait_all_tasks_blocked()
        await stranger.say(Ping(payload=b"there?"))
        await trio.testing.wait_all_tasks_blocked()
        taken.set()
        with trio.fail_after(60):
            assert [await stranger.heard(), await stranger.heard()] == [
                BytesMessage(data=b"message"),
                Pong(payload=b"there?"),
            ]
        nursery.cancel_scope.cancel()


@virtual
async def test_a_handshake_comes_in_any_pieces() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    rests: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            rests.append(await answer_upgrade(PrefixedStream(b"GET /sync HT", ours)))

        nursery.start_soon(serve)
        request = (
            b"TP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        for start in range(len(request)):
            await theirs.send_all(request[start : start + 1])
            await trio.testing.wait_all_tasks_blocked()
    assert rests == [b""]


@virtual
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno!!", ConnectionRejected),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ConnectionRejected),
        (b"SSH-2.0-x\r\n\r\n", trio.BrokenResourceError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, trio.BrokenResourceError),
        (b"", trio.BrokenResourceError),
    ],
)
async def test_who_does_not_upgrade_is_noticed(answer: bytes, kind: type[Exception]) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def other() -> None:
            await theirs.receive_some(65536)
            await theirs.send_all(answer)
            await theirs.send_eof()

        nursery.start_soon(other)
        with pytest.raises(kind):
            await ask_for_upgrade(ours, "x", "/")


async def test_what_a_socket_does_not_take_at_once_follows_in_order() -> None:
    """Replies pile up until the socket is full, then arrive whole and in order."""
    async with open_server(Host(), "127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await ask_for_upgrade(stream, address, "/sync")
        client = Foreigner(stream, ConnectionType.CLIENT)
        await client.come_in()
        for number in range(1, 201):
            size = 50_000 + number
            await client.say(BytesMessage(data=encode_frame("call", number, encode(pull(size)), method="pull")))
        await trio.sleep(0.2)
        sizes: list[int] = []
        parts: list[bytes] = []
        with trio.fail_after(60):
            while len(sizes) < 200:
                event = await client.heard()
                assert isinstance(event, BytesMessage)
                parts.append(bytes(event.data))
                if event.message_finished:
                    frame = decode_frame(b"".join(parts), 10**7)
                    parts.clear()
                    assert frame.kind == "reply"
                    sizes.append(len(decode(frame.payload, PullReply).scope) - frame.id)
        assert sizes == [50_000] * 200
        await trio.aclose_forcefully(stream)


def test_the_bytes_of_a_close_frame_are_those_of_the_standard() -> None:
    number, reason = close_words(refusal("UNAUTHENTICATED", "no"))
    data = Connection(ConnectionType.SERVER).send(CloseConnection(code=number, reason=reason))
    assert data == b"\x88" + bytes([2 + len(reason)]) + struct.pack("!H", 4401) + reason.encode()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("", "400"),
        ("Sec-WebSocket-Version: 13\r\n", "400"),
        ("Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "426"),
    ],
)
async def test_an_upgrade_that_is_none_is_answered_once_and_at_once(fields: str, status: str) -> None:
    request = f"GET /sync HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{fields}\r\n"
    async with open_server(Host(), "127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        answer = b""
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(request.encode())
            with trio.fail_after(60):
                async for data in stream:
                    answer += data
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
        assert answer.count(b"HTTP/1.1") == 1
