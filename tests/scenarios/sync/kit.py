"""What tests of restores and repairs do again and again."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atoma.hub import Hub

SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(3, 30))]
"""Of histories that are drawn: a few each time, and in every way of `tests.paths`; the others under `dev.py soak`."""


def copy_file(world: Any, name: str, to: str) -> None:
    """What lies on the disk, as a person copies it; the device is closed."""
    for suffix in ("", "-wal", "-shm"):
        source, target = world.folder / f"{name}.db{suffix}", world.folder / f"{to}.db{suffix}"
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copy(source, target)


async def client_id(device: Any) -> bytes:
    found: bytes = await device.inspect(lambda tx: tx.outbox.identity().client_id)
    return found


async def inbox(device: Any) -> list[tuple[str, str]]:
    return [(entry.code, entry.id) for entry in await device.sync.inbox.entries()]


async def head(world: Any) -> int:
    (state,) = await world.hub._core.database.scopes(["main"])
    found: int = state.head
    return found


async def put_in(device: Any) -> None:
    """Connect the device and wait until all is done."""
    device.wire.repair()
    device.sync.poke()
    await device.settle()


def back_up(world: Any) -> None:
    """What an operator keeps; the hub is closed."""
    shutil.copy(world.folder / "hub.db", world.folder / "backup.db")


async def unplug(*devices: Any) -> None:
    for device in devices:
        device.wire.cut()


async def back_up_with(world: Any, *devices: Any) -> None:
    """Have the devices come to the hub and leave, and keep what it has then."""
    async with world.open_hub():
        for device in devices:
            await put_in(device)
        await unplug(*devices)
    back_up(world)


@asynccontextmanager
async def open_restored(world: Any, **options: Any) -> AsyncGenerator[Hub]:
    """The hub as its backup has it, in the new epoch that the operator begins; ``options`` are those of ``Hub.new_epoch``."""
    world.hub_file = "backup.db"
    async with world.open_hub() as hub:
        await hub.new_epoch(**options)
        yield hub
