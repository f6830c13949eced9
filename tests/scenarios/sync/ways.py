"""What walks out of whatever keeps a device waiting have in common: it is told, and in the end nothing of it is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from atoma.client import open_client
from atoma.codes import HELP, row
from atoma.hub import AllowLoopback, open_hub
from atoma.plugins import Plugin
from atoma.schema import Schema, StoreSpec
from atoma.sync import Sync
from atoma.sync.conditions import condition_code, state_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from tests.scenarios.sync.conftest import SCHEMA, SYNCED, Device, Probe, Wire, World

WalkOut: TypeAlias = Callable[[World], Awaitable[None]]
AT_ONCE_S = 2.0
"""By virtual time, after the call that failed; what has to be waited for, a connection or a lock, comes on top."""


def is_told(status: Any, code: str) -> bool:
    """Whether the status says that ``code`` keeps the device waiting; then it says everything that belongs to it."""
    if status.error is None or condition_code(status.error) != code or status.state == "connecting":
        return False
    assert status.reason
    assert status.state in {state_of(status.error, session=session) for session in (True, False)}
    assert status.helps == HELP[row(code).help]
    assert status.next_attempt_ms > 0
    assert status.attempt > 0
    return True


async def stuck(device: Device, code: str, *, within_s: float = AT_ONCE_S) -> None:
    """Wait until the status says that ``code`` keeps the device waiting."""
    with trio.fail_after(within_s):
        while not is_told(device.sync.status, code):
            await trio.sleep(0.01)


async def free(device: Device, *, poke: bool = True) -> None:
    """Everything that waited is done, and nothing of the trouble is left in the status."""
    if poke:
        device.sync.poke()
    await device.settle()
    status = device.sync.status
    assert (status.state, status.reason, status.error, status.helps) == ("online", "", None, "")
    assert (status.attempt, status.next_attempt_ms, await device.outbox()) == (0, 0, [])
    assert "waits" in await device.rows()


async def insert(world: World, device: Device) -> None:
    await device.store(world.CARDS).insert(world.Card(id="waits"))


@asynccontextmanager
async def held(path: Path) -> AsyncGenerator[None]:
    """Another program holds the file: a tool that somebody has left open in the middle of a change.

    It is waited for half a second and not for five: who waits is told the same, and the test takes as long.
    """
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(1, flush=True); input()"
    command = [sys.executable, "-c", code, str(path)]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder,
    ):
        patch.setattr("atoma_stores.sqlite._writer.BUSY_MS", 500)
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "1\n"
        try:
            yield
        finally:
            holder.stdin.close()


@asynccontextmanager
async def hub_with(
    world: World, *, schema: Schema = SCHEMA, vfs: str | None = None, **options: Any
) -> AsyncGenerator[None]:
    store = SQLiteHubStore(world.folder / world.hub_file, vfs=vfs)
    environment = world.environment("hub")
    async with open_hub(schema, store, verifier=AllowLoopback(), environment=environment, **options) as hub:
        world.hub = hub
        yield


@asynccontextmanager
async def device_with(
    world: World,
    *,
    schema: Schema = SCHEMA,
    synced: tuple[StoreSpec[Any], ...] = SYNCED,
    vfs: str | None = None,
    plugins: Sequence[Plugin] = (),
) -> AsyncGenerator[Device]:
    """The device ``a``; ``plugins`` come right behind its database."""
    wire, probe = Wire(world.running_hub), Probe()
    engine = LocalExecution(SQLiteEngine(world.folder / "a.db", vfs=vfs))
    every: list[Plugin] = [engine, *plugins, probe, wire, Sync(synced, ("main",))]
    environment = world.environment("a")
    async with open_client(schema, plugins=every, policy="sync-queue", environment=environment) as client:
        yield Device("a", client, wire, probe)


@asynccontextmanager
async def stoppable(hub: AbstractAsyncContextManager[object]) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """A hub that somebody may stop while devices are open; what is yielded does."""
    stop, stopped = trio.Event(), trio.Event()

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        async with hub:
            task_status.started()
            await stop.wait()
        stopped.set()

    async def end() -> None:
        stop.set()
        await stopped.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        yield end
        stop.set()
