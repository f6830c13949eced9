"""gRPC's own library on the other side, both ways, over sockets and TLS."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.client import UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from atoma_transports.grpc._driver.client import CallFailed, ConnectionLost, GrpcClient, GrpcLimits, open_grpc_channel
from atoma_transports.grpc._driver.server import serve_grpc
from tests.certificates import client_context, make_certificate, server_context
from tests.unit.transports.grpc import grpcio_peer
from tests.unit.transports.grpc.driver_kit import Call, Echo, EchoStub, Raw

pytestmark = pytest.mark.xdist_group("machine")

PATIENCE_S = 60  # a busy machine is slow; nothing here waits for it to pass
LIMITS = GrpcLimits(message_bytes=5_000_000)


@pytest.fixture(params=["plain", "tls"])
def certificate(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """None, or a key and its certificate for localhost, in one file."""
    if request.param == "plain":
        return None
    return make_certificate(tmp_path)


class Peer:
    """A process of ``grpcio_peer``."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self._output, self._input, self._rest = process.stdout, process.stdin, b""
        self.kill = process.kill

    async def line(self) -> str:
        while b"\n" not in self._rest:
            data = await self._output.receive_some()
            assert data, "the peer ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def say(self, text: str) -> None:
        await self._input.send_all(text.encode() + b"\n")


@asynccontextmanager
async def peer(*arguments: str | Path) -> AsyncGenerator[Peer]:
    command = [sys.executable, grpcio_peer.__file__, *map(str, arguments)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        with trio.fail_after(PATIENCE_S):
            yield Peer(process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for stream in (process.stdout, process.stdin):
                if stream is not None:
                    await stream.aclose()


@asynccontextmanager
async def server(echo: Echo, certificate: Path | None, drain: trio.Event) -> AsyncGenerator[str]:
    """The driver's server on a socket; its address."""
    context: ssl.SSLContext | None = None
    if certificate is not None:
        context = server_context(certificate)
        context.set_alpn_protocols(["h2"])

    async def serve(socket: trio.SocketStream) -> None:
        stream: trio.abc.Stream = socket
        if context is not None:
            stream = trio.SSLStream(socket, context, server_side=True)
        await serve_grpc(stream, echo.__mapping__(), limits=LIMITS, drain=drain, codec=Raw())

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as accepting:
            accepting.start_soon(trio.serve_listeners, serve, [listener])
            yield f"localhost:{listener.socket.getsockname()[1]}"
            drain.set()
            accepting.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def channel(port: str, certificate: Path | None) -> AsyncGenerator[GrpcClient]:
    socket: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", int(port))
    async with AsyncExitStack() as stack:
        if certificate is not None:
            context = client_context(certificate)
            context.set_alpn_protocols(["h2"])
            socket = trio.SSLStream(socket, context, server_hostname="localhost")
            await socket.do_handshake()
        scheme = "https" if certificate else "http"
        yield await stack.enter_async_context(
            open_grpc_channel(socket, authority=f"localhost:{port}", scheme=scheme, limits=LIMITS, codec=Raw())
        )


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await trio.sleep(0.01)


async def test_its_client_and_our_server(certificate: Path | None) -> None:
    echo, drain = Echo(), trio.Event()
    async with server(echo, certificate, drain) as address:
        async with peer("client", address, *([certificate] if certificate else [])) as client:
            seen: dict[str, Any] = json.loads(await client.line())
            drain.set()
            await trio.sleep(0.1)
            await client.say("drained")
            last: dict[str, Any] = json.loads(await client.line())
    assert seen["unary"] == "hello"
    assert seen["big"]
    assert seen["count"] == [str(i) for i in range(500)]
    assert seen["heavy"] == sum(len(str(i)) + 100_000 for i in range(30))
    assert seen["join"] == "abc"
    assert seen["chat"] == ["1", "2"]
    assert seen["many"]
    assert seen["after"] == "after"
    assert seen["fail"]["code"] == "NOT_FOUND"
    assert seen["fail"]["details"] == "no such row: 50 % of «ü»"
    assert seen["fail"]["trailers"] == {"atoma-error-bin": bytes(range(256)).hex(), "plain": "said"}
    assert echo.metadata == {"authorization": "Bearer abc", "blob-bin": bytes(range(256))}
    assert seen["unknown"]["code"] == "UNIMPLEMENTED"
    assert seen["deadline"]["code"] == "DEADLINE_EXCEEDED"
    assert seen["gzip"]["code"] == "UNIMPLEMENTED"
    assert seen["too big"]["code"] == "RESOURCE_EXHAUSTED"
    assert len(echo.cancelled) == 3  # by deadline, by cancelling a call, by cancelling a stream
    # Draining: the call in flight went on; a later one was refused, here or on a connection it could not make.
    assert last["in flight"] == "in flight"
    assert last["rest"] == 0
    assert last["late"]["code"] == "UNAVAILABLE"


async def test_our_client_and_its_server(certificate: Path | None) -> None:
    async with peer("server", *([certificate] if certificate else [])) as process:
        async with channel(await process.line(), certificate) as client:
            stub = EchoStub(client)
            cancelled = UnaryUnaryMethod[bytes, bytes](client, "/test.Echo/cancelled", bytes, bytes)

            async def saw(name: str) -> None:
                async def there() -> bool:
                    return name in [text.partition(" ")[0] for text in json.loads(await cancelled(b""))]

                await until(there)

            assert await stub.unary(b"hello") == b"hello"
            big = b"0123456789" * (grpcio_peer.BIG // 10)
            assert await stub.unary(big) == big
            assert await stub.count(b"500") == [b"%d" % i for i in range(500)]
            assert sum(map(len, await stub.count(b"30 100000"))) > 3_000_000
            assert await stub.join([b"a", b"b", b"c"]) == b"abc"
            assert await stub.chat([b"1", b"2"]) == [b"1", b"2"]
            async with trio.open_nursery() as nursery:

                async def one(text: bytes) -> None:
                    assert await stub.unary(text) == text

                for i in range(200):
                    nursery.start_soon(one, b"%d" % i)
            metadata: dict[str, str | bytes] = {"authorization": "Bearer abc", "blob-bin": b"\x00\xff"}
            with pytest.raises(CallFailed) as caught:
                await stub.fail(b"", metadata=metadata)
            assert caught.value.status is Status.NOT_FOUND
            assert caught.value.message == "no such row: 50 % of «ü»"
            assert caught.value.metadata["atoma-error-bin"] == bytes(range(256))
            met = json.loads(str(caught.value.metadata["seen"]))
            assert met["authorization"] == "Bearer abc"
            assert met["blob-bin"] == "00ff"
            with pytest.raises(CallFailed) as unknown:
                await stub.unknown(b"")
            assert unknown.value.status is Status.UNIMPLEMENTED
            with trio.move_on_after(0.4) as scope:
                await stub.slow(b"with a deadline")
            assert scope.cancelled_caught
            await saw("timed")
            async with trio.open_nursery() as nursery:  # cancelled without a deadline of which the server knew
                nursery.start_soon(stub.slow, b"")
                await trio.sleep(0.2)
                nursery.cancel_scope.cancel()
            await saw("slow")
            async with stub.count.open() as call:
                await call.send_message(b"inf 1000", end=True)
                assert await call.recv_message() is not None
            await saw("count")
            assert not client.lost


async def test_its_server_goes_away_politely() -> None:
    async with peer("server") as process, channel(await process.line(), None) as client:
        stub = EchoStub(client)
        async with stub.chat.open() as call:
            await call.send_message(b"before")
            assert await call.recv_message() == b"before"
            await process.say("stop")
            assert await process.line() == "stopping"
            while not client.going_away:
                await trio.sleep(0.01)
            with pytest.raises(ConnectionLost) as caught:
                await stub.unary(b"late")
            assert not caught.value.maybe_sent
            await call.send_message(b"in flight")
            assert await call.recv_message() == b"in flight"
            await call.end()
            assert await call.recv_message() is None
        await client.wait_lost()
        assert await process.line() == "stopped"


async def test_its_server_dies_with_a_call_in_flight() -> None:
    failed: list[GRPCError] = []
    async with peer("server") as process:
        async with channel(await process.line(), None) as client, trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(ConnectionLost) as caught:
                    await EchoStub(client).slow(b"")
                failed.append(caught.value)

            nursery.start_soon(call)
            await trio.sleep(0.1)
            process.kill()
            await client.wait_lost()
    assert failed[0].status is Status.UNAVAILABLE


async def test_a_certificate_is_shown_to_handlers(certificate: Path | None) -> None:
    """The peer, as grpclib's handlers see it."""
    addresses: list[object] = []

    class Asking(Echo):
        async def unary(self, call: Call) -> None:
            addresses.append(call.peer.addr())
            addresses.append(call.peer.cert())
            await super().unary(call)

    async with server(Asking(), certificate, trio.Event()) as address:
        async with channel(address.rpartition(":")[2], certificate) as client:
            assert await EchoStub(client).unary(b"x") == b"x"
            async with EchoStub(client).unary.open() as call:
                await call.send_message(b"x")
                await call.recv_message()
                assert call.peer is not None
                shown = call.peer.cert()
    assert isinstance(addresses[0], tuple)
    assert addresses[0][0] == "127.0.0.1"
    assert addresses[1] is None or addresses[1] == {}
    assert (shown is None) == (certificate is None)
