"""The way through a proxy's tunnel, for the transports that keep a connection; HTTP has its own tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from atoma.contracts.sync import Cursor, PullRequest
from atoma.errors import ConfigurationError, ConnectFailed
from atoma.ports import Transport
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.dialing.addresses import Language
from atoma_transports.dialing.dialer import find_way
from atoma_transports.grpc import GrpcTransport
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.certificates import client_context, make_certificate, server_context
from tests.unit.transports.kit import PullHost, failure
from tests.unit.transports.proxying import open_proxy

KINDS: Mapping[str, tuple[str, Callable[..., Transport]]] = {
    "websocket": ("ws", WebSocketTransport),
    "grpc": ("grpc", GrpcTransport),
}
both = pytest.mark.parametrize(("scheme", "kind"), KINDS.values(), ids=KINDS)


async def head_of(transport: Transport) -> int:
    async with transport.connect() as channel:
        return (await ServiceProxy(channel).pull(PullRequest("main", Cursor(), b"c"))).head


@both
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_the_hub_is_reached_through_a_tunnel(
    scheme: str, kind: Callable[..., Transport], secure: bool, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path)
    context = server_context(certificate) if secure else None
    async with open_server(PullHost(), "127.0.0.1:0", ssl_context=context) as address, open_proxy() as proxy:
        where = f"localhost:{address.rpartition(':')[2]}"
        if secure:
            transport = kind(f"{scheme}s://{where}", ssl_context=client_context(certificate), proxy=proxy.road)
        else:
            transport = kind(f"{scheme}://{where}", proxy=proxy.road)
        assert await head_of(transport) == 5
        assert proxy.asked == [f"CONNECT {where} HTTP/1.1"]
        assert "pa ss" not in repr(transport)


@both
async def test_a_proxy_may_speak_tls_itself(
    scheme: str, kind: Callable[..., Transport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = make_certificate(tmp_path, "proxy"), make_certificate(tmp_path, "hub")
    async with (
        open_server(PullHost(), "127.0.0.1:0", ssl_context=server_context(ours)) as address,
        open_proxy(server_context(theirs)) as proxy,
    ):
        url = f"{scheme}s://localhost:{address.rpartition(':')[2]}"
        context = client_context(ours)
        assert "certificate is refused" in await failure(kind(url, ssl_context=context, proxy=proxy.road))
        monkeypatch.setenv("SSL_CERT_FILE", str(theirs))  # it is trusted as the system says
        assert await head_of(kind(url, ssl_context=context, proxy=proxy.road)) == 5


@both
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", "refused: 403 Forbidden"),
        (b"220 smtp ready\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "hung up|does not speak HTTP"),
    ],
    ids=["refused", "another language", "cut off"],
)
async def test_what_goes_wrong_at_the_proxy_is_told_as_such(
    scheme: str, kind: Callable[..., Transport], answer: bytes, told: str
) -> None:
    async with open_proxy() as proxy:
        proxy.answer = answer
        with pytest.raises(ConnectFailed, match=f"the proxy localhost:{proxy.port} ({told})"):
            await head_of(kind(f"{scheme}://localhost:1", proxy=proxy.road))
        wrong = f"http://ann:guess@localhost:{proxy.port}"
        proxy.answer = b""
        assert "refused: 407" in await failure(kind(f"{scheme}://localhost:1", proxy=wrong))
        gone = f"http://localhost:{proxy.port}"
    assert f"cannot connect to the proxy localhost:{proxy.port}" in await failure(
        kind(f"{scheme}://localhost:1", proxy=gone)
    )


@both
async def test_a_proxy_that_says_nothing_is_given_up(scheme: str, kind: Callable[..., Transport]) -> None:
    async def say_nothing(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(say_nothing) as port:
        limits = ChannelLimits(handshake_s=0.2)
        text = await failure(kind(f"{scheme}://localhost:1", proxy=f"http://localhost:{port}", limits=limits))
        assert "did not answer within 0.2 s" in text


async def test_what_a_server_says_first_is_not_lost() -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")
        await trio.sleep_forever()

    async with listening(greet) as port, open_proxy() as proxy:
        proxy.patient = True
        language = Language("a toy", {"toy": 1}, {"toys": 2}, "toy://host")
        way = find_way(f"toy://localhost:{port}", language, alpn=[], ssl_context=None, insecure=False, proxy=proxy.road)
        async with await way.dial() as stream:
            assert await stream.receive_some(2) == b"he"
            assert await stream.receive_some() == b"llo"


@pytest.mark.parametrize(
    "proxy", ["socks5://localhost:1", "localhost:3128", "http://", "http://a/b", "http://a:99999", "http://[::"]
)
@both
def test_an_address_of_no_proxy_is_refused(scheme: str, kind: Callable[..., Transport], proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="proxy must be the address of an HTTP proxy"):
        kind(f"{scheme}://localhost:1", proxy=proxy)


def test_a_host_name_in_any_script_is_written_in_ascii() -> None:
    assert (
        repr(WebSocketTransport("wss://bücher.example/x")) == "WebSocketTransport('wss://xn--bcher-kva.example:443/x')"
    )
    assert repr(GrpcTransport("grpcs://[::1]:5")) == "GrpcTransport('grpcs://[::1]:5')"
    with pytest.raises(ConfigurationError, match="invalid host name"):
        WebSocketTransport(f"wss://{'ü' * 70}.example/")


@asynccontextmanager
async def listening(serve: Callable[[trio.SocketStream], object]) -> AsyncGenerator[int]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield int(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()
