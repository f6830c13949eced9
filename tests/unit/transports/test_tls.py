"""Transports over TLS: certificates of one's own, those that cannot be trusted, and ends without a goodbye."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.contracts.sync import Cursor, PullReply, PullRequest
from atoma.errors import AuthenticationError, ChannelBroken, ConfigurationError
from atoma.ports import Peer, Principal, SyncService, Transport
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.certificates import client_context, make_certificate, server_context
from tests.unit.transports.kit import Unasked, failure

Make = Callable[..., Transport]


def over(scheme: str, kind: Callable[..., Transport]) -> Make:
    def make(where: str, **options: Any) -> Transport:
        return kind(f"{scheme}://{where}", **options)

    return make


SECURE: Mapping[str, Make] = {
    "websocket": over("wss", WebSocketTransport),
    "grpc": over("grpcs", GrpcTransport),
    "http": over("https", HttpTransport),
}
PLAIN: Mapping[str, Make] = {
    "websocket": over("ws", WebSocketTransport),
    "grpc": over("grpc", GrpcTransport),
    "http": over("http", HttpTransport),
}
over_tls = pytest.mark.parametrize("make", SECURE.values(), ids=SECURE)


class Host(Unasked):
    """Answers pulls with as many letters as were asked for."""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        if token != "t":
            raise AuthenticationError("not known here")
        return Principal("alice")

    def service(self, principal: Principal) -> SyncService:
        return self

    async def pull(self, request: PullRequest) -> PullReply:
        return PullReply("x" * request.max_bytes, request.cursor, request.cursor, head=5)


def pull(size: int = 1) -> PullRequest:
    return PullRequest("main", Cursor(), b"c", max_bytes=size)


async def test_calls_of_any_size_pass_and_closing_is_prompt(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with open_server(Host(), "127.0.0.1:0", ssl_context=server_context(certificate)) as address:
        url = f"wss://localhost:{address.rpartition(':')[2]}/sync"
        transport = WebSocketTransport(url, token="t", ssl_context=client_context(certificate))
        for size in (1, 3_000_000):
            async with transport.connect() as channel:
                sizes: list[int] = []

                async def call(size: int = size, channel: object = channel, sizes: list[int] = sizes) -> None:
                    sizes.append(len((await ServiceProxy(channel).pull(pull(size))).scope))  # type: ignore[arg-type]

                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(call)
                assert sizes == [size] * 5
        with pytest.raises(AuthenticationError):
            async with WebSocketTransport(url, token="x", ssl_context=client_context(certificate)).connect():
                raise AssertionError("came in")


async def test_transports_that_connect_at_once_may_share_a_context(tmp_path: Path) -> None:
    """Each offers its own language in the handshake, whatever the others set on the context meanwhile."""
    certificate = make_certificate(tmp_path)
    client, server = client_context(certificate), server_context(certificate)
    server.set_alpn_protocols(["http/1.1", "h2"])
    offered: set[tuple[bytes, str | None]] = set()

    async def answer(socket: trio.SocketStream) -> None:
        stream = trio.SSLStream(socket, server, server_side=True, https_compatible=True)
        first = bytes(await stream.receive_some(3))
        offered.add((first, stream.selected_alpn_protocol()))
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        where = f"localhost:{listeners[0].socket.getsockname()[1]}"
        async with trio.open_nursery() as clients:
            for _ in range(5):
                for make in SECURE.values():
                    clients.start_soon(failure, make(where, ssl_context=client))
        nursery.cancel_scope.cancel()
    assert offered == {(b"GET", "http/1.1"), (b"POS", "http/1.1"), (b"PRI", "h2")}


@over_tls
async def test_a_certificate_that_cannot_be_trusted_is_told_with_its_reason(tmp_path: Path, make: Make) -> None:
    certificate = make_certificate(tmp_path)
    async with open_server(Host(), "127.0.0.1:0", ssl_context=server_context(certificate)) as address:
        port = address.rpartition(":")[2]
        unknown = await failure(make(f"localhost:{port}"))
        assert f"localhost:{port}" in unknown
        assert "its certificate is refused: self-signed certificate" in unknown
        assert "ssl_context" in unknown
        name = await failure(make(f"127.0.0.1:{port}", ssl_context=client_context(certificate)))
        assert "IP address mismatch" in name
        other = await failure(
            make(f"localhost:{port}", ssl_context=client_context(make_certificate(tmp_path, "other")))
        )
        assert "its certificate is refused" in other


@over_tls
async def test_an_expired_certificate_is_told_as_such(tmp_path: Path, make: Make) -> None:
    expired = make_certificate(
        tmp_path, not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2020, 1, 2, tzinfo=UTC)
    )
    async with open_server(Host(), "127.0.0.1:0", ssl_context=server_context(expired)) as address:
        where = f"localhost:{address.rpartition(':')[2]}"
        text = await failure(make(where, ssl_context=client_context(expired)))
        assert "certificate has expired" in text


@over_tls
async def test_a_port_without_tls_is_told_as_such(make: Make) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        port = listeners[0].socket.getsockname()[1]
        assert "TLS failed" in await failure(make(f"localhost:{port}"))
        nursery.cancel_scope.cancel()


async def test_a_connection_cut_without_a_goodbye_is_a_broken_channel(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    relayed: list[trio.SocketStream] = []
    async with (
        open_server(Host(), "127.0.0.1:0", ssl_context=server_context(certificate)) as address,
        trio.open_nursery() as nursery,
    ):

        async def relay(client: trio.SocketStream) -> None:
            server = await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))
            relayed.extend((client, server))
            async with trio.open_nursery() as both:
                both.start_soon(copy, client, server)
                both.start_soon(copy, server, client)

        async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
            try:
                async for data in source:
                    await target.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        nursery.start_soon(trio.serve_listeners, relay, listeners)
        url = f"wss://localhost:{port}/sync"
        async with WebSocketTransport(url, token="t", ssl_context=client_context(certificate)).connect() as channel:
            assert (await ServiceProxy(channel).pull(pull())).head == 5
            for stream in relayed:
                await trio.aclose_forcefully(stream)
            with trio.fail_after(60), pytest.raises(ChannelBroken):
                await ServiceProxy(channel).pull(pull())
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize(
    ("where", "options", "told"),
    [
        ("localhost:99999", {}, "is no"),
        ("localhost:port", {}, "is no"),
        ("", {}, "is no"),
        ("me@localhost:1", {}, "must not hold a user"),
        ("localhost:1/?token=t", {}, "token="),
        ("example.org:1", {}, "in plain text to another machine"),
        ("localhost:1", {"ssl_context": ssl.create_default_context()}, "addresses only"),
    ],
)
def test_addresses_that_cannot_be_used(make: Make, where: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        make(where, **options)


@over_tls
async def test_tls_to_a_port_in_plain_text_is_told_at_once(make: Make) -> None:
    async with open_server(Host(), "127.0.0.1:0", limits=ChannelLimits(handshake_s=3600)) as address:
        with trio.fail_after(30):
            reason = await failure(make(address, token="t", limits=ChannelLimits(handshake_s=3600)))
    assert "does it speak TLS on this port?" in reason
