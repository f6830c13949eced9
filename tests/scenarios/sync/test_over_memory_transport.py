"""The same lanes over encoded bytes: partitions, silent ones too, lost and doubled frames, a hub that restarts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from atoma_transports.memory import MemoryNetwork
from tests.scenarios.sync.networks import device, serving

pytestmark = pytest.mark.virtual_time


@pytest.mark.paths
async def test_two_devices_agree_through_a_partition(world: Any) -> None:
    network = MemoryNetwork()
    async with serving(world, network), device(world, network, "a") as a, device(world, network, "b") as b:
        await a.store(world.CARDS).insert(world.Card(id="1", title="base"))
        await a.settle()
        await b.settle()
        network.partition("a")
        await a.store(world.CARDS).update("1", title="offline")
        await b.store(world.CARDS).update("1", lane="done")
        await b.store(world.CARDS).insert(world.Card(id="2"))
        await b.settle()
        assert (await a.rows())["1"].title == "offline"
        network.heal("a")
        await a.settle()
        await b.settle()
        assert await a.rows() == await b.rows()
        assert (await a.rows())["1"] == world.Card(id="1", title="offline", lane="done")


async def test_a_cable_pulled_behind_a_switch_is_noticed(world: Any) -> None:
    """Nothing breaks and nothing arrives: only deadlines and heartbeats tell."""
    network = MemoryNetwork()
    async with serving(world, network), device(world, network, "a") as a:
        await a.settle()
        network.partition("a", silent=True)
        handle = await a.store(world.CARDS).insert(world.Card(id="1"))
        with trio.fail_after(300):
            while a.sync.status.state == "online":
                await trio.sleep(0.1)
        assert handle.state in ("queued", "sent")
        network.heal("a")
        with trio.fail_after(300):
            assert await handle.accepted() == 1


async def test_a_wrong_token_stalls_and_keeps_the_outbox(world: Any) -> None:
    network = MemoryNetwork()
    async with serving(world, network), device(world, network, "a", token="guess") as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        with trio.fail_after(300):
            while a.sync.status.state != "stalled":
                await trio.sleep(0.1)
        assert a.sync.status.error.code == "UNAUTHENTICATED"
        assert len(await a.outbox()) == 1


async def test_a_hub_that_restarts_is_found_again(world: Any) -> None:
    network = MemoryNetwork()
    async with serving(world, network):
        async with device(world, network, "b") as b:
            await b.store(world.CARDS).insert(world.Card(id="1"))
            await b.settle()
    async with device(world, network, "a") as a:
        handle = await a.store(world.CARDS).insert(world.Card(id="2"))
        await trio.sleep(200)
        assert a.sync.status.state in ("offline", "connecting")
        async with serving(world, network):
            assert await handle.observed() == 2
            await a.settle()
            assert set(await a.rows()) == {"1", "2"}


class Unreliable:
    """Loses and doubles frames, delays them, and lets them overtake one another only as far as a stream can."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.calm = False

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        if self.calm:
            return (frame,)
        await trio.sleep(self.random.choice([0, 0.01, 0.3]))
        chance = self.random.random()
        if chance < 0.05:
            return ()
        return (frame, frame) if chance < 0.1 else (frame,)


@pytest.mark.paths
@pytest.mark.parametrize("seed", range(3))
async def test_lost_and_doubled_frames_lose_and_double_nothing(world: Any, seed: int) -> None:
    network, faults = MemoryNetwork(), Unreliable(seed)
    async with (
        serving(world, network),
        device(world, network, "a", faults=faults) as a,
        device(world, network, "b", faults=faults) as b,
    ):
        for number in range(40):
            one = (a, b)[number % 2]
            await one.store(world.CARDS).upsert(world.Card(id=str(number % 9), title=f"{number}"))
            await trio.sleep(faults.random.choice([0, 0.5, 5]))
        faults.calm = True
        for one in (a, b, a, b):
            with trio.fail_after(900):
                await one.sync.wait_idle()
        assert await a.rows() == await b.rows()
        assert len(await a.rows()) == 9
        assert await a.outbox() == await b.outbox() == []
        assert a.sync.status.scope("main").cursor == 40, "forty writes, forty transactions"
