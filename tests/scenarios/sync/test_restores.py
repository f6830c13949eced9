"""Restores of the hub under chance: devices that come and go, write, delete, and return in any order."""

from __future__ import annotations

import random
import shutil
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from atoma.sync.repair.diagnosis import REPEATED_S
from tests.scenarios.sync.kit import SEEDS, back_up, open_restored

pytestmark = pytest.mark.virtual_time
IDS = ["r0", "r1", "r2", "r3", "r4"]


async def session(device: Any) -> None:
    """Everything up, everything down, and away again."""
    device.wire.repair()
    device.sync.poke()
    await device.settle()
    device.wire.cut()


async def write(world: Any, device: Any, dice: random.Random, token: str) -> None:
    """One write on one of a few rows."""
    cards, id = device.store(world.CARDS), dice.choice(IDS)
    there = id in await device.rows()
    match dice.randrange(4):
        case 0 if there:
            await cards.delete(id)
        case 1 if there:
            await cards.update(id, lane=token)
        case _:
            await cards.upsert({"id": id, "title": token, "board": "main"})


async def cursor(device: Any) -> int:
    found: int = await device.inspect(lambda tx: tx.scopes.read("main").cursor.seq)
    return found


@pytest.mark.paths
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_calm_restore_comes_back_to_what_the_best_witness_had(world: Any, seed: int) -> None:
    """I22: nothing else going on, whoever returns, in whichever order."""
    dice = random.Random(seed)
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(world.open_device(f"d{n}", down=True)) for n in range(3)]
        number = 0
        kept: tuple[int, dict[str, Any]] = (0, {})
        for part in ("kept", "lost"):
            async with world.open_hub():
                for _ in range(dice.randint(2, 10)):
                    device = dice.choice(devices)
                    for _ in range(dice.randint(0, 2)):
                        number += 1
                        await write(world, device, dice, str(number))
                    await session(device)
                if part == "kept":
                    async with world.open_device("reader") as reader:
                        await reader.settle()
                        kept = await cursor(reader), await reader.rows()
            if part == "kept":
                back_up(world)
        back = dice.sample(devices, dice.randint(1, 3))
        best = max([(await cursor(device), index) for index, device in enumerate(back)])[1]
        wanted = await back[best].rows() if await cursor(back[best]) > kept[0] else kept[1]
        before = [len(await device.sync.inbox.entries()) for device in back]
        async with open_restored(world):
            for _ in range(3):
                for device in dice.sample(back, len(back)):
                    await session(device)
            for device in back:
                assert await device.rows() == wanted, seed
                assert await device.outbox() == []
            assert [len(await device.sync.inbox.entries()) for device in back] == before
            async with world.open_device("fresh") as fresh:
                await fresh.settle()
                assert await fresh.rows() == wanted


@pytest.mark.parametrize("found_out", [False, True], ids=["told", "found out"])
@pytest.mark.parametrize("deed", ["insert", "change"])
async def test_what_is_brought_back_to_its_old_place_stays(world: Any, deed: str, found_out: bool) -> None:
    """The older witness brings back the very first lost change, and so the same log; the better one has nothing to add to it."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(world.open_device(name, down=True)) for name in "ab"]
        async with world.open_hub():
            await first.store(world.CARDS).insert(world.Card(id="there"))
            for device in (first, second):
                await session(device)
        back_up(world)
        async with world.open_hub():
            if deed == "insert":
                await second.store(world.CARDS).insert(world.Card(id="new"))
            else:
                await second.store(world.CARDS).update("there", title="new")
            await session(second)
            await session(first)
            await first.store(world.CARDS).insert(world.Card(id="later"))
            await session(first)
        wanted = await first.rows()
        if found_out:
            shutil.copy(world.folder / "backup.db", world.folder / "hub.db")
        else:
            world.hub_file = "backup.db"
        async with world.open_hub() as hub:
            if not found_out:
                await hub.new_epoch()
            for device in (second, first, second):
                await session(device)
            assert (await first.sync.repairs())[-1].forks == {"main": 1}, "although the log is the same one further"
            assert await first.rows() == wanted and await second.rows() == wanted
            await hub.allow_deletes((await hub.epochs())[-1].epoch)
            for device in (first, second):
                await session(device)
            assert await first.rows() == wanted and await second.rows() == wanted


@pytest.mark.parametrize("seed", SEEDS)
async def test_restores_back_and_forth_with_pending_writes_end_in_one_state(world: Any, seed: int) -> None:
    """I15, I21, I23: all devices agree, nothing is pending, and what was written last since the fork stands."""
    dice = random.Random(1000 + seed)
    backups: list[str] = []
    told: set[str] = set()
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(world.open_device(f"d{n}", down=True)) for n in range(3)]
        for part in range(4):
            async with world.open_hub() as hub:
                if part:
                    await hub.new_epoch()
                for _ in range(dice.randint(1, 6)):
                    device = dice.choice(devices)
                    for _ in range(dice.randint(0, 2)):
                        told.add(token := f"{part}-{len(told)}")
                        await write(world, device, dice, token)
                    if dice.random() < 0.7:
                        await session(device)
            await trio.sleep(REPEATED_S)  # a device that is repaired again and again waits
            backup = f"backup{part}.db"
            shutil.copy(world.folder / world.hub_file, world.folder / backup)
            backups.append(backup)
            world.hub_file = f"restored{part}.db"
            shutil.copy(world.folder / dice.choice(backups), world.folder / world.hub_file)
        async with world.open_hub() as hub:
            await hub.new_epoch()
            for _ in range(4):
                for device in devices:
                    await session(device)
            async with world.open_device("fresh") as fresh:
                await fresh.settle()
                rows = await fresh.rows()
                for device in devices:
                    assert await device.rows() == rows, seed
                    assert await device.outbox() == []
                last = devices[0]
                await last.store(world.CARDS).upsert({"id": "r0", "title": "the last word", "board": "main"})
                for device in devices:
                    await session(device)
                await fresh.settle()
                assert (await fresh.rows())["r0"].title == "the last word"
