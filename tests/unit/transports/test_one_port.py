"""One address for every language, with and without TLS, and with any of them missing."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel

import atoma_transports
from atoma.contracts.codec import encode
from atoma.contracts.sync import NotifyRequest, PullReply
from atoma.errors import ConfigurationError
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.http import HttpHandler, HttpRequest, HttpResponse
from atoma_transports.serving import open_server
from atoma_transports.serving.handlers import alpn_of, find_handler, installed_handlers
from atoma_transports.serving.head import HEAD_BYTES_MAX, HTTP2_PREFACE
from atoma_transports.websocket import WebSocketTransport
from tests.certificates import client_context, make_certificate, server_context
from tests.copies import copy_part
from tests.unit.transports.http.kit import MSGPACK, Client, Hub, pull, records

ROOT = Path(__file__).parents[3]
TOKEN = "alice"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def connected(address: str, trusting: ssl.SSLContext | None = None) -> AsyncGenerator[Client]:
    port = int(address.rpartition(":")[2])
    stream: trio.abc.Stream = await trio.open_tcp_stream("localhost" if trusting else "127.0.0.1", port)
    if trusting is not None:
        stream = trio.SSLStream(stream, trusting, server_hostname="localhost", https_compatible=True)
    with trio.fail_after(60):
        async with stream:
            yield Client(stream)


async def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"a page")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_every_language_on_one_address(secure: bool, certificate: Path) -> None:
    server, ours = (server_context(certificate), client_context(certificate)) if secure else (None, None)
    handler = HttpHandler()
    handler.get("/page", page)
    hub = Hub()
    async with open_server(hub, "127.0.0.1:0", pages=handler, ssl_context=server) as address:
        async with connected(address, ours) as client:
            assert (await client.ask("GET", "/page")).body == b"a page"
            assert (await client.call("pull", pull("over http"))).message(PullReply).scope == "over http"
        name = f"localhost:{address.rpartition(':')[2]}"
        url = f"{'wss' if secure else 'ws'}://{name}/sync"
        async with WebSocketTransport(url, token=TOKEN, ssl_context=ours).connect() as channel:
            assert (await ServiceProxy(channel).pull(pull("over websocket"))).scope == "over websocket"
        asked = ["over http", "over websocket"]
        if find_handler("grpc") is not None:
            from atoma_transports.grpc import GrpcTransport

            scheme = "grpcs" if secure else "grpc"
            transport = GrpcTransport(f"{scheme}://{name}", token=TOKEN, ssl_context=ours)
            async with transport.connect() as channel:
                assert (await ServiceProxy(channel).pull(pull("over grpc"))).scope == "over grpc"
            asked.append("over grpc")
        assert hub.asked == asked


async def test_tls_offers_what_is_installed(certificate: Path) -> None:
    server, ours = server_context(certificate), client_context(certificate)
    handlers = installed_handlers()
    both = "h2" if any(handler.name == "grpc" for handler in handlers) else None
    assert alpn_of(handlers)[0] == "http/1.1"
    async with open_server(Hub(), "127.0.0.1:0", ssl_context=server) as address:
        browser = (["h2", "http/1.1"], "http/1.1")
        for offered, agreed in (browser, (["h2"], both), (["http/1.1"], "http/1.1"), (["spdy/1"], None)):
            ours.set_alpn_protocols(offered)
            async with connected(address, ours) as client:
                assert isinstance(client.stream, trio.SSLStream)
                await client.stream.do_handshake()
                assert client.stream.selected_alpn_protocol() == agreed


@pytest.mark.parametrize("size", [1, 3, 17])
async def test_what_comes_in_pieces_is_recognised(size: int) -> None:
    async with open_server(Hub(), "127.0.0.1:0") as address:
        request = b"GET /v1/notify?scope=end HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer alice\r\n\r\n"
        async with connected(address) as client:
            for at in range(0, len(request), size):
                await client.stream.send_all(request[at : at + size])
                await trio.lowlevel.checkpoint()
            assert (await client.head())[0] == 200
        async with connected(address) as client:
            for at in range(0, len(HTTP2_PREFACE), size):
                await client.stream.send_all(HTTP2_PREFACE[at : at + size])
                await trio.sleep(0.001)
            await client.stream.send_all(b"\0\0\0\4\0\0\0\0\0")
            head = await client.read(9)
            assert head[3:5] == b"\4\0"  # SETTINGS, from gRPC or from who says that it is not here


async def test_who_sends_no_head_is_hung_up_on() -> None:
    limits = ChannelLimits(handshake_s=0.3)
    async with open_server(Hub(), "127.0.0.1:0", limits=limits) as address:
        for beginning in (b"", b"GET / HTTP/1.1\r\nhost: loc", b"PRI * HTTP/2.0\r\n\r\nS"):
            async with connected(address) as client:
                await client.stream.send_all(beginning)
                assert await client.ended()
        async with connected(address) as client:
            await client.stream.send_all(b"GET / HTTP/1.1\r\n" + b"x-long: " + b"y" * (2 * HEAD_BYTES_MAX))
            assert (await client.head())[0] == 431


async def test_a_client_that_takes_nothing_is_throttled_and_then_told() -> None:
    limits = ChannelLimits(slow_s=0.5)
    hub = Hub(hints=10**9)
    scope = "x" * 4000
    async with open_server(hub, "127.0.0.1:0", limits=limits) as address:
        async with connected(address) as client:
            body = encode(NotifyRequest((scope,)))
            await client.send("POST", "/v1/notify", body, content_type=MSGPACK)
            assert (await client.head())[0] == 200
            while hub.active == 0:
                await trio.sleep(0.01)
            while hub.active:
                await trio.sleep(0.01)
            sent = hub.sent
            await trio.sleep(0.05)
            assert hub.sent == sent
            found = records(b"".join([part async for part in client.chunks()]))
            assert found[-1][0] == "e"
            assert b"SLOW_CONSUMER" in found[-1][1]
            assert sum(kind == "i" for kind, _ in found) in (sent - 1, sent)
        async with connected(address) as client:  # one that never takes anything again is cut off
            await client.send("POST", "/v1/notify", body, content_type=MSGPACK)
            while hub.active == 0:
                await trio.sleep(0.01)
            while hub.active:
                await trio.sleep(0.01)


async def test_what_is_sent_ahead_has_a_bound() -> None:
    hub = Hub()
    async with open_server(hub, "127.0.0.1:0") as address, connected(address) as client:
        client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)  # type: ignore[attr-defined]
        from atoma_transports.protocol.json_mapping import encode_json

        await client.send("POST", "/v1/pull", encode_json(pull("forever")))
        with trio.move_on_after(1) as sending:
            await client.stream.send_all(b"x" * 50_000_000)
        assert sending.cancelled_caught
        assert hub.active == 1


def test_pages_take_the_place_of_their_handler() -> None:
    handler = HttpHandler()
    assert handler in installed_handlers(handler)
    assert [handler.name for handler in installed_handlers(handler)].count("http") == 1


WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    if name: sys.modules[name] = None
import trio
sys.path.insert(0, {root!r})
from atoma_transports.serving import open_server
from atoma.errors import ConfigurationError
from tests.unit.transports.kit import Unasked
from atoma.ports import Principal

class Host(Unasked):
    async def authenticate(self, token, peer): return Principal("a")
    def service(self, principal): return self

async def first(address, data):
    async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
        await stream.send_all(data)
        with trio.fail_after(20):
            return bytes(await stream.receive_some())

async def main():
    try:
        async with open_server(Host(), "127.0.0.1:0") as address:
            head = b"host: localhost\\r\\n"
            key = b"upgrade: websocket\\r\\nconnection: upgrade\\r\\nsec-websocket-version: 13\\r\\n"
            key += b"sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\\r\\n"
            print((await first(address, b"GET /nowhere HTTP/1.1\\r\\n" + head + b"\\r\\n")).split()[1].decode())
            print((await first(address, b"GET /sync HTTP/1.1\\r\\n" + head + key + b"\\r\\n")).split()[1].decode())
            said = await first(address, b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + b"\\0\\0\\0\\4\\0\\0\\0\\0\\0")
            print("refused" if b"not installed" in said else "spoken")
            print((await first(address, b"\\x16\\x03\\x01\\r\\n\\r\\n")).split()[1].decode())
    except ConfigurationError as error:
        print(error)
trio.run(main)
print("asyncio" in sys.modules)
"""


def outcome(missing: str, root: Path = ROOT, **more: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(root=str(ROOT)), missing],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **more},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


GRPC = "spoken" if find_handler("grpc") is not None else "refused"


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("", ["404", "101", GRPC, "400"]),
        ("grpclib", ["404", "101", "refused", "400"]),
        ("h11", ["501", "501", GRPC, "400"]),  # the library for WebSocket needs it, too
        ("trio_websocket", ["404", "403", GRPC, "400"]),
        ("grpclib,trio_websocket", ["404", "403", "refused", "400"]),
    ],
)
def test_a_library_that_is_missing_takes_one_language_away(missing: str, says: list[str]) -> None:
    if missing == "h11" and GRPC == "refused":
        pytest.skip("without gRPC and h11 there is no language left")
    assert outcome(missing)[:4] == says


def test_without_any_library_there_is_nothing_to_listen_with() -> None:
    assert "no transport is installed" in outcome("grpclib,trio_websocket,h11")[0]


@pytest.mark.parametrize(("folder", "says"), [("http", ["501", "101"]), ("grpc", ["404", "101"])])
def test_a_folder_that_is_deleted_takes_one_language_away(folder: str, says: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "atoma_transports"
    copy_part(Path(atoma_transports.__file__).parent, copy)
    shutil.rmtree(copy / folder, ignore_errors=True)
    assert outcome("", PYTHONPATH=str(tmp_path))[:2] == says


def test_a_broken_part_of_ours_is_not_taken_for_a_missing_library(tmp_path: Path) -> None:
    copy = tmp_path / "atoma_transports"
    copy_part(Path(atoma_transports.__file__).parent, copy)
    (copy / "http" / "wire.py").unlink()
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(root=str(ROOT)), ""],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert run.returncode != 0
    assert "http.wire" in run.stderr


async def test_a_handler_of_ones_own_is_asked_as_well() -> None:
    class Echo:
        name = "echo"

        def speaks(self, head: bytes) -> bool:
            return head.startswith(b"echo")

        async def serve(self, stream: trio.abc.Stream, hosting: object) -> None:
            await stream.send_all(await stream.receive_some())

    async with open_server(Hub(), "127.0.0.1:0", pages=Echo()) as address:
        async with connected(address) as client:
            await client.stream.send_all(b"echo\r\n\r\n")
            assert await client.read(8) == b"echo\r\n\r\n"
        async with connected(address) as client:
            assert (await client.call("pull", pull())).status == 200
    with pytest.raises(ConfigurationError, match="not a protocol handler"):
        async with open_server(Hub(), "127.0.0.1:0", pages=page):  # type: ignore[arg-type]
            raise AssertionError("listening")
