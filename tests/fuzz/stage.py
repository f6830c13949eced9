"""A hub behind every handler, in memory and in virtual time, and what has to be true of it whatever a peer does."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import msgspec
import trio
import trio.testing

from atoma.errors import AuthenticationError
from atoma.hub import open_hub
from atoma.ports import Peer, Principal, ServiceHost, SyncService
from atoma.ports.environment import seeded_environment
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters import PassingService
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.methods import StreamMethod, UnaryMethod
from atoma_transports.http import wire
from atoma_transports.memory import MemoryNetwork
from atoma_transports.serving.addresses import host_check
from atoma_transports.serving.handlers import installed_handlers
from atoma_transports.serving.server import _Port, _serve_stream
from tests.unit.hub.kit import Card

Q = TypeVar("Q")
R = TypeVar("R")
W = TypeVar("W", bound=msgspec.Struct)
V = TypeVar("V", bound=msgspec.Struct)

TOKEN = "a-secret"
WITHIN_S = 1.0
"""How long, in virtual time, a hostile message may go without a typed error or a close."""
PATIENT = ChannelLimits(frame_bytes=256 * 1024, first_frame_bytes=64 * 1024, calls=8, ping_s=60.0, handshake_s=60.0)
"""Nothing ends by itself within a second: what ends has been ended for what the peer did."""
STRICT = ChannelLimits(
    frame_bytes=256 * 1024, first_frame_bytes=64 * 1024, calls=8, ping_s=0.3, pong_s=0.3, handshake_s=0.5, slow_s=0.4,
    close_s=0.1,
)  # fmt: skip
"""Everything ends within a second of silence."""
PATIENT_HTTP = {"HEADER_S": 60.0, "KEEP_ALIVE_S": 60.0, "BODY_S": 60.0}
STRICT_HTTP = {"HEADER_S": 0.3, "KEEP_ALIVE_S": 0.3, "BODY_S": 0.3}

CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("lane")])
SCHEMA = Schema(CARDS)
ROOT = re.escape(str(Path(__file__).parents[2]))
LEAK = re.compile(
    rf'traceback|select\s|insert into|sqlite|apsw|file "|\.py\b|{ROOT}|/tmp/|/dev/shm/|site-packages', re.IGNORECASE
)


class Verifier:
    """Knows one token."""

    async def verify(self, token: str, peer: Peer) -> Principal:
        """See :class:`atoma.ports.TokenVerifier`."""
        await trio.lowlevel.checkpoint()
        if token != TOKEN:
            raise AuthenticationError("the token is not known here")
        return Principal("alice")


class Watched(PassingService):
    """A service whose handlers are counted."""

    def __init__(self, service: SyncService, host: WatchedHost) -> None:
        super().__init__(service)
        self._host = host

    async def _ask(self, method: UnaryMethod[Q, R], request: Q) -> R:
        with self._host.working():
            return await super()._ask(method, request)

    @asynccontextmanager
    async def _listen(self, method: StreamMethod[W, V], request: W) -> AsyncGenerator[AsyncIterator[V]]:
        with self._host.working():
            async with super()._listen(method, request) as items:
                yield items


@dataclass
class WatchedHost:
    """A host that counts: handlers so far, now and at most."""

    host: ServiceHost
    begun: int = 0
    active: int = 0
    most: int = 0

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return await self.host.authenticate(token, peer)

    def service(self, principal: Principal) -> SyncService:
        return Watched(self.host.service(principal), self)

    @contextmanager
    def working(self) -> Generator[None]:
        self.begun += 1
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            yield
        finally:
            self.active -= 1


class Errors(logging.Handler):
    """What was logged as an error while it was listening."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(logging.Formatter().format(record))

    @contextmanager
    def listening(self) -> Generator[Errors]:
        logging.getLogger().addHandler(self)
        try:
            yield self
        finally:
            logging.getLogger().removeHandler(self)


@dataclass
class Stage:
    """One hub on a port and on a network, both in memory."""

    host: WatchedHost
    limits: ChannelLimits
    network: MemoryNetwork
    nursery: trio.Nursery
    port: _Port

    def dial(self) -> trio.abc.Stream:
        """A connection to the port."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            await _serve_stream(cast("trio.SocketStream", stream), "127.0.0.1", self.port)
        finally:
            await trio.aclose_forcefully(stream)


def tasks() -> int:
    """Tasks that there are."""

    def count(task: trio.lowlevel.Task) -> int:
        return 1 + sum(count(child) for nursery in task.child_nurseries for child in nursery.child_tasks)

    root = trio.lowlevel.current_root_task()
    assert root is not None
    return count(root)


@contextmanager
def http_times(times: dict[str, float]) -> Generator[None]:
    """Bounds of the HTTP handler that no ``ChannelLimits`` has."""
    before = {name: getattr(wire, name) for name in times}
    wire.__dict__.update(times)
    try:
        yield
    finally:
        wire.__dict__.update(before)


@asynccontextmanager
async def open_stage(*, strict: bool) -> AsyncGenerator[Stage]:
    """A hub with everything in front of it; at the end nothing of it may be left, and nothing may have gone wrong."""
    limits = STRICT if strict else PATIENT
    before = tasks()
    with http_times(STRICT_HTTP if strict else PATIENT_HTTP), Errors().listening() as errors:
        store = SQLiteHubStore(":memory:")
        async with open_hub(SCHEMA, store, verifier=Verifier(), environment=seeded_environment(1)) as hub:
            host = WatchedHost(hub)
            network = MemoryNetwork(limits=limits)
            drain = trio.Event()
            port = _Port(host, installed_handlers(), host_check(()), limits, drain, None)
            async with network.listen(host), trio.open_nursery() as nursery:
                stage = Stage(host, limits, network, nursery, port)
                yield stage
                drain.set()
                nursery.cancel_scope.deadline = trio.current_time() + WITHIN_S
            assert not nursery.cancel_scope.cancelled_caught, "a connection outlived the end of the server"
            assert host.active == 0, "a handler was left"
    assert tasks() == before, "a task was left"
    assert errors.texts == [], f"the log speaks of what a peer did: {errors.texts}"


def check_words(data: bytes) -> None:
    """What a peer is told has no trace, no SQL and no path in it."""
    found = LEAK.search(data.decode("utf-8", "replace"))
    assert found is None, f"the peer was told {found[0]!r}"
