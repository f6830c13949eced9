"""How fast pages come: at once when nothing hinders, in smaller portions when applying them takes long, as one log when new."""

from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import replace
from typing import Any

import apsw
import pytest
import trio

from atoma.contracts.sync import Limits

pytestmark = pytest.mark.virtual_time


@pytest.mark.paths
async def test_a_new_device_follows_the_log_of_an_empty_hub_and_takes_no_snapshot(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        assert (a.wire.count("snapshot"), a.sync.status.scope("main").state) == (0, "live")
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        async with world.open_device("b") as b:
            await b.settle()
            assert b.wire.count("snapshot") > 0


@pytest.mark.parametrize("mode", ["pull-only", "full"])
async def test_hints_that_follow_one_another_closely_are_each_followed_at_once(world: Any, mode: str) -> None:
    """Pages are spaced out while a long push is under way, and at no other time."""
    limits = Limits(push_mutations=2)
    async with world.open_hub(limits=limits), world.open_device("a") as a, world.open_device("b", mode=mode) as b:
        await b.store(world.CARDS).insert_many([world.Card(id="mine"), world.Card(id="too")])
        await b.settle()
        await trio.sleep(5)
        for number in range(3):
            await a.store(world.CARDS).insert(world.Card(id=str(number)))
            await trio.sleep(0.05)
            assert str(number) in await b.rows()


async def test_pages_shrink_while_applying_them_takes_long(world: Any) -> None:
    """A write has to wait behind a page. Here every look at the clock is a second after the last."""
    async with world.open_hub(), world.open_device("a") as a:
        environment = world.environment
        world.environment = lambda name: replace(environment(name), clock=itertools.count().__next__)
        async with world.open_device("slow") as slow:
            world.environment = environment
            async with world.open_device("fast") as fast:
                for number in range(6):
                    await a.store(world.CARDS).insert(world.Card(id=str(number)))
                    for device in (a, slow, fast):
                        await device.settle()
                for device, sizes in ((slow, [2000, 1000, 500]), (fast, [2000, 2500, 3000, 3500, 4000, 4500, 5000])):
                    asked = [request.max_changes for method, request in device.wire.calls if method == "pull"]
                    assert list(dict.fromkeys(asked)) == sizes


async def test_a_device_that_hears_of_news_looks_for_itself_about_once_a_minute_and_writes_nothing(world: Any) -> None:
    """Devices that were connected at the same moment are spread."""
    async with world.open_hub(), world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        await trio.sleep(120)
        looked: list[float] = []

        def note(request: Any) -> Any:
            looked.append(trio.current_time())
            return request

        a.wire.tamper["pull request"] = note
        with closing(apsw.Connection(str(world.folder / "a.db"))) as other:
            before = other.pragma("data_version")
            await trio.sleep(1200)
            assert other.pragma("data_version") == before
        gaps = [later - earlier for earlier, later in itertools.pairwise(looked)]
        assert 48 <= min(gaps) < 60 < max(gaps) <= 72.1


async def test_a_long_push_neither_keeps_pages_away_nor_fetches_one_for_each_request(world: Any) -> None:
    limits = Limits(push_mutations=2)
    async with world.open_hub(limits=limits), world.open_device("a") as a, world.open_device("b", down=True) as b:
        await a.settle()
        await b.store(world.CARDS).insert_many([world.Card(id=f"mine {number}") for number in range(300)])
        b.wire.latency = lambda: 0.02
        b.wire.repair()
        b.sync.poke()
        for number in range(5):
            await trio.sleep(0.5)
            await a.store(world.CARDS).insert(world.Card(id=str(number)))
            await trio.sleep(0.3 + 4 * b.wire.latency())
            assert str(number) in await b.rows()
        assert await b.outbox(), "the push is still under way"
        assert b.wire.count("push") > 4 * b.wire.count("pull")
