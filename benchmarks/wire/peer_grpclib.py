"""grpclib on asyncio, as its authors ship it, with the messages that we send."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from benchmarks.wire.loops import AsyncioCaller
from benchmarks.wire.messages import (
    HINT,
    ITEMS,
    QUERY,
    REPLY,
    REQUEST,
    HintMessage,
    NotifyMessage,
    OpsReplyMessage,
    QueryMessage,
)
from benchmarks.wire.program import Caller


class Service:
    """One method of each kind."""

    async def query(self, stream: Stream[object, object]) -> None:
        await stream.recv_message()
        await stream.send_message(REPLY)

    async def notify(self, stream: Stream[object, object]) -> None:
        request = await stream.recv_message()
        for _ in range(int(request.scopes[0])):  # type: ignore[union-attr]
            await stream.send_message(HINT)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            QUERY: Handler(self.query, Cardinality.UNARY_UNARY, QueryMessage, OpsReplyMessage),
            ITEMS: Handler(self.notify, Cardinality.UNARY_STREAM, NotifyMessage, HintMessage),
        }


def serve(kind: str, ready: Callable[[int], None]) -> None:
    """Serve on a free port."""

    async def run() -> None:
        server = Server([Service()])
        await server.start("127.0.0.1", 0)
        ready(server._server.sockets[0].getsockname()[1])  # type: ignore[union-attr]  # it has no public way to tell
        await server.wait_closed()

    asyncio.run(run())


class GrpclibCaller(AsyncioCaller):
    """Calls through grpclib."""

    def __init__(self, channel: Channel) -> None:
        self._query = UnaryUnaryMethod(channel, QUERY, QueryMessage, OpsReplyMessage)
        self._notify = UnaryStreamMethod(channel, ITEMS, NotifyMessage, HintMessage)

    async def call(self) -> None:
        await self._query(REQUEST)

    async def items(self, count: int) -> None:
        got = 0
        async with self._notify.open() as stream:
            await stream.send_message(NotifyMessage(scopes=[str(count)]), end=True)
            async for _ in stream:
                got += 1
        assert got == count, (got, count)


def talk(kind: str, port: int, work: Callable[[Caller], Awaitable[None]]) -> None:
    """Connect in plain text."""

    async def run() -> None:
        async with Channel("127.0.0.1", port) as channel:
            await work(GrpclibCaller(channel))

    asyncio.run(run())
