"""Presence: who is in which scope now. It exists in memory only: in no table, log or snapshot.

A change costs its room one entry; a task of the hub then hands what has changed to everybody in the room, at a pace at which all
rooms together stay within ``deliveries_per_s``. So a crowded room is told less often, and the loop is never busy with it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field

import trio

from atoma.contracts.presence import (
    LEASE_S,
    SESSION_BYTES,
    STATE_BYTES,
    AppearRequest,
    PresenceChange,
    PresenceRequest,
    Present,
)
from atoma.errors import ConfigurationError, RemoteError
from atoma.schema.kinds import INT64_MAX

ENTRIES_OF_AN_ITEM = 16
"""Entries that are as much work as the item that carries them."""
AGAIN_S = 5.0
"""When whoever finds no room may ask again."""


@dataclass(frozen=True, slots=True)
class PresenceLimits:
    """The limits of presence, in each process of a hub.

    Attributes:
        state_bytes: Maximum size of a state in bytes, as JSON in UTF-8.
        per_scope: Maximum number of sessions in a scope, those of other processes included.
        per_principal: Maximum number of sessions of one principal, in all scopes together.
        changes_per_s: Changes that a session may make per second; twice as many in a burst.
        deliveries_per_s: Items that are sent to clients per second, in all scopes together.
        lease_s: Seconds for which a session is still shown after its connection was lost.

    Raises:
        ConfigurationError: One of them is not a positive number.
    """

    state_bytes: int = STATE_BYTES
    per_scope: int = 200
    per_principal: int = 32
    changes_per_s: float = 10.0
    deliveries_per_s: float = 2_000.0
    lease_s: float = LEASE_S

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigurationError(f"PresenceLimits({name}=…) must be a positive number, not {value!r}")
        if self.state_bytes > STATE_BYTES:
            raise ConfigurationError(
                f"PresenceLimits(state_bytes=…) must be at most {STATE_BYTES}, not {self.state_bytes}"
            )


@dataclass(slots=True, eq=False)
class Member:
    """A session in a scope.

    Attributes:
        key: What others know it by.
        subject: Whose it is.
        number: Number of the state.
        state: What it says; None once it has left, which is remembered so that nothing late brings it back.
        until: When it is forgotten unless it gives a sign of life; never while its stream is open here.
        seat: Its stream, where that is open here.
        next_change: When its allowance of changes is whole again.
    """

    key: str
    subject: str
    number: int
    state: str | None
    until: float
    seat: Seat | None = None
    next_change: float = -math.inf

    @property
    def shown(self) -> Present | None:
        """What others see; None for nobody."""
        return None if self.state is None else Present(self.key, self.subject, self.state)


class Seat(AsyncIterator[PresenceChange]):
    """The stream of somebody who is there.

    Args:
        room: Where.
        key: Which of the members is told.
        check: Raises when the caller may not be told any more; asked before everything that is told, and every ``every_s``.
    """

    __slots__ = ("_changed", "_check", "_every_s", "_wake", "_whole", "key", "refused", "room")

    def __init__(self, room: Room, key: str, check: Callable[[], None], every_s: float) -> None:
        self.room, self.key = room, key
        self.refused = False
        self._check, self._every_s = check, every_s
        self._changed: dict[str, Present | None] = {}
        self._whole = True
        self._wake = trio.Event()

    def offer(self, changed: Iterable[Member]) -> None:
        """Note who has changed; what was noted before and not taken yet is replaced."""
        for member in changed:
            if member.key != self.key:
                self._changed[member.key] = member.shown
        if self._changed:
            self._wake.set()

    async def __anext__(self) -> PresenceChange:
        """What has changed, all of it; waits for something.

        Raises:
            RemoteError: ``PERMISSION_DENIED``: the caller may not read the scope any more.
        """
        while True:
            await self._wait()
            self._ask()
            if self._whole or self._changed:
                return self._take()

    async def _wait(self) -> None:
        """Wait until there may be something to tell, for a while at most."""
        if self._whole or self._changed:
            await trio.lowlevel.checkpoint()
            return
        self._wake = trio.Event()
        with trio.move_on_after(self._every_s):
            await self._wake.wait()

    def _take(self) -> PresenceChange:
        """What there is to tell, which is told with this."""
        if self._whole:
            here = [
                shown for member in self.room.members.values() if member.key != self.key and (shown := member.shown)
            ]
            self._whole = False
            self._changed = {}
            return PresenceChange(tuple(here), (), whole=True)
        changed, self._changed = self._changed, {}
        return PresenceChange(
            tuple([shown for shown in changed.values() if shown is not None]),
            tuple([key for key, shown in changed.items() if shown is None]),
        )

    def _ask(self) -> None:
        try:
            self._check()
        except RemoteError:
            self.refused = True
            raise


@dataclass(slots=True, eq=False)
class Room:
    """A scope in which somebody is, or was a moment ago.

    Attributes:
        scope: Its name.
        members: Who is there, by what others know them by; those who have left, for a while.
        seats: Whose streams are open here.
        changed: Who has changed since the seats were told.
    """

    scope: str
    members: dict[str, Member] = field(default_factory=dict[str, Member])
    seats: dict[Seat, None] = field(default_factory=dict["Seat", None])
    changed: dict[str, Member] = field(default_factory=dict[str, Member])

    @property
    def count(self) -> int:
        """How many are there."""
        return sum(member.state is not None for member in self.members.values())


class Rooms:
    """Every room of a hub's process.

    Args:
        limits: Bounds.

    Attributes:
        told: Called with each change that a client has made here, and with each room that has got its first seat: for the
            other processes.
        joined: See ``told``.
    """

    def __init__(self, limits: PresenceLimits) -> None:
        self.limits = limits
        self.told: Callable[[str, Member], None] = lambda scope, member: None
        self.joined: Callable[[str], None] = lambda scope: None
        self._rooms: dict[str, Room] = {}
        self._of_subject: dict[str, int] = {}
        self._dirty: dict[Room, None] = {}
        self._leases: dict[tuple[str, str], Member] = {}  # in the order in which they end: all are equally long
        self._wake = trio.Event()

    def enter(self, subject: str, request: PresenceRequest, check: Callable[[], None]) -> Seat:
        """Have somebody be in a scope.

        A stream of the same session that is still open, as after a loss that the hub has not noticed, is replaced.

        Raises:
            RemoteError: ``MALFORMED``, ``TOO_LARGE``, or ``OVERLOADED`` where there is no room.
        """
        key = self._key(subject, request)
        room = self._rooms.get(request.scope) or Room(request.scope)
        member = room.members.get(key)
        if member is None or member.state is None:
            self._check_room(room)
        if (member is None or member.seat is None) and self._of_subject.get(subject, 0) >= self.limits.per_principal:
            raise _full(f"{self.limits.per_principal} of your sessions are already present, which is the limit")
        if not room.seats:
            self._rooms[request.scope] = room
            self.joined(request.scope)
        if member is None:
            member = room.members[key] = Member(key, subject, 0, None, math.inf)
        if member.seat is None:
            self._of_subject[subject] = self._of_subject.get(subject, 0) + 1
        else:
            room.seats.pop(member.seat, None)
        seat = member.seat = Seat(room, key, check, self.limits.lease_s)
        room.seats[seat] = None
        member.until = math.inf
        self._leases.pop((room.scope, key), None)
        if request.number > member.number:
            self._say(room, member, request.number, request.state)
        return seat

    def leave(self, seat: Seat) -> None:
        """A stream has ended: its member stays for a lease, or goes now where the hub has refused it."""
        room = seat.room
        room.seats.pop(seat, None)
        member = room.members.get(seat.key)
        if member is None or member.seat is not seat:
            return  # another stream of the session has taken its place
        member.seat = None
        self._free(member)
        if seat.refused and member.state is not None:
            self._say(room, member, member.number, None)
        self._lease(room, member)

    def appear(self, subject: str, request: AppearRequest) -> bool:
        """Change what somebody says, or end it; False when nobody of that session is known here.

        Raises:
            RemoteError: ``MALFORMED``, ``TOO_LARGE``, or ``RATE_LIMITED``.
        """
        key = self._key(subject, request)
        room = self._rooms.get(request.scope)
        member = None if room is None else room.members.get(key)
        if room is None or member is None or member.state is None:
            return False
        if request.number > member.number:
            if request.state is not None:
                self._check_rate(member)
            self._say(room, member, request.number, request.state)
            if member.seat is None:
                self._lease(room, member)
        return True

    def hear(self, scope: str, key: str, subject: str, number: int, state: str | None) -> None:
        """Another process tells of a member; nobody is kept of scopes where nobody has a seat here.

        Of two states with one number the end counts: the hub gives none of its own to an end that it decides.
        """
        room = self._rooms.get(scope)
        if room is None or not room.seats:
            return
        member = room.members.get(key)
        if member is None:
            if state is not None and room.count >= self.limits.per_scope:
                return
            member = room.members[key] = Member(key, subject, 0, None, math.inf)
        if member.seat is None:
            self._lease(room, member)
        if number > member.number or (number == member.number and state is None):
            self._set(room, member, number, state)

    def seated(self, scope: str | None = None) -> Iterator[tuple[str, Member]]:
        """Members whose streams are open here, with their scopes: in ``scope``, or in all."""
        rooms = list(self._rooms.values()) if scope is None else [room for room in (self._rooms.get(scope),) if room]
        for room in rooms:
            for seat in room.seats:
                yield room.scope, room.members[seat.key]

    async def run(self) -> None:
        """Tell the seats what has changed, and forget whose lease has ended, until cancelled."""
        while True:
            if not self._dirty:
                self._wake = trio.Event()
                with trio.move_on_at(next((member.until for member in self._leases.values()), math.inf)):
                    await self._wake.wait()
            self._expire()
            if self._dirty:
                room = next(iter(self._dirty))
                del self._dirty[room]
                await trio.sleep(self._deliver(room) / self.limits.deliveries_per_s)

    def _deliver(self, room: Room) -> float:
        """Hand what has changed in ``room`` to its seats; how many items of one entry that was worth."""
        changed = tuple(room.changed.values())
        room.changed.clear()
        for seat in room.seats:
            seat.offer(changed)
        if not room.members and not room.seats:
            self._rooms.pop(room.scope, None)
        return len(room.seats) * (1 + len(changed) / ENTRIES_OF_AN_ITEM)

    def _expire(self) -> None:
        now = trio.current_time()
        while self._leases:
            (scope, key), member = next(iter(self._leases.items()))
            if member.until > now:
                return
            del self._leases[scope, key]
            room = self._rooms[scope]
            del room.members[key]
            shown, member.state = member.state, None
            if shown is not None or not room.members:
                self._changed(room, member)

    def _say(self, room: Room, member: Member, number: int, state: str | None) -> None:
        """A client of this process says something."""
        self._set(room, member, number, state)
        self.told(room.scope, member)

    def _set(self, room: Room, member: Member, number: int, state: str | None) -> None:
        if state != member.state:
            member.state = state
            self._changed(room, member)
        member.number = number

    def _changed(self, room: Room, member: Member) -> None:
        room.changed[member.key] = member
        self._dirty[room] = None
        self._wake.set()

    def _lease(self, room: Room, member: Member) -> None:
        member.until = trio.current_time() + self.limits.lease_s
        self._leases.pop((room.scope, member.key), None)
        self._leases[room.scope, member.key] = member
        self._wake.set()

    def _free(self, member: Member) -> None:
        left = self._of_subject[member.subject] - 1
        if left:
            self._of_subject[member.subject] = left
        else:
            del self._of_subject[member.subject]

    # checks

    def _key(self, subject: str, request: PresenceRequest | AppearRequest) -> str:
        """What others know a session by; nobody else's session comes to the same."""
        if len(request.session) != SESSION_BYTES or not 0 < request.number < INT64_MAX:
            message = f"a presence needs a session of {SESSION_BYTES} bytes and a number of at least 1"
            raise RemoteError(message, remote_code="MALFORMED")
        try:
            size = len((request.state or "").encode())
        except UnicodeEncodeError:
            raise RemoteError("a state is text in Unicode", remote_code="MALFORMED") from None
        if size > self.limits.state_bytes:
            message = f"a state has at most {self.limits.state_bytes} bytes"
            raise RemoteError(message, remote_code="TOO_LARGE")
        return hashlib.sha256(request.session + subject.encode()).hexdigest()[:16]

    def _check_room(self, room: Room) -> None:
        if room.count >= self.limits.per_scope:
            raise _full(f"{self.limits.per_scope} sessions are already present in this scope, which is the limit")

    def _check_rate(self, member: Member) -> None:
        """Take one of the member's changes: a bucket with room for two seconds' worth."""
        now, each = trio.current_time(), 1 / self.limits.changes_per_s
        member.next_change = max(member.next_change, now - 2.0) + each
        if member.next_change > now:
            wait_s = member.next_change - now
            member.next_change -= each
            text = f"a session may change its state {self.limits.changes_per_s:g} times a second"
            raise RemoteError(text, remote_code="RATE_LIMITED", retry_after_s=wait_s)


def _full(text: str) -> RemoteError:
    return RemoteError(text, remote_code="OVERLOADED", retry_after_s=AGAIN_S)
