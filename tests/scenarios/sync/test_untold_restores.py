"""A hub that went back with everything beside it, as in a snapshot of the whole machine, so that nothing has told it: it does so twice."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tests.scenarios.sync.kit import inbox, put_in, unplug

pytestmark = pytest.mark.virtual_time
PARTS = ("hub.db", "hub.db-wal", "hub.db-shm", "hub.db.hub-lock")


def save(world: Any) -> None:
    """What a snapshot of the machine has; the hub is closed."""
    copied = world.folder / "machine"
    shutil.rmtree(copied, ignore_errors=True)
    copied.mkdir()
    for name in PARTS:
        if (world.folder / name).exists():
            shutil.copy(world.folder / name, copied / name)


def go_back(world: Any) -> None:
    for name in PARTS:
        (world.folder / name).unlink(missing_ok=True)
    shutil.copytree(world.folder / "machine", world.folder, dirs_exist_ok=True)


async def lose_much(world: Any, a: Any) -> None:
    """``a`` writes, and the machine goes back."""
    save(world)
    async with world.open_hub():
        for number in range(8):
            await a.store(world.CARDS).update("there", title=str(number))
            await put_in(a)
        await unplug(a)
    go_back(world)


async def begin(world: Any, *devices: Any) -> None:
    async with world.open_hub():
        await devices[0].store(world.CARDS).insert(world.Card(id="there"))
        for device in devices:
            await put_in(device)
        await unplug(*devices)


async def told_of_both(a: Any, b: Any) -> set[str]:
    """The rows that both have; of the one that both have changed one version is there, and somebody is told of the other."""
    rows = await a.rows()
    assert rows == await b.rows()
    told = [entry.mine["title"] for device in (a, b) for entry in await device.sync.inbox.entries()]
    assert {rows["there"].title, *told} == {"7", "later"}, (await inbox(a), await inbox(b))
    return set(rows)


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
async def test_what_came_after_a_restore_that_nobody_told_of_comes_back_from_the_next_one(
    world: Any, told: bool
) -> None:
    """The first loss reached further than the second: by position alone its witness had seen what is brought back now."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await begin(world, a, b)
        await lose_much(world, a)
        async with world.open_hub():
            for device in (a, b, a):
                await put_in(device)
            await unplug(a, b)
        save(world)
        async with world.open_hub():
            await b.store(world.CARDS).insert(world.Card(id="later"))
            for device in (b, a):
                await put_in(device)
            await unplug(a, b)
        go_back(world)
        async with world.open_hub() as hub:
            if told:
                await hub.new_epoch()
            for device in (a, b, a):
                await put_in(device)
                assert set(await device.rows()) == {"there", "later"}


@pytest.mark.paths
async def test_a_witness_of_one_loss_takes_nothing_back_of_another(world: Any) -> None:
    """It has seen more, but of another history than the row that was brought back, and did not see that one deleted."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await begin(world, a, b)
        await lose_much(world, a)
        async with world.open_hub():
            await b.store(world.CARDS).insert(world.Card(id="later"))
            await b.store(world.CARDS).update("there", lane="done")
            await put_in(b)
            await unplug(b)
        go_back(world)
        async with world.open_hub():
            for device in (b, a, b):
                await put_in(device)
                assert set(await device.rows()) == {"there", "later"}
            assert await a.rows() == await b.rows()


@pytest.mark.parametrize("first", ["a", "b"])
async def test_of_two_losses_nobody_can_tell_which_version_of_a_row_is_later(world: Any, first: str) -> None:
    """What was brought back first stays, and whoever comes second is told; the one with the smaller position was left out, or overwritten."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await begin(world, a, b)
        await lose_much(world, a)
        async with world.open_hub():
            await b.store(world.CARDS).update("there", title="later")
            await put_in(b)
            await unplug(b)
        go_back(world)
        async with world.open_hub():
            for device in (a, b, a) if first == "a" else (b, a, b):
                await put_in(device)
            assert await told_of_both(a, b) == {"there"}


@pytest.mark.paths
@pytest.mark.parametrize("first", ["a", "b"])
async def test_two_histories_of_one_epoch_are_told_apart_once_a_restore_is_told(world: Any, first: str) -> None:
    """The file that is put back knows of neither; the one with the larger position had seen nothing of the other."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await begin(world, a, b)
        await lose_much(world, a)
        async with world.open_hub():
            await b.store(world.CARDS).update("there", title="later")
            await b.store(world.CARDS).insert(world.Card(id="of b"))
            await put_in(b)
            await unplug(b)
        go_back(world)
        async with world.open_hub() as hub:
            await hub.new_epoch()
            for device in (a, b, a) if first == "a" else (b, a, b):
                await put_in(device)
            assert await told_of_both(a, b) == {"there", "of b"}


@pytest.mark.parametrize("first", ["a", "b"])
async def test_witnesses_of_one_history_are_ordered_over_the_starts_of_its_hub(world: Any, first: str) -> None:
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await begin(world, a, b)
        save(world)
        for title in ("1", "2", "3"):
            async with world.open_hub():
                await a.store(world.CARDS).update("there", title=title)
                await put_in(a)
                if title == "1":
                    await put_in(b)
                await unplug(a, b)
        go_back(world)
        async with world.open_hub() as hub:
            await hub.new_epoch()
            for device in (a, b, a) if first == "a" else (b, a, b):
                await put_in(device)
            for device in (a, b):
                assert [row.title for row in (await device.rows()).values()] == ["3"]
                assert await inbox(device) == []


async def test_what_a_history_had_before_the_end_of_another_one_is_not_taken_for_what_that_one_had(world: Any) -> None:
    """The epoch of both ends further on than they part, and the device has no mark in between, which would tell."""
    async with (
        world.open_device("a", down=True) as a,
        world.open_device("b", down=True) as b,
        world.open_device("gone", down=True) as gone,
    ):
        await begin(world, a, b, gone)
        save(world)
        async with world.open_hub():
            await gone.store(world.CARDS).insert_many([world.Card(id=f"of a {number}") for number in range(8)])
            await put_in(gone)
            await put_in(a)
            await unplug(a, gone)
        go_back(world)
        async with world.open_hub():
            await b.store(world.CARDS).insert_many([world.Card(id=f"of b {number}") for number in range(6)])
            await put_in(b)
            await unplug(b)
        async with world.open_hub() as hub:
            await hub.new_epoch()
            for device in (a, b):
                await put_in(device)
            assert len(await a.rows()) == 15
            assert await a.rows() == await b.rows()
