"""A hub on PostgreSQL whose server is restored from a base backup: its second timeline is found out, and devices make it whole."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.hub import AllowLoopback, Hub, open_hub
from atoma_stores.postgres import PostgreSQLHubStore
from tests.postgres import NoPostgreSQL, Server
from tests.scenarios.sync.conftest import Device, World
from tests.scenarios.sync.kit import inbox, put_in

pytestmark = pytest.mark.xdist_group("machine")
PATIENCE_S = 60


@dataclass
class WorldOnServer(World):
    """The same, with the hub on a PostgreSQL."""

    dsn: str = ""

    @asynccontextmanager
    async def open_hub(self, **options: Any) -> AsyncGenerator[Hub]:
        store = PostgreSQLHubStore(self.dsn)
        async with open_hub(self.schema, store, verifier=AllowLoopback(), **options) as hub:
            self.hub = hub
            yield hub


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of this test's own; it knows of no archive, so a recovery ends where its log does."""
    try:
        made = Server(restore_command="false")
    except NoPostgreSQL as reason:
        pytest.skip(str(reason))
    try:
        yield made
    finally:
        made.close()


def restore(server: Server, base: Path) -> None:
    """Put the base backup in the place of the data, and let the server recover from it, which begins a timeline."""
    server.stop(signal.SIGINT)
    server.data.rename(server.folder / "before")
    base.rename(server.data)
    told = server.data / "recovery.signal"
    told.touch()
    if server.user is not None:
        shutil.chown(told, server.user)
    server.start()
    end = time.monotonic() + PATIENCE_S
    while server.sql("SELECT pg_is_in_recovery()") != "f":
        assert time.monotonic() < end, "the recovery does not end"
        time.sleep(0.05)


def timeline(server: Server) -> int:
    return int(server.sql("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"), 16)


async def observed(device: Device, *ids: str) -> None:
    with trio.fail_after(PATIENCE_S):
        for id in ids:
            handle = await device.store(World.CARDS).insert(World.Card(id=id))
            while handle.state != "observed":
                await trio.sleep(0.01)


async def test_another_timeline_is_another_epoch_and_devices_make_the_hub_whole(tmp_path: Path, server: Server) -> None:
    world = WorldOnServer(tmp_path, dsn=server.dsn(server.new_database()))
    base = server.folder / "base"
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        async with world.open_hub() as hub:
            for device in (a, b):
                await put_in(device)
            await observed(a, "kept")
            before = hub.identity.epoch
            await trio.to_thread.run_sync(
                server.run, "pg_basebackup", "-h", str(server.folder), "-U", server.superuser, "-D", str(base), "-c", "fast"
            )  # fmt: skip
            await observed(b, "lost")
            await put_in(a)
            for device in (a, b):
                device.wire.cut()
        pending = await a.store(world.CARDS).update("lost", title="pending")
        assert timeline(server) == 1
        await trio.to_thread.run_sync(restore, server, base)
        assert timeline(server) == 2
        async with world.open_hub() as hub:
            assert hub.identity.epoch != before, "found out before anybody is served"
            for device in (a, b, a):
                await put_in(device)
            wanted = {"kept": "", "lost": "pending"}
            for device in (a, b):
                assert {id: card.title for id, card in (await device.rows()).items()} == wanted
                assert await inbox(device) == [] == await device.sync.lost.entries()
            assert pending.state == "observed"
            assert [report.cause for report in await a.sync.repairs()] == ["HUB_LOST_DATA"]
            async with world.open_device("c") as c:
                await c.settle()
                assert set(await c.rows()) == set(wanted)


def go_back(server: Server, disks: Path) -> None:
    """Put a snapshot of the disks in the place of the data: the server starts on it as after a power cut, and says nothing."""
    server.stop(signal.SIGINT)
    shutil.rmtree(server.data)
    shutil.copytree(disks, server.data)
    if server.user is not None:
        for path in (server.data, *server.data.rglob("*")):
            shutil.chown(path, server.user)
    server.start()


async def test_two_histories_of_one_timeline_are_told_apart_by_the_starts_of_the_server(
    tmp_path: Path, server: Server
) -> None:
    """A snapshot of the disks goes back with the timeline and all; the next one is told, and neither device has seen the other's history."""
    world = WorldOnServer(tmp_path, dsn=server.dsn(server.new_database()))
    disks = server.folder / "disks"
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        async with world.open_hub() as hub:
            for device in (a, b):
                await put_in(device)
            await observed(a, "there")
            await put_in(b)
            for device in (a, b):
                device.wire.cut()
            before = hub.identity.epoch
        await trio.to_thread.run_sync(server.stop, signal.SIGINT)
        shutil.copytree(server.data, disks)
        await trio.to_thread.run_sync(server.start)
        for device, title, times in ((a, "of a", 4), (b, "of b", 1)):
            async with world.open_hub() as hub:
                assert hub.identity.epoch == before, "nothing has told it"
                await device.store(world.CARDS).insert(world.Card(id=device.name))
                for _ in range(times):
                    await device.store(world.CARDS).update("there", title=title)
                    await put_in(device)
                device.wire.cut()
            await trio.to_thread.run_sync(go_back, server, disks)
        async with world.open_hub() as hub:
            await hub.new_epoch()
            for device in (a, b, a):
                await put_in(device)
            rows = await a.rows()
            assert rows == await b.rows()
            assert set(rows) == {"there", "a", "b"}
            told = [entry.mine["title"] for device in (a, b) for entry in await device.sync.inbox.entries()]
            assert {rows["there"].title, *told} == {"of a", "of b"}
