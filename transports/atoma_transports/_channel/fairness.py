"""What reading may take of the loop: one rule for every language that is spoken on a port.

A parser is given a bounded number of events at a time, then others run. The seconds that it takes are counted: a guest who
has taken more than :data:`GUEST_SHARE` of the last second waits, and so does a principal, over all its connections, beyond
:data:`KNOWN_SHARE`. A call that is taken earns what reading an honest call costs, so that whoever sends calls is not slowed
down, however many. Pieces that carry next to nothing have a bound of their own.

The seconds are those of Trio's clock, so a test can hold them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from atoma.errors import ProtocolError
from atoma.ports.principals import PerPrincipal
from atoma.ports.rate import Meter

TURN_EVENTS = 100
"""Events that a parser may give before others run; one or two milliseconds."""
TINY_BYTES = 16
"""A chunk, fragment, frame of data or opened window of less carries next to nothing; so does a control frame."""
TINY_PER_S = 1_000
GUEST_SHARE = 0.02
GUESTS_SHARE = 0.1
"""Of a core, for all guests together who are over their own share."""
KNOWN_SHARE = 0.1
TURN_S_MAX = 0.005
"""A turn that took longer was held up by another program, which is nobody's fault."""
CALL_S = 0.0002
BYTE_S = 2e-8
"""What a call that is taken, and each of its bytes, earns."""


class TinyPieces(ProtocolError):
    """The peer sends pieces that carry next to nothing, without end."""

    def __init__(self) -> None:
        super().__init__(f"more than {TINY_PER_S:,} pieces of less than {TINY_BYTES} bytes in a second")


@dataclass(slots=True, eq=False)
class Owner:
    """What belongs to one principal.

    Attributes:
        permit: Held while a large request of theirs is read.
        seconds: What reading their requests takes.
        turns: Whoever of their connections is over the share waits in it, one after the other.
    """

    permit: trio.Lock = field(default_factory=trio.Lock)
    seconds: Meter = field(default_factory=lambda: Meter(KNOWN_SHARE))
    turns: trio.Lock = field(default_factory=trio.Lock)

    @property
    def idle(self) -> bool:
        """Whether it is as good as a fresh one."""
        return not (self.permit.locked() or self.turns.locked() or self.seconds.debt_s())


class Fairness:
    """Who reads on one port."""

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


class Share:
    """What reading one connection may take; a guest's until :meth:`admit`."""

    def __init__(self, fairness: Fairness) -> None:
        self._fairness = fairness
        self._owner = fairness.guests
        self._own: Meter | None = Meter(GUEST_SHARE)
        self._tiny = Meter(TINY_PER_S)

    def admit(self, subject: str) -> None:
        """Count for the principal ``subject`` from now on."""
        self._own = None
        self._owner = self._fairness.of(subject)

    def took(self, began: float) -> None:
        """Note that a turn took the time since ``began``, on Trio's clock."""
        seconds = min(TURN_S_MAX, trio.current_time() - began)
        self._owner.seconds.count(seconds)
        if self._own is not None:
            self._own.count(seconds)

    def earned(self, size: int) -> None:
        """Note that a call whose request has ``size`` bytes was taken."""
        if self._own is None:
            self._owner.seconds.count(-(CALL_S + size * BYTE_S))

    def piece(self, size: int) -> None:
        """Note that a piece came that carries ``size`` bytes.

        Raises:
            TinyPieces: Too many carry next to nothing.
        """
        if size < TINY_BYTES:
            self._tiny.count(1)
            if self._tiny.debt_s():
                raise TinyPieces

    @property
    def over(self) -> bool:
        """Whether it has to wait before it goes on."""
        meter = self._owner.seconds if self._own is None else self._own
        return meter.debt_s() > 0

    async def turn(self) -> None:
        """Let others run; wait while the share is used up."""
        if not self.over:
            await trio.lowlevel.checkpoint()
            return
        if self._own is not None:
            await trio.sleep(self._own.debt_s())
        owner = self._owner
        async with owner.turns:
            await trio.sleep(owner.seconds.debt_s())
