"""Files are for their owner only, and a disk that is full when a program starts is called by that name."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from atoma import AllowLoopback, Schema, open_hub
from atoma.errors import DiskFull
from atoma.ports import Environment
from atoma_stores.sqlite import SQLiteHubStore, files, hub_files
from tests.unit.stores.kit import CARDS, TAGS, insert, opened

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes are a matter of POSIX")
DISK_BYTES, PAGE_BYTES, FILES = 64 * 1024, 4096, 16
SCHEMA = Schema(CARDS, TAGS)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=lambda mask: f"umask {mask:03o}")
def umask(request: pytest.FixtureRequest) -> Generator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.paths
async def test_what_a_device_makes_is_for_its_owner(umask: int, tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as db:
        await db.write(insert("1"))
        assert modes(tmp_path) == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    assert modes(tmp_path) == {"a.db": 0o600}


async def test_what_a_hub_makes_is_for_its_owner(umask: int, tmp_path: Path) -> None:
    async with open_hub(SCHEMA, SQLiteHubStore(tmp_path / "h.db"), verifier=AllowLoopback()):
        found = modes(tmp_path)
    assert set(found) == {"h.db", "h.db-wal", "h.db-shm", "h.db.hub-lock"}
    assert set(found.values()) == {0o600}


async def test_a_mode_that_somebody_chose_stays(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    async with opened(path) as db:
        await db.write(insert("1"))
    path.chmod(0o660)
    async with opened(path) as db:
        await db.write(insert("2"))
        assert set(modes(tmp_path).values()) == {0o660}


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A folder on a disk of sixteen pages and as many files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={DISK_BYTES},nr_inodes={FILES}", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a disk that is small enough to fill")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("what", ["device", "hub"])
@pytest.mark.parametrize("free_pages", [0, 1, 2, 5, 8, 9, 12])
async def test_starting_on_a_full_disk_says_so(what: str, free_pages: int, small_disk: Path) -> None:
    with suppress(OSError), (small_disk / "filling").open("wb", buffering=0) as filling:
        filling.write(bytes(DISK_BYTES - free_pages * PAGE_BYTES))
    await start_in_vain(what, small_disk)


@pytest.mark.parametrize(("what", "free_files"), [("device", 0), ("hub", 0), ("hub", 1)])
async def test_starting_on_a_disk_that_takes_no_more_files_says_so(
    what: str, free_files: int, small_disk: Path
) -> None:
    """The first file of a hub is its lock file."""
    with suppress(OSError):
        for number in range(FILES):
            (small_disk / str(number)).touch()
    for number in range(free_files):
        (small_disk / str(number)).unlink()
    await start_in_vain(what, small_disk)


async def start_in_vain(what: str, disk: Path) -> None:
    with pytest.raises(DiskFull, match="no space left"):
        if what == "device":
            async with opened(disk / "a.db") as db:
                await db.write(insert("1"))
        else:
            async with open_hub(SCHEMA, SQLiteHubStore(disk / "h.db"), verifier=AllowLoopback()):
                pass


async def test_a_copy_has_its_name_once_it_is_on_the_disk_and_then_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, device, copy = tmp_path / "hub.db", tmp_path / "a.db", tmp_path / "copy"
    async with open_hub(SCHEMA, SQLiteHubStore(hub), verifier=AllowLoopback()), opened(device, schema=SCHEMA):
        pass
    synced: list[tuple[int, bool]] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, copy.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    for path, back_up in ((hub, hub_files.back_up), (device, files.back_up)):
        back_up(str(path), str(copy), lambda done, of: None)
        assert synced == [(copy.stat().st_ino, False), (tmp_path.stat().st_ino, True)]
        copy.unlink()
        synced.clear()
    hub_files.back_up(str(hub), str(tmp_path / "kept"))
    hub.unlink()
    synced.clear()
    hub_files.restore(str(tmp_path / "kept"), str(hub), "ask", Environment())
    assert {tmp_path.stat().st_ino, hub.stat().st_ino} <= {inode for inode, _ in synced}
