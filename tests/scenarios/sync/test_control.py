"""Modes, pause and resume, waiting, and what the status tells."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import pytest
import trio

from atoma.contracts.events import ConflictDetected, SyncStateChanged
from atoma.errors import ConnectFailed, RemoteError, UnknownStore
from atoma.hub import Hub
from atoma.ports.service import Principal, SyncService
from atoma.sync import ScopeProgress, Sync
from atoma_transports.adapters import PassingService
from atoma_transports.calls.methods import StreamMethod
from tests.scenarios.sync.conftest import Wire

W = TypeVar("W", bound=msgspec.Struct)
V = TypeVar("V", bound=msgspec.Struct)

pytestmark = pytest.mark.virtual_time


@asynccontextmanager
async def ended() -> AsyncGenerator[AsyncIterator[Any]]:
    """A stream that has ended already."""

    async def nothing() -> AsyncGenerator[Any]:
        for item in tuple[Any, ...]():
            yield item

    async with aclosing(nothing()) as stream:
        yield stream


class Deaf(PassingService):
    """A service that has no streams to give: the first one ends at once."""

    asked = 0

    def _listen(self, method: StreamMethod[W, V], request: W) -> AbstractAsyncContextManager[AsyncIterator[V]]:
        self.asked += 1
        if self.asked == 1:
            return ended()
        raise RemoteError("too many streams", remote_code="OVERLOADED")


@dataclass
class Silent:
    """A hub that answers and never tells of anything."""

    hub: Hub

    def service(self, principal: Principal) -> SyncService:
        return Deaf(self.hub.service(principal))


async def test_a_store_that_the_schema_does_not_have_is_refused_before_anybody_connects(world: Any) -> None:
    async with world.open_hub():
        wire = Wire(world.running_hub)
        with pytest.raises(UnknownStore, match="boards"):
            async with world.open_device("a", plugins=[wire, Sync(["cards", "boards"])], policy="sync-queue"):
                pytest.fail("it has begun")
        assert wire.connects == 0


@pytest.mark.paths
async def test_manual_mode_does_nothing_until_asked(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("m", mode="manual") as m:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        await m.store(world.CARDS).insert(world.Card(id="2"))
        await trio.sleep(1000)
        assert m.wire.connects == 0
        assert (m.sync.status.state, m.sync.status.reason, m.sync.status.pending) == ("stopped", "manual", 1)
        await m.sync.sync_once()
        assert set(await m.rows()) == {"1", "2"}
        assert m.sync.status.pending == 0
        assert m.sync.status.state == "stopped"
        m.wire.cut()
        with pytest.raises(ConnectFailed):
            await m.sync.sync_once()
        m.wire.repair()
        await m.sync.sync_once()
        await a.settle()
        assert await a.rows() == await m.rows()


async def test_pull_only_sends_nothing(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("p", mode="pull-only") as p:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        await p.store(world.CARDS).insert(world.Card(id="2"))
        await p.settle()
        assert set(await p.rows()) == {"1", "2"}
        assert p.wire.count("push") == 0
        assert p.sync.status.pending == 1


@pytest.mark.paths
async def test_push_only_fetches_nothing(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("p", mode="push-only") as p:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        handle = await p.store(world.CARDS).insert(world.Card(id="2"))
        await p.settle()
        await a.settle()
        assert set(await a.rows()) == {"1", "2"}
        assert set(await p.rows()) == {"2"}
        assert p.wire.count("pull") == p.wire.count("snapshot") == 0
        assert handle.state == "accepted"


async def test_subscribe_only_hears_how_far_the_hub_is(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("s", mode="subscribe-only") as s:
        await a.store(world.CARDS).insert_many([world.Card(id="1"), world.Card(id="2")])
        await a.settle()
        await trio.sleep(1)
        progress = s.sync.status.scope("main")
        assert (progress.cursor, progress.head) == (0, 2)
        assert await s.rows() == {}
        await s.sync.sync_once()
        assert set(await s.rows()) == {"1", "2"}
        await trio.sleep(1)
        assert s.sync.status.state == "online"


@pytest.mark.paths
async def test_paused_is_offline_until_resumed(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        a.sync.pause()
        await a.store(world.CARDS).insert(world.Card(id="1"))
        connects = a.wire.connects
        await trio.sleep(1000)
        a.sync.pause()
        await trio.sleep(1000)
        assert a.wire.connects == connects
        assert (a.sync.status.state, a.sync.status.reason, a.sync.status.pending) == ("stopped", "paused", 1)
        a.sync.resume()
        await a.settle()
        assert a.sync.status.state == "online"
        assert await a.outbox() == []


async def test_resuming_tries_at_once_whatever_failed_before(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a:
        await trio.sleep(1000)
        a.sync.pause()
        a.wire.repair()
        began = trio.current_time()
        a.sync.resume()
        await a.settle()
        assert trio.current_time() - began < 1


async def test_sync_once_says_why_it_failed_and_hurries_what_waits(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a:
        await trio.sleep(1000)
        await a.store(world.CARDS).insert(world.Card(id="1"))
        began = trio.current_time()
        with pytest.raises(ConnectFailed):
            await a.sync.sync_once()
        a.wire.repair()
        await a.sync.sync_once()
        assert trio.current_time() - began < 1
        assert await a.outbox() == []
        sessions = a.wire.connects
        await a.sync.sync_once()
        assert a.wire.connects == sessions, "there is one already"


async def test_a_poke_tries_at_once_and_the_next_loss_begins_with_short_waits_again(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a:
        await trio.sleep(600)
        tried = 0
        while a.wire.connects != tried:  # until an attempt is not due for a while
            tried = a.wire.connects
            await trio.sleep(3)
        assert a.sync.status.attempt > 5
        a.wire.repair()
        a.sync.poke()
        await trio.sleep(1)
        assert a.sync.status.state == "online"
        a.wire.cut()
        await trio.sleep(0.01)
        assert a.sync.status.state != "online" and a.sync.status.attempt < 3


@pytest.mark.paths
async def test_a_device_that_is_given_no_hints_looks_more_often_and_keeps_its_session(world: Any) -> None:
    async with world.open_hub() as hub, world.open_device("a") as a, world.open_device("b", down=True) as b:
        b.wire.hub = lambda: Silent(hub)
        b.wire.repair()
        b.sync.poke()
        await trio.sleep(0.6)
        assert b.wire.count("notify") > 1, "it asks again soon"
        await b.settle()
        sessions = b.wire.connects
        for number in range(3):
            await a.store(world.CARDS).insert(world.Card(id=str(number)))
            await trio.sleep(20)
            assert str(number) in await b.rows()
        assert (b.wire.connects, b.sync.status.state) == (sessions, "online")
        assert b.wire.count("notify") > 2


async def test_waiting_ends_with_the_callers_scope_only(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a:
        with trio.move_on_after(100) as scope:
            await a.sync.wait_idle()
        assert scope.cancelled_caught


@pytest.mark.paths
async def test_a_conflict_of_which_a_page_tells_first_is_told_once(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b", down=True) as b:
        heard: list[Any] = []
        b.client.listen(heard.append)
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        await b.store(world.CARDS).insert(world.Card(id="1", title="b's"))
        b.wire.lose["push"] = 1
        b.wire.repair()
        b.sync.poke()
        while b.wire.lose["push"]:
            await trio.sleep(0.01)
        again = b.wire.hold["push"] = trio.Event()
        await trio.sleep(10)
        again.set()
        await b.settle()
        assert [event.code for event in heard if isinstance(event, ConflictDetected)] == ["ALREADY_EXISTS"]


@pytest.mark.paths
async def test_events_tell_state_and_conflicts(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b", down=True) as b:
        heard: list[Any] = []
        b.client.listen(heard.append)
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        await b.store(world.CARDS).insert(world.Card(id="1", title="b's"))
        b.wire.repair()
        b.sync.poke()
        await b.settle()
        await trio.sleep(0.1)
        states = [event.state for event in heard if isinstance(event, SyncStateChanged)]
        assert states[-2:] == ["connecting", "online"]
        assert [event for event in heard if isinstance(event, ConflictDetected)] == [
            ConflictDetected("main", "cards", "1", "ALREADY_EXISTS")
        ]


async def test_the_status_can_be_watched(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a, a.sync.watch() as values:
        first = await anext(values)
        assert first.state in ("offline", "connecting")
        assert first.scope("elsewhere") == ScopeProgress("elsewhere", "new", cursor=0, head=0, error=None)
        a.wire.repair()
        a.sync.poke()
        with trio.fail_after(60):
            async for status in values:
                if status.state == "online" and status.scope("main").state == "live":
                    break
        assert a.sync.status.principal == "ann"
