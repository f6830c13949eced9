"""A hub with a card on each of nine boards, for tests of scopes that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from atoma.query import col, select
from tests.scenarios.sync.conftest import CARDS, Card, Device, World

BOARD = select(CARDS).where(col("board") == "board:7")


async def told(device: Device) -> str:
    """How complete the board is on ``device``."""
    state: str = (await device.store(CARDS).query(BOARD)).meta.completeness.state
    return state


@asynccontextmanager
async def open_boards(world: World, **hub: Any) -> AsyncIterator[Device]:
    """A hub, and a device that has written one card on each of nine boards."""
    boards = [f"board:{number}" for number in range(1, 10)]
    async with world.open_hub(**hub), world.open_device("writer", scopes=("main", *boards)) as writer:
        await writer.store(CARDS).insert_many([Card(id=f"of {board}", board=board) for board in ("main", *boards)])
        await writer.settle()
        yield writer


async def ids(device: Device) -> set[str]:
    return set(await device.rows())


async def arrive(device: Device, *scopes: str) -> None:
    """Until the rows of ``scopes`` are here."""
    with trio.fail_after(60):
        await device.sync.pull(scopes)


async def use(device: Device, *scopes: str) -> None:
    """Use one after the other for a while."""
    for scope in scopes:
        async with device.sync.scope(scope):
            await arrive(device, scope)
        await trio.sleep(1)
