"""The HTTP transport against a scripted server on real sockets: connecting, tokens, errors, losses, streams."""

from __future__ import annotations

import email.utils
import random
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from atoma.contracts.codec import encode
from atoma.contracts.execution import WriteOptions
from atoma.contracts.sync import Hint, NotifyRequest
from atoma.contracts.values import ErrorInfo
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
from atoma.ports import Channel
from atoma.testing.queries import rows_of
from atoma_transports.calls import ChannelLimits
from atoma_transports.http.client import HttpTransport
from atoma_transports.protocol import OpsReply, QueryCall, RemoteOp, ResolveCall, WriteCall
from atoma_transports.protocol.plans import encode_query
from atoma_transports.remote import SharedChannel
from tests.unit.transports.http_client.h11_server import (
    MSGPACK,
    Asked,
    HangUp,
    ScriptedServer,
    is_probe,
    open_scripted,
    polite,
    record,
)

LIMITS = ChannelLimits(ping_s=0.3, pong_s=0.5, handshake_s=5.0, slow_s=5.0)
QUERY = QueryCall((RemoteOp(0, "query", "s", query=encode_query(rows_of("s"))),), "trace-1")
PATIENCE_S = 20


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.005)


async def never(asked: Asked) -> None:
    """Leaves the caller without an answer."""
    await trio.sleep_forever()


def reply_to(script: Callable[[Asked], Any]) -> Callable[[Asked], Any]:
    """``script`` for everything but the question whether the server is there."""

    async def answer(asked: Asked) -> None:
        await (polite(asked) if is_probe(asked) else script(asked))

    return answer


@asynccontextmanager
async def channel_to(server: ScriptedServer, **options: Any) -> AsyncGenerator[Channel]:
    options.setdefault("limits", LIMITS)
    async with HttpTransport(server.url, **options).connect() as channel:
        yield channel


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ws://localhost", {}, "not an HTTP address"),
        ("http://", {}, "not an HTTP address"),
        ("http://u:p@localhost", {}, "must not hold a user"),
        ("http://localhost/?token=x", {}, "a user or a query"),
        ("http://localhost/#x", {}, "a user or a query"),
        ("http://hub.example", {}, "plain text"),
        ("http://localhost", {"ssl_context": ssl.create_default_context()}, "https"),
        ("https://hub.example", {"proxy": "socks5://localhost:1"}, "proxy must be the address"),
        ("https://hub.example", {"proxy": "localhost:3128"}, "proxy must be the address"),
    ],
)
def test_addresses_are_checked(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        HttpTransport(url, **options)


def test_an_address_says_where_and_never_with_what() -> None:
    transport = HttpTransport("http://hub.example/base/", insecure=True, token="secret", name="far")
    assert repr(transport) == "HttpTransport('http://hub.example/base')"
    assert transport.name == "far"


async def test_a_call_brings_token_budget_and_trace_and_keeps_its_connection() -> None:
    async with open_scripted() as server, channel_to(server, token="a-secret") as channel:
        with trio.fail_after(PATIENCE_S):
            for _ in range(3):
                reply = await channel.call("query", QUERY)
                assert isinstance(reply, OpsReply)
        assert server.paths() == ["/v1/query"] * 3
        asked = server.asked[-1]
        assert asked.headers["authorization"] == "Bearer a-secret"
        assert asked.headers["content-type"] == MSGPACK
        assert asked.headers["atoma-trace"] == "trace-1"
        assert 0 < int(asked.headers["atoma-budget-ms"]) <= PATIENCE_S * 1000
        assert server.connections == 1
        await channel.call("query", QUERY)
        assert "atoma-budget-ms" not in server.asked[-1].headers


async def test_the_hub_may_be_below_a_path() -> None:
    async with open_scripted() as server:
        async with HttpTransport(f"{server.url}/sync/", limits=LIMITS).connect() as channel:
            await channel.call("query", QUERY)
        assert [asked.path for asked in server.asked] == ["/sync/v1/cancel", "/sync/v1/query"]


async def test_connecting_fails_with_what_is_the_matter() -> None:
    async with open_scripted() as server:
        server.script = lambda asked: asked.refuse(ErrorInfo("UNAUTHENTICATED", "the token is not known"), 401)
        with pytest.raises(AuthenticationError, match="not known"):
            async with channel_to(server, token="wrong"):
                raise AssertionError("came in")
        server.script = lambda asked: asked.refuse(ErrorInfo("UNAVAILABLE", "going down", True))
        with pytest.raises(ConnectFailed, match="going down"):
            async with channel_to(server):
                raise AssertionError("came in")
        server.script = lambda asked: asked.answer(b"<html>not found", 404, "text/html")
        with pytest.raises(ProtocolError, match=r"404.*Atoma hub"):
            async with channel_to(server):
                raise AssertionError("came in")
        server.script = lambda asked: asked.answer(b"<html>log in here", 200, "text/html")
        with pytest.raises(ProtocolError, match="text/html"):
            async with channel_to(server):
                raise AssertionError("came in")
        server.script = lambda asked: asked.answer(b"", 301, "text/html", location="https://elsewhere/")
        with pytest.raises(ProtocolError, match="points to https://elsewhere/"):
            async with channel_to(server):
                raise AssertionError("came in")
        server.script = never
        with pytest.raises(ConnectFailed, match="did not answer within"):
            async with channel_to(server, limits=ChannelLimits(handshake_s=0.2)):
                raise AssertionError("came in")
        server.raw = b"SSH-2.0-OpenSSH\r\n\r\n"
        with pytest.raises(ProtocolError, match="does not speak HTTP"):
            async with channel_to(server):
                raise AssertionError("came in")
        for token in ("two\r\nlines", " x", "ü"):
            with pytest.raises(AuthenticationError, match="printable"):
                async with channel_to(server, token=token):
                    raise AssertionError("came in")
        port = server.port
    with pytest.raises(ConnectFailed, match="cannot connect") as refused:
        async with HttpTransport(f"http://127.0.0.1:{port}", limits=LIMITS).connect():
            raise AssertionError("came in")
    assert refused.value.maybe_sent is False


FOREIGN: dict[str, tuple[int, str, dict[str, str], tuple[type[AtomaError], str, float]]] = {
    "bad gateway": (502, "text/html", {}, (RemoteError, "UNAVAILABLE", 0)),
    "no server": (503, "text/html", {"retry_after": "7"}, (RemoteError, "UNAVAILABLE", 7)),
    "gateway timeout": (504, "text/plain", {}, (RemoteError, "UNAVAILABLE", 0)),
    "too many": (429, "text/html", {"retry_after": "3"}, (RemoteError, "RATE_LIMITED", 3)),
    "somebody's JSON": (429, "application/json", {"retry_after": "x"}, (RemoteError, "RATE_LIMITED", 0)),
    "until a date": (
        503,
        "text/html",
        {"date": email.utils.formatdate(1000, usegmt=True), "retry_after": email.utils.formatdate(1090, usegmt=True)},
        (RemoteError, "UNAVAILABLE", 90),
    ),
    "too large": (413, "text/html", {}, (RemoteError, "TOO_LARGE", 0)),
    "teapot": (418, "text/html", {}, (ProtocolError, "", 0)),
    "a page": (200, "text/html", {}, (ProtocolError, "", 0)),
    "not msgpack": (200, MSGPACK, {}, (ProtocolError, "", 0)),
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_what_somebody_on_the_way_answers_is_a_typed_error(name: str) -> None:
    status, content, headers, (kind, code, wait_s) = FOREIGN[name]
    body = b'{"message": "not yours"}' if content == "application/json" else b"<html>"
    async with open_scripted() as server, channel_to(server) as channel:
        server.script = lambda asked: asked.answer(body, status, content, **headers)
        with pytest.raises(AtomaError) as caught:
            await channel.call("query", QUERY)
        assert type(caught.value) is kind
        if isinstance(caught.value, RemoteError):
            assert (caught.value.remote_code, caught.value.retry_after_s) == (code, wait_s)
            assert caught.value.remote_retryable is (code != "TOO_LARGE")
        server.script = None
        await channel.call("query", QUERY)


async def test_an_error_comes_exactly_as_the_hub_sent_it() -> None:
    info = ErrorInfo("RATE_LIMITED", "slowly, ☃", True, 1500, {"scope": "räume"})
    async with open_scripted() as server, channel_to(server) as channel:
        for send in (
            lambda asked: asked.refuse(info, 429),
            lambda asked: asked.answer(msgspec.json.encode({"error": info}), 429, "application/json; charset=utf-8"),
        ):
            server.script = send
            with pytest.raises(RemoteError, match="slowly, ☃") as caught:
                await channel.call("query", QUERY)
            error = caught.value
            assert (error.remote_code, error.remote_retryable, error.retry_after_s, error.info) == (
                "RATE_LIMITED",
                True,
                1.5,
                {"scope": "räume"},
            )


async def test_a_token_function_is_asked_again_once_when_the_token_is_refused() -> None:
    good = "t1"
    given: list[str] = []

    async def token() -> str:
        given.append(f"t{len(given) + 1}")
        return given[-1]

    async def strict(asked: Asked) -> None:
        if asked.headers.get("authorization") != f"Bearer {good}":
            await asked.refuse(ErrorInfo("AUTH_EXPIRED", "expired"), 401)
        elif asked.path == "/v1/notify":
            await asked.begin()
            await asked.part(record("i", encode(Hint("main", 1))) + record("z"))
            await asked.end()
        else:
            await polite(asked)

    async with open_scripted(strict) as server, channel_to(server, token=token) as channel:
        await channel.call("query", QUERY)
        assert given == ["t1"]
        good = "t2"
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(channel.call, "query", QUERY)
        assert given == ["t1", "t2"]  # one question for all of them
        good = "t3"
        async with channel.stream("notify", NotifyRequest(("main",))) as items:
            assert [item async for item in items] == [Hint("main", 1)]
        assert given == ["t1", "t2", "t3"]
        good = "none"
        with pytest.raises(AuthenticationError, match="expired"):
            await channel.call("query", QUERY)
        assert given == ["t1", "t2", "t3", "t4"]
    async with open_scripted(strict) as server:
        good = "fixed"
        async with channel_to(server, token="fixed") as channel:
            good = "other"
            with pytest.raises(AuthenticationError):
                await channel.call("query", QUERY)
            assert len(server.paths()) == 1  # a fixed token gets no better by being sent again


async def test_a_connection_that_was_closed_meanwhile_is_replaced() -> None:
    async with open_scripted() as server, channel_to(server) as channel:
        for _ in range(3):
            await channel.call("query", QUERY)
            server.hang_up()
            await trio.sleep(0.02)
        await channel.call("query", QUERY)
        assert server.paths() == ["/v1/query"] * 4


async def test_a_request_of_which_nothing_was_sent_is_sent_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from atoma_transports.http.client.network import HttpStream

    # The library looks whether an idle connection was closed; here the close comes right after it looked.
    monkeypatch.setattr(HttpStream, "get_extra_info", lambda self, info: None)
    async with open_scripted() as server, channel_to(server) as channel:
        await channel.call("write", WriteCall((), "key", WriteOptions()))
        server.hang_up()
        await trio.sleep(0.05)
        await channel.call("write", WriteCall((), "key-2", WriteOptions()))
        assert [asked.content["idem"] for asked in server.asked if not is_probe(asked)] == ["key", "key-2"]  # type: ignore[index]
        assert server.connections == 2


async def test_a_request_that_may_have_been_seen_is_not_sent_again() -> None:
    async def hang_up(asked: Asked) -> None:
        raise HangUp

    async with open_scripted() as server, channel_to(server) as channel:
        await channel.call("query", QUERY)
        server.script = hang_up
        with pytest.raises(ChannelBroken, match="unknown") as broken:
            await channel.call("query", QUERY)
        assert broken.value.maybe_sent
        assert server.paths() == ["/v1/query"] * 2
        server.script = None
        await channel.call("query", QUERY)  # the channel goes on
        assert channel.is_open  # type: ignore[attr-defined]


async def test_a_lost_connection_harms_no_call_on_another() -> None:
    go_on = trio.Event()

    async def one_is_lost(asked: Asked) -> None:
        if asked.path == "/v1/resolve":
            raise HangUp
        await go_on.wait()
        await polite(asked)

    async with open_scripted(reply_to(one_is_lost)) as server, trio.open_nursery() as nursery:
        shared = SharedChannel(HttpTransport(server.url), nursery, random.Random(1))
        replies: list[object] = []

        async def ask() -> None:
            replies.append(await shared.call("query", QUERY))

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await until(lambda: server.paths() == ["/v1/query"])
            with pytest.raises(ChannelBroken, match="unknown"):
                await shared.call("resolve", ResolveCall("key"))
            go_on.set()
        assert [type(reply) for reply in replies] == [OpsReply]
        assert sum(is_probe(asked) for asked in server.asked) == 1  # connected once
        shared.close()
        nursery.cancel_scope.cancel()


async def test_calls_while_nobody_listens_were_not_sent() -> None:
    async with open_scripted() as server:
        async with channel_to(server) as channel:
            await channel.call("query", QUERY)
            await server.stop()
            with pytest.raises(ChannelBroken, match="not sent") as broken:
                await channel.call("query", QUERY)
            assert broken.value.maybe_sent is False
            assert not channel.is_open  # type: ignore[attr-defined]


CUT: dict[str, bytes] = {
    "no reply": b"",
    "in the status line": b"HTTP/1.1 20",
    "in the head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "before the body": b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.msgpack\r\ncontent-length: 50\r\n\r\n",
    "in the body": b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.msgpack\r\ncontent-length: 50\r\n\r\nxxx",
    "in a chunk": b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.msgpack\r\n"
    b"transfer-encoding: chunked\r\n\r\n20\r\nxxx",
    "between chunks": b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.msgpack\r\n"
    b"transfer-encoding: chunked\r\n\r\n3\r\nxxx\r\n",
}


@pytest.mark.parametrize("name", CUT)
async def test_a_truncated_reply_is_a_lost_connection(name: str) -> None:
    async with open_scripted() as server, channel_to(server) as channel:
        server.raw = CUT[name]
        server.hang_up()
        with trio.fail_after(PATIENCE_S), pytest.raises(ChannelBroken) as broken:
            await channel.call("query", QUERY)
        assert broken.value.maybe_sent


async def test_nonsense_in_place_of_a_reply_is_a_protocol_error() -> None:
    async with open_scripted() as server, channel_to(server) as channel:
        for raw in (b"\x16\x03\x01\x00\x05hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 300_000):
            server.raw = raw
            server.hang_up()
            with trio.fail_after(PATIENCE_S), pytest.raises(ProtocolError):
                await channel.call("query", QUERY)


async def test_too_large_is_refused_in_both_directions() -> None:
    limits = ChannelLimits(frame_bytes=10_000)
    async with open_scripted() as server, channel_to(server, limits=limits) as channel:
        with pytest.raises(RemoteError, match="nothing was sent") as refused:
            await channel.call("resolve", ResolveCall("x" * 20_000))
        assert refused.value.remote_code == "TOO_LARGE"
        assert server.paths() == []
        server.script = lambda asked: asked.answer(b"x" * 20_000)
        with pytest.raises(ProtocolError, match="larger than 10000"):
            await channel.call("query", QUERY)


async def test_cancelling_closes_the_connection_of_a_call_that_is_alone() -> None:
    async with open_scripted() as server, channel_to(server) as channel:
        server.script = reply_to(never)
        with trio.move_on_after(0.1):
            await channel.call("query", QUERY)
        await until(lambda: server.cancelled == 1)
        server.script = None
        await channel.call("query", QUERY)


async def test_more_calls_and_streams_than_allowed_are_refused_unsent() -> None:
    async with open_scripted() as server, channel_to(server, limits=ChannelLimits(calls=3)) as channel:
        server.script = reply_to(never)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(channel.call, "query", QUERY)
            await until(lambda: bool(server.paths()))
            with pytest.raises(Overloaded, match="in flight"):
                await channel.call("query", QUERY)
            with pytest.raises(Overloaded, match="in flight"):
                async with channel.stream("notify", NotifyRequest(("main",))):
                    raise AssertionError("a stream too many")
            nursery.cancel_scope.cancel()
        server.script = None
        await channel.call("query", QUERY)


async def test_what_the_protocol_does_not_have_is_not_sent() -> None:
    async with open_scripted() as server, channel_to(server) as channel:
        for method in ("nonsense", "notify", "batch", "../admin"):
            with pytest.raises(ProtocolError, match="no call") as refused:
                await channel.call(method, QUERY)
            assert refused.value.maybe_sent is False
        with pytest.raises(ProtocolError, match="no stream"):
            async with channel.stream("query", QUERY):
                raise AssertionError("a stream from nowhere")
        assert server.paths() == []


async def test_a_server_that_falls_silent_is_noticed() -> None:
    async with open_scripted() as server, channel_to(server) as channel:
        began = trio.current_time()
        server.script = never
        with trio.fail_after(PATIENCE_S), pytest.raises(ChannelBroken, match="no longer answers") as broken:
            await channel.call("query", QUERY)
        assert trio.current_time() - began >= LIMITS.ping_s + LIMITS.pong_s
        assert broken.value.maybe_sent
        assert not channel.is_open  # type: ignore[attr-defined]


async def test_a_slow_call_is_left_alone_while_the_server_answers_others() -> None:
    async def slow(asked: Asked) -> None:
        await trio.sleep(3 * (LIMITS.ping_s + LIMITS.pong_s))
        await polite(asked)

    async with open_scripted(reply_to(slow)) as server, channel_to(server) as channel:
        assert isinstance(await channel.call("query", QUERY), OpsReply)
        assert sum(is_probe(asked) for asked in server.asked) >= 3


async def test_a_deadline_holds_against_a_mute_server() -> None:
    async with open_scripted() as server, channel_to(server) as channel:
        server.script = never
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
            await channel.call("query", QUERY)


async def test_a_timeout_that_both_ends_see_is_told_by_the_callers_own_scope() -> None:
    info = ErrorInfo("TIMEOUT", "too late", True)
    async with open_scripted() as server, channel_to(server) as channel:
        server.script = lambda asked: asked.refuse(info, 504)
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.2):
            await channel.call("query", QUERY)
        with pytest.raises(RemoteError, match="TIMEOUT"), trio.fail_after(PATIENCE_S):
            await channel.call("query", QUERY)


async def test_a_stream_gives_items_until_its_end() -> None:
    async def hints(asked: Asked) -> None:
        await asked.begin()
        data = b"".join(record("i", encode(Hint("main", number))) + record("p") for number in range(50))
        for start in range(0, len(data), 7):
            await asked.part(data[start : start + 7])
        await asked.part(record("z"))
        await asked.end()

    async with open_scripted() as server, channel_to(server) as channel:
        server.script = hints
        for _ in range(2):
            async with channel.stream("notify", NotifyRequest(("main",))) as items:
                assert [item.head async for item in items] == list(range(50))  # type: ignore[attr-defined]
                with pytest.raises(StopAsyncIteration):
                    await anext(items)
        assert server.connections == 1  # it was read to its end and kept
        assert server.asked[-1].headers["content-type"] == MSGPACK


STREAM_ENDS: dict[str, tuple[list[bytes], type[AtomaError]]] = {
    "refused in the middle": ([record("e", encode(ErrorInfo("SLOW_CONSUMER", "too slow", True)))], RemoteError),
    "cut": ([record("i", encode(Hint("main", 2)))[:9]], ChannelBroken),
    "nonsense": ([b"<html>"], ProtocolError),
    "an item of another type": ([record("i", encode({"x": 1}))], ProtocolError),
}


@pytest.mark.parametrize("name", STREAM_ENDS)
async def test_a_stream_that_fails_says_so_where_it_is_read(name: str) -> None:
    parts, kind = STREAM_ENDS[name]

    async def fail(asked: Asked) -> None:
        await asked.begin()
        await asked.part(record("i", encode(Hint("main", 1))))
        for part in parts:
            await asked.part(part)
        raise HangUp

    async with open_scripted() as server, channel_to(server) as channel:
        server.script = fail
        async with channel.stream("notify", NotifyRequest(("main",))) as items:
            assert await anext(items) == Hint("main", 1)
            with pytest.raises(kind):
                await anext(items)
        server.script = lambda asked: asked.refuse(ErrorInfo("PERMISSION_DENIED", "not this scope"), 403)
        async with channel.stream("notify", NotifyRequest(("main",))) as items:
            with pytest.raises(RemoteError, match="not this scope"):
                await anext(items)


async def test_leaving_a_stream_stops_its_handler() -> None:
    async def endless(asked: Asked) -> None:
        await asked.begin()
        while True:
            await asked.part(record("i", encode(Hint("main", 1))))
            await trio.sleep(0.01)

    async with open_scripted() as server, channel_to(server) as channel:
        server.script = reply_to(endless)
        async with channel.stream("notify", NotifyRequest(("main",))) as items:
            await anext(items)
        await until(lambda: server.cancelled == 1)
        with pytest.raises(LookupError):
            async with channel.stream("notify", NotifyRequest(("main",))) as items:
                await anext(items)
                raise LookupError
        await until(lambda: server.cancelled == 2)


async def test_a_stream_that_nobody_reads_is_throttled() -> None:
    sent = 0

    async def flood(asked: Asked) -> None:
        nonlocal sent
        await asked.begin()
        while True:
            await asked.part(record("i", encode(Hint("x" * 10_000, sent))))
            sent += 1

    async with open_scripted() as server, channel_to(server) as channel:
        server.script = reply_to(flood)
        async with channel.stream("notify", NotifyRequest(("main",))) as items:
            await anext(items)
            seen = -1
            with trio.fail_after(PATIENCE_S):
                while seen != sent:
                    seen = sent
                    await trio.sleep(0.1)
            assert sent < 5_000  # what sockets hold, and no more
            for _ in range(100):
                await anext(items)


async def test_closing_fails_what_is_in_flight_and_leaves_no_task() -> None:
    async with open_scripted() as server:
        server.script = reply_to(never)
        await trio.testing.wait_all_tasks_blocked(0.02)
        before = trio.lowlevel.current_statistics().tasks_living
        errors: list[ChannelBroken] = []
        async with trio.open_nursery() as nursery:
            async with channel_to(server) as channel:

                async def call(number: int) -> None:
                    with pytest.raises(ChannelBroken) as broken:
                        await channel.call("query" if number % 2 else "write", QUERY)
                    errors.append(broken.value)

                async def listen() -> None:
                    with pytest.raises(ChannelBroken) as broken:
                        async with channel.stream("notify", NotifyRequest(("main",))) as items:
                            await anext(items)
                    errors.append(broken.value)

                for number in range(6):
                    nursery.start_soon(call, number)
                nursery.start_soon(listen)
                await until(lambda: server.calls() == 7)
        assert [error.maybe_sent for error in errors] == [True] * 7
        with pytest.raises(ChannelBroken) as closed:
            await channel.call("query", QUERY)
        assert closed.value.maybe_sent is False
        await until(lambda: not server.live)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)


async def test_errors_in_the_block_of_a_connection_come_out_bare() -> None:
    async with open_scripted() as server:
        with pytest.raises(KeyError, match="mine"):
            async with channel_to(server):
                raise KeyError("mine")


def test_the_library_is_loaded_by_those_who_use_it() -> None:
    text = (
        "import sys, atoma, atoma_transports.http.client, atoma_transports.websocket\n"
        "assert not [name for name in sys.modules if name.startswith(('httpcore', 'httpx', 'anyio'))]\n"
        "atoma_transports.http.client.HttpTransport('http://localhost:1')\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
