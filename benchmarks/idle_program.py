"""Clients that wait: ``python -m benchmarks.idle_program PORT NAME COUNT`` connects COUNT WebSockets, each of a user of its own.

Each listens for hints of the scope ``main``, and pulls when one comes if ``pull`` is asked for as a fourth argument. Then each line of
standard input is answered with how many are connected, and the seconds at which, by the machine's clock, each has pulled what.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import trio

from atoma.contracts.sync import Cursor, NotifyRequest
from atoma.errors import TransportError
from atoma.ports import Channel
from atoma_transports.adapters.services import ServiceProxy
from atoma_transports.websocket import WebSocketTransport
from benchmarks.programs import resident, tell
from tests.unit.hub.kit import SCOPE, Client

AT_ONCE = 4
"""So many connect at the same time, of each program; one that is too slow for the hub tries again."""

AGAIN_S = 0.5


class Waiting:
    """Connections, and what they have pulled.

    Args:
        port: The hub's.
        name: What their users' names begin with.
        pulls: Whether they pull when they are hinted at.
    """

    def __init__(self, port: str, name: str, *, pulls: bool) -> None:
        self._port, self._name, self._pulls = port, name, pulls
        self._doors = trio.CapacityLimiter(AT_ONCE)
        self.connected = 0
        self.pulled: list[tuple[int, float]] = []

    async def wait(self, number: int) -> None:
        """Connect, and stay."""
        user = f"{self._name}-{number}"
        async with AsyncExitStack() as stack:
            async with self._doors:
                service = ServiceProxy(await self._connected(stack, user))
                hints = await stack.enter_async_context(service.notify(NotifyRequest((SCOPE,))))
            self.connected += 1
            client, cursor = Client(service, user.encode().ljust(16, b".")), Cursor()
            async for hint in hints:
                while self._pulls and cursor.seq < hint.head:
                    cursor = (await client.pull(cursor)).end
                    self.pulled.append((cursor.seq, time.monotonic()))

    async def _connected(self, stack: AsyncExitStack, user: str) -> Channel:
        transport = WebSocketTransport(f"ws://127.0.0.1:{self._port}/sync", token=user)
        while True:
            with suppress(TransportError):
                return await stack.enter_async_context(transport.connect())
            await trio.sleep(AGAIN_S)


async def obey(arguments: Sequence[str]) -> None:
    """Connect, and answer."""
    port, name, count, *more = arguments
    waiting = Waiting(port, name, pulls=more == ["pull"])
    async with trio.open_nursery() as nursery:
        for number in range(int(count)):
            nursery.start_soon(waiting.wait, number)
        while await trio.to_thread.run_sync(sys.stdin.readline):
            tell({"connected": waiting.connected, "resident": resident(), "pulled": waiting.pulled})
            waiting.pulled.clear()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(obey, sys.argv[1:])
