"""A hub file that is not the one that ran last begins a new epoch by itself, before anybody is served."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from atoma.contracts.mutations import Op
from atoma.hub.lineage import next_hash
from atoma.ports import Environment, seeded_environment
from atoma_stores.sqlite.hub_files import back_up, begin_epoch, verify
from atoma_stores.sqlite.hub_lock import Beside, sole_hub
from tests.unit.hub.kit import Client, card, hub_on

PARTS = ("", "-wal", "-shm")


async def run(path: Path, count: int, *, crash: Path | None = None) -> tuple[bytes, int]:
    """Run a hub that takes ``count`` writes; its epoch, and the head it began with. ``crash`` gets what a kill leaves."""
    async with hub_on(path) as hub:
        head = (await Client.of(hub, "reader").open()).scopes[0].head
        client = Client.of(hub, f"w{head}-{hub.identity.epoch.hex()[:4]}")
        for number in range(count):
            await client.do(Op("create", "cards", f"{head}-{number}", card("")))
        if crash is not None:
            crash.mkdir()
            for suffix in (*PARTS, ".hub-lock"):
                if (source := path.with_name(path.name + suffix)).exists():
                    shutil.copy(source, crash / source.name)
        return hub.identity.epoch, head


def put(source: Path, target: Path, way: str) -> None:
    """Restore the one file ``source`` over ``target``."""
    if way == "remove and copy":
        target.unlink()
    if way == "move":
        shutil.copy(source, source.with_suffix(".moved"))
        os.replace(source.with_suffix(".moved"), target)
    else:
        shutil.copy(source, target)


@pytest.mark.parametrize("way", ["copy", "remove and copy", "move"])
async def test_a_backup_in_the_place_of_the_file_is_another_epoch(tmp_path: Path, way: str) -> None:
    path, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    first, _ = await run(path, 5)
    shutil.copy(path, backup)
    assert await run(path, 3) == (first, 5), "the same file again"
    put(backup, path, way)
    second, head = await run(path, 0)
    assert second != first and head == 5
    async with hub_on(path) as hub:
        assert hub.identity.epoch == second, "once"
        (ended,) = await hub.epochs()
        assert (ended.epoch, ended.devices, ended.deletes) == (first, "offer", False)
        await hub.allow_deletes(first)
        assert (await hub.epochs())[0].deletes


async def test_a_backup_with_its_log_is_another_epoch(tmp_path: Path) -> None:
    """All files of a moment are put back, as a snapshot of the file system has them."""
    path = tmp_path / "hub.db"
    first, _ = await run(path, 5, crash=tmp_path / "crash")
    await run(path, 3)
    for suffix in PARTS:
        target = path.with_name(path.name + suffix)
        target.unlink(missing_ok=True)
        if (source := tmp_path / "crash" / target.name).exists():
            shutil.copy(source, target)
    second, head = await run(path, 0)
    assert second != first and head == 5


async def test_the_log_of_another_file_is_never_replayed(tmp_path: Path) -> None:
    """The hub was killed and a backup was copied over the main file alone; the old WAL lies beside it."""
    path, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    first, _ = await run(path, 5)
    shutil.copy(path, backup)
    await run(path, 3)
    await run(path, 20, crash=tmp_path / "crash")
    crashed = tmp_path / "crash" / "hub.db"
    assert (tmp_path / "crash" / "hub.db-wal").stat().st_size > 0
    shutil.copy(backup, crashed)
    second, head = await run(crashed, 0)
    assert second != first and head == 5, "nothing of the other file's log is in it"
    (orphan,) = (tmp_path / "crash").glob("hub.db-wal.orphan-*")
    assert orphan.stat().st_size > 0


@pytest.mark.virtual_time  # no thread takes a checkpoint when it comes to it
async def test_the_log_of_another_file_is_known_although_no_counter_tells(tmp_path: Path) -> None:
    """Nothing was checkpointed since the backup, whose pages lie elsewhere: the old WAL over it would be neither file."""
    path, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with hub_on(path, environment=seeded_environment(1)) as hub:
        first = hub.identity.epoch
        client = Client.of(hub, "w")
        for number in range(60):
            await client.do(Op("create", "cards", f"{number}", card("x" * 500)))
        for number in range(30):
            await client.do(Op("delete", "cards", f"{number}"))
        back_up(str(path), str(backup))
        for number in range(60, 80):
            if number == 79:
                await trio.sleep(1.1)  # the lock file is written once a second
            await client.do(Op("create", "cards", f"{number}", card("x" * 500)))
        (tmp_path / "crash").mkdir()
        for suffix in (*PARTS, ".hub-lock"):
            shutil.copy(f"{path}{suffix}", tmp_path / "crash" / f"hub.db{suffix}")
    crashed = tmp_path / "crash" / "hub.db"
    beside = (tmp_path / "crash" / "hub.db.hub-lock").read_text().split()
    assert int(beside[3]) <= 90, "what the main file alone had"
    shutil.copy(backup, crashed)
    second, head = await run(crashed, 0)
    assert second != first and head == 90
    assert len(list((tmp_path / "crash").glob("hub.db-wal.orphan-*"))) == 1
    assert await run(crashed, 2, crash=tmp_path / "again") == (second, 90)
    assert await run(tmp_path / "again" / "hub.db", 0) == (second, 92), "a log of its own is replayed"


@pytest.mark.virtual_time
async def test_a_told_epoch_replays_no_log_of_another_file_although_nothing_stands_beside_it(tmp_path: Path) -> None:
    """A backup was put where a hub was killed, without its lock file, and an operator says so."""
    path, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with hub_on(path, environment=seeded_environment(1)) as hub:
        client = Client.of(hub, "w")
        for number in range(20):
            await client.do(Op("create", "cards", f"{number}", card("x" * 500)))
        for number in range(10):
            await client.do(Op("delete", "cards", f"{number}"))
        back_up(str(path), str(backup))
        for number in range(20, 30):
            await client.do(Op("create", "cards", f"{number}", card("x" * 500)))
        (tmp_path / "crash").mkdir()
        for suffix in PARTS:
            shutil.copy(f"{path}{suffix}", tmp_path / "crash" / f"hub.db{suffix}")
    crashed = tmp_path / "crash" / "hub.db"
    shutil.copy(backup, crashed)
    told = begin_epoch(str(crashed), "offer", Environment())
    assert told.heads == {"main": 30}
    assert verify(str(crashed), next_hash, lambda _done, _of: None).problems == []
    assert len(list((tmp_path / "crash").glob("hub.db-wal.orphan-*"))) == 1
    assert (await run(crashed, 0))[0] == told.epoch


@pytest.mark.virtual_time
async def test_what_a_file_has_come_to_is_written_beside_it_once_a_second(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    told: list[int] = []
    async with hub_on(path, environment=seeded_environment(1)) as hub:
        client = Client.of(hub, "a")
        await trio.sleep(5)
        for number in range(9):
            await client.do(Op("create", "cards", str(number), card("")))
            told.append(int(path.with_name("hub.db.hub-lock").read_text().split()[2]))
            await trio.sleep(0.25)
    assert [told.index(commits) for commits in sorted(set(told))] == [0, 4, 8]


def test_what_is_forgotten_stands_beside_the_file_no_more(tmp_path: Path) -> None:
    path, beside = tmp_path / "hub.db", Beside(b"e" * 16, 7, 5)
    with sole_hub(str(path)) as lock:
        lock.write(beside)
        assert lock.read() == beside
        lock.forget()
        assert lock.read() is None
    assert path.with_name("hub.db.hub-lock").read_bytes() == b""


async def test_a_crash_is_no_restore(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    first, _ = await run(path, 5)
    assert await run(path, 3, crash=tmp_path / "crash") == (first, 5)
    crashed = tmp_path / "crash" / "hub.db"
    lagging = (tmp_path / "crash" / "hub.db.hub-lock").read_text().split()
    assert int(lagging[2]) < 8, "written once a second at most"
    assert await run(crashed, 0) == (first, 8)
    for number in range(3):
        assert await run(crashed, 1) == (first, 8 + number)


async def test_an_epoch_that_had_no_time_to_be_written_down_is_no_restore(tmp_path: Path) -> None:
    """The lock file lags: what stands there is the epoch that the file has ended. A backup from before it is another file."""
    path, backup, lock = tmp_path / "hub.db", tmp_path / "backup.db", tmp_path / "hub.db.hub-lock"
    await run(path, 5)
    shutil.copy(path, backup)
    before = lock.read_bytes()
    async with hub_on(path) as hub:
        told = (await hub.new_epoch(devices="forget")).epoch
    lock.write_bytes(before)
    async with hub_on(path) as hub:
        assert hub.identity.epoch == told
        assert [ended.devices for ended in await hub.epochs()] == ["forget"], "the operator's word counts"
    put(backup, path, "copy")
    assert (await run(path, 0))[0] != told


@pytest.mark.parametrize("how", ["lost", "damaged", "empty"])
async def test_nothing_beside_the_file_says_nothing_and_warns(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, lock = tmp_path / "hub.db", tmp_path / "hub.db.hub-lock"
    first, _ = await run(path, 5)
    with caplog.at_level(logging.WARNING):
        await run(path, 0)
        assert caplog.text == ""
        if how == "lost":
            lock.unlink()
        else:
            lock.write_bytes(b"" if how == "empty" else lock.read_bytes().replace(b"5", b"6"))
        assert await run(path, 0) == (first, 5)
        assert caplog.text.count("new_epoch()") == 1
        assert await run(path, 0) == (first, 5)
        assert caplog.text.count("new_epoch()") == 1


@pytest.mark.xdist_group("machine")
async def test_a_hub_that_is_killed_goes_on_and_a_restored_one_does_not(tmp_path: Path) -> None:
    """With a real process and kill -9: between a commit and the lock file, too."""
    path, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    first, _ = await run(path, 5)
    shutil.copy(path, backup)
    script = (
        "import sys, trio\n"
        "from pathlib import Path\n"
        "from tests.unit.hub.test_restored_files import run\n"
        "from tests.unit.hub.kit import *\n"
        "async def main():\n"
        "    async with hub_on(sys.argv[1]) as hub:\n"
        "        client = Client.of(hub, 'child')\n"
        "        for number in range(1, 100_000):\n"
        "            await client.do(Op('create', 'cards', f'child{number}', card('t')))\n"
        "            print(number, flush=True)\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) < 50:
            pass
        child.send_signal(signal.SIGKILL)
        child.stdout.read()
    epoch, head = await run(path, 0)
    assert epoch == first and head >= 55
    shutil.copy(backup, path)
    epoch, head = await run(path, 0)
    assert epoch != first and head == 5
