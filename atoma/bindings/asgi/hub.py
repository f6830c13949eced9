"""The hub beside an application's own routes: its WebSocket as an ASGI application.

The hub runs in a Trio loop in a thread of its own; the server's loop carries messages, one under way in each direction, so that a
side that is behind holds the other one up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import trio

from atoma.bindings.aio.host import open_portal, run, run_sync, running_loop
from atoma.bindings.asgi.messages import (
    REFUSED,
    TRY_LATER,
    Receive,
    Scope,
    Send,
    client_address,
    may_ask,
    refuse,
    respond,
)
from atoma.bindings.portal import Portal
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ConfigurationError, ProtocolError, StoreBusy
from atoma.hub import Hub
from atoma.ports import Peer
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.fairness import Fairness
from atoma_transports.frames.server import serve_pipe
from atoma_transports.serving.sites import Sites
from atoma_transports.websocket.handshake import SUBPROTOCOL
from atoma_transports.websocket.pipe import close_words

BUSY_S = 5.0
"""How long opening waits for a process that is about to let go of the file, as a server that reloads has for a moment."""
BUSY_AGAIN_S = 0.2
DRAIN_S = 1.0
CONNECTIONS_MAX = 5000

_log = logging.getLogger("atoma.bindings")


@dataclass(frozen=True)
class _Serving:
    """The state that connections share; it lives in the hub's loop.

    Attributes:
        hub: The hub.
        limits: Bounds of each connection.
        drain: Set when the hub ends.
        fairness: What every principal has once.
    """

    hub: Hub
    limits: ChannelLimits
    drain: trio.Event
    fairness: Fairness


class HubApp:
    """A hub as an ASGI application, for a WebSocket route ``/sync``. Devices connect with the WebSocket transport.

    It starts with :meth:`opened`, in the application's lifespan or, mounted as the whole application, in its own; where nobody
    does that, with the first connection. A hub on SQLite is for one process: run one worker.

    Args:
        make: Opens the hub: ``lambda: open_hub(SCHEMA, SQLiteHubStore("hub.db"), verifier=…)``.
        origins: Pages of other sites that may connect, ``"https://app.example.org"``.
        limits: Bounds of each connection.
    """

    def __init__(
        self,
        make: Callable[[], AbstractAsyncContextManager[Hub]],
        *,
        origins: Collection[str] = (),
        limits: ChannelLimits | None = None,
    ) -> None:
        self._make = make
        self._sites = Sites(origins)
        self._limits = limits or ChannelLimits()
        self._starting: asyncio.Task[tuple[Portal, _Serving]] | None = None
        self._stack = AsyncExitStack()
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Keep the hub open for the length of the block; connections get a second to finish what is under way.

        Raises:
            ConfigurationError: The hub lets in whoever is on its machine, which behind a web server is everybody.
            StoreBusy: Another process holds the hub's file.
        """
        await self._start()
        try:
            yield
        finally:
            await self._stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan of the whole application."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await respond(send, 426, b"a hub is here; devices connect with a WebSocket")
        elif scope["type"] == "websocket":
            await self._connect(scope, receive, send)

    async def _start(self) -> tuple[Portal, _Serving]:
        """Open the hub, once however many ask for it."""
        if self._starting is None:
            self._starting = running_loop().create_task(self._open())
        starting = self._starting
        try:
            return await asyncio.shield(starting)
        except Exception:  # whatever opening raised: the next request tries again
            if self._starting is starting:
                self._starting = None
            raise

    async def _open(self) -> tuple[Portal, _Serving]:
        opening = open_portal("the hub", self._served, lambda portal, serving: (portal, serving))
        return await self._stack.enter_async_context(opening)

    @asynccontextmanager
    async def _served(self) -> AsyncGenerator[_Serving]:
        """The hub, in its loop."""
        async with AsyncExitStack() as stack:
            hub = await self._enter(stack)
            if hub.admits_loopback:
                raise ConfigurationError(
                    "this hub lets in whoever is on its machine, and behind a web server that is everybody: give it a "
                    "verifier that looks at tokens"
                )
            yield _Serving(hub, self._limits, trio.Event(), Fairness())

    async def _enter(self, stack: AsyncExitStack) -> Hub:
        deadline = trio.current_time() + BUSY_S
        while True:
            try:
                return await stack.enter_async_context(self._make())
            except StoreBusy as error:
                if trio.current_time() + BUSY_AGAIN_S > deadline:
                    error.add_note("a hub on SQLite is for one process: run the server with workers=1")
                    raise
            await trio.sleep(BUSY_AGAIN_S)

    async def _stop(self) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            portal, serving = await starting
            await run_sync(portal, serving.drain.set)
            if self._connections:
                await asyncio.wait(self._connections, timeout=DRAIN_S)
        await self._stack.aclose()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            try:
                await (self._start() if kind == "lifespan.startup" else self._stop())
            except AtomaError as error:
                await send({"type": f"{kind}.failed", "message": str(error)})
                return
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not may_ask(scope, self._sites):
            await refuse(scope, send, 403, "requests from other sites are refused")
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            await refuse(scope, send, 503, "this server has no place for another connection", TRY_LATER)
            return
        try:
            portal, serving = await self._start()
        except AtomaError as error:
            _log.exception("the hub cannot be opened")
            await refuse(scope, send, 503, error.code, TRY_LATER)
            return
        task = asyncio.current_task()
        assert task is not None, "a server calls an application in a task"
        self._connections.add(task)
        try:
            await receive()
            offered = cast("Collection[str]", scope.get("subprotocols") or ())
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
            peer = Peer(client_address(scope), loopback=False, transport="asgi")
            await _carry(portal, serving, peer, receive, send)
        finally:
            self._connections.discard(task)


async def _carry(portal: Portal, serving: _Serving, peer: Peer, receive: Receive, send: Send) -> None:
    """Carry the messages of one connection until either side ends it."""
    pipe = AsgiPipe(portal, running_loop(), serving.limits.first_frame_bytes)
    tasks = [
        asyncio.create_task(pipe.carry_in(receive)),
        asyncio.create_task(pipe.carry_out(send)),
    ]
    try:
        await run(
            portal,
            lambda: serve_pipe(
                pipe, serving.hub, peer, limits=serving.limits, drain=serving.drain, fairness=serving.fairness
            ),
        )
        await tasks[1]
    except AtomaError:
        pass  # the hub was closed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class AsgiPipe:
    """A WebSocket of an ASGI server as a message pipe of the hub's loop.

    Args:
        portal: The way into the hub's loop.
        loop: The server's loop.
        message_bytes: Largest message until :meth:`allow` says otherwise.
    """

    def __init__(self, portal: Portal, loop: asyncio.AbstractEventLoop, message_bytes: int) -> None:
        self._portal = portal
        self._loop = loop
        self._message_bytes = message_bytes
        self._put, self._got = trio.open_memory_channel[tuple[bytes, asyncio.Event]](1)
        self._out: asyncio.Queue[tuple[bytes, trio.Event] | None] = asyncio.Queue()  # of one message and an end
        self._words: tuple[int, str] | None = None
        self._closed = False
        self._lost = False

    # in the hub's loop

    def allow(self, message_bytes: int) -> None:
        """See :class:`atoma_transports.frames.pipe.GuardedPipe`; the server has buffered it by then, within its own bound."""
        self._message_bytes = message_bytes

    def explain(self, reason: ErrorInfo) -> None:
        """See :class:`atoma_transports.frames.pipe.ExplainingPipe`."""
        self._words = self._words or close_words(reason)

    async def send(self, message: bytes) -> None:
        """See :class:`atoma_transports.frames.MessagePipe`."""
        if self._closed:
            raise trio.ClosedResourceError
        sent = trio.Event()
        self._hand_over((message, sent))
        await sent.wait()
        if self._lost:
            raise trio.BrokenResourceError

    async def receive(self) -> bytes:
        """See :class:`atoma_transports.frames.MessagePipe`."""
        message, taken = await self._got.receive()
        self._in_server(taken.set)
        if len(message) > self._message_bytes:
            raise ProtocolError(f"a message is larger than {self._message_bytes} bytes")
        return message

    async def aclose(self) -> None:
        """See :class:`atoma_transports.frames.MessagePipe`."""
        if not self._closed:
            self._closed = True
            self._hand_over(None)
        await trio.lowlevel.checkpoint()

    def _hand_over(self, item: tuple[bytes, trio.Event] | None) -> None:
        if not self._in_server(lambda: self._out.put_nowait(item)) and item is not None:
            self._lost = True
            item[1].set()

    def _in_server(self, function: Callable[[], object]) -> bool:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the server's loop is closed
            return False
        return True

    # in the server's loop

    async def carry_in(self, receive: Receive) -> None:
        """Carry messages to the hub, one at a time, until the client has gone."""
        while (message := await receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            if not isinstance(data, bytes):
                self._words = self._words or (REFUSED, "only binary messages are taken")
                break
            taken = asyncio.Event()
            self._portal.send_sync(partial(self._put.send_nowait, (data, taken)))
            await taken.wait()
        self._portal.send_sync(self._put.close)

    async def carry_out(self, send: Send) -> None:
        """Carry messages to the client, one at a time, until the hub closes the connection."""
        while (item := await self._out.get()) is not None:
            message, sent = item
            try:
                await send({"type": "websocket.send", "bytes": message})
            except Exception:  # whatever the server raises when there is nobody to send to
                self._lost = True
            self._portal.send_sync(sent.set)
        if not self._lost:
            code, reason = self._words or (1000, "")
            try:
                await send({"type": "websocket.close", "code": code, "reason": reason})
            except Exception:
                _log.debug("the client had gone before the answer was sent", exc_info=True)
