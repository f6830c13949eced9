"""One port for frames and pages, and who may come in."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import pytest
import trio

from atoma.contracts.sync import (
    Cursor,
    PullReply,
    PullRequest,
)
from atoma.errors import AuthenticationError, ConfigurationError, ConnectFailed
from atoma.ports import Peer, Principal, SyncService
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.http import HttpHandler, HttpRequest, HttpResponse
from atoma_transports.serving import open_server, serve
from atoma_transports.serving.addresses import host_check, parse_address
from atoma_transports.serving.handlers import Hosting
from atoma_transports.websocket import WebSocketTransport
from tests.certificates import client_context, make_certificate, server_context
from tests.unit.transports.kit import Unasked


class Host(Unasked):
    """Lets everybody from this machine in; answers pulls."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.tokens: list[str] = []

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        self.peers.append(peer)
        self.tokens.append(token)
        return Principal("local")

    def service(self, principal: Principal) -> SyncService:
        return self

    async def pull(self, request: PullRequest) -> PullReply:
        if request.scope == "slow":
            await trio.sleep_forever()
        return PullReply(request.scope, request.cursor, request.cursor, head=5)


def pull(scope: str = "main") -> PullRequest:
    return PullRequest(scope, Cursor(), b"c")


async def exchange(address: str, text: str) -> str:
    """What the server answers to raw bytes until it hangs up, or to one request."""
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(text.replace("\n", "\r\n").encode())
        received = b""
        with trio.move_on_after(2):
            while b"\r\n\r\n" not in received:
                data = await stream.receive_some()
                if not data:
                    break
                received += data
        return received.decode("latin-1")


def upgrade(path: str = "/sync", host: str = "127.0.0.1", origin: str = "") -> str:
    fields = f"Origin: {origin}\n" if origin else ""
    return (
        f"GET {path} HTTP/1.1\nHost: {host}\nUpgrade: websocket\nConnection: Upgrade\n{fields}"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n"
    )


async def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello {request.peer.address}".encode())


async def test_frames_and_pages_share_a_port() -> None:
    host, handler = Host(), HttpHandler()
    handler.get("/hello", hello)
    async with open_server(host, "127.0.0.1:0", pages=handler) as address:
        assert "200" in await exchange(address, "GET /hello HTTP/1.1\nHost: localhost\n\n")
        async with WebSocketTransport(f"ws://{address}/sync", token="t").connect() as channel:
            assert (await ServiceProxy(channel).pull(pull())).head == 5
            assert "200" in await exchange(address, "GET /hello HTTP/1.1\nHost: localhost\n\n")
        assert host.peers == [Peer("127.0.0.1", True, "websocket")]


class Clumsy(HttpHandler):
    """Falls over whatever it is asked."""

    async def serve(self, stream: trio.abc.Stream, hosting: Hosting) -> None:
        raise LookupError(hosting.peer.transport)


async def test_a_handler_that_falls_over_takes_nobody_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async with open_server(Host(), "127.0.0.1:0", pages=Clumsy()) as address:
        async with WebSocketTransport(f"ws://{address}/sync", token="t").connect() as channel:
            for _ in range(3):
                assert await exchange(address, "GET / HTTP/1.1\nHost: localhost\n\n") == ""
                assert (await ServiceProxy(channel).pull(pull())).head == 5
    assert caplog.text.count("LookupError: http") == 3


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (upgrade(), "101"),
        (upgrade("/"), "101"),
        (upgrade("/other"), "403"),
        (upgrade(host="localhost:8765"), "101"),
        (upgrade(host="evil.example"), "421"),
        (upgrade(host="localhost:8765", origin="http://localhost:8765"), "101"),
        (upgrade(host="localhost:8765", origin="http://localhost:9999"), "403"),
        (upgrade(origin="https://evil.example"), "403"),
        (upgrade(origin="null"), "403"),
        ("\x16\x03\x01\x02\n\n", "400"),
    ],
)
async def test_who_may_upgrade(request_text: str, status: str) -> None:
    async with open_server(Host(), "127.0.0.1:0") as address:
        first = (await exchange(address, request_text)).partition("\r\n")[0]
        assert first.startswith(f"HTTP/1.1 {status}"), first


async def test_names_of_the_server_can_be_given() -> None:
    async with open_server(Host(), "127.0.0.1:0", names=["hub.example"]) as address:
        assert (await exchange(address, upgrade(host="hub.example"))).startswith("HTTP/1.1 101")
        assert (await exchange(address, upgrade(host="other.example"))).startswith("HTTP/1.1 421")


async def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    async with open_server(Host(), "127.0.0.1:0") as address:
        with pytest.raises(ConfigurationError, match="taken by another program: stop it, or choose another"):
            async with open_server(Host(), address):
                raise AssertionError("two servers on one port")
    async with open_server(Host(), address) as again:
        assert again == address


@pytest.mark.parametrize("address", ["", "8765", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "http://a:1", "a:1/x"])
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="not an address to listen on"):
        async with open_server(Host(), address):
            raise AssertionError("listening nowhere")


def test_addresses_and_names_are_read_strictly() -> None:
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("localhost:0") == ("localhost", 0)
    known = host_check(["Hub.Example"])
    names = {"hub.example": True, "hub.example:80": True, "1.2.3.4": True, "evil": False, "": False, "[::1": False}
    assert {name: known(name) for name in names} == names


async def test_plain_text_stays_on_this_machine() -> None:
    with pytest.raises(ConfigurationError, match="insecure=True"):
        async with open_server(Host(), "0.0.0.0:0"):
            raise AssertionError("listening to the world")
    async with open_server(Host(), "0.0.0.0:0", insecure=True) as address:
        assert address.startswith("0.0.0.0:")
    for url in ("ws://hub.example/", "ws://10.0.0.1:80/", "ws://127.0.0.1.evil.example/"):
        with pytest.raises(ConfigurationError, match="plain text"):
            WebSocketTransport(url)
        assert WebSocketTransport(url, insecure=True).name == "websocket"
    for url in ("ws://127.0.0.1/", "ws://localhost:1/x", "ws://[::1]:1/", "wss://hub.example/"):
        assert WebSocketTransport(url).name == "websocket"


@pytest.mark.parametrize("url", ["http://a/", "a:1", "wss://", "wss://user:pw@a/", "wss://a/?token=t", "wss://a/#t"])
def test_a_url_holds_no_secret(url: str) -> None:
    with pytest.raises(ConfigurationError):
        WebSocketTransport(url)


async def test_a_token_can_be_asked_for_at_every_connection() -> None:
    given = iter(["first", "second"])

    async def token() -> str:
        return next(given)

    host = Host()
    async with open_server(host, "127.0.0.1:0") as address:
        transport = WebSocketTransport(f"ws://{address}/", token=token)
        for _ in range(2):
            async with transport.connect() as channel:
                await ServiceProxy(channel).pull(pull())
        assert "first" not in repr(transport)

        async def failing() -> str:
            raise OSError("the keyring is locked")

        with pytest.raises(AuthenticationError, match="token function failed"):
            async with WebSocketTransport(f"ws://{address}/", token=failing).connect():
                raise AssertionError("came in")
    assert host.tokens == ["first", "second"]


async def test_what_does_not_speak_websocket_is_a_failed_connection() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async def chatter(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"220 mail.example ESMTP\r\n")
            await trio.sleep(0.1)

    async def silence(stream: trio.SocketStream) -> None:
        async with stream:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for handler in (hang_up, chatter, silence):
            listen = functools.partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
            listeners = await nursery.start(listen)
            port = listeners[0].socket.getsockname()[1]
            transport = WebSocketTransport(f"ws://127.0.0.1:{port}/", limits=ChannelLimits(handshake_s=0.3))
            with pytest.raises(ConnectFailed) as failed, trio.fail_after(8):
                async with transport.connect():
                    raise AssertionError("connected to nothing")
            assert f"127.0.0.1:{port}" in str(failed.value)
        nursery.cancel_scope.cancel()


async def test_serve_announces_its_address_and_ends_at_once_when_cancelled() -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(functools.partial(serve, Host(), "127.0.0.1:0"))
        assert isinstance(address, str)
        async with WebSocketTransport(f"ws://{address}/").connect() as channel:
            nursery.start_soon(ServiceProxy(channel).pull, pull("slow"))
            await trio.sleep(0.05)
            began = trio.current_time()
            nursery.cancel_scope.cancel()
    assert trio.current_time() - began < 5


KEEP_ALIVE = "02"  # the timer that runs, in the system's list of connections


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the timers of connections")
async def test_the_system_watches_connections_whose_protocol_cannot_ask() -> None:
    async with open_server(Host(), "127.0.0.1:0", limits=ChannelLimits(ping_s=7)) as address:
        port = int(address.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"POST /v1/pull HTTP/1.1\r\n")
            await trio.sleep(0.05)
            rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
            theirs = stream.socket.getsockname()[1]
            (timer,) = [row[5] for row in rows if row[1].endswith(f":{port:04X}") and row[2].endswith(f":{theirs:04X}")]
    kind, _, left = timer.partition(":")
    assert kind == KEEP_ALIVE
    assert int(left, 16) <= 7 * os.sysconf("SC_CLK_TCK")


async def test_tls_with_a_ca_of_ones_own(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    ours = client_context(certificate)
    async with open_server(Host(), "127.0.0.1:0", ssl_context=server_context(certificate)) as address:
        port = address.rpartition(":")[2]
        async with WebSocketTransport(f"wss://localhost:{port}/", ssl_context=ours).connect() as channel:
            assert (await ServiceProxy(channel).pull(pull())).head == 5
        for url, context in (
            (f"wss://localhost:{port}/", None),  # an unknown CA
            (f"wss://127.0.0.1:{port}/", ours),  # another name than the certificate's
        ):
            with pytest.raises(ConnectFailed, match="certificate"):
                async with WebSocketTransport(url, ssl_context=context).connect():
                    raise AssertionError("trusted a stranger")
        with pytest.raises(ConnectFailed):
            async with WebSocketTransport(f"ws://localhost:{port}/").connect():
                raise AssertionError("plain text to a TLS port")
