"""A real hub, a real client, and a query that keeps SQLite busy for many seconds at either of them."""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import pytest
import trio

from atoma import (
    Client,
    Hub,
    Rows,
    Schema,
    StaticTokenVerifier,
    StoreSpec,
    Sync,
    col,
    new_id,
    open_client,
    open_hub,
    select,
)
from atoma.contracts.policy import Policy
from atoma.kernel import local_first
from atoma.plugins import Plugin, PluginContext
from atoma.ports import Environment, LocalDatabase, Transport
from atoma.ports.hub import HubDatabase
from atoma.testing.network_link import open_network_link
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite.database import Database
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport

WireKind: TypeAlias = Literal["memory", "websocket", "grpc", "http"]
ROWS, LETTERS, PATTERNS = 4_000, 2_000, 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str
    scope: str = "main"


NOTES = StoreSpec("notes", Note, scope="scope")  # replicates
PAGES = StoreSpec("pages", Note, scope="scope", policy="direct-local")  # does not
SCHEMA = Schema(NOTES, PAGES)
SLOW = select(PAGES).where(
    functools.reduce(operator.or_, (col("text").like(f"%m{number}%") for number in range(PATTERNS)))
)
"""Looks for 250 patterns in every text, in vain: ten seconds of work."""


class SeenHubStore:
    """A hub's file that a test can look at while it is open."""

    def __init__(self, path: str) -> None:
        self._store = SQLiteHubStore(path)
        self.opened: Database | None = None

    @asynccontextmanager
    async def open_hub_database(self, schema: Schema, environment: Environment) -> AsyncGenerator[HubDatabase]:
        async with self._store.open_hub_database(schema, environment) as database:
            self.opened = database.database
            yield database


class SeenEngine:
    """A client's file that a test can look at while it is open."""

    def __init__(self, path: str) -> None:
        self._engine = SQLiteEngine(path)
        self.opened: Database | None = None

    @asynccontextmanager
    async def open_database(
        self, schema: Schema, environment: Environment, synced: frozenset[str]
    ) -> AsyncGenerator[LocalDatabase]:
        async with self._engine.open_database(schema, environment, synced) as database:
            self.opened = database.sqlite
            yield database


@dataclass
class Extra:
    """A plugin that registers policies."""

    policies: tuple[Policy, ...]
    id: str = "extra"
    provides: tuple[Any, ...] = ()
    needs: tuple[Any, ...] = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        for policy in self.policies:
            context.register_policy(policy)
        yield


@dataclass(frozen=True)
class Wire:
    """What lies between client and hub: ``mute`` lets bytes vanish, ``cut`` breaks connections, ``repair`` undoes both."""

    transport: Transport
    mute: Callable[[], None]
    cut: Callable[[], None]
    repair: Callable[[], None]


@dataclass
class House:
    """Both ends, and what lies between them."""

    hub: Hub
    client: Client
    hub_file: Database
    client_file: Database
    wire: Wire

    @property
    def is_idle(self) -> bool:
        """No handler at the hub, no statement at either end."""
        return not (self.hub.calls or self.hub_file.statistics.reading or self.client_file.statistics.reading)

    @property
    def is_busy_at_the_hub(self) -> bool:
        return self.hub.calls > 0 and self.hub_file.statistics.reading > 0

    async def until(self, what: Callable[[], bool]) -> float:
        """Seconds until ``what`` holds."""
        begin = trio.current_time()
        with trio.fail_after(60):
            while not what():
                await trio.sleep(0.0005)
        return trio.current_time() - begin


@asynccontextmanager
async def open_wire(kind: WireKind, hub: Hub) -> AsyncGenerator[Wire]:
    """The way to ``hub``."""
    if kind == "memory":
        network = MemoryNetwork()
        async with network.listen(hub):
            transport = MemoryTransport(network, token="t")
            yield Wire(transport, lambda: network.partition(silent=True), network.disconnect, network.heal)
    else:
        async with open_server(hub, "127.0.0.1:0") as address:
            async with open_network_link(int(address.rpartition(":")[2])) as link:
                yield Wire(over_sockets(kind, link.address), link.mute, link.cut, link.repair)


def over_sockets(kind: WireKind, address: str) -> Transport:
    if kind == "grpc":
        return GrpcTransport(f"grpc://{address}", token="t")
    if kind == "http":
        return HttpTransport(f"http://{address}", token="t")
    return WebSocketTransport(f"ws://{address}/sync", token="t")


@asynccontextmanager
async def open_house(
    kind: WireKind,
    hub_path: str,
    client_path: str,
    environment: Environment | None = None,
    policies: Sequence[Policy] = (),
) -> AsyncGenerator[House]:
    store, engine = SeenHubStore(hub_path), SeenEngine(client_path)
    verifier = StaticTokenVerifier({"t": "somebody"})
    async with open_hub(SCHEMA, store, verifier=verifier, environment=environment) as hub:
        async with open_wire(kind, hub) as wire:
            plugins: list[Plugin] = [
                LocalExecution(engine),
                Remote(wire.transport),
                Sync(stores=[NOTES], scopes=["main"]),
                Extra((local_first(f"remote-{wire.transport.name}", name="volatile", volatile=True), *policies)),
            ]
            async with open_client(SCHEMA, plugins=plugins, policy="sync-queue", environment=environment) as client:
                assert store.opened is not None
                assert engine.opened is not None
                yield House(hub, client, store.opened, engine.opened, wire)


class OpenHouse(Protocol):
    """Opens a house: in memory, or on the files of a folder."""

    def __call__(
        self,
        kind: WireKind,
        folder: Path | None = None,
        environment: Environment | None = None,
        policies: Sequence[Policy] = (),
    ) -> AbstractAsyncContextManager[House]: ...


@pytest.fixture(name="open_house")
def _open_house() -> OpenHouse:
    def open_(
        kind: WireKind,
        folder: Path | None = None,
        environment: Environment | None = None,
        policies: Sequence[Policy] = (),
    ) -> AbstractAsyncContextManager[House]:
        if folder is None:
            return open_house(kind, ":memory:", ":memory:", environment, policies)
        return open_house(kind, str(folder / "hub.db"), str(folder / "client.db"), environment, policies)

    return open_


@pytest.fixture
def slow() -> Rows[Note]:
    return SLOW


@pytest.fixture
def make_note() -> type[Note]:
    return Note


@pytest.fixture
def notes() -> StoreSpec[Note]:
    """A store that replicates."""
    return NOTES


@pytest.fixture
def pages() -> StoreSpec[Note]:
    """A store that does not replicate."""
    return PAGES


@pytest.fixture(scope="session")
def long_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a hub's and a client's file, both full of long texts."""
    folder = tmp_path_factory.mktemp("long-texts")

    async def fill() -> None:
        async with open_house("memory", str(folder / "hub.db"), str(folder / "client.db")) as house:
            pages = [Note(text=f"{number} " + "m-" * (LETTERS // 2)) for number in range(ROWS)]
            local = house.client.store(PAGES)
            (await local.insert_many(pages, policy="direct-local")).raise_for_errors()
            for start in range(0, ROWS, 500):
                (
                    await local.insert_many(pages[start : start + 500], policy="direct-remote", atomic=True)
                ).raise_for_errors()

    trio.run(fill)
    return folder


@pytest.fixture
def no_thread_left() -> Any:
    """The test ends with the threads it began with."""
    before = threading.active_count()
    yield
    assert threading.active_count() <= before  # one of the pool may have ended by itself
