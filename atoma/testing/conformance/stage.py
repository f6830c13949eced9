"""Where a check of a transport plays: a tiny hub that is served, a transport towards it, and ways to disturb both."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio

from atoma.contracts.execution import ResolveRequest, WriteRequest
from atoma.contracts.mutations import Op
from atoma.contracts.sync import Cursor, Mutation, NotifyRequest, PullRequest, PushRequest
from atoma.ports import Channel, ServiceHost, SyncService, Transport
from atoma.testing.conformance.checks import CheckTable, NotChecked, expect_equal, open_background, until
from atoma.testing.conformance.hosts import TOKEN, TinyHub
from atoma.testing.conformance.notes import CONTEXT, unit
from atoma.testing.conformance.sites import Faults, Ground, PipeGround, TransportSite
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames import MessagePipe

VIRTUAL_LIMITS = ChannelLimits(ping_s=0.5, pong_s=1.0, slow_s=1.5, handshake_s=3.0, calls=250)
REAL_LIMITS = ChannelLimits(ping_s=0.4, pong_s=1.5, slow_s=1.5, handshake_s=2.5, calls=250)
"""The same with room for a busy machine."""


@dataclass
class Stage:
    """A tiny hub behind the transport under test.

    Attributes:
        hub: What answers, and remembers what it was asked.
        ground: What the author supplied, opened.
        limits: Bounds of both ends.
        virtual: Whether time is virtual, so that spans are exact.
    """

    ground: Ground
    limits: ChannelLimits
    virtual: bool
    nursery: trio.Nursery
    hub: TinyHub = field(default_factory=TinyHub)
    _stopping: trio.Event = field(default_factory=trio.Event)
    _stopped: trio.Event = field(default_factory=trio.Event)

    @property
    def faults(self) -> Faults:
        """What can be done to the road; the check is skipped when the site has nothing of the kind."""
        if self.ground.faults is None:
            raise NotChecked("the site has no faults")
        return self.ground.faults

    def transport(self, token: str = TOKEN, limits: ChannelLimits | None = None) -> Transport:
        """The transport under test."""
        return self.ground.transport(token, limits or self.limits)

    @asynccontextmanager
    async def channel(self, token: str = TOKEN, limits: ChannelLimits | None = None) -> AsyncGenerator[Channel]:
        """A connected channel."""
        async with self.transport(token, limits).connect() as channel:
            yield channel

    @asynccontextmanager
    async def service(self, token: str = TOKEN, limits: ChannelLimits | None = None) -> AsyncGenerator[SyncService]:
        """The hub's service, called over a connected channel."""
        async with self.channel(token, limits) as channel:
            yield ServiceProxy(channel)

    def open_pipe(self) -> AbstractAsyncContextManager[MessagePipe]:
        """A bare pipe; the check is skipped when the ground opens none."""
        if not isinstance(self.ground, PipeGround):
            raise NotChecked("the ground has no open_pipe")
        return self.ground.open_pipe()

    async def start(self) -> None:
        """Serve the hub."""
        self._stopping, self._stopped = trio.Event(), trio.Event()
        await self.nursery.start(self._serve, self.hub)

    async def stop(self) -> None:
        """Let the server drain and end."""
        self._stopping.set()
        await self._stopped.wait()

    async def _serve(self, host: ServiceHost, task_status: trio.TaskStatus[None]) -> None:
        async with self.ground.serve(host):
            task_status.started()
            await self._stopping.wait()
        self._stopped.set()

    async def until(self, condition: Callable[[], object], what: str, seconds: float = 1.0) -> None:
        """Fail the check unless ``condition`` comes to hold: within ``seconds`` of virtual time, thirty times as many real ones."""
        await until(condition, what, seconds if self.virtual else 30 * seconds)

    async def idle(self) -> None:
        """Fail the check unless every handler ends."""
        await self.until(lambda: self.hub.active == 0, "the handlers did not end")

    async def check_answers(self, service: SyncService) -> None:
        """Fail the check unless a call on ``service`` is answered as ever."""
        self.hub.on_pull = trio.lowlevel.checkpoint
        expect_equal((await service.pull(pull())).head, 2, "the head that a further call got")


@asynccontextmanager
async def open_stage(site: TransportSite) -> AsyncGenerator[Stage]:
    """A stage on ``site`` with its server running."""
    limits = VIRTUAL_LIMITS if site.virtual else REAL_LIMITS
    async with site.open_site(limits) as ground, open_background() as nursery:
        stage = Stage(ground, limits, site.virtual, nursery)
        await stage.start()
        yield stage


def transport_table() -> CheckTable[TransportSite, Stage]:
    """An empty table of checks that play on a stage."""
    return CheckTable(open_stage)


# requests


def pull(size: int = 10, scope: str = "main") -> PullRequest:
    """A request for a text of ``size`` bytes."""
    return PullRequest(scope, Cursor(b"e", 1, b"h"), b"client", max_bytes=size)


def push(*bodies: bytes) -> PushRequest:
    """Mutations with these bodies, numbered from 1."""
    return PushRequest(b"c", 1, tuple(Mutation(mid, body, b"d") for mid, body in enumerate(bodies, 1)), b"")


def write(idem: str, *ids: str, text: str = "ß") -> WriteRequest:
    """Inserts of rows with these ids, under one key."""
    entries = tuple(Op("create", "notes", id, {"text": text, "blob": b"\x00"}, scope="main") for id in ids)
    return unit(idem, *entries)


def resolve(idem: str) -> ResolveRequest:
    """A question what became of a key."""
    return ResolveRequest(idem, CONTEXT)


NOTIFY = NotifyRequest(("main",))
