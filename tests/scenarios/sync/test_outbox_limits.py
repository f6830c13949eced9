"""What a file has already is sent whatever the outbox's limit is: nothing else would ever make room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atoma.client import open_client
from atoma.errors import OutboxFull
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite._outbox import OutboxLimits
from tests.scenarios.sync.conftest import CARDS, SCHEMA, SYNCED, Card, Device, Probe, Wire
from tests.scenarios.sync.kit import back_up_with, inbox, open_restored, put_in, unplug

pytestmark = pytest.mark.virtual_time
LIMIT = 4
IDS = {str(number) for number in range(3 * LIMIT)}


@asynccontextmanager
async def small_device(world: Any, name: str) -> AsyncIterator[Device]:
    """A device that is not connected and has room for few writes."""
    wire, probe = Wire(world.running_hub, "ann", True), Probe()
    engine = LocalExecution(SQLiteEngine(world.folder / f"{name}.db", outbox_limits=OutboxLimits(rows=LIMIT)))
    plugins: list[Any] = [engine, probe, wire, Sync(SYNCED, ("main",))]
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue", environment=world.environment(name)) as client:
        yield Device(name, client, wire, probe)


async def fill(device: Device) -> None:
    """Write as much as there is room for."""
    with pytest.raises(OutboxFull):
        for number in range(LIMIT + 1):
            await device.store(CARDS).insert(Card(id=f"pending {number}"))


@pytest.mark.parametrize("who", ["user", "operator"])
async def test_more_rows_than_the_outbox_holds_are_offered_behind_a_full_one(world: Any, who: str) -> None:
    """The device could not open a session any more, so that nothing that waits was ever sent."""
    async with small_device(world, "a") as a, world.open_device("writer", down=True) as writer:
        await back_up_with(world, a, writer)
        async with world.open_hub():
            for id in IDS:
                await writer.store(CARDS).insert(Card(id=id))
            for device in (writer, a):
                await put_in(device)
            await unplug(a, writer)
        async with open_restored(world, devices="ask") as hub:
            await put_in(a)
            await unplug(a)
            await fill(a)
            lost = await a.sync.lost.entries()
            assert len(lost) == len(IDS)
            if who == "operator":
                await hub.allow_offers((await hub.epochs())[-1].epoch)
            else:
                await a.sync.lost.offer(lost)
            await put_in(a)
            assert await a.sync.lost.entries() == [] == await a.outbox() and a.sync.status.error is None
            assert set(await a.rows()) == IDS | {f"pending {number}" for number in range(LIMIT)}


@pytest.mark.paths
async def test_more_rows_of_before_than_the_outbox_holds_are_sent(world: Any) -> None:
    async with world.open_hub():
        async with world.open_device("a", plugins=[]) as a:
            for id in IDS:
                await a.store(CARDS).insert(Card(id=id))
        async with small_device(world, "a") as a, world.open_device("b") as b:
            await put_in(a)
            await b.settle()
            assert set(await b.rows()) == IDS == set(await a.rows()) and await a.outbox() == []


@pytest.mark.paths
async def test_a_row_of_before_that_is_too_large_goes_to_the_inbox_and_the_rest_is_sent(world: Any) -> None:
    """It kept everything waiting, and when it was made shorter, the hub knew of no such row."""
    async with world.open_hub():
        async with world.open_device("a", plugins=[]) as a:
            await a.store(CARDS).insert(Card(id="small"))
            await a.store(CARDS).insert(Card(id="wide", title="x" * 1_100_000))
        async with world.open_device("a") as a:
            await a.settle()
            assert set(await a.rows()) == {"small"} and a.sync.status.error is None
            assert await inbox(a) == [("TOO_LARGE", "wide")]
            (entry,) = await a.sync.inbox.entries()
            assert len(entry.mine["title"]) == 1_100_000
