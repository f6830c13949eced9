"""The client side of every transport: a node for policies, a link for sync, and the plugin that registers both."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import msgspec
import trio

from atoma.concurrency.backoff import Backoff
from atoma.contracts.checks import is_a
from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.understood import Understood
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ChannelBroken,
    ConfigurationError,
    ConnectFailed,
    RemoteError,
    TransportError,
)
from atoma.plugins import PluginContext, RemoteParts
from atoma.ports import SYNC_LINK, Announced, Channel, PortKey, SyncService, Transport
from atoma.schema import Schema
from atoma_transports.adapters import ServiceProxy
from atoma_transports.gathering import GatheredGets

CONNECT_S = 15.0  # the shared connection is opened for everybody, so no single caller's deadline bounds it
FREE_FAILURES = 1  # after that many in a row an attempt has to wait, and callers get an error at once
BACKOFF = Backoff(0.25, max_s=15.0, jitter=0.5)


class Remote:
    """A plugin with the node ``remote-<name>`` for queries and writes, and a link to the hub for ``Sync``.

    The node keeps one connection, which the first request opens and later ones reopen if necessary. Every sync session opens a
    connection of its own, so that large pages never delay a query. A client may have several of these plugins
    under different transport names; only one can be the sync link.

    Args:
        transport: The transport that connects to the hub.
        link: Whether ``Sync`` uses this hub.

    Raises:
        ConfigurationError: ``transport`` is not a transport.
    """

    def __init__(self, transport: Transport, *, link: bool = True) -> None:
        if not is_a(transport, Transport):
            message = f"Remote() needs a transport, for example WebSocketTransport('wss://…'), not {transport!r}"
            raise ConfigurationError(message)
        self._transport = transport
        self._link = link

    @property
    def id(self) -> str:
        """``remote-<name>``, also the id of the node."""
        return f"remote-{self._transport.name}"

    @property
    def provides(self) -> Sequence[PortKey[object]]:
        """The sync link, unless ``link=False``."""
        return (SYNC_LINK,) if self._link else ()  # type: ignore[return-value]  # PortKey is invariant

    @property
    def needs(self) -> Sequence[PortKey[object]]:
        """Nothing."""
        return ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        """Register the transport. Nothing is connected before the first request."""
        take_back = context.register_transport(self._transport, adapt, link=self._link)
        try:
            yield
        finally:
            take_back()


def adapt(transport: Transport, nursery: trio.Nursery, random: Random, schema: Schema) -> RemoteParts:
    """What a client gets of a transport over which a hub is spoken with: for ``context.register_transport``."""
    shared = SharedChannel(transport, nursery, random)
    return RemoteParts(RemoteNode(shared, schema), TransportLink(transport), shared.close)


class TransportLink:
    """:class:`atoma.ports.SyncLink` over a transport; every :meth:`connect` is a connection of its own."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[SyncService]:
        """Connect and authenticate; leaving the block closes the connection."""
        async with self._transport.connect() as channel:
            yield ServiceProxy(channel)


class RemoteNode(ServiceProxy):
    """A node for queries and writes that asks the hub over the shared connection.

    Results say ``meta.source == "remote"``. Errors are those of the channel: ``ConnectFailed`` and every error with
    ``maybe_sent`` False mean that the hub has not seen the request. A write is applied at most once per idempotency
    key; one that ``resolve`` reports as abandoned is never applied. Gets of one tick share one request.
    """

    def __init__(self, channel: Channel, schema: Schema | None = None) -> None:
        super().__init__(channel, schema)
        self._gets = GatheredGets(super().query)

    async def query(self, request: QueryRequest) -> QueryResult:
        """See :meth:`ServiceProxy.query`."""
        return await self._gets.query(request)


@dataclass(slots=True, eq=False)
class _Connection:
    """One attempt and, once it succeeded, the connection."""

    settled: trio.Event = field(default_factory=trio.Event)
    discarded: trio.Event = field(default_factory=trio.Event)
    channel: Channel | None = None
    announced: Announced | None = None
    failure: AtomaError | None = None


class SharedChannel:
    """A :class:`atoma.ports.Channel` that connects at its first use and again after a loss.

    However many callers wait, only one connection is made. A failed attempt fails the callers that waited for it; the next
    caller tries again. From the second failure in a row on, there is a growing, jittered pause between attempts, and a caller
    in between gets the error of the last one at once: a hub that is down is not overwhelmed, and a fallback need
    not wait. A request that was certainly not sent because the connection had died meanwhile is sent once more over
    a new one.
    """

    def __init__(self, transport: Transport, nursery: trio.Nursery, random: Random) -> None:
        self._transport = transport
        self._nursery = nursery
        self._random = random
        self._current: _Connection | None = None
        self._closed = False
        self._failures = 0
        self._failure: AtomaError | None = None
        self._next_attempt = -math.inf

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        """See :class:`atoma.ports.Channel`."""
        connection, channel = await self._connected()
        try:
            return await channel.call(method, message)
        except (TransportError, RemoteError) as error:
            self._discard(connection, error)
            if not isinstance(error, ChannelBroken) or error.maybe_sent:
                raise
        _, channel = await self._connected()
        return await channel.call(method, message)

    async def understood(self) -> Understood | None:
        """See :class:`atoma.ports.Announced`."""
        connection, _ = await self._connected()
        try:
            return None if connection.announced is None else await connection.announced.understood()
        except (TransportError, RemoteError) as error:
            self._discard(connection, error)
            raise

    def stream(
        self, method: str, message: msgspec.Struct
    ) -> AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]:
        """See :class:`atoma.ports.Channel`; a broken stream is not resumed."""
        return self._stream(method, message)

    @asynccontextmanager
    async def _stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        connection, channel = await self._connected()
        try:
            async with channel.stream(method, message) as items:
                yield items
        except (TransportError, RemoteError) as error:
            self._discard(connection, error)
            raise

    def close(self) -> None:
        """Close the connection, if there is one, and refuse further requests."""
        self._closed = True
        if self._current is not None:
            self._current.discarded.set()
            self._current = None

    async def _connected(self) -> tuple[_Connection, Channel]:
        if self._closed:
            raise ConnectFailed("the transport was unregistered, as when its client closes")
        connection = self._current
        if connection is None:
            wait_s = self._next_attempt - trio.current_time()
            if wait_s > 0:
                raise _again(self._failure, f"; the next attempt is made in {wait_s:.1f} s at the earliest")
            connection = self._current = _Connection()
            self._nursery.start_soon(self._hold, connection)
        await connection.settled.wait()
        if connection.channel is None:
            raise _again(connection.failure)
        return connection, connection.channel

    async def _hold(self, connection: _Connection) -> None:
        """Connect, and keep the connection until it is discarded."""
        try:
            with trio.CancelScope(deadline=trio.current_time() + CONNECT_S) as patience:
                async with self._transport.connect() as channel:
                    patience.deadline = float("inf")
                    connection.channel = channel
                    connection.announced = channel if isinstance(channel, Announced) else None
                    self._failures = 0
                    connection.settled.set()
                    await connection.discarded.wait()
        except AtomaError as error:
            connection.failure = error
        finally:
            if self._current is connection:
                self._current = None
            if connection.channel is None:
                self._note_failure(connection.failure)
            connection.settled.set()

    def _note_failure(self, failure: AtomaError | None) -> None:
        self._failure = failure
        self._failures += 1
        if self._failures > FREE_FAILURES:
            wait_s = BACKOFF.wait_s(self._failures - FREE_FAILURES, self._random)
            self._next_attempt = trio.current_time() + wait_s

    def _discard(self, connection: _Connection, error: AtomaError) -> None:
        """Give ``connection`` up after ``error``, unless the error concerns the request alone.

        A channel whose calls do not share one connection says by ``is_open`` that it goes on after a loss.
        """
        if isinstance(error, ChannelBroken) and getattr(connection.channel, "is_open", False):
            return
        lost = isinstance(error, ChannelBroken | AuthenticationError) or getattr(error, "maybe_sent", False)
        if lost or not getattr(connection.channel, "is_open", True):
            connection.discarded.set()
            if self._current is connection:
                self._current = None


def _again(failure: AtomaError | None, rest: str = "") -> AtomaError:
    """The error of a shared attempt, new for each who waited: each raises it with a trace of its own."""
    if isinstance(failure, AuthenticationError):
        return type(failure)(f"{failure}{rest}")
    if failure is None:
        return ConnectFailed(f"no connection within {CONNECT_S:g} s{rest}")
    return ConnectFailed(f"{failure}{rest}")
