"""Our transports: a host that answers at once, so that the wire alone is measured."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import trio

from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.sync import Hint, NotifyRequest
from atoma.contracts.values import StoredRow
from atoma.ports import Channel, Peer, Principal, SyncService, Transport
from atoma.query.plans import by_ids
from atoma_transports.calls import ChannelLimits
from atoma_transports.protocol import QueryCall, RemoteOp
from atoma_transports.protocol.plans import encode_query
from atoma_transports.serving import open_server
from benchmarks.wire.loops import TrioCaller
from benchmarks.wire.program import Caller

LIMITS = ChannelLimits(connections=10_000)  # a thousand idle ones are all of one principal
ROW = StoredRow("todo-1", 1, 1, "main", {"text": "water the plants", "done": False, "rank": 7})
REQUEST = QueryCall((RemoteOp(0, "query", "todos", query=encode_query(by_ids("todos", ("todo-1",)))),), "trace")


class Constant:
    """Answers every query with one row, and streams as many hints as the scope's name says."""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return Principal("bench")

    def service(self, principal: Principal) -> SyncService:
        return self  # type: ignore[return-value]  # what is measured is all that is there

    async def query(self, request: QueryRequest) -> QueryResult:
        return QueryResult((ROW,))

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        async def hints() -> AsyncIterator[Hint]:
            for number in range(int(request.scopes[0])):
                yield Hint("main", number)

        yield hints()


def serve(kind: str, ready: Callable[[int], None]) -> None:
    """All kinds are on one port."""

    async def run() -> None:
        async with open_server(Constant(), "127.0.0.1:0", limits=LIMITS) as address:  # type: ignore[arg-type]
            ready(int(address.rpartition(":")[2]))
            await trio.sleep_forever()

    trio.run(run)


def transport(kind: str, port: int) -> Transport:
    """The client's end."""
    if kind == "grpc":
        from atoma_transports.grpc import GrpcTransport

        return GrpcTransport(f"grpc://127.0.0.1:{port}")
    if kind == "http":
        from atoma_transports.http import HttpTransport

        return HttpTransport(f"http://127.0.0.1:{port}")
    from atoma_transports.websocket import WebSocketTransport

    return WebSocketTransport(f"ws://127.0.0.1:{port}/sync")


class ChannelCaller(TrioCaller):
    """Calls over a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def call(self) -> None:
        await self._channel.call("query", REQUEST)

    async def items(self, count: int) -> None:
        request: msgspec.Struct = NotifyRequest(scopes=(str(count),))
        async with self._channel.stream("notify", request) as items:
            got = 0
            async for _ in items:
                got += 1
        assert got == count, (got, count)


def talk(kind: str, port: int, work: Callable[[Caller], Awaitable[None]]) -> None:
    """Connect over the transport of this kind."""

    async def run() -> None:
        async with transport(kind, port).connect() as channel:
            await work(ChannelCaller(channel))

    trio.run(run)
