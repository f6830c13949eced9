"""Who has a place on a port: the known, and a small number of guests who have not shown who they are."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

import trio

from atoma.errors import RemoteError
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.dialing.addresses import is_loopback
from atoma_transports.serving.crowds import Crowds

KNOWN_MAX = 5000
GUESTS_MAX = 500
"""Places of guests; half of them are for those who have asked for something, as long as there are any."""
PER_ADDRESS_MAX = 1000
"""Places of the known that one address may have; this machine, when no declared proxy is on it, may have all."""
GOODBYES_MAX = 200
"""Guests who are sent a reason at the same time as they are asked to go; on further ones the server hangs up."""
AGAIN_S = 5.0


class ConnectionSlots:
    """The places of one port.

    A connection begins as a guest's and becomes a known one with its first call whose token is good. When guests are
    too many, one has to go: of those who have asked for nothing, as long as these have more than half the places, otherwise of
    those who have; from the address with the most of them, the one that has been there longest.
    So whoever comes with a token finds a place, however many come without, and nobody takes the place of the known.

    Args:
        limits: ``handshake_s`` is how long a guest may stay, ``close_s`` how long goodbyes take.
    """

    def __init__(self, limits: ChannelLimits) -> None:
        self.guest_s = limits.handshake_s
        self.goodbye_s = 2 * limits.close_s
        self._known = 0
        self._known_from: Counter[str] = Counter()
        self._silent: Crowds[ConnectionSlot] = Crowds()
        self._asking: Crowds[ConnectionSlot] = Crowds()
        self._asked_to_go = 0

    @property
    def full(self) -> bool:
        """Whether one more guest means that another one has to go."""
        return len(self._silent) + len(self._asking) >= GUESTS_MAX

    @contextmanager
    def enter(self, address: str, *, proxy: bool = False) -> Generator[ConnectionSlot]:
        """A guest's place for a connection from ``address``, where a declared ``proxy`` may be."""
        place = ConnectionSlot(self, address, proxy=proxy)
        self.seat(place)
        try:
            yield place
        finally:
            self.free(place)
            self._asked_to_go -= place.unwanted

    def seat(self, place: ConnectionSlot) -> None:
        """Give ``place`` to a guest; when there are too many, one has to go."""
        if self.full:
            self._make_room(place)
        self._crowds_of(place).add(place.share, place)
        place.state = "guest"

    def _make_room(self, place: ConnectionSlot) -> None:
        silent = len(self._silent) + (not place.asks)
        crowds = self._silent if self._silent and (silent > GUESTS_MAX // 2 or not self._asking) else self._asking
        self._ask_to_go(crowds.surplus())

    def _crowds_of(self, place: ConnectionSlot) -> Crowds[ConnectionSlot]:
        return self._asking if place.asks else self._silent

    def hear(self, place: ConnectionSlot) -> None:
        """Note that ``place`` has asked for something."""
        if place.state == "guest":
            self._silent.remove(place.share, place)
            self._asking.add(place.share, place)

    def dismiss_silent(self) -> None:
        """Have everybody go who has asked for nothing: nobody waits for an answer."""
        for place in self._silent.everybody():
            place.dismiss()

    def free(self, place: ConnectionSlot) -> None:
        """Take ``place`` back."""
        if place.state == "guest":
            self._crowds_of(place).remove(place.share, place)
        elif place.state == "known":
            self._known -= 1
            self._known_from[place.share] -= 1
            if not self._known_from[place.share]:
                del self._known_from[place.share]
        place.state = "gone"

    def _ask_to_go(self, place: ConnectionSlot) -> None:
        self.free(place)
        place.unwanted = True
        place.has_words = self._asked_to_go < GOODBYES_MAX
        self._asked_to_go += 1
        place.dismiss()

    def has_room(self, place: ConnectionSlot) -> bool:
        """Whether ``place`` could become a known one."""
        if place.state == "known":
            return True
        alone = not place.shared and is_loopback(place.address)
        return self._known < KNOWN_MAX and (alone or self._known_from[place.share] < PER_ADDRESS_MAX)

    def promote(self, place: ConnectionSlot) -> None:
        """Make a guest's ``place`` a known one."""
        self.free(place)
        self._known += 1
        self._known_from[place.share] += 1
        place.state = "known"


class ConnectionSlot:
    """The place of one connection.

    Attributes:
        asks: Whether whoever is at the other end has asked for something.
        polite: Whether somebody waits for the moment to say goodbye.
        scope: What is done for the connection runs in it; it ends a guest who stays too long, or has to go, with or
            without a goodbye.
        address: Whom the place counts for.
        shared: Whether a declared proxy is at the other end, which passes on what many ask.
        state: ``guest``, ``known`` or ``gone``.
        unwanted: Whether it had to be given to somebody else.
        has_words: Whether there is time for a goodbye then.
        spoken: Whether something has been sent to the other end.
    """

    __slots__ = (
        "_patience", "_places", "_until", "address", "asks", "has_words", "polite", "scope", "share", "shared", "spoken", "state",
        "unwanted",
    )  # fmt: skip

    def __init__(self, places: ConnectionSlots, address: str, *, proxy: bool) -> None:
        self._places = places
        self.address = address
        self.share = share_of(address)
        self.shared = proxy
        self.state = "gone"
        self.unwanted = False
        self.has_words = False
        self.spoken = False
        self.polite = False
        self.asks = False
        self._until = math.inf
        self._patience: trio.CancelScope | None = None
        self.scope = trio.CancelScope()
        self._stay(places.guest_s)

    def _stay(self, seconds: float) -> None:
        self._until = trio.current_time() + seconds
        if self._patience is not None:
            self._patience.deadline = self._until
        self.scope.deadline = self._until + self._places.goodbye_s

    @contextmanager
    def until_goodbye(self) -> Generator[trio.CancelScope]:
        """Wait in the block for the moment to say goodbye, which ends it; one block after the other."""
        self.polite = True
        self._patience = trio.CancelScope(deadline=self._until)
        with self._patience as scope:
            yield scope

    def speak(self) -> None:
        """Note that whoever is at the other end has asked for something: those who have not go first."""
        if not self.asks:
            self._places.hear(self)
            self.asks = True

    def dismiss(self) -> None:
        """End the connection now: with a goodbye where somebody waits to say one, and there is time for that."""
        if self.polite and (self.has_words or not self.unwanted):
            self._stay(0.0)
        else:
            self.scope.cancel()

    @classmethod
    def alone(cls) -> ConnectionSlot:
        """A place where nobody else wants one: for what is served without a port."""
        places = ConnectionSlots(ChannelLimits())
        place = cls(places, "", proxy=False)
        places.seat(place)
        return place

    @property
    def has_room(self) -> bool:
        """Whether a good token would be enough to stay."""
        return self._places.has_room(self)

    def accept(self) -> None:
        """Let the connection stay: who is at its other end has shown who they are.

        Raises:
            RemoteError: ``OVERLOADED``: the places of the known are taken, or those for this address.
        """
        if self.state != "guest":
            return
        if not self.has_room:
            text = "this server has no room for another connection"
            raise RemoteError(text, remote_code="OVERLOADED", retry_after_s=AGAIN_S)
        self._places.promote(self)
        self._stay(math.inf)

    def turn_to(self, address: str, *, patient: bool = False) -> None:
        """Count the place for ``address``, whose request a declared proxy passes on.

        Args:
            address: Who made the request.
            patient: Let the connection stay, known or not: the proxy uses it for one request after the other.
        """
        if not self.shared or self.state == "gone" or (address == self.address and self.state == "known" and patient):
            return
        self._places.free(self)
        self.address, self.share = address, share_of(address)
        self._places.seat(self)
        self._stay(math.inf if patient else self._places.guest_s)

    @contextmanager
    def visited(self) -> Generator[None]:
        """Let a guest stay while a page is shown to them."""
        if self.state == "guest":
            self._stay(math.inf)
        try:
            yield
        finally:
            if self.state == "guest" and not self.shared:
                self._stay(self._places.guest_s)


def share_of(address: str) -> str:
    """What ``address`` is counted as: one customer of IPv6 has a whole network of them."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
