"""grpcio's asyncio API, with the messages that we send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
from grpc import aio

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


async def _query(request: object, context: object) -> object:
    return REPLY


async def _notify(request: object, context: object) -> AsyncIterator[object]:
    for _ in range(int(request.scopes[0])):  # type: ignore[attr-defined]
        yield HINT


def serve(kind: str, ready: Callable[[int], None]) -> None:
    """One method of each kind."""

    async def run() -> None:
        server = aio.server()
        service, _, method = QUERY[1:].partition("/")
        handlers = {
            method: grpc.unary_unary_rpc_method_handler(
                _query, QueryMessage.FromString, OpsReplyMessage.SerializeToString
            ),
            ITEMS.rpartition("/")[2]: grpc.unary_stream_rpc_method_handler(
                _notify, NotifyMessage.FromString, HintMessage.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ready(port)
        await server.wait_for_termination()

    asyncio.run(run())


class GrpcioCaller(AsyncioCaller):
    """Calls through grpcio."""

    def __init__(self, channel: aio.Channel) -> None:
        self._query = channel.unary_unary(QUERY, QueryMessage.SerializeToString, OpsReplyMessage.FromString)
        self._notify = channel.unary_stream(ITEMS, NotifyMessage.SerializeToString, HintMessage.FromString)

    async def call(self) -> None:
        await self._query(REQUEST)

    async def items(self, count: int) -> None:
        got = 0
        async for _ in self._notify(NotifyMessage(scopes=[str(count)])):
            got += 1
        assert got == count, (got, count)


def talk(kind: str, port: int, work: Callable[[Caller], Awaitable[None]]) -> None:
    """Connect in plain text."""

    async def run() -> None:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await work(GrpcioCaller(channel))

    asyncio.run(run())
