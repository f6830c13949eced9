"""Presence over several processes of one hub: what one is told the others show, and what a dead one had is gone with its lease."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
import trio

from atoma.contracts.presence import AppearRequest, PresenceRequest
from atoma.errors import StoreError
from atoma.hub.presence import PresenceLimits, Rooms, Seat
from atoma.hub.presence_sharing import PresenceSharing
from atoma.ports.presence import NOTICE_BYTES, Notices

pytestmark = pytest.mark.virtual_time

LIMITS = PresenceLimits()
KEY = b"the key of the hub"


@dataclass
class Bus:
    """What carries notices between processes.

    Attributes:
        listeners: Who hears.
        said: Every notice.
        down: Whether nothing can be said.
    """

    listeners: list[Callable[[bytes], None]] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    down: bool = False

    @asynccontextmanager
    async def open_notices(self, heard: Callable[[bytes], None]) -> AsyncGenerator[Notices]:
        self.listeners.append(heard)
        try:
            yield self
        finally:
            self.listeners.remove(heard)

    async def say(self, notices: Sequence[bytes]) -> None:
        await trio.sleep(0.01)
        if self.down:
            raise StoreError("nothing can be said")
        for notice in notices:
            assert len(notice) <= NOTICE_BYTES
            self.said.append(notice)
            for heard in list(self.listeners):
                heard(notice)


@dataclass
class Process:
    """One process of the hub."""

    rooms: Rooms
    scope: trio.CancelScope

    def come(self, name: str, state: str = "0", number: int = 1, check: Callable[[], None] = lambda: None) -> Seat:
        return self.rooms.enter(name, PresenceRequest("main", name.encode().ljust(16), number, state), check)

    def say(self, name: str, state: str | None, number: int) -> bool:
        return self.rooms.appear(name, AppearRequest("main", name.encode().ljust(16), number, state))

    def seen(self) -> dict[str, str]:
        members = self.rooms._rooms["main"].members.values()
        return {member.subject: member.state for member in members if member.state is not None}


@asynccontextmanager
async def processes(bus: Bus, count: int) -> AsyncGenerator[list[Process]]:
    """So many, each with its tasks."""
    made: list[Process] = []

    async def run(process: Process, sharing: PresenceSharing) -> None:
        with process.scope:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(process.rooms.run)
                tasks.start_soon(sharing.run)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            rooms = Rooms(LIMITS)
            process = Process(rooms, trio.CancelScope())
            nursery.start_soon(run, process, PresenceSharing(rooms, bus, KEY, Random(number)))
            made.append(process)
        await trio.sleep(1)
        yield made
        nursery.cancel_scope.cancel()


async def test_who_is_with_one_process_is_seen_with_the_others() -> None:
    async with processes(Bus(), 3) as (one, two, three):
        one.come("ann", "1")
        await trio.sleep(1)
        two.come("bob", "2")  # later: what was said before is asked for
        three.come("cid", "3")
        await trio.sleep(1)
        everybody = {"ann": "1", "bob": "2", "cid": "3"}
        assert one.seen() == two.seen() == three.seen() == everybody
        one.say("ann", "4", 2)
        two.say("bob", None, 2)
        await trio.sleep(1)
        assert one.seen() == two.seen() == three.seen() == {"ann": "4", "cid": "3"}
        await trio.sleep(10 * LIMITS.lease_s)
        assert one.seen() == two.seen() == three.seen() == {"ann": "4", "cid": "3"}, "as long as they are there"


async def test_a_killed_process_takes_its_sessions_with_it() -> None:
    async with processes(Bus(), 2) as (one, two):
        one.come("ann")
        two.come("bob")
        await trio.sleep(1)
        one.scope.cancel()
        await trio.sleep(LIMITS.lease_s * 0.6)
        assert two.seen() == {"ann": "0", "bob": "0"}
        await trio.sleep(LIMITS.lease_s)
        assert two.seen() == {"bob": "0"}


async def test_a_client_goes_on_with_another_process_and_nobody_sees_it() -> None:
    async with processes(Bus(), 3) as (one, two, three):
        seat = one.come("ann", "1")
        three.come("cid")
        await trio.sleep(1)
        one.rooms.leave(seat)
        two.come("ann", "2", number=2)
        for _ in range(int(3 * LIMITS.lease_s)):
            await trio.sleep(1)
            assert three.seen() == {"ann": "2", "cid": "0"}


async def test_a_call_may_come_to_another_process_than_the_stream() -> None:
    bus = Bus()
    async with processes(bus, 2) as (one, two):
        one.come("ann", "1")
        two.come("bob")
        await trio.sleep(1)
        assert two.say("ann", "2", 2)
        await trio.sleep(1)
        assert one.seen() == {"ann": "2", "bob": "0"}
        assert two.say("ann", None, 3)
        await trio.sleep(1)
        for notice in reversed(bus.said):
            for heard in bus.listeners:
                heard(notice)
        await trio.sleep(3 * LIMITS.lease_s)
        assert one.seen() == two.seen() == {"bob": "0"}, "no beat brings back who has left"


async def test_what_could_not_be_told_is_told_with_a_later_beat() -> None:
    bus = Bus()
    async with processes(bus, 2) as (one, two):
        two.come("bob")
        bus.down = True
        one.come("ann")
        await trio.sleep(3)
        assert two.seen() == {"bob": "0"}
        bus.down = False
        await trio.sleep(LIMITS.lease_s)
        assert one.seen() == two.seen() == {"ann": "0", "bob": "0"}


async def test_large_states_go_in_notices_that_fit() -> None:
    bus = Bus()
    async with processes(bus, 2) as (one, two):
        two.come("watcher")
        for number in range(30):
            one.come(f"n{number}", '"' * LIMITS.state_bytes)
        await trio.sleep(1)
        assert len(two.seen()) == 31
        told, size = bus.said[2:], sum(map(len, bus.said))  # after what each has asked
        assert size / NOTICE_BYTES < len(told) < 2 * size / NOTICE_BYTES, "and not one for each"


async def test_who_does_not_know_the_hubs_key_is_not_heard() -> None:
    bus = Bus()
    async with processes(bus, 1) as (one,):
        one.come("ann")
        stranger = PresenceSharing(Rooms(LIMITS), bus, b"another key", Random(9))
        stranger._rooms.enter("eve", PresenceRequest("main", b"e" * 16, 1, "evil"), lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.run)
            await trio.sleep(LIMITS.lease_s)
            nursery.cancel_scope.cancel()
        for noise in (b"", b"\xc1", bus.said[-1][:-1], bus.said[-1] + b"\x00"):
            bus.listeners[0](noise)
        assert one.seen() == {"ann": "0"}


async def test_nothing_is_kept_of_scopes_in_which_nobody_is_here() -> None:
    async with processes(Bus(), 2) as (one, two):
        one.come("ann")
        await trio.sleep(1)
        assert two.rooms._rooms == {}
