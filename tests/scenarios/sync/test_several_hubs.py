"""Two hubs that run from copies of one file behind one address: a device belongs to one history at a time, and nothing is lost."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio

from atoma.codes import HELP
from atoma.contracts.events import ClientAhead, HubEvent
from atoma.errors import SyncError
from atoma.hub import AllowLoopback, Hub, open_hub
from atoma.ports.service import Principal, SyncService
from atoma.sync.repair.diagnosis import REPEATED_MAX, REPEATED_S
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters import PassingService
from atoma_transports.calls.methods import UnaryMethod
from tests.scenarios.sync.kit import inbox, put_in

Q = TypeVar("Q")
R = TypeVar("R")

pytestmark = pytest.mark.virtual_time
EPOCHS = pytest.mark.parametrize("noticed", [True, False], ids=["another epoch", "the same epoch"])
"""Whether the second hub has found out that its file is a copy."""


class Spread(PassingService):
    """A service of which every request is answered by the next hub."""

    def __init__(self, hubs: Iterator[Hub], principal: Principal) -> None:
        super().__init__(next(hubs).service(principal))
        self._hubs = hubs
        self._principal = principal

    async def _ask(self, method: UnaryMethod[Q, R], request: Q) -> R:
        return await method.of(next(self._hubs).service(self._principal))(request)


class Balancer:
    """What answers under the address of several hubs, where requests are spread over them."""

    def __init__(self, hubs: Sequence[Hub]) -> None:
        self._turns = itertools.cycle(hubs)

    def service(self, principal: Principal) -> SyncService:
        return Spread(self._turns, principal)


@asynccontextmanager
async def open_two(world: Any, *, noticed: bool, **options: Any) -> AsyncGenerator[tuple[Hub, Hub]]:
    """The hub, with one row and one device ``a`` that has it, and another that runs from a copy of its file."""
    async with world.open_hub(), world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="before"))
        await a.settle()
    shutil.copy(world.folder / "hub.db", world.folder / "twin.db")
    store = SQLiteHubStore(world.folder / "twin.db")
    async with world.open_hub(**options) as hub:
        environment = world.environment("twin")
        async with open_hub(world.schema, store, verifier=AllowLoopback(), environment=environment) as twin:
            if noticed:
                await twin.new_epoch()
            yield hub, twin


async def rows_of(world: Any, hub: Hub, name: str) -> dict[str, Any]:
    """What a device that comes for the first time is given."""
    async with world.open_device(name) as reader:
        reader.wire.hub = lambda: hub
        await put_in(reader)
        found: dict[str, Any] = await reader.rows()
        return found


def one_of(hubs: tuple[Hub, Hub]) -> Callable[[], Hub]:
    turns = itertools.cycle(hubs)
    return lambda: next(turns)


async def reconnect(device: Any) -> None:
    """Connect anew, and do what can be done in a minute."""
    device.wire.cut()
    device.wire.repair()
    device.sync.poke()
    await trio.sleep(60)


@EPOCHS
async def test_a_device_between_two_hubs_stays_with_the_one_whose_history_it_has(world: Any, noticed: bool) -> None:
    """Each connection meets the other hub. Repairs bring what one has to the other, but not for ever."""
    async with open_two(world, noticed=noticed) as hubs, world.open_device("a", down=True) as a:
        a.wire.hub = one_of(hubs)
        reasons: set[str] = set()
        a.sync.subscribe(lambda status: reasons.add(status.reason) if status.state == "stalled" else None)
        for number in range(REPEATED_S // 60):
            await a.store(world.CARDS).insert(world.Card(id=str(number)))
            await reconnect(a)
        assert reasons and all("do several hubs answer under this address?" in reason for reason in reasons)
        assert [report.cause for report in await a.sync.repairs()] == ["HUB_LOST_DATA"] * REPEATED_MAX
        written = {"before", *map(str, range(REPEATED_S // 60))}
        assert set(await a.rows()) == written
        a.wire.hub = lambda: hubs[0]  # the other one is taken out
        await trio.sleep(REPEATED_S)
        await put_in(a)
        assert (a.sync.status.state, await inbox(a), await a.outbox()) == ("online", [], [])
        assert await a.rows() == await rows_of(world, hubs[0], "new") and set(await a.rows()) == written


@EPOCHS
async def test_what_was_written_at_either_hub_is_whole_once_one_of_them_is_left(world: Any, noticed: bool) -> None:
    """Each device keeps to its hub, so nobody notices anything until the second hub is taken out."""
    ahead: list[ClientAhead] = []

    def listener(event: HubEvent) -> None:
        if isinstance(event, ClientAhead):
            ahead.append(event)

    async with (
        open_two(world, noticed=noticed, listener=listener) as (hub, twin),
        world.open_device("a", down=True) as a,
        world.open_device("b", down=True) as b,
    ):
        b.wire.hub = lambda: twin
        for device in (a, b):
            await put_in(device)
            for number in range(3):
                await device.store(world.CARDS).insert(world.Card(id=f"{device.name}{number}"))
            await device.store(world.CARDS).update("before", title=f"{device.name}'s")
            await device.settle()
        assert a.sync.status.state == b.sync.status.state == "online" and not ahead
        pending = await b.store(world.CARDS).update("b0", lane="done")
        b.wire.cut()
        await b.store(world.CARDS).update("b1", title="offline")
        b.wire.hub = lambda: hub
        await put_in(b)
        await a.settle()
        assert pending.state == "observed"
        both = {"before", *(f"{name}{number}" for name in "ab" for number in range(3))}
        assert await a.rows() == await b.rows() == await rows_of(world, hub, "new")
        assert set(await a.rows()) == both and (await a.rows())["b1"].title == "offline"
        assert (await a.rows())["before"].title == "a's", "what was written here since is never overwritten"
        assert await inbox(b) == [("HUB_LOST_DATA", "before")] and await inbox(a) == []
        (entry,) = await b.sync.inbox.entries()
        assert (entry.mine["title"], entry.theirs["title"]) == ("b's", "a's")
        assert [event.principal for event in ahead] == ["ann"]


@EPOCHS
async def test_requests_that_are_spread_over_two_hubs_lose_nothing_and_say_why_they_wait(
    world: Any, noticed: bool
) -> None:
    """No page of another history is taken and no write is lost, and the hubs are not asked as fast as they answer."""
    async with open_two(world, noticed=noticed) as hubs, world.open_device("a", down=True) as a:
        balancer = Balancer(hubs)
        a.wire.hub = lambda: balancer
        for number in range(REPEATED_S // 60):
            await a.store(world.CARDS).insert(world.Card(id=str(number)))
            await reconnect(a)
            status = a.sync.status
            assert status.pending == 0 or (status.error is not None and status.reason), "it waits, and says why"
        assert a.wire.connects < REPEATED_S / 10
        written = {"before", *map(str, range(REPEATED_S // 60))}
        assert set(await a.rows()) == written
        a.wire.hub = lambda: hubs[0]
        await trio.sleep(REPEATED_S)
        await put_in(a)
        assert (a.sync.status.state, await inbox(a), await a.outbox()) == ("online", [], [])
        assert await a.rows() == await rows_of(world, hubs[0], "new") and set(await a.rows()) == written


@pytest.mark.paths
async def test_a_history_that_moves_again_and_again_has_a_code_and_a_way_out(world: Any) -> None:
    await trio.sleep(REPEATED_S)  # the clock may stand anywhere
    async with open_two(world, noticed=True) as hubs, world.open_device("a", down=True) as a:
        balancer = Balancer(hubs)
        a.wire.hub = lambda: balancer
        await a.store(world.CARDS).insert(world.Card(id="waits"))
        a.wire.repair()
        a.sync.poke()
        with trio.fail_after(60):
            while a.sync.status.state != "stalled":
                await trio.sleep(0.1)
        status = a.sync.status
        assert (status.error.code, status.helps) == ("SEVERAL_HUBS", HELP["operator"])
        assert status.next_attempt_ms > 0 and status.attempt > 0
        with pytest.raises(SyncError, match="do several hubs answer under this address"):
            for _ in range(20):  # a single attempt may be one that ends at the hub where it began
                await a.sync.sync_once()
        a.wire.hub = lambda: hubs[1]
        await put_in(a)
        status = a.sync.status
        assert (status.state, status.reason, status.error, status.attempt) == ("online", "", None, 0)
        assert set(await rows_of(world, hubs[1], "new")) == {"before", "waits"}
