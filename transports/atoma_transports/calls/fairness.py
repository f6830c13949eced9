"""The share that one peer may have of a port: one rule for every protocol that is spoken on it.

*The loop.* A parser is given a bounded number of events at a time, then others run. The seconds that parsing and decoding
take are counted: a guest that has taken more than :data:`GUEST_SHARE` of the last second waits, and so does a principal
beyond :data:`KNOWN_SHARE`, over all its connections. Only one of all guests is read in each pass of the loop, so that
the others do not wait longer when many guests arrive at once. A call that is accepted earns back what reading an honest
call costs, so that a client is not slowed down for sending calls, however many.

*The line.* Bytes are counted against ``bytes_per_s``, and each request, chunk, fragment and frame as at least
:data:`UNIT_BYTES`, because the cost depends on their number. Pieces that carry next to nothing have their own bound.

*Memory.* The memory for requests and answers is one account for all connections of a principal; see
:mod:`atoma_transports.calls.memory`.

*Connections.* A principal has ``ChannelLimits.connections`` of them on a port, over all protocols.

The seconds are those of Trio's clock, so a test can control them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field

import trio

from atoma.errors import ProtocolError, RemoteError
from atoma.ports import Peer
from atoma.ports.principals import PerPrincipal
from atoma.ports.rate import PAUSE_S, Meter
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.calls.memory import Holding, Memory

TURN_EVENTS = 100
"""Number of events that a parser may produce before others run; one or two milliseconds."""
TINY_BYTES = 16
"""A chunk, fragment, data frame or window update of fewer bytes carries next to nothing; so does a control frame."""
TINY_PER_S = 1_000
UNIT_BYTES = 1024
"""The least number of bytes that a request, chunk, fragment or frame counts as: 16 thousand a second at 16 MiB/s."""
GUEST_SHARE = 0.02
GUESTS_SHARE = 0.1
"""The part of a core for all guests together that have exceeded their own share."""
KNOWN_SHARE = 0.1
TURN_S_MAX = 0.005
"""A turn that took longer was held up by another program, so no more than this is counted."""
DECODING_S_MAX = 0.02
"""The same for a step of decoding, which cannot be interrupted."""
CALL_S = 0.0002
BYTE_S = 2e-8
"""Seconds that an accepted call, and each of its bytes, earns back."""
RESTED_S = 1.0
"""Seconds after which an idle connection gives way to another one of its principal."""
AGAIN_S = 5.0
"""Seconds after which a client with too many connections may try again."""


class TinyPieces(ProtocolError):
    """An endless run of pieces from the peer that carry next to nothing."""

    def __init__(self) -> None:
        super().__init__(f"more than {TINY_PER_S:,} pieces of less than {TINY_BYTES} bytes in a second")


@dataclass(slots=True, eq=False)
class Owner:
    """The reads and connections that belong to one principal.

    Attributes:
        permit: Held while a large request of the principal is read.
        line: The queue of the guests that may go on.
        hall: The queue in front of ``line`` of guests that have asked for nothing yet; one of them at a time is in ``line``.
        seconds: The time that reading their requests takes.
        memory: The memory that their requests and answers take.
        connections: The number of connections they have.
        resting: The connections that only wait for a request, the one that has waited longest first.
    """

    permit: trio.Lock = field(default_factory=trio.Lock)
    line: trio.Lock = field(default_factory=trio.Lock)
    hall: trio.Lock = field(default_factory=trio.Lock)
    seconds: Meter = field(default_factory=lambda: Meter(KNOWN_SHARE))
    memory: Memory = field(default_factory=Memory)
    connections: int = 0
    resting: dict[Share, float] = field(default_factory=dict["Share", float])

    @property
    def idle(self) -> bool:
        """Whether it is no different from a new one."""
        return not (self.connections or self.permit.locked() or self.memory.held or self.seconds.debt_s())

    def make_room(self, most: int) -> None:
        """Make room for one more connection among ``most``; one that has been idle gives way to it.

        Raises:
            RemoteError: ``OVERLOADED``: there are that many, and all of them are in use.
        """
        if self.connections < most:
            return
        rested = next(iter(self.resting), None)
        if rested is None or trio.current_time() - self.resting[rested] < RESTED_S:
            text = f"you have {most} connections to this server, which is the limit: close or share one"
            raise RemoteError(text, remote_code="OVERLOADED", retry_after_s=AGAIN_S)
        rested.give_way()


class Fairness:
    """The shares of all peers on one port."""

    def __init__(self) -> None:
        self._guests: Owner | None = None  # made on a running loop
        self._owners = PerPrincipal(Owner, lambda owner: owner.idle)

    @property
    def guests(self) -> Owner:
        """The share that all guests over their own share have together."""
        if self._guests is None:
            self._guests = Owner(seconds=Meter(GUESTS_SHARE))
        return self._guests

    async def guest_turn(self, *, asks: bool) -> None:
        """Wait for the turn of a guest: one continues in each pass of the loop, and those that ask for something come first."""
        guests = self.guests
        if asks:
            async with guests.line:
                pass
        else:
            async with guests.hall, guests.line:
                pass

    def of(self, subject: str) -> Owner:
        """Return the reads and connections of the principal ``subject``."""
        return self._owners.of(subject)

    @contextmanager
    def connection(self, limits: ChannelLimits, peer: Peer) -> Generator[Share]:
        """Open the share of one connection for the block; bytes from this machine are not counted."""
        share = Share(self, limits)
        share.comes_from(peer)
        try:
            yield share
        finally:
            share.leave()


class Share:
    """The share of one connection, which is a guest's until :meth:`admit`; made by :meth:`Fairness.connection`."""

    def __init__(self, fairness: Fairness, limits: ChannelLimits) -> None:
        self._fairness = fairness
        self._limits = limits
        self._owner = fairness.guests
        self._subject: str | None = None
        self._own: Meter | None = Meter(GUEST_SHARE)
        self._tiny = Meter(TINY_PER_S)
        self._bytes: Meter | None = None
        self._fresh = 0  # bytes that have arrived, and do not count against the request they carry
        self._end: Callable[[], None] | None = None
        self._holding = Holding(limits.memory_bytes)

    # ------------------------------------------------------------------ its principal

    def admit(self, subject: str) -> None:
        """Count towards the principal ``subject`` from now on, and towards nobody else.

        Raises:
            RemoteError: ``OVERLOADED``: the principal has as many connections as it may have.
        """
        if subject == self._subject:
            return
        owner = self._fairness.of(subject)
        owner.make_room(self._limits.connections)
        held = self._holding.sizes()
        self.leave()
        self._subject, self._owner, self._own = subject, owner, None
        owner.connections += 1
        self.hold(**held)

    def leave(self) -> None:
        """Leave the principal and hold nothing any more; the time for reading keeps counting towards the principal."""
        self._owner.memory.drop(self._holding)
        if self._subject is not None:
            self._subject = None
            self._owner.connections -= 1
            self._owner.resting.pop(self, None)

    def comes_from(self, peer: Peer) -> None:
        """Count bytes from now on if ``peer``, whose requests a proxy may forward, is on another machine."""
        if self._bytes is None and not peer.loopback and self._limits.bytes_per_s:
            self._bytes = Meter(self._limits.bytes_per_s)

    @property
    def permit(self) -> trio.Lock:
        """The lock that is held while a large request is read; there is one for each principal."""
        return self._owner.permit

    def rest(self, end: Callable[[], None]) -> None:
        """Note that the connection waits for a request; ``end`` closes it when another one needs the place."""
        if self._subject is not None:
            self._end = end
            self._owner.resting[self] = trio.current_time()

    def work(self) -> None:
        """Note that the connection no longer waits."""
        if self._end is not None:
            self._end = None
            self._owner.resting.pop(self, None)

    def give_way(self) -> None:
        """End the connection, which is idle."""
        assert self._end is not None
        self.leave()
        self._end()

    # ------------------------------------------------------------------ its memory

    def ends_by(self, end: Callable[[], None]) -> None:
        """Set ``end``, which is called when nothing moves on the connection and it has to give way."""
        self._holding.end = end

    def hold(self, *, parts: int = 0, unread: int = 0, requests: int = 0, answers: int = 0) -> None:
        """Note that it holds so many bytes more, or less; the kinds are those of :class:`Holding`."""
        memory = self._owner.memory
        memory.count(self._holding, parts=parts, unread=unread, requests=requests, answers=answers)

    def moved(self) -> None:
        """Note that the peer has taken a piece of an answer."""
        self._holding.sent_at = trio.current_time()

    def fits(self, size: int) -> bool:
        """Whether an answer of ``size`` bytes may be held."""
        return self._owner.memory.fits(self._holding, size)

    async def read_on(self) -> float:
        """Wait until there is room for more of a request, and return how many seconds that took.

        This is not a checkpoint when there is room.
        """
        return await self._owner.memory.read_on(self._holding)

    async def take_request(self) -> None:
        """Wait until there is room for an unread request; this is not a checkpoint when there is."""
        await self._owner.memory.take_request(self._holding)

    def make_answer(self, size: int) -> AbstractAsyncContextManager[None]:
        """Wait until there is room for an answer of ``size`` bytes; no other waiting task takes it during the block."""
        return self._owner.memory.make_answer(self._holding, size)

    # ------------------------------------------------------------------ its time and its bytes

    def took(self, began: float, at_most: float = TURN_S_MAX) -> None:
        """Note that a turn took the time since ``began``, on Trio's clock, counted up to ``at_most`` seconds."""
        seconds = min(at_most, trio.current_time() - began)
        self._owner.seconds.count(seconds)
        if self._own is not None:
            self._own.count(seconds)

    def earned(self, size: int, calls: int = 1) -> None:
        """Note that a request of ``size`` bytes with so many calls in it was accepted."""
        if self._own is None:
            self._owner.seconds.count(-(calls * CALL_S + size * BYTE_S))

    def came(self, size: int) -> None:
        """Note that ``size`` bytes arrived; they count from the next :meth:`is_over` or :meth:`turn`."""
        self._fresh += size

    def unit(self, size: int) -> None:
        """Note that ``size`` of the bytes that arrived are a request, chunk, fragment or frame."""
        if size < UNIT_BYTES:
            self._fresh += UNIT_BYTES - size

    def piece(self, size: int) -> None:
        """Note a unit that is only a part of something, or has no content.

        Raises:
            TinyPieces: Too many of them carry next to nothing.
        """
        self.unit(size)
        if size < TINY_BYTES:
            self._tiny.count(1)
            if self._tiny.debt_s():
                raise TinyPieces

    def check_rate(self) -> None:
        """Check that a call may be accepted.

        Raises:
            RemoteError: ``RATE_LIMITED``: more bytes have arrived than a short wait makes up for.
        """
        if self._bytes is not None and (debt_s := self._bytes.debt_s()) > PAUSE_S:
            text = f"more than {self._limits.bytes_per_s} bytes per second arrived on one connection"
            raise RemoteError(text, remote_code="RATE_LIMITED", retry_after_s=debt_s)

    def is_over(self) -> bool:
        """Whether the connection has to wait before more is read, as guests always do; to be checked before every read."""
        return self._owes_bytes() or self._late_s() > 0 or self._own is not None

    def _owes_bytes(self) -> bool:
        fresh, self._fresh = self._fresh, 0
        if self._bytes is None:
            return False
        self._bytes.count(fresh)
        return self._bytes.debt_s() > 0

    def _late_s(self) -> float:
        meter = self._owner.seconds if self._own is None else self._own
        return meter.debt_s()

    async def turn(self) -> None:
        """Let others run; wait while the share is used up, and for a moment while too many bytes have arrived.

        Only one of all guests continues in each pass of the loop, even of those within their own share.
        """
        holding = self._holding
        holding.came_at = math.inf  # the peer is not the one that delays what comes next
        try:
            await self._wait_its_turn()
        finally:
            holding.came_at = trio.current_time()

    async def _wait_its_turn(self) -> None:
        if self._owes_bytes():
            assert self._bytes is not None
            await self._bytes.pause()
        elif self._own is None and not self._late_s():
            await trio.lowlevel.checkpoint()
        if self._late_s():
            if self._own is not None:
                await trio.sleep(self._own.debt_s())
            # the turns of the others make this longer, so that they continue one after the other
            await trio.sleep(self._owner.seconds.debt_s())
        if self._own is not None:
            await self._fairness.guest_turn(asks=True)  # at least a checkpoint
