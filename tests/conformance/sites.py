"""The transports that come with Atoma, as sites of the conformance kit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from atoma.ports import Transport
from atoma.testing.conformance import MemorySite, SocketSite, TransportSite
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames import MessagePipe
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http.client import HttpTransport
from atoma_transports.websocket import WebSocketTransport


class BareWebSocket:
    """The library's own client, so that nothing of ours stands between the check and the server."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection

    async def send(self, message: bytes) -> None:
        try:
            await self.connection.send_message(message)
        except ConnectionClosed:
            raise trio.BrokenResourceError from None

    async def receive(self) -> bytes:
        try:
            message = await self.connection.get_message()
        except ConnectionClosed:
            raise trio.EndOfChannel from None
        assert isinstance(message, bytes)
        return message

    async def aclose(self) -> None:
        await self.connection.aclose()


@asynccontextmanager
async def bare_websocket(address: str) -> AsyncGenerator[MessagePipe]:
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        yield BareWebSocket(await wrap_client_stream(nursery, stream, address, "/sync"))
        nursery.cancel_scope.cancel()


def websocket(address: str, token: str, limits: ChannelLimits) -> Transport:
    return WebSocketTransport(f"ws://{address}/sync", token=token, limits=limits)


def grpc(address: str, token: str, limits: ChannelLimits) -> Transport:
    return GrpcTransport(address, token=token, limits=limits)


def http(address: str, token: str, limits: ChannelLimits) -> Transport:
    return HttpTransport(f"http://{address}", token=token, limits=limits)


SITES: dict[str, TransportSite] = {
    "memory": MemorySite(),
    "websocket": SocketSite("websocket", websocket, pipe=bare_websocket),
    "grpc": SocketSite("grpc", grpc),
    "http": SocketSite("http", http, asks=False),
}
