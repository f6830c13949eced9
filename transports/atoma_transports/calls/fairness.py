"""What one peer may take of a port: one rule for every language that is spoken on it.

*The loop.* A parser is given a bounded number of events at a time, then others run. The seconds that it takes, and those of
decoding, are counted: a guest who has taken more than :data:`GUEST_SHARE` of the last second waits, and so does a
principal, over all its connections, beyond :data:`KNOWN_SHARE`. Of all guests one is read on in a pass of the loop, so that
others wait no longer when many come at once. A call that is taken earns what reading an honest call costs, so that whoever
sends calls is not slowed down, however many.

*The line.* Bytes are counted against ``bytes_per_s``, and each request, chunk, fragment and frame as :data:`UNIT_BYTES` at
least: what it costs here goes by their number. Pieces that carry next to nothing have a bound of their own.

*Memory.* What requests and answers take is one account for all connections of a principal; see
:mod:`atoma_transports.calls.memory`.

*Connections.* A principal has ``ChannelLimits.connections`` of them on a port, whatever is spoken on them.

The seconds are those of Trio's clock, so a test can hold them.
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
"""Events that a parser may give before others run; one or two milliseconds."""
TINY_BYTES = 16
"""A chunk, fragment, frame of data or opened window of less carries next to nothing; so does a control frame."""
TINY_PER_S = 1_000
UNIT_BYTES = 1024
"""As so many bytes a request, chunk, fragment or frame of less is counted: 16 thousand of them in a second at 16 MiB/s."""
GUEST_SHARE = 0.02
GUESTS_SHARE = 0.1
"""Of a core, for all guests together who are over their own share."""
KNOWN_SHARE = 0.1
TURN_S_MAX = 0.005
"""A turn that took longer was held up by another program, which is nobody's fault."""
DECODING_S_MAX = 0.02
"""The same of a step of decoding, which nothing interrupts."""
CALL_S = 0.0002
BYTE_S = 2e-8
"""What a call that is taken, and each of its bytes, earns."""
RESTED_S = 1.0
"""A kept connection that has waited for a request for so long gives way to another one of its principal."""
AGAIN_S = 5.0
"""When somebody with too many connections may try again."""


class TinyPieces(ProtocolError):
    """The peer sends pieces that carry next to nothing, without end."""

    def __init__(self) -> None:
        super().__init__(f"more than {TINY_PER_S:,} pieces of less than {TINY_BYTES} bytes in a second")


@dataclass(slots=True, eq=False)
class Owner:
    """The reads and connections that belong to one principal.

    Attributes:
        permit: Held while a large request of theirs is read.
        line: Where guests stand who may go on.
        seconds: What reading their requests takes.
        memory: What their requests and answers take.
        connections: How many they have.
        resting: Those of them that only wait for a request, the one that has waited longest first.
    """

    permit: trio.Lock = field(default_factory=trio.Lock)
    line: trio.Lock = field(default_factory=trio.Lock)
    seconds: Meter = field(default_factory=lambda: Meter(KNOWN_SHARE))
    memory: Memory = field(default_factory=Memory)
    connections: int = 0
    resting: dict[Share, float] = field(default_factory=dict["Share", float])

    @property
    def idle(self) -> bool:
        """Whether it is as good as a fresh one."""
        return not (self.connections or self.permit.locked() or self.memory.held or self.seconds.debt_s())

    def make_room(self, most: int) -> None:
        """See that one more connection has a place among ``most``; one that has rested gives way to it.

        Raises:
            RemoteError: ``OVERLOADED``: there are that many, and all are in use.
        """
        if self.connections < most:
            return
        rested = next(iter(self.resting), None)
        if rested is None or trio.current_time() - self.resting[rested] < RESTED_S:
            text = f"you have {most} connections to this server, which is the limit: close or share one"
            raise RemoteError(text, remote_code="OVERLOADED", retry_after_s=AGAIN_S)
        rested.give_way()


class Fairness:
    """The order in which those on one port are read."""

    def __init__(self) -> None:
        self._guests: Owner | None = None  # made on a running loop
        self._owners = PerPrincipal(Owner, lambda owner: owner.idle)

    @property
    def guests(self) -> Owner:
        """What the guests have together who are over their own share."""
        if self._guests is None:
            self._guests = Owner(seconds=Meter(GUESTS_SHARE))
        return self._guests

    def of(self, subject: str) -> Owner:
        """What belongs to the principal ``subject``."""
        return self._owners.of(subject)

    @contextmanager
    def connection(self, limits: ChannelLimits, peer: Peer) -> Generator[Share]:
        """What one connection may take, as long as the block runs; on this machine, bytes are not counted."""
        share = Share(self, limits)
        share.comes_from(peer)
        try:
            yield share
        finally:
            share.leave()


class Share:
    """The share of one connection; a guest's until :meth:`admit`. Made by :meth:`Fairness.connection`."""

    def __init__(self, fairness: Fairness, limits: ChannelLimits) -> None:
        self._fairness = fairness
        self._limits = limits
        self._owner = fairness.guests
        self._subject: str | None = None
        self._own: Meter | None = Meter(GUEST_SHARE)
        self._tiny = Meter(TINY_PER_S)
        self._bytes: Meter | None = None
        self._fresh = 0  # bytes that have come, and do not count against what they bring
        self._end: Callable[[], None] | None = None
        self._holding = Holding(limits.memory_bytes)

    # ------------------------------------------------------------------ whose it is

    def admit(self, subject: str) -> None:
        """Count for the principal ``subject`` from now on, and for nobody else.

        Raises:
            RemoteError: ``OVERLOADED``: they have as many connections as they may.
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
        """Be nobody's connection any more, and hold nothing; what reading takes goes on counting for whom it did."""
        self._owner.memory.drop(self._holding)
        if self._subject is not None:
            self._subject = None
            self._owner.connections -= 1
            self._owner.resting.pop(self, None)

    def comes_from(self, peer: Peer) -> None:
        """Count bytes from now on if ``peer``, for whom somebody may pass a request on, is on another machine."""
        if self._bytes is None and not peer.loopback and self._limits.bytes_per_s:
            self._bytes = Meter(self._limits.bytes_per_s)

    @property
    def permit(self) -> trio.Lock:
        """Held while a large request is read; its principal has it once."""
        return self._owner.permit

    def rest(self, end: Callable[[], None]) -> None:
        """Note that the connection waits for a request; ``end`` ends it when another one needs the place."""
        if self._subject is not None:
            self._end = end
            self._owner.resting[self] = trio.current_time()

    def work(self) -> None:
        """Note that it does not wait any more."""
        if self._end is not None:
            self._end = None
            self._owner.resting.pop(self, None)

    def give_way(self) -> None:
        """End the connection, which rests."""
        assert self._end is not None
        self.leave()
        self._end()

    # ------------------------------------------------------------------ what it holds

    def ends_by(self, end: Callable[[], None]) -> None:
        """Have ``end`` called when nothing moves on the connection, and it has to give way."""
        self._holding.end = end

    def hold(self, *, parts: int = 0, unread: int = 0, requests: int = 0, answers: int = 0) -> None:
        """Note that it holds so many bytes more, or less: of what :class:`Holding` names."""
        memory = self._owner.memory
        memory.count(self._holding, parts=parts, unread=unread, requests=requests, answers=answers)

    def moved(self) -> None:
        """Note that the peer has taken a piece of an answer."""
        self._holding.sent_at = trio.current_time()

    def fits(self, size: int) -> bool:
        """Whether an answer of ``size`` bytes may be held."""
        return self._owner.memory.fits(self._holding, size)

    async def read_on(self) -> float:
        """Wait until there is room for more of a request; for how long, in seconds. No checkpoint when there is."""
        return await self._owner.memory.read_on(self._holding)

    async def take_request(self) -> None:
        """Wait until there is room for a request that has not been read yet. No checkpoint when there is."""
        await self._owner.memory.take_request(self._holding)

    def make_answer(self, size: int) -> AbstractAsyncContextManager[None]:
        """Wait until there is room for an answer of ``size`` bytes, which nobody else who waits takes during the block."""
        return self._owner.memory.make_answer(self._holding, size)

    # ------------------------------------------------------------------ what it takes

    def took(self, began: float, at_most: float = TURN_S_MAX) -> None:
        """Note that a turn took the time since ``began``, on Trio's clock."""
        seconds = min(at_most, trio.current_time() - began)
        self._owner.seconds.count(seconds)
        if self._own is not None:
            self._own.count(seconds)

    def earned(self, size: int, calls: int = 1) -> None:
        """Note that a request of ``size`` bytes was taken, with so many calls in it."""
        if self._own is None:
            self._owner.seconds.count(-(calls * CALL_S + size * BYTE_S))

    def came(self, size: int) -> None:
        """Note that ``size`` bytes came; they count from :meth:`is_over` or :meth:`turn` on."""
        self._fresh += size

    def unit(self, size: int) -> None:
        """Note that ``size`` of the bytes that came are a request, chunk, fragment or frame."""
        if size < UNIT_BYTES:
            self._fresh += UNIT_BYTES - size

    def piece(self, size: int) -> None:
        """Note a unit that is a part of something, or says nothing.

        Raises:
            TinyPieces: Too many carry next to nothing.
        """
        self.unit(size)
        if size < TINY_BYTES:
            self._tiny.count(1)
            if self._tiny.debt_s():
                raise TinyPieces

    def check_rate(self) -> None:
        """See that a call may be taken.

        Raises:
            RemoteError: ``RATE_LIMITED``: more bytes came before it than waiting a moment makes good.
        """
        if self._bytes is not None and (debt_s := self._bytes.debt_s()) > PAUSE_S:
            text = f"more than {self._limits.bytes_per_s} bytes per second arrived on one connection"
            raise RemoteError(text, remote_code="RATE_LIMITED", retry_after_s=debt_s)

    def is_over(self) -> bool:
        """Whether it has to wait before more is read, as guests always have; to be asked before anything is."""
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
        """Let others run; wait while the share is used up, and a moment while too many bytes have come.

        Of all guests one goes on in each pass of the loop, those within their own share included.
        """
        holding = self._holding
        holding.came_at = math.inf  # it is not the peer that waits with what comes next
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
            # the turns of the others make this longer, so that one goes on after the other
            await trio.sleep(self._owner.seconds.debt_s())
        if self._own is not None:
            async with self._owner.line:  # a checkpoint at least
                pass  # whoever is next goes on in the next pass
