"""The ``websockets`` library on asyncio: it echoes, and sends as many messages as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as open_server

from benchmarks.wire.loops import AsyncioCaller
from benchmarks.wire.ours import REQUEST
from benchmarks.wire.program import Caller

MESSAGE = msgspec.msgpack.encode(REQUEST)
ITEM = b"x" * 40


async def _answer(connection: ServerConnection) -> None:
    async for message in connection:
        if message[:1] == b"#":
            for _ in range(int(message[1:])):
                await connection.send(ITEM)
        else:
            await connection.send(message)


def serve(kind: str, ready: Callable[[int], None]) -> None:
    """Echo."""

    async def run() -> None:
        async with open_server(_answer, "127.0.0.1", 0, compression=None) as server:
            ready(next(iter(server.sockets)).getsockname()[1])
            await asyncio.get_running_loop().create_future()

    asyncio.run(run())


class EchoCaller(AsyncioCaller):
    """One call at a time: the library has no notion of which reply belongs to which request."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    async def call(self) -> None:
        async with self._turn:
            await self._connection.send(MESSAGE)
            await self._connection.recv()

    async def items(self, count: int) -> None:
        await self._connection.send(b"#%d" % count)
        for _ in range(count):
            await self._connection.recv()


def talk(kind: str, port: int, work: Callable[[Caller], Awaitable[None]]) -> None:
    """Connect without compression, as we do."""

    async def run() -> None:
        async with connect(f"ws://127.0.0.1:{port}/", compression=None) as connection:
            await work(EchoCaller(connection))

    asyncio.run(run())
