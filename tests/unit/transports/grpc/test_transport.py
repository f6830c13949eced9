"""The gRPC transport: which addresses it takes, what it makes of strange servers, how it treats its token."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from atoma.contracts.sync import NotifyRequest, OpenRequest, PushReply, PushRequest
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ChannelBroken,
    ConfigurationError,
    ConnectFailed,
    Overloaded,
    ProtocolError,
    RemoteError,
)
from atoma.ports import Channel, Peer, Principal, ServiceHost, Transport
from atoma.testing.conformance import TOKEN, TinyHub
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.dialing import Token
from atoma_transports.grpc import GrpcTransport
from atoma_transports.grpc._driver.calls import GrpcLimits
from atoma_transports.grpc._driver.server import serve_grpc
from atoma_transports.grpc.messages import Packed
from atoma_transports.serving import open_server
from tests.unit.transports.grpc.kit import PULL

SHORT = ChannelLimits(handshake_s=1.0)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("127.0.0.1:50051", "grpc://127.0.0.1:50051"),
        ("localhost:50051", "grpc://localhost:50051"),
        ("grpc://[::1]:50051", "grpc://[::1]:50051"),
        ("http://localhost:8080/", "grpc://localhost:8080"),
        ("grpcs://hub.example", "grpcs://hub.example:443"),
        ("https://hub.example:8443", "grpcs://hub.example:8443"),
    ],
)
def test_addresses(address: str, shown: str) -> None:
    transport = GrpcTransport(address, token="very-secret")
    assert isinstance(transport, Transport)
    assert repr(transport) == f"GrpcTransport('{shown}')"
    assert transport.name == "grpc"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("ws://localhost:1", "not a gRPC address"),
        ("", "not a gRPC address"),
        ("grpc://", "not a gRPC address"),
        ("localhost:port", "not a gRPC address"),
        ("localhost:99999", "not a gRPC address"),
        ("grpc://localhost:1/sync", "not a gRPC address"),
        ("grpc://me:secret@localhost:1", "must not hold a user"),
        ("grpc://localhost:1?token=secret", "a user or a query"),
        ("grpc://hub.example:1", "plain text"),
        ("hub.example:1", "plain text"),
        ("http://192.0.2.1:1", "plain text"),
    ],
)
def test_addresses_that_cannot_be_used(address: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        GrpcTransport(address)


def test_plain_text_to_another_machine_has_to_be_asked_for() -> None:
    assert repr(GrpcTransport("grpc://192.0.2.1:1", insecure=True)) == "GrpcTransport('grpc://192.0.2.1:1')"
    with pytest.raises(ConfigurationError, match="ssl_context"):
        GrpcTransport("grpc://localhost:1", ssl_context=ssl.create_default_context())


@asynccontextmanager
async def listening(serve: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncGenerator[str]:
    """Answers each connection with ``serve``; the block gets the address."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def say_nothing(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


async def speak_http_1(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await stream.aclose()


@pytest.mark.parametrize(
    ("serve", "text"),
    [
        (hang_up, "closed the connection|broke"),
        (say_nothing, "sent no greeting within 1 s"),
        (speak_http_1, "is it a gRPC server"),
    ],
)
async def test_a_server_that_does_not_speak_grpc(
    serve: Callable[[trio.SocketStream], Awaitable[object]], text: str
) -> None:
    async with listening(serve) as address:
        with pytest.raises(ConnectFailed, match=text) as failed:
            async with GrpcTransport(address, limits=SHORT).connect():
                raise AssertionError("connected")
        assert failed.value.maybe_sent is False


async def test_nobody_listens() -> None:
    async with listening(hang_up) as address:
        pass
    with pytest.raises(ConnectFailed, match="cannot connect"):
        async with GrpcTransport(address).connect():
            raise AssertionError("connected")


def foreign(
    answers: Mapping[str, Callable[[Any], Awaitable[None]]],
) -> Callable[[trio.SocketStream], Awaitable[object]]:
    """A gRPC server that has only these methods, and knows nothing of Atoma's errors."""
    table = {
        f"/atoma.sync.v1.Sync/{name}": Handler(
            answer, Cardinality.UNARY_STREAM if name == "Notify" else Cardinality.UNARY_UNARY, Packed, Packed
        )
        for name, answer in answers.items()
    }
    return partial(serve_grpc, handlers=table, limits=GrpcLimits(message_bytes=10**7), drain=trio.Event())


FOREIGN_STATUSES: list[tuple[Status, type[AtomaError], str, bool]] = [
    (Status.CANCELLED, RemoteError, "UNAVAILABLE", True),
    (Status.UNKNOWN, RemoteError, "INTERNAL", True),
    (Status.INVALID_ARGUMENT, RemoteError, "INVALID", False),
    (Status.DEADLINE_EXCEEDED, RemoteError, "TIMEOUT", True),
    (Status.NOT_FOUND, RemoteError, "NOT_FOUND", False),
    (Status.ALREADY_EXISTS, RemoteError, "ALREADY_EXISTS", False),
    (Status.PERMISSION_DENIED, RemoteError, "PERMISSION_DENIED", False),
    (Status.RESOURCE_EXHAUSTED, RemoteError, "OVERLOADED", True),
    (Status.FAILED_PRECONDITION, RemoteError, "CONFLICT", False),
    (Status.ABORTED, RemoteError, "CONFLICT", False),
    (Status.OUT_OF_RANGE, RemoteError, "INVALID", False),
    (Status.UNIMPLEMENTED, ProtocolError, "MALFORMED", False),
    (Status.INTERNAL, RemoteError, "INTERNAL", True),
    (Status.UNAVAILABLE, RemoteError, "UNAVAILABLE", True),
    (Status.DATA_LOSS, RemoteError, "INTERNAL", True),
    (Status.UNAUTHENTICATED, AuthenticationError, "UNAUTHENTICATED", False),
]


async def test_a_status_alone_is_taken_for_the_code_it_means() -> None:
    assert {status for status, *_ in FOREIGN_STATUSES} == set(Status) - {Status.OK}
    due: list[Status] = []

    async def fail(call: Any) -> None:
        call.trailing["atoma-error-bin"] = b"\xc1 not an error of ours"
        raise GRPCError(due[0], "wörds")

    async with (
        listening(foreign({"Pull": fail, "Notify": fail})) as address,
        GrpcTransport(address).connect() as channel,
    ):
        service = ServiceProxy(channel)
        for status, kind, code, retryable in FOREIGN_STATUSES:
            due[:] = [status]
            with pytest.raises(AtomaError, match="wörds") as caught:
                await service.pull(PULL)
            assert type(caught.value) is kind, status
            if isinstance(caught.value, RemoteError):
                assert (caught.value.remote_code, caught.value.remote_retryable) == (code, retryable), status
            else:
                assert caught.value.code == code
            with pytest.raises(kind, match="wörds"):
                async with service.notify(NotifyRequest(("a",))) as hints:
                    async for _ in hints:
                        raise AssertionError("a hint from nowhere")


async def test_strange_answers_are_protocol_errors() -> None:
    data = b""

    async def answer(call: Any) -> None:
        await call.recv_message()
        await call.send_message(Packed(data))

    async with (
        listening(foreign({"Open": answer, "Notify": answer, "Push": answer})) as address,
        GrpcTransport(address, limits=ChannelLimits(frame_bytes=100_000)).connect() as channel,
    ):
        for strange in (b"\xff", b"\x1a\x01\xff", b"x" * 200_000):
            data = strange
            with pytest.raises(ProtocolError):
                await channel.call("open", OpenRequest(b"c", 1, 1, b"", ()))
        for strange in (b"\xff", b"\x0a\x01\xff", b"x" * 200_000):
            data = strange
            with pytest.raises(ProtocolError):
                async with channel.stream("notify", NotifyRequest(("a",))) as items:
                    await anext(items)
        data = b""  # an empty message is a message: everything in it has its default
        assert await channel.call("push", PushRequest(b"c", 1, (), b"")) == PushReply((), 0)


class Tokens(TinyHub):
    """A hub that takes only the tokens in ``good``."""

    def __init__(self, *good: str, expires_in_s: float | None = None) -> None:
        super().__init__()
        self.good = set(good)
        self.expires_in_s = expires_in_s
        self.seen: list[str] = []

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        self.seen.append(token)
        if token not in self.good:
            raise AuthenticationError("the token is not known here")
        return Principal("ann", expires_in_s=self.expires_in_s)


@asynccontextmanager
async def connected(
    host: ServiceHost, token: Token = TOKEN, limits: ChannelLimits | None = None, server: ChannelLimits | None = None
) -> AsyncGenerator[Channel]:
    async with open_server(host, "127.0.0.1:0", limits=server) as address:
        async with GrpcTransport(address, token=token, limits=limits).connect() as channel:
            yield channel


def numbered(asked: list[str]) -> Callable[[], Awaitable[str]]:
    async def token() -> str:
        asked.append(f"token-{len(asked) + 1}")
        return asked[-1]

    return token


async def test_a_token_that_is_refused_is_asked_for_once_more() -> None:
    hub, asked = Tokens("token-1", expires_in_s=0.2), list[str]()
    async with connected(hub, numbered(asked)) as channel:
        service = ServiceProxy(channel)
        await service.pull(PULL)
        await trio.sleep(0.3)
        hub.good, hub.expires_in_s = {"token-3"}, None
        with pytest.raises(AuthenticationError, match="not known"):
            await service.pull(PULL)  # refused, asked again, and the new one is refused as well
        assert asked == ["token-1", "token-2"]
        assert (await service.pull(PULL)).head == 2
        assert asked == ["token-1", "token-2", "token-3"]


async def test_a_fixed_token_that_is_refused_is_not_sent_again() -> None:
    hub = Tokens("good")
    async with connected(hub, "good") as channel:
        hub.failure = AuthenticationError("revoked")
        with pytest.raises(AuthenticationError, match="revoked"):
            await ServiceProxy(channel).pull(PULL)
        assert (hub.seen, len(hub.pulled)) == (["good"], 1)


async def test_many_calls_that_are_refused_ask_for_one_token() -> None:
    hub, asked = Tokens("token-1", "token-2", expires_in_s=0.2), list[str]()
    async with connected(hub, numbered(asked)) as channel:
        hub.good = {"token-2"}
        hub.expires_in_s = None
        await trio.sleep(0.3)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ServiceProxy(channel).pull, PULL)
        assert (len(hub.pulled), asked) == (20, ["token-1", "token-2"])


async def test_a_stream_goes_on_with_a_new_token() -> None:
    hub, asked = Tokens("token-1", "token-2", expires_in_s=0.5), list[str]()
    hub.hints = 10**9
    async with connected(hub, numbered(asked)) as channel:
        async with ServiceProxy(channel).notify(NotifyRequest(("a",))) as hints:
            with trio.fail_after(60):
                while len(asked) < 2:
                    await anext(hints)
                for _ in range(10):
                    await anext(hints)
    assert hub.seen[:2] == ["token-1", "token-2"]


async def test_a_stream_is_opened_again_once_only() -> None:
    hub, asked = Tokens("token-1", expires_in_s=0.3), list[str]()
    hub.hints = 10**9
    async with connected(hub, numbered(asked)) as channel:
        with pytest.raises(AuthenticationError, match="not known"), trio.fail_after(60):
            async with ServiceProxy(channel).notify(NotifyRequest(("a",))) as hints:
                async for _ in hints:
                    pass
    assert asked == ["token-1", "token-2"]


async def test_a_stream_with_a_fixed_token_ends_with_it() -> None:
    hub = Tokens("good", expires_in_s=0.3)
    hub.hints = 10**9
    async with connected(hub, "good") as channel:
        with pytest.raises(AuthenticationError, match="expired") as ended, trio.fail_after(60):
            async with ServiceProxy(channel).notify(NotifyRequest(("a",))) as hints:
                async for _ in hints:
                    pass
        assert ended.value.code == "AUTH_EXPIRED"


@pytest.mark.parametrize("token", ["two\nlines", "ümlaut", " spaced "])
async def test_what_is_no_token_is_not_sent(token: str) -> None:
    hub = Tokens()
    with pytest.raises(AuthenticationError, match="printable ASCII"):
        async with connected(hub, token):
            raise AssertionError("came in")
    assert hub.seen == []


async def test_a_failing_token_function_is_an_authentication_error() -> None:
    async def fail() -> str:
        raise KeyError("keyring")

    with pytest.raises(AuthenticationError, match="token function failed: KeyError"):
        async with connected(TinyHub(), fail):
            raise AssertionError("came in")


async def test_the_servers_bounds_are_kept_to() -> None:
    hub = TinyHub()
    small = ChannelLimits(frame_bytes=100_000, calls=2)
    async with connected(hub, server=small) as channel:
        service = ServiceProxy(channel)
        large = NotifyRequest(("x" * 100_000,))
        with pytest.raises(RemoteError, match="nothing was sent") as refused:
            async with channel.stream("notify", large):
                raise AssertionError("sent")
        assert refused.value.remote_code == "TOO_LARGE"
        hub.on_pull = trio.sleep_forever
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.pull, PULL)
            nursery.start_soon(service.pull, PULL)
            with trio.fail_after(60):
                while hub.active < 2:
                    await trio.sleep(0.01)
            with pytest.raises(Overloaded):
                await service.pull(PULL)
            nursery.cancel_scope.cancel()


async def test_a_lost_connection_says_whether_a_call_was_sent() -> None:
    hub = TinyHub()
    streams: list[trio.SocketStream] = []

    async with trio.open_nursery() as nursery:

        async def relay(stream: trio.SocketStream) -> None:
            streams.append(stream)
            async with await trio.open_tcp_stream("127.0.0.1", int(target.rpartition(":")[2])) as onward:
                async with trio.open_nursery() as both:
                    both.start_soon(pass_on, stream, onward)
                    both.start_soon(pass_on, onward, stream)

        async with open_server(hub, "127.0.0.1:0") as target, listening(relay) as address:
            async with GrpcTransport(address, token=TOKEN).connect() as channel:
                hub.on_pull = trio.sleep_forever

                async def call() -> None:
                    with pytest.raises(ChannelBroken, match="outcome of the call is unknown") as broken:
                        await ServiceProxy(channel).pull(PULL)
                    assert broken.value.maybe_sent

                async with trio.open_nursery() as calls:
                    calls.start_soon(call)
                    with trio.fail_after(60):
                        while not hub.active:
                            await trio.sleep(0.01)
                    await streams[0].aclose()
                with pytest.raises(ChannelBroken, match="not sent") as broken:
                    await ServiceProxy(channel).pull(PULL)
                assert not broken.value.maybe_sent
        nursery.cancel_scope.cancel()


async def pass_on(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    await sink.aclose()
