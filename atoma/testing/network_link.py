"""A network link that can fail: a TCP forwarder on loopback between a client and a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

import trio

from atoma.ports.tasks import open_tasks

CONNECTIONS_MAX = 256
CHUNK_BYTES = 64 * 1024

LinkState: TypeAlias = Literal["whole", "cut", "mute"]
Direction: TypeAlias = Literal["to-server", "to-client"]


class NetworkLink:
    """A forwarder that can be cut and repaired, and made slow. Made by :func:`open_network_link`.

    Attributes:
        port: Port on 127.0.0.1 to connect to in place of the server's.
        target_port: Port of the server; 0 for none. May be changed: new connections go there.
        delay_s: Seconds that each piece of up to 64 KiB is held back, in both directions.
        bytes_per_s: Bytes that pass in a second, in each direction of each connection; 0 for as many as there are.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.target_port = target_port
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self._state: LinkState = "whole"
        self._repaired = trio.Event()
        self._repaired.set()
        self._ends_pass = False
        self._live: set[trio.CancelScope] = set()
        self._left: dict[Direction, int] = {}

    @property
    def address(self) -> str:
        """``"127.0.0.1:port"``."""
        return f"127.0.0.1:{self.port}"

    @property
    def state(self) -> LinkState:
        """``whole``, ``cut`` (connections break) or ``mute`` (bytes vanish, nobody notices)."""
        return self._state

    @property
    def connections(self) -> int:
        """Connections that go through the link now."""
        return len(self._live)

    def cut(self) -> None:
        """Break every connection at both ends and hang up on new ones, until :meth:`repair`."""
        self._state = "cut"
        self._repaired.set()
        self.disconnect()

    def disconnect(self) -> None:
        """Break every connection at both ends; new ones can be made at once."""
        for scope in list(self._live):
            scope.cancel()

    def mute(self, *, ends: bool = True) -> None:
        """Let nothing through and tell nobody, as when a link fails behind a switch, until :meth:`repair`.

        Args:
            ends: Also the end of a connection does not get through. Without this, closing one side ends it at the other:
                for protocols that leave it to the system's keep-alive to notice, which a forwarder answers itself.
        """
        if self._state == "whole":
            self._state = "mute"
            self._ends_pass = not ends
            self._repaired = trio.Event()

    def truncate(self, direction: Direction, after: int) -> None:
        """Break the connection that carries the byte after the next ``after`` in ``direction``; those still arrive.

        Happens once; bytes of all connections count together. :meth:`repair` calls it off.
        """
        self._left[direction] = after

    def slow(self, *, delay_s: float = 0.0, bytes_per_s: int = 0) -> None:
        """Hold back what passes, until :meth:`repair`; see the attributes."""
        self.delay_s, self.bytes_per_s = delay_s, bytes_per_s

    def repair(self) -> None:
        """Let bytes through again; after :meth:`mute` those that were held back follow, as TCP would resend them."""
        self._state = "whole"
        self._left.clear()
        self.slow()
        self._repaired.set()

    async def forward(self, client: trio.SocketStream) -> None:
        """Forward one connection until either side closes it or the link is cut."""
        if self._state == "cut" or len(self._live) >= CONNECTIONS_MAX:
            return await trio.aclose_forcefully(client)
        with trio.CancelScope() as scope:
            self._live.add(scope)
            try:
                await self._joined(client)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._live.discard(scope)
                await trio.aclose_forcefully(client)

    async def _joined(self, client: trio.SocketStream) -> None:
        await self._repaired.wait()
        if not self.target_port:
            return
        server = await trio.open_tcp_stream("127.0.0.1", self.target_port)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, client, server, "to-server", nursery.cancel_scope)
                nursery.start_soon(self._pump, server, client, "to-client", nursery.cancel_scope)
        finally:
            await trio.aclose_forcefully(server)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, direction: Direction, both: trio.CancelScope
    ) -> None:
        """Carry bytes one way; an end or a loss on one side ends the other."""
        try:
            while data := await source.receive_some(CHUNK_BYTES):
                await self._held_back(len(data))
                await self._repaired.wait()
                passing = self._passing(direction, data)
                await sink.send_all(passing)
                if len(passing) < len(data):
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if not self._ends_pass:
            await self._repaired.wait()
        both.cancel()

    async def _held_back(self, size: int) -> None:
        wait_s = self.delay_s + (size / self.bytes_per_s if self.bytes_per_s else 0)
        if wait_s:
            await trio.sleep(wait_s)

    def _passing(self, direction: Direction, data: bytes) -> bytes:
        """What of ``data`` still arrives."""
        left = self._left.get(direction)
        if left is None:
            return data
        if len(data) <= left:
            self._left[direction] = left - len(data)
            return data
        del self._left[direction]
        return data[:left]


@asynccontextmanager
async def open_network_link(target_port: int, *, port: int = 0) -> AsyncGenerator[NetworkLink]:
    """A link to the server at ``127.0.0.1:target_port``; real sockets, so that what breaks is real.

    Args:
        target_port: Where the server listens. It need not be there yet; 0 when the port is not known yet.
        port: Where to listen; 0 takes a free port.

    Leaving the block cuts the link for good.
    """
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    bound: int = listeners[0].socket.getsockname()[1]
    link = NetworkLink(bound, target_port)
    async with open_tasks() as nursery:
        await nursery.start(trio.serve_listeners, link.forward, listeners)
        try:
            yield link
        finally:
            link.cut()
            nursery.cancel_scope.cancel()
