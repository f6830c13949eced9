"""Tokens that expire: a connection that outlives them, and one that ends with them."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing

from atoma.contracts.codec import decode, encode
from atoma.contracts.sync import Cursor, Hint, NotifyRequest, PullReply, PullRequest
from atoma.contracts.values import ErrorInfo
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ChannelBroken,
    ConfigurationError,
    ConnectFailed,
    RemoteError,
    TokenExpired,
)
from atoma.ports import Channel, Peer, Principal, SyncService, Transport
from atoma.ports.sessions import begin_session
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames import MessagePipe
from atoma_transports.frames.envelope import Auth, Frame, Welcome, decode_frame, encode_frame
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.unit.transports.kit import Unasked

virtual = pytest.mark.virtual_time
LIFE_S = 100.0
GRACE_S = ChannelLimits().expired_s


@dataclass
class Issuer(Unasked):
    """A host whose tokens are ``subject/serial``, each good for ``life_s`` from the moment it is looked at."""

    life_s: float | None = LIFE_S
    seen: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    served_as: list[Principal] = field(default_factory=list)
    gate: trio.Event | None = None
    before_answer: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        self.seen.append(token)
        await self.before_answer()
        if token in self.refused:
            raise AuthenticationError("the token is not known here")
        subject, _, claim = token.partition("/")
        return Principal(subject, {"role": claim.rstrip("0123456789")}, self.life_s)

    def service(self, principal: Principal) -> SyncService:
        return _Service(self, principal)


@dataclass
class _Service(Unasked):
    issuer: Issuer
    principal: Principal

    async def pull(self, request: PullRequest) -> PullReply:
        self.issuer.served_as.append(self.principal)
        if self.issuer.gate is not None:
            await self.issuer.gate.wait()
        return PullReply(request.scope, request.cursor, request.cursor, head=5)

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        async def heads() -> AsyncGenerator[Hint]:
            yield Hint("main", 1)
            await trio.sleep_forever()

        yield heads()


def pull() -> PullRequest:
    return PullRequest("main", Cursor(), b"c")


class Tokens:
    """A token function: the next serial at every request, or a failure."""

    def __init__(self, subject: str = "alice") -> None:
        self.subject = subject
        self.asked_at: list[float] = []
        self.failures = 0

    async def __call__(self) -> str:
        self.asked_at.append(trio.current_time())
        if self.failures:
            self.failures -= 1
            raise OSError("the identity provider is down")
        return f"{self.subject}/{len(self.asked_at)}"


@asynccontextmanager
async def listening(issuer: Issuer) -> AsyncGenerator[MemoryNetwork]:
    network = MemoryNetwork()
    async with network.listen(issuer):
        yield network


@virtual
async def test_the_token_function_is_asked_before_the_token_expires_and_nobody_notices() -> None:
    issuer, tokens = Issuer(), Tokens()
    async with listening(issuer) as network, MemoryTransport(network, token=tokens).connect() as channel:
        began = trio.current_time()
        heads: list[int] = []
        ended = trio.Event()

        async def listen() -> None:
            async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
                async for hint in hints:
                    heads.append(hint.head)
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for _ in range(50):
                assert (await ServiceProxy(channel).pull(pull())).head == 5
                await trio.sleep(20)
            assert heads == [1]
            assert not ended.is_set()  # one stream, for ten times the life of a token
            nursery.cancel_scope.cancel()
        assert issuer.seen == [f"alice/{serial}" for serial in range(1, len(issuer.seen) + 1)]
        waits = [later - earlier for earlier, later in itertools.pairwise(tokens.asked_at)]
        assert waits == pytest.approx([0.75 * LIFE_S] * 13, abs=1)
        assert len(issuer.seen) == 14 == 1 + int((trio.current_time() - began) / (0.75 * LIFE_S))


@virtual
async def test_a_token_without_an_end_is_asked_for_once() -> None:
    issuer, tokens = Issuer(life_s=None), Tokens()
    async with listening(issuer) as network, MemoryTransport(network, token=tokens).connect() as channel:
        await trio.sleep(100 * LIFE_S)
        assert (await ServiceProxy(channel).pull(pull())).head == 5
        assert len(tokens.asked_at) == 1


@virtual
async def test_a_token_text_that_expires_ends_streams_calls_and_the_connection() -> None:
    issuer = Issuer()
    async with listening(issuer) as network, MemoryTransport(network, token="alice/1").connect() as channel:
        began = trio.current_time()
        with pytest.raises(TokenExpired) as ended:
            async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
                async for hint in hints:
                    assert hint.head == 1
        assert trio.current_time() - began == pytest.approx(LIFE_S, abs=0.01)
        assert (ended.value.code, ended.value.maybe_sent) == ("AUTH_EXPIRED", False)
        with pytest.raises(TokenExpired, match="send a new one"):
            await ServiceProxy(channel).pull(pull())
        assert channel.is_open  # type: ignore[attr-defined]
        await trio.sleep(GRACE_S + 0.1)
        assert not channel.is_open  # type: ignore[attr-defined]
        with pytest.raises(AuthenticationError) as refused:
            await ServiceProxy(channel).pull(pull())
        assert refused.value.code == "AUTH_EXPIRED"
        assert issuer.served_as == []


@virtual
async def test_a_call_that_began_in_time_is_answered_but_not_waited_for_beyond_the_grace() -> None:
    for waits_s, answered in ((GRACE_S / 2, True), (GRACE_S * 2, False)):
        issuer = Issuer(gate=trio.Event())
        async with listening(issuer) as network, MemoryTransport(network, token="alice/1").connect() as channel:
            outcomes: list[object] = []

            async def call(channel: object = channel, outcomes: list[object] = outcomes) -> None:
                try:
                    outcomes.append((await ServiceProxy(channel).pull(pull())).head)  # type: ignore[arg-type]
                except ChannelBroken as error:
                    outcomes.append(error.maybe_sent)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await trio.sleep(LIFE_S + waits_s)
                assert issuer.gate is not None
                issuer.gate.set()
            assert outcomes == ([5] if answered else [True])


@virtual
async def test_a_token_function_that_fails_is_asked_again_and_the_grace_still_saves_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")
    issuer, tokens = Issuer(life_s=8.0), Tokens()
    async with listening(issuer) as network, MemoryTransport(network, token=tokens).connect() as channel:
        tokens.failures = 4  # asked at 6, 6.25, 6.75, 7.75: the next time, 9.75, is within the grace
        await trio.sleep(9)
        with pytest.raises(TokenExpired):
            await ServiceProxy(channel).pull(pull())
        await trio.sleep(1)
        assert (await ServiceProxy(channel).pull(pull())).head == 5
        tokens.failures = 1000
        await trio.sleep(8 + GRACE_S + 1)
        with pytest.raises(TokenExpired):
            await ServiceProxy(channel).pull(pull())


@virtual
async def test_the_service_is_that_of_the_new_token_and_streams_with_other_rights_end() -> None:
    issuer = Issuer()
    serials = iter(("reader", "reader2", "writer3"))

    async def token() -> str:
        return f"alice/{next(serials)}"

    async with listening(issuer) as network, MemoryTransport(network, token=token).connect() as channel:
        began = trio.current_time()
        with pytest.raises(RemoteError, match="rights of this connection have changed") as ended:
            async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
                async for _ in hints:
                    await ServiceProxy(channel).pull(pull())
        assert trio.current_time() - began == pytest.approx(1.5 * LIFE_S, abs=1)  # the second token changed nothing
        assert ended.value.remote_retryable
        await ServiceProxy(channel).pull(pull())
        assert [principal.claims["role"] for principal in issuer.served_as] == ["reader", "writer"]


async def next_frame(pipe: MessagePipe) -> Frame:
    while True:
        frame = decode_frame(await pipe.receive(), 10**6)
        if frame.kind != "ping":
            return frame


async def introduced(network: MemoryNetwork, token: str) -> MessagePipe:
    pipe = await network.connect("raw", None)
    await pipe.send(encode_frame("auth", payload=encode(Auth(token))))
    welcome = await next_frame(pipe)
    assert (welcome.kind, decode(welcome.payload, Welcome).expires_in) == ("welcome", LIFE_S)
    return pipe


async def brought(pipe: MessagePipe, id: int, token: str) -> tuple[int, str]:
    """Id and meaning of the answer to a new token."""
    await pipe.send(encode_frame("auth", id, encode(Auth(token))))
    frame = await next_frame(pipe)
    if frame.kind == "error":
        return frame.id, decode(frame.payload, ErrorInfo).code
    return frame.id, decode(frame.payload, Welcome).principal


@virtual
async def test_a_connection_stays_with_its_subject() -> None:
    issuer = Issuer()
    async with listening(issuer) as network:
        pipe = await introduced(network, "alice/1")
        assert await brought(pipe, 7, "alice/2") == (7, "alice")
        assert await brought(pipe, 8, "bob/1") == (8, "PERMISSION_DENIED")
        last = await next_frame(pipe)
        assert (last.kind, last.id, decode(last.payload, ErrorInfo).code) == ("error", 0, "PERMISSION_DENIED")
        with pytest.raises(trio.EndOfChannel):
            await pipe.receive()


@virtual
async def test_a_client_whose_tokens_change_their_subject_is_told_so() -> None:
    issuer, tokens = Issuer(), Tokens()
    async with listening(issuer) as network, MemoryTransport(network, token=tokens).connect() as channel:
        tokens.subject = "bob"
        await trio.sleep(LIFE_S)
        with pytest.raises(RemoteError) as denied:
            await ServiceProxy(channel).pull(pull())
        assert (denied.value.remote_code, denied.value.remote_retryable) == ("PERMISSION_DENIED", False)
        assert issuer.served_as == []


@virtual
async def test_bad_tokens_change_nothing_until_there_are_too_many() -> None:
    issuer = Issuer(refused={"alice/bad"})
    async with listening(issuer) as network:
        pipe = await introduced(network, "alice/1")
        for id in (1, 2):
            assert await brought(pipe, id, "alice/bad") == (id, "UNAUTHENTICATED")
        await pipe.send(encode_frame("call", 3, encode(pull()), method="pull"))
        assert (await next_frame(pipe)).kind == "reply"
        assert await brought(pipe, 4, "alice/2") == (4, "alice")
        for id in (5, 6, 7):
            assert await brought(pipe, id, "alice/bad") == (id, "UNAUTHENTICATED")
        assert (await next_frame(pipe)).id == 0
        with pytest.raises(trio.EndOfChannel):
            await pipe.receive()


@virtual
async def test_one_token_is_looked_at_at_a_time_and_not_for_ever() -> None:
    issuer = Issuer()
    async with listening(issuer) as network:
        pipe = await introduced(network, "alice/1")
        issuer.before_answer = trio.sleep_forever
        for id in (1, 2):
            await pipe.send(encode_frame("auth", id, encode(Auth("alice/2"))))
        frame = await next_frame(pipe)
        assert (frame.id, decode(frame.payload, ErrorInfo).code) == (2, "RATE_LIMITED")
        began = trio.current_time()
        frame = await next_frame(pipe)
        assert (frame.id, decode(frame.payload, ErrorInfo).code) == (1, "TIMEOUT")
        assert trio.current_time() - began <= ChannelLimits().handshake_s + 0.1
        assert len(issuer.seen) == 2


@virtual
async def test_a_token_that_has_expired_already_is_refused_at_the_door() -> None:
    async with listening(Issuer(life_s=0.0)) as network:
        with pytest.raises(TokenExpired):
            async with MemoryTransport(network, token="alice/1").connect():
                raise AssertionError("came in")


@virtual
async def test_a_token_function_may_say_itself_why_there_is_no_token() -> None:
    async def signed_out() -> str:
        raise ConnectFailed("the identity provider is down")

    async with listening(Issuer()) as network:
        with pytest.raises(ConnectFailed, match="provider"):
            async with MemoryTransport(network, token=signed_out).connect():
                raise AssertionError("came in")
        assert network.links == set()


async def test_over_websocket_a_connection_outlives_its_tokens_and_ends_with_the_last_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")
    issuer, tokens = Issuer(life_s=1.0), Tokens()
    limits = ChannelLimits(expired_s=0.2)
    async with (
        open_server(issuer, "127.0.0.1:0", limits=limits) as address,
        WebSocketTransport(f"ws://{address}/sync", token=tokens).connect() as channel,
    ):
        with trio.fail_after(60):
            while len(issuer.seen) < 4:
                assert (await ServiceProxy(channel).pull(pull())).head == 5
                await trio.sleep(0.05)
            tokens.failures = 10**6
            with pytest.raises(AtomaError) as ended:
                while True:
                    await ServiceProxy(channel).pull(pull())
                    await trio.sleep(0.05)
            assert ended.value.code == "AUTH_EXPIRED"
            while channel.is_open:  # type: ignore[attr-defined]
                await trio.sleep(0.05)
            with pytest.raises(TokenExpired):
                await ServiceProxy(channel).pull(pull())


@pytest.mark.parametrize(
    "connect_to",
    [
        lambda address, token: WebSocketTransport(f"ws://{address}/sync", token=token),
        lambda address, token: GrpcTransport(address, token=token),
        lambda address, token: HttpTransport(f"http://{address}", token=token),
    ],
    ids=["websocket", "grpc", "http"],
)
@pytest.mark.parametrize("patience_s", [math.inf, 0.2], ids=["patient", "impatient"])
async def test_over_every_transport_a_stream_outlives_its_tokens(
    connect_to: Callable[[str, Tokens], Transport], patience_s: float
) -> None:
    issuer = Issuer(life_s=0.5)

    async def listen(channel: Channel) -> None:
        async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
            while True:
                with trio.move_on_after(patience_s):  # which is that of the wait, and not of the stream
                    assert (await anext(hints)).head == 1

    async with (
        open_server(issuer, "127.0.0.1:0") as address,
        connect_to(address, Tokens()).connect() as channel,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(listen, channel)
        with trio.fail_after(60):
            while len(set(issuer.seen)) < 4:
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


OVER: dict[str, Callable[[str, Any], Transport]] = {
    "websocket": lambda address, token: WebSocketTransport(f"ws://{address}/sync", token=token),
    "grpc": lambda address, token: GrpcTransport(address, token=token),
    "http": lambda address, token: HttpTransport(f"http://{address}", token=token),
}


@pytest.mark.parametrize("name", OVER)
async def test_over_every_transport_a_token_of_somebody_else_ends_the_connection(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")
    issuer, tokens = Issuer(life_s=0.5), Tokens()
    async with (
        open_server(issuer, "127.0.0.1:0") as address,
        OVER[name](address, tokens).connect() as channel,
    ):
        service = ServiceProxy(channel)
        await service.pull(pull())
        tokens.subject = "bob"
        issuer.refused.update(issuer.seen)
        told: list[AtomaError] = []
        with trio.fail_after(60):
            while channel.is_open:  # type: ignore[attr-defined]
                try:
                    await service.pull(pull())
                except AtomaError as error:
                    told.append(error)
                await trio.sleep(0.05)
        with pytest.raises(AtomaError) as last:
            await service.pull(pull())
        assert {principal.subject for principal in issuer.served_as} == {"alice"}, "nothing was done as the other"
        assert "PERMISSION_DENIED" in str([*told, last.value][0])
        assert any(token.startswith("bob") for token in issuer.seen)


@pytest.mark.parametrize("name", OVER)
@pytest.mark.parametrize(
    "raised",
    [SystemExit(3), KeyboardInterrupt(), KeyError("users"), BaseExceptionGroup("g", [SystemExit(1)])],
    ids=lambda error: type(error).__name__,
)
async def test_a_verifier_that_fails_ends_one_attempt_and_no_server(
    name: str, raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")
    issuer = Issuer(life_s=None)

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise raised

    issuer.before_answer = fail
    async with open_server(issuer, "127.0.0.1:0") as address:
        with pytest.raises(ConnectFailed, match="INTERNAL"):
            async with OVER[name](address, "alice/1").connect():
                raise AssertionError("came in")
        issuer.before_answer = trio.lowlevel.checkpoint
        async with OVER[name](address, "alice/1").connect() as channel:
            assert (await ServiceProxy(channel).pull(pull())).head == 5


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_verifier_that_is_cancelled_is_cancelled(grouped: bool) -> None:
    issuer = Issuer()
    waits = trio.Event()

    async def wait() -> None:
        waits.set()
        if not grouped:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise SystemExit(1)

    issuer.before_answer = wait
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin_session, "alice/1", issuer, Peer("here", True, "test"))
            await waits.wait()
            nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


@pytest.mark.parametrize(
    ("subject", "claims", "span", "says"),
    [
        ("", {}, None, "subject"),
        (None, {}, None, "subject"),
        ("a\nb", {}, None, "subject"),
        ("a" * 300, {}, None, "subject"),
        ("ann", {"role": 3}, None, "claims"),
        ("ann", {}, math.nan, "finite"),
        ("ann", {}, math.inf, "finite"),
        ("ann", {}, "3", "finite"),
    ],
)
def test_a_principal_that_is_none_is_refused_where_it_is_made(subject: Any, claims: Any, span: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Principal(subject, claims, span)
