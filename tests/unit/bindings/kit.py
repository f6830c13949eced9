"""A store, a hub in a loop of its own, a node that takes its time, and asyncio for a test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio

from atoma import AllowLoopback, Plugin, Schema, StoreSpec, Sync, new_id, open_hub
from atoma.bindings.blocking.host import open_portal
from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.policy import Policy
from atoma.kernel import node
from atoma.plugins import PluginContext
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport

if TYPE_CHECKING:
    from textual.pilot import Pilot

T = TypeVar("T")
SECONDS_MAX = 30


@dataclass(frozen=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str = ""


NOTES = StoreSpec("notes", Note, conflict="server_wins")
SCHEMA = Schema(NOTES)
SLOW = "slow"
"""A policy whose query waits until it is cancelled."""


def under_asyncio(main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` under asyncio, in a thread: a driver of browsers may run a loop of its own in this one."""

    async def bounded() -> T:
        return await asyncio.wait_for(main(), SECONDS_MAX)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(bounded())).result()


def local(path: Path | str = ":memory:") -> list[Plugin]:
    return [LocalExecution(SQLiteEngine(path))]


def synced(address: str, path: Path | str = ":memory:") -> list[Plugin]:
    remote = Remote(WebSocketTransport(f"ws://{address}/sync"))
    return [*local(path), remote, Sync(stores=[NOTES])]


@contextmanager
def running_hub(folder: Path, schema: Schema = SCHEMA) -> Generator[str]:
    """A hub on loopback, in a loop of its own; gives its address."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        async with open_hub(schema, SQLiteHubStore(folder / "hub.db"), verifier=AllowLoopback()) as hub:
            async with open_server(hub, "127.0.0.1:0") as address:
                yield str(address)

    with open_portal("the hub", opened, lambda portal, address: address) as address:
        yield address


class Slow:
    """A plugin with a policy ``slow``, whose query waits until it is cancelled and then needs a moment to clean up.

    Attributes:
        begun: Set when a query has begun.
        ended: How many have ended, cleaning up included.
    """

    id = SLOW
    provides = ()
    needs = ()
    remote = False

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = 0

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_node("slow-node", self)
        context.register_policy(Policy(SLOW, query=node("slow-node"), write=None))
        yield

    async def query(self, request: QueryRequest) -> QueryResult:
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            self.ended += 1


class Failing:
    """A plugin whose task fails when it is told to."""

    id = "failing"
    provides = ()
    needs = ()

    def __init__(self) -> None:
        self.fail = threading.Event()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.nursery.start_soon(self._run)
        yield

    async def _run(self) -> None:
        while not self.fail.is_set():  # another thread sets it
            await trio.sleep(0.01)
        raise LookupError("the plugin has failed")


class Stuck:
    """A plugin that never gets open."""

    id = "stuck"
    provides = ()
    needs = ()

    def __init__(self) -> None:
        self.opening = threading.Event()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.opening.set()
        await trio.sleep_forever()
        yield


def until(happened: Callable[[], bool], turn: Callable[[], object] = lambda: None) -> None:
    """Wait for something; ``turn`` lets the loop of a toolkit do what waits."""
    deadline = time.monotonic() + SECONDS_MAX
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        turn()
        time.sleep(0.001)


async def settled(pilot: Pilot[None], happened: Callable[[], bool]) -> None:
    """Wait for something in an application of Textual's."""
    deadline = time.monotonic() + SECONDS_MAX
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        await pilot.pause(0.01)


def loops() -> list[threading.Thread]:
    """The threads of the portals that are open."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("atoma: the client")]
