"""The parts of a client that depend on its event loop only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import trio


class TrioCaller:
    """Standard input and concurrency on Trio."""

    async def line(self) -> str:
        return await trio.to_thread.run_sync(sys.stdin.readline)

    async def together(self, work: list[Callable[[], Awaitable[None]]]) -> None:
        async with trio.open_nursery() as nursery:
            for one in work:
                nursery.start_soon(one)


class AsyncioCaller:
    """The same on asyncio, for the peers that live there."""

    async def line(self) -> str:
        return await asyncio.to_thread(sys.stdin.readline)

    async def together(self, work: list[Callable[[], Awaitable[None]]]) -> None:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one())  # type: ignore[arg-type]  # every one of them is a coroutine
