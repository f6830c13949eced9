"""A device whose disk is full as it begins to sync: it begins once there is room, and waits for no program that is not there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from atoma.client import open_client
from atoma.plugins import Plugin, PluginContext
from atoma.ports import PortKey
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.faults import FaultPlan, fault_vfs
from tests.scenarios.sync.conftest import SCHEMA, SYNCED, Device, Probe, Wire, World


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


@pytest.mark.paths
@pytest.mark.virtual_time
async def test_a_device_on_a_full_disk_begins_to_sync_once_there_is_room(world: World) -> None:
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.settle()
        with fault_vfs("full-when-it-begins") as plan:
            engine = LocalExecution(SQLiteEngine(world.folder / "a.db", vfs="full-when-it-begins"))
            wire, probe = Wire(world.running_hub), Probe()
            plugins: list[Plugin] = [engine, FillsUp(plan), probe, wire, Sync(SYNCED, ("main",))]
            environment = world.environment("a")
            async with open_client(SCHEMA, plugins=plugins, policy="sync-queue", environment=environment) as client:
                a = Device("a", client, wire, probe)
                await trio.sleep(10)
                assert plan.failed["full"], "that it leads could not be written"
                assert a.sync.status.state != "online"
                plan.heal()
                await trio.sleep(10)
                assert a.sync.status.state == "online"
