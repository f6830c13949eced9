"""Presence over several processes of one hub: each tells the others who is there with it, and repeats it while they are.

Nobody owns a session. Every process keeps of it what has the highest number, for a lease; the one that has its stream renews it. So
a process that is killed takes its sessions with it, and a client may come back to any other.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterator
from random import Random

import msgspec
import trio

from atoma.concurrency.backoff import Backoff, Retries
from atoma.contracts.codec import decode, encode
from atoma.errors import StoreError
from atoma.hub.presence import Member, Rooms
from atoma.ports.presence import NOTICE_BYTES, CarriesNotices, Notices

_log = logging.getLogger("atoma.hub")
EVERY_S = 0.05
"""Time between two notices, so that changes gather."""
BEATS_OF_A_LEASE = 3
MAC_BYTES = 16
ENTRY_BYTES = 64
"""Bytes of an entry besides its texts."""
BACKOFF = Backoff(0.1, max_s=5.0)


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """A member as one process tells another."""

    scope: str
    key: str
    subject: str
    number: int
    state: str | None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return ENTRY_BYTES + len(f"{self.scope}{self.key}{self.subject}{self.state or ''}".encode())


class _Notice(msgspec.Struct, frozen=True, array_like=True):
    """What one process tells the others.

    Attributes:
        process: Who tells it.
        asks: Scopes of which the others shall tell whom they have.
        members: Who is there, or has left.
    """

    process: bytes
    asks: tuple[str, ...] = ()
    members: tuple[_Entry, ...] = ()


class PresenceSharing:
    """The task that tells other processes of the rooms here, and the rooms of theirs.

    Args:
        rooms: Those here.
        source: Carries the notices.
        key: The hub's, by which its processes know one another's notices.
        random: For a name of this process, and for waits.
    """

    def __init__(self, rooms: Rooms, source: CarriesNotices, key: bytes, random: Random) -> None:
        self._rooms, self._source, self._key = rooms, source, key
        self._me = random.randbytes(8)
        self._retries = Retries(BACKOFF, random)
        self._members: dict[tuple[str, str], Member] = {}
        self._asks: dict[str, None] = {}
        self._wake = trio.Event()
        rooms.told, rooms.joined = self._tell, self._ask

    async def run(self) -> None:
        """Tell and hear until cancelled; what could not be told is told with the next beat."""
        while True:
            try:
                async with self._source.open_notices(self._heard) as notices:
                    await self._tell_on(notices)
            except StoreError as error:
                _log.warning("other processes of this hub are not told who is present: %s", error)
                await trio.sleep(self._retries.fail())

    async def _tell_on(self, notices: Notices) -> None:
        every_s = self._rooms.limits.lease_s / BEATS_OF_A_LEASE
        beat_at = trio.current_time()
        while True:
            with trio.move_on_at(beat_at):
                await self._wake.wait()
            self._wake = trio.Event()
            if trio.current_time() >= beat_at:
                beat_at += every_s
                for scope, member in self._rooms.seated():
                    self._members[scope, member.key] = member
            if self._members or self._asks:
                await notices.say(list(self._notices()))
                self._retries.reset()
                await trio.sleep(EVERY_S)

    def _tell(self, scope: str, member: Member) -> None:
        self._members[scope, member.key] = member
        self._wake.set()

    def _ask(self, scope: str) -> None:
        self._asks[scope] = None
        self._wake.set()

    def _notices(self) -> Iterator[bytes]:
        """What waits to be told, in notices that are not too large."""
        asks, self._asks = tuple(self._asks), {}
        members, self._members = self._members, {}
        entries = [_Entry(scope, m.key, m.subject, m.number, m.state) for (scope, _), m in members.items()]
        for ask in asks:
            yield self._sealed(_Notice(self._me, (ask,)))
        part: list[_Entry] = []
        size = 0
        for entry in entries:
            if part and size + entry.size > NOTICE_BYTES - ENTRY_BYTES:
                yield self._sealed(_Notice(self._me, (), tuple(part)))
                part, size = [], 0
            part.append(entry)
            size += entry.size
        if part:
            yield self._sealed(_Notice(self._me, (), tuple(part)))

    def _sealed(self, notice: _Notice) -> bytes:
        body = encode(notice)
        return self._mac(body) + body

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:MAC_BYTES]

    def _heard(self, data: bytes) -> None:
        """Take what another process says; what nobody of this hub has said is passed over."""
        mac, body = data[:MAC_BYTES], data[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            return
        try:
            notice = decode(body, _Notice)
        except msgspec.DecodeError:  # of a version that says it in another way
            return
        if notice.process == self._me:
            return
        for entry in notice.members:
            self._rooms.hear(entry.scope, entry.key, entry.subject, entry.number, entry.state)
        for scope in notice.asks:
            for _, member in self._rooms.seated(scope):
                self._tell(scope, member)
