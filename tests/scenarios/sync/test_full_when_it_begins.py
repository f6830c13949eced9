"""A device whose disk is full as it begins to sync: it begins once there is room, and waits for no program that is not there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from atoma.plugins import PluginContext
from atoma.ports import PortKey
from atoma_stores.sqlite.faults import FaultPlan, fault_vfs
from tests.scenarios.sync.conftest import Device, World
from tests.scenarios.sync.ways import device_with


class FillsUp:
    """Plugin: the disk is full from here on."""

    id = "fills-up"
    provides: Sequence[PortKey[object]] = ()
    needs: Sequence[PortKey[object]] = ()

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self._plan.fail("write", "full")
        yield


def open_where_it_fills_up(world: World, plan: FaultPlan, vfs: str) -> AbstractAsyncContextManager[Device]:
    return device_with(world, vfs=vfs, plugins=[FillsUp(plan)])


def told(device: Device) -> tuple[str, str, bool]:
    """State and error of ``device``, and whether its reason names a full disk."""
    status = device.sync.status
    return status.state, "" if status.error is None else status.error.code, "no space left" in status.reason


@pytest.mark.paths
@pytest.mark.virtual_time
async def test_a_device_on_a_full_disk_begins_to_sync_once_there_is_room(world: World) -> None:
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.settle()
        with fault_vfs("full-when-it-begins") as plan:
            async with open_where_it_fills_up(world, plan, "full-when-it-begins") as a:
                await trio.sleep(10)
                assert plan.failed["full"], "that it leads could not be written"
                assert told(a) == ("stalled", "DISK_FULL", True)
                plan.heal()
                await trio.sleep(10)
                assert told(a) == ("online", "", False)


@pytest.mark.virtual_time
async def test_who_follows_says_so_once_the_disk_has_room_and_goes_on_saying_it(world: World) -> None:
    """That another program leads could not be written either; what was seen of it stays true where the disk is full again."""
    async with world.open_hub(), world.open_device("p", file="a.db") as leader:
        await leader.settle()
        with fault_vfs("full-when-it-follows") as plan:
            async with open_where_it_fills_up(world, plan, "full-when-it-follows") as a:
                await trio.sleep(10)
                assert told(a) == ("stalled", "DISK_FULL", True)
                plan.heal()
                await trio.sleep(10)
                assert told(a) == ("following", "", False)
                assert a.sync.status.reason == "another program that has the file open syncs it"
                before = plan.failed["full"]
                plan.fail("write", "full")
                await trio.sleep(10)
                assert plan.failed["full"] > before, "its beats failed"
                assert told(a) == ("following", "", False)
                plan.heal()
