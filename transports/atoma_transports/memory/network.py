"""A network inside the process: encoded bytes through bounded channels, with faults on request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Literal, Protocol, TypeAlias

import trio

from atoma.errors import ConnectFailed
from atoma.ports import Channel, Peer, ServiceHost
from atoma.ports.tasks import open_tasks
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.fairness import Fairness
from atoma_transports.dialing import Token
from atoma_transports.dialing.credentials import check_token
from atoma_transports.frames import open_channel, serve_pipe

Direction: TypeAlias = Literal["to-server", "to-client"]
FRAMES_UNDER_WAY = 16
BACKLOG = 64
DRAIN_S = 1.0


class FaultHook(Protocol):
    """A Protocol for fault injection: decides what happens to each frame."""

    async def on_frame(self, direction: Direction, frame: bytes) -> Sequence[bytes]:
        """Return the frames to deliver in place of ``frame``.

        ``[frame]`` delivers it, ``[]`` loses it, ``[frame, frame]`` duplicates it, other bytes damage it; sleeping delays
        it and all that follow (beyond ``ChannelLimits.slow_s`` the connection is given up). To reorder,
        keep it and return it with a later one.

        Raises:
            trio.BrokenResourceError: Raise it to break the connection; the frame is lost.
        """
        ...


class _Link:
    """One connection: two pipes and the state of the link between them."""

    def __init__(self, network: MemoryNetwork, site: str, faults: FaultHook | None) -> None:
        self.network = network
        self.site = site
        to_server = trio.open_memory_channel[bytes](FRAMES_UNDER_WAY)
        to_client = trio.open_memory_channel[bytes](FRAMES_UNDER_WAY)
        self.client = MemoryPipe(self, "to-server", to_server[0], to_client[1], faults)
        self.server = MemoryPipe(self, "to-client", to_client[0], to_server[1], faults)
        self.broken = False

    def cut(self) -> None:
        """Break the connection: both ends notice at once, what is under way is lost."""
        self.broken = True
        self.client.close()
        self.server.close()
        self.network.links.discard(self)


class MemoryPipe:
    """One end of a connection of :class:`MemoryNetwork`."""

    def __init__(
        self,
        link: _Link,
        direction: Direction,
        sending: trio.MemorySendChannel[bytes],
        receiving: trio.MemoryReceiveChannel[bytes],
        faults: FaultHook | None,
    ) -> None:
        self._link = link
        self._direction: Direction = direction
        self._sending = sending
        self._receiving = receiving
        self._faults = faults

    async def send(self, message: bytes) -> None:
        """See :class:`atoma_transports.frames.MessagePipe`."""
        frames: Sequence[bytes] = [message]
        if self._faults is not None:
            try:
                frames = await self._faults.on_frame(self._direction, message)
            except trio.BrokenResourceError:
                self._link.cut()
                raise
        if self._link.network.is_silent(self._link.site):
            await trio.lowlevel.checkpoint()
            return
        for frame in frames:
            try:
                await self._sending.send(frame)
            except trio.ClosedResourceError:
                if self._link.broken:
                    raise trio.BrokenResourceError("the connection was cut") from None
                raise

    @property
    def unsent(self) -> bool:
        """See :class:`atoma_transports.frames.pipe.EagerPipe`: never, a frame is taken whole."""
        return False

    def send_now(self, message: bytes) -> bool:
        """See :class:`atoma_transports.frames.pipe.EagerPipe`; where faults are decided upon, a task has to send."""
        if self._faults is not None:
            return False
        if self._link.network.is_silent(self._link.site):
            return True
        try:
            self._sending.send_nowait(message)
        except trio.WouldBlock:
            return False
        except trio.ClosedResourceError:
            if self._link.broken:
                raise trio.BrokenResourceError("the connection was cut") from None
            raise
        return True

    async def flush(self) -> None:
        """See :class:`atoma_transports.frames.pipe.EagerPipe`."""
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        """See :class:`atoma_transports.frames.MessagePipe`."""
        try:
            return await self._receiving.receive()
        except trio.ClosedResourceError:
            if self._link.broken:
                raise trio.BrokenResourceError("the connection was cut") from None
            raise

    def close(self) -> None:
        """Close at once; what was sent before still arrives."""
        self._sending.close()
        self._receiving.close()
        self._link.network.links.discard(self._link)

    async def aclose(self) -> None:
        """See :class:`atoma_transports.frames.MessagePipe`."""
        self.close()
        await trio.lowlevel.checkpoint()


class MemoryNetwork:
    """The network in which :class:`MemoryTransport` finds a host. It works on a virtual clock, and is bounded like a socket.

    Args:
        faults: Decides about every frame of transports without a hook of their own.
        limits: Limits of the answering side.
    """

    def __init__(self, *, faults: FaultHook | None = None, limits: ChannelLimits | None = None) -> None:
        self.links: set[_Link] = set()
        self._faults = faults
        self._limits = limits or ChannelLimits()
        self._arrivals: trio.MemorySendChannel[_Link] | None = None
        self._cut: set[str] = set()
        self._silent: set[str] = set()

    @asynccontextmanager
    async def listen(self, host: ServiceHost) -> AsyncGenerator[None]:
        """Serve ``host`` inside the block; leaving it drains, then closes. It may be entered again, as a restart.

        Cancellation closes at once.
        """
        assert self._arrivals is None, (
            "the memory network serves one host at a time: leave the block of the other one first"
        )
        drain = trio.Event()
        async with open_tasks() as nursery:
            self._arrivals, arrivals = trio.open_memory_channel[_Link](BACKLOG)
            nursery.start_soon(self._accept, arrivals, host, drain)
            try:
                yield
            finally:
                self._arrivals.close()
                self._arrivals = None
                drain.set()
                nursery.cancel_scope.deadline = trio.current_time() + DRAIN_S

    async def _accept(self, arrivals: trio.MemoryReceiveChannel[_Link], host: ServiceHost, drain: trio.Event) -> None:
        fairness = Fairness()  # its times are those of this run: the network may have been listened to in another one
        async with trio.open_nursery() as connections:
            async for link in arrivals:
                connections.start_soon(self._serve, link, host, drain, fairness)

    async def _serve(self, link: _Link, host: ServiceHost, drain: trio.Event, fairness: Fairness) -> None:
        peer = Peer("memory", loopback=True, transport="memory")
        await serve_pipe(link.server, host, peer, limits=self._limits, drain=drain, fairness=fairness)

    async def connect(self, site: str, faults: FaultHook | None) -> MemoryPipe:
        """Return a pipe to the host; for :class:`MemoryTransport`.

        Raises:
            ConnectFailed: No host listens, or ``site`` is cut off.
        """
        await trio.lowlevel.checkpoint()
        if self._arrivals is None or {site, ""} & self._cut:
            raise ConnectFailed("no host can be reached on the memory network")
        link = _Link(self, site, faults or self._faults)
        try:
            self._arrivals.send_nowait(link)
        except trio.WouldBlock:
            raise ConnectFailed("too many connections are waiting to be accepted") from None
        self.links.add(link)
        return link.client

    def partition(self, site: str = "", *, silent: bool = False) -> None:
        """Cut ``site`` (every site if empty) off from the host until :meth:`heal`.

        Args:
            site: The site's name, as its transport was given it.
            silent: Let frames vanish without notice, as when a network link fails behind a switch. Otherwise
                connections break, and new ones are refused.
        """
        (self._silent if silent else self._cut).add(site)
        if not silent:
            self.disconnect(site)

    def disconnect(self, site: str = "") -> None:
        """Break the connections of ``site`` (of all sites if empty); new ones can be made at once."""
        for link in [link for link in self.links if site in ("", link.site)]:
            link.cut()

    def heal(self, site: str = "") -> None:
        """Undo :meth:`partition` for ``site``, or for every site if it is empty."""
        for parted in (self._cut, self._silent):
            parted.clear() if site == "" else parted.discard(site)

    def is_silent(self, site: str) -> bool:
        """Return whether frames of ``site`` vanish."""
        return bool({site, ""} & self._silent)


class MemoryTransport:
    """A :class:`atoma.ports.Transport` over a :class:`MemoryNetwork`.

    Args:
        network: The network.
        token: Bearer token, sent in the first frame.
        name: The transport's name; its node is ``remote-<name>``.
        site: Name of this end, for :meth:`MemoryNetwork.partition`.
        faults: Decides about every frame, instead of the network's hook.
        limits: Limits of this end.
    """

    def __init__(
        self,
        network: MemoryNetwork,
        *,
        token: Token = "",
        name: str = "memory",
        site: str = "client",
        faults: FaultHook | None = None,
        limits: ChannelLimits | None = None,
    ) -> None:
        self._network = network
        self._token = check_token(token)
        self._name = name
        self._site = site
        self._faults = faults
        self._limits = limits or ChannelLimits()

    @property
    def name(self) -> str:
        """The transport's short name; the node is called ``remote-<name>``."""
        return self._name

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        """See :class:`atoma.ports.Transport`."""
        pipe = await self._network.connect(self._site, self._faults)
        async with open_channel(pipe, token=self._token, limits=self._limits) as channel:
            yield channel
