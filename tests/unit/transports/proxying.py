"""A forward proxy for the tests: it makes tunnels, passes plain requests on, and wants a password."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

ASKING = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"


@dataclass
class Proxy:
    """A forward proxy of a few lines: CONNECT, and requests with a whole address; wants a password.

    Attributes:
        asked: The first line of each request.
        answer: What it says in place of doing it; empty for doing it.
        patient: Whether it waits for the server's first bytes, to pass them on together with its answer.
    """

    scheme: str = "http"
    port: int = 0
    asked: list[str] = field(default_factory=list)
    answer: bytes = b""
    patient: bool = False

    @property
    def road(self) -> str:
        return f"{self.scheme}://ann:pa%20ss@localhost:{self.port}"

    async def serve(self, client: trio.abc.Stream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await client.receive_some()
            if not data:
                return
            head += data
        line = head.split(b"\r\n")[0].decode()
        self.asked.append(line)
        method, target, _ = line.split()
        wanted = b"basic " + base64.b64encode(b"ann:pa ss").lower()
        if self.answer or wanted not in head.lower():
            await client.send_all(self.answer or ASKING)
            return
        address = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as server:
            if method == "CONNECT":
                first = bytes(await server.receive_some()) if self.patient else b""
                await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n" + first)
            else:
                await server.send_all(head.replace(target.encode(), b"/" + target.split("/", 3)[3].encode(), 1))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump, client, server, nursery.cancel_scope)
                nursery.start_soon(pump, server, client, nursery.cancel_scope)


async def pump(source: trio.abc.Stream, sink: trio.abc.Stream, both: trio.CancelScope) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await sink.send_all(data)
    both.cancel()


@asynccontextmanager
async def open_proxy(ssl_context: ssl.SSLContext | None = None) -> AsyncGenerator[Proxy]:
    proxy = Proxy("http" if ssl_context is None else "https")

    async def serve(client: trio.SocketStream) -> None:
        if ssl_context is None:
            await proxy.serve(client)
        else:
            await proxy.serve(trio.SSLStream(client, ssl_context, server_side=True, https_compatible=True))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()
