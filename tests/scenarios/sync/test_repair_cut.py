"""I26: a repair is one local transaction; cut off before it, nothing has changed; after it the file is an ordinary client."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.lowlevel import Task

from atoma.client import open_client
from atoma.errors import StoreError
from atoma.sync import Sync
from atoma.sync.repair import changes
from atoma.sync.repair.rebirth import be_reborn
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.faults import fault_vfs
from tests.scenarios.sync.conftest import SCHEMA, SYNCED, Device, Probe, Wire
from tests.scenarios.sync.kit import back_up_with, client_id, copy_file, inbox, put_in

ROOT = Path(__file__).parents[3]
WANTED = {"kept": "", "lost": "pending", "more": "", "c's": ""}
"""What all have in the end."""


async def prepare(world: Any) -> None:
    """The file ``a`` has a pending write and has seen a row that the hub's backup has not; somebody else has written there."""
    async with world.open_device("a", down=True) as a:
        await a.store(world.CARDS).insert(world.Card(id="kept"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).insert_many([world.Card(id="lost"), world.Card(id="more")])
            await a.settle()
            a.wire.cut()
        await a.store(world.CARDS).update("lost", title="pending")
    world.hub_file = "backup.db"
    async with world.open_hub() as hub, world.open_device("c") as c:
        await hub.new_epoch()
        await c.store(world.CARDS).insert(world.Card(id="c's"))
        await c.settle()


async def check_untouched_or_whole(a: Any, before: bytes) -> bool:
    """What is in the file is what was there, or all of the repair; whether it is the latter."""
    made = list(await a.sync.repairs())
    bodies = [item.mid for item in await a.outbox()]
    rows = {id: row.title for id, row in (await a.rows()).items()}
    if not made:
        assert (await client_id(a), bodies) == (before, [4])
        assert rows == {"kept": "", "lost": "pending", "more": ""}
        return False
    (report,) = made
    assert (report.old_client_id, report.new_client_id) == (before, await client_id(a))
    assert bodies == list(range(1, len(bodies) + 1))
    assert rows == WANTED
    return True


async def check_goes_on(a: Any, world: Any) -> None:
    """It is an ordinary client: everything goes up, once, and nothing is in the inbox."""
    await put_in(a)
    assert {id: row.title for id, row in (await a.rows()).items()} == WANTED
    assert await a.outbox() == [] == await inbox(a) and len(await a.sync.repairs()) == 1
    later = await a.store(world.CARDS).update("more", lane="done")
    await a.settle()
    assert later.state == "observed"


@dataclass(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels a scope when a task is about to take its step number ``at``."""

    task: Task
    scope: trio.CancelScope
    at: int
    steps: int = 0

    def before_task_step(self, task: Task) -> None:
        if task is self.task:
            self.steps += 1
            if self.steps == self.at:
                self.scope.cancel()


@pytest.mark.virtual_time
async def test_a_repair_may_be_cancelled_at_every_await(world: Any) -> None:
    await prepare(world)
    copy_file(world, "a", "template")
    shutil.copy(world.folder / "backup.db", world.folder / "template-hub.db")
    outcomes: list[bool] = []
    finished = False
    at = 0
    while not finished:
        at += 1
        copy_file(world, "template", "a")
        for file in world.folder.glob("backup.db*"):
            file.unlink()
        shutil.copy(world.folder / "template-hub.db", world.folder / "backup.db")
        async with world.open_hub():
            async with world.open_device("a", down=True, repair="manual") as a:
                before = await client_id(a)
                a.wire.repair()
                with trio.CancelScope() as scope:
                    cutter = CancelAt(trio.lowlevel.current_task(), scope, at)
                    trio.lowlevel.add_instrument(cutter)
                    try:
                        await a.sync.repair()
                        finished = True
                    finally:
                        trio.lowlevel.remove_instrument(cutter)
                a.wire.cut()
            async with world.open_device("a", down=True) as a:
                outcomes.append(await check_untouched_or_whole(a, before))
                await check_goes_on(a, world)
        assert at < 1_000
    assert outcomes == sorted(outcomes), "not once is a later one less"
    assert outcomes[0] is False and outcomes[-1] is True and len(outcomes) > 5


@asynccontextmanager
async def device_on_vfs(world: Any, vfs: str) -> AsyncGenerator[Device]:
    wire, probe = Wire(world.running_hub, down=True), Probe()
    engine = LocalExecution(SQLiteEngine(world.folder / "a.db", vfs=vfs))
    plugins: list[Any] = [engine, probe, wire, Sync(SYNCED, ("main",), repair="manual")]
    environment = world.environment("a")
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue", environment=environment) as client:
        yield Device("a", client, wire, probe)


@pytest.mark.paths
@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("operation", "failure", "skip"), [("write", "full", 0), ("write", "full", 2), ("sync", "io", 0)]
)
async def test_a_disk_that_fails_within_the_transaction_takes_all_of_it_back(
    world: Any, monkeypatch: pytest.MonkeyPatch, operation: Any, failure: Any, skip: int
) -> None:
    await prepare(world)
    vfs = f"repair-{operation}-{skip}"
    with fault_vfs(vfs) as plan:

        def on_a_failing_disk(*given: Any) -> Any:
            plan.fail(operation, failure, skip=skip)
            return be_reborn(*given)

        async with world.open_hub(), device_on_vfs(world, vfs) as a:
            before = await client_id(a)
            a.wire.repair()
            monkeypatch.setattr(changes, "be_reborn", on_a_failing_disk)
            with pytest.raises(StoreError):
                await a.sync.repair()
            plan.heal()
            monkeypatch.undo()
            a.wire.cut()
        async with world.open_hub(), world.open_device("a", down=True) as a:
            whole = await check_untouched_or_whole(a, before)
            assert not whole or operation == "sync", "after a failed fsync nobody knows, and either is right"
            await check_goes_on(a, world)


@pytest.mark.xdist_group("machine")
@pytest.mark.parametrize(("place", "whole"), [("before", False), ("inside", False), ("after", True)])
async def test_a_process_that_is_killed_in_its_repair_leaves_a_file_that_goes_on(
    world: Any, place: str, whole: bool
) -> None:
    """kill -9, with the real file, at the three places there are."""
    await prepare(world)
    async with world.open_device("a", down=True) as a:
        before = await client_id(a)
    command = [sys.executable, "-m", "tests.scenarios.kill.mortal_repair", str(world.folder), place]
    killed = await trio.run_process(
        command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert killed.returncode == -signal.SIGKILL
    async with world.open_hub():
        async with world.open_device("a", down=True) as a:
            assert await check_untouched_or_whole(a, before) is whole
            await check_goes_on(a, world)
