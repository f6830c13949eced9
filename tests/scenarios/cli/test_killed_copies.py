"""A hub that was killed, of which a copy made with `cp` is put back, with its write-ahead log or without: devices make it whole."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import trio

from tests.scenarios.cli.kit import TASKS, device, running_hub, settle, titles, write
from tests.scenarios.cli.test_litestream import SERVING, process

PATIENCE_S = 60
PARTS = ("", "-wal", "-shm")

pytestmark = pytest.mark.xdist_group("machine")


async def write_and_kill(hub_file: Path, second: Path, number: int) -> None:
    """A hub in a process of its own takes a write of a device, and is ended by kill -9."""
    async with process(sys.executable, str(SERVING), str(hub_file)) as hub:
        assert hub.stdout is not None
        with trio.fail_after(PATIENCE_S):
            url = (await hub.stdout.receive_some()).decode().strip()
        await write(second, url, [number])


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@pytest.mark.parametrize("way", ["with its log", "without a log", "onto the log of the file that was there"])
async def test_a_copy_of_a_killed_hub_is_put_back_and_devices_make_it_whole(tmp_path: Path, way: str) -> None:
    hub_file, backup, first, second = (tmp_path / name for name in ("hub.db", "backup.db", "first.db", "second.db"))
    async with running_hub(hub_file) as (_, url):
        await write(first, url, [0, 1])
    await write_and_kill(hub_file, second, 2)
    assert beside(hub_file, "-wal").stat().st_size > 0
    for suffix in ("", "-wal") if way == "with its log" else ("",):
        shutil.copy(beside(hub_file, suffix), beside(backup, suffix))
    async with running_hub(hub_file) as (hub, url):
        before = hub.identity.epoch
        await write(first, url, [3])  # and closed in order, so that the log is in the file
    await write_and_kill(hub_file, second, 4)
    assert beside(hub_file, "-wal").stat().st_size > 0
    if way != "onto the log of the file that was there":
        for suffix in PARTS:
            beside(hub_file, suffix).unlink(missing_ok=True)
    shutil.copy(backup, hub_file)
    if way == "with its log":
        shutil.copy(beside(backup, "-wal"), beside(hub_file, "-wal"))
    wanted = [f"task {number}" for number in range(5)]
    async with running_hub(hub_file) as (hub, url):
        assert hub.identity.epoch != before, "the hub has found out that the file is an older one"
        for file in (second, first):
            async with device(file, url) as client:
                await settle(client)
        async with device(second, url) as client:
            await settle(client)
            assert sorted(row.title for row in (await client.store(TASKS).query()).items) == wanted
            assert [report.cause for report in await client.sync.repairs()] == ["HUB_LOST_DATA"]
            assert await client.sync.inbox.entries() == [] == await client.sync.lost.entries()
    assert titles(hub_file) == wanted
    orphans = [path.name for path in tmp_path.glob("hub.db-wal.orphan-*")]
    assert len(orphans) == (way != "without a log"), (
        "nobody can tell whose log it is, so it is set aside, and never replayed"
    )
