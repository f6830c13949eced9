"""What an author of a transport supplies, and the sites of the transports that come with Atoma."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import trio

from atoma.ports import ServiceHost, Transport
from atoma.testing.network_link import Direction, NetworkLink, open_network_link
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames import MessagePipe
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.serving import open_server

MakeTransport: TypeAlias = Callable[[str, str, ChannelLimits], Transport]
"""``(address, token, limits) → transport``; the address is ``"127.0.0.1:port"``."""

MakeServer: TypeAlias = Callable[[ServiceHost, str, ChannelLimits], AbstractAsyncContextManager[str]]
"""``(host, address, limits)`` → what serves inside its block and yields the bound address."""


def serve_every_language(host: ServiceHost, address: str, limits: ChannelLimits) -> AbstractAsyncContextManager[str]:
    """:func:`atoma_transports.serving.open_server`: every language that comes with Atoma, on one port."""
    return open_server(host, address, limits=limits)


class Faults(Protocol):
    """The faults that the road between client and server can have while they use it."""

    async def cut(self) -> None:
        """Break every connection and refuse new ones, until :meth:`repair`."""
        ...

    async def mute(self) -> None:
        """Let nothing through and tell nobody (a half-open connection, a mute peer), until :meth:`repair`."""
        ...

    async def truncate(self, direction: Direction, after: int) -> None:
        """Let about ``after`` more bytes pass in ``direction``; then end that connection, inside a message."""
        ...

    async def slow(self, delay_s: float) -> None:
        """Hold everything back for about ``delay_s`` seconds, in order, until :meth:`repair`."""
        ...

    async def repair(self) -> None:
        """Undo all of it."""
        ...


class Ground(Protocol):
    """A network with one place for a host."""

    @property
    def faults(self) -> Faults | None:
        """What can be done to the road; None: checks that need it are skipped."""
        ...

    def serve(self, host: ServiceHost) -> AbstractAsyncContextManager[object]:
        """Answer for ``host`` inside the block; leaving it drains. Entered again after it was left: a restart."""
        ...

    def transport(self, token: str, limits: ChannelLimits) -> Transport:
        """The transport under test, towards whoever serves."""
        ...


@runtime_checkable
class PipeGround(Protocol):
    """A ground whose transport moves the protocol's frames as whole messages: also checked frame by frame."""

    def open_pipe(self) -> AbstractAsyncContextManager[MessagePipe]:
        """A bare pipe to the server, without anything that speaks the protocol."""
        ...


class TransportSite(Protocol):
    """The part that the author of a transport supplies."""

    @property
    def name(self) -> str:
        """What verdicts call it."""
        ...

    @property
    def virtual(self) -> bool:
        """Whether it works on a virtual clock: no sockets, no threads."""
        ...

    def open_site(self, limits: ChannelLimits) -> AbstractAsyncContextManager[Ground]:
        """A ground of its own for one check; ``limits`` are the server's bounds."""
        ...


@dataclass
class LinkFaults:
    """Faults on real bytes, by a :class:`atoma.testing.network_link.NetworkLink`."""

    link: NetworkLink
    asks: bool = True

    async def cut(self) -> None:
        """See :class:`Faults`."""
        self.link.cut()

    async def mute(self) -> None:
        """See :class:`Faults`."""
        self.link.mute(ends=self.asks)

    async def truncate(self, direction: Direction, after: int) -> None:
        """See :class:`Faults`."""
        self.link.truncate(direction, after)

    async def slow(self, delay_s: float) -> None:
        """See :class:`Faults`."""
        self.link.slow(delay_s=delay_s)

    async def repair(self) -> None:
        """See :class:`Faults`."""
        self.link.repair()


@dataclass
class SocketGround:
    """Real sockets, with a link between client and server."""

    link: NetworkLink
    limits: ChannelLimits
    connect: MakeTransport
    server: MakeServer
    pipe: Callable[[str], AbstractAsyncContextManager[MessagePipe]] | None
    asks: bool = True

    @property
    def faults(self) -> Faults:
        """See :class:`Ground`."""
        return LinkFaults(self.link, self.asks)

    @asynccontextmanager
    async def serve(self, host: ServiceHost) -> AsyncGenerator[None]:
        """See :class:`Ground`."""
        try:
            async with self.server(host, "127.0.0.1:0", self.limits) as bound:
                self.link.target_port = int(bound.rpartition(":")[2])
                yield
        finally:
            self.link.target_port = 0

    def transport(self, token: str, limits: ChannelLimits) -> Transport:
        """See :class:`Ground`."""
        return self.connect(self.link.address, token, limits)


@dataclass
class SocketPipeGround(SocketGround):
    """The same for a transport of frames."""

    def open_pipe(self) -> AbstractAsyncContextManager[MessagePipe]:
        """See :class:`PipeGround`."""
        assert self.pipe is not None
        return self.pipe(self.link.address)


@dataclass(frozen=True)
class SocketSite:
    """A transport over TCP: everything but the transport itself is here.

    Args:
        name: What verdicts call it.
        connect: Makes the transport, of ``(address, token, limits)``.
        server: Serves a host on an address with limits and yields the bound address.
        pipe: For transports of frames: opens a bare pipe to an address.
        asks: Whether each end asks by itself whether the other is there. Otherwise that is the system's keep-alive, which
            the link answers in place of the other end; a mute one then lets the ends of connections through.
    """

    name: str
    connect: MakeTransport
    server: MakeServer = serve_every_language
    pipe: Callable[[str], AbstractAsyncContextManager[MessagePipe]] | None = None
    asks: bool = True
    virtual: bool = False

    @asynccontextmanager
    async def open_site(self, limits: ChannelLimits) -> AsyncGenerator[Ground]:
        """See :class:`TransportSite`."""
        kind = SocketGround if self.pipe is None else SocketPipeGround
        async with open_network_link(0) as link:
            yield kind(link, limits, self.connect, self.server, self.pipe, self.asks)


@dataclass
class FrameFaults:
    """Faults on a :class:`atoma_transports.memory.MemoryNetwork`: its frame hook, and its partitions."""

    left: dict[str, int] = field(default_factory=dict[str, int])
    delay_s: float = 0.0
    network: MemoryNetwork = field(init=False)

    async def on_frame(self, direction: Direction, frame: bytes) -> Sequence[bytes]:
        """See :class:`atoma_transports.memory.FaultHook`."""
        if self.delay_s:
            await trio.sleep(self.delay_s)
        left = self.left.get(direction)
        if left is not None:
            if len(frame) > left:
                del self.left[direction]
                raise trio.BrokenResourceError("the connection ended inside a message")
            self.left[direction] = left - len(frame)
        return [frame]

    async def cut(self) -> None:
        """See :class:`Faults`."""
        self.network.partition()

    async def mute(self) -> None:
        """See :class:`Faults`."""
        self.network.partition(silent=True)

    async def truncate(self, direction: Direction, after: int) -> None:
        """See :class:`Faults`. A frame arrives whole or not at all: the one that holds the byte is lost."""
        self.left[direction] = after

    async def slow(self, delay_s: float) -> None:
        """See :class:`Faults`."""
        self.delay_s = delay_s

    async def repair(self) -> None:
        """See :class:`Faults`."""
        self.left.clear()
        self.delay_s = 0.0
        self.network.heal()


@dataclass
class MemoryGround:
    """The network inside the process."""

    network: MemoryNetwork
    faults: Faults

    def serve(self, host: ServiceHost) -> AbstractAsyncContextManager[object]:
        """See :class:`Ground`."""
        return self.network.listen(host)

    def transport(self, token: str, limits: ChannelLimits) -> Transport:
        """See :class:`Ground`."""
        return MemoryTransport(self.network, token=token, limits=limits)

    @asynccontextmanager
    async def open_pipe(self) -> AsyncGenerator[MessagePipe]:
        """See :class:`PipeGround`."""
        pipe = await self.network.connect("bare", None)
        try:
            yield pipe
        finally:
            pipe.close()


@dataclass(frozen=True)
class MemorySite:
    """:class:`atoma_transports.memory.MemoryTransport`, on a virtual clock."""

    name: str = "memory"
    virtual: bool = True

    @asynccontextmanager
    async def open_site(self, limits: ChannelLimits) -> AsyncGenerator[Ground]:
        """See :class:`TransportSite`."""
        faults = FrameFaults()
        faults.network = MemoryNetwork(faults=faults, limits=limits)
        yield MemoryGround(faults.network, faults)
