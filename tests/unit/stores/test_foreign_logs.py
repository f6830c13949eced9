"""A log that lies beside a device's file and is another state's is found out, by every door, before anything of it is written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atoma.errors import ForeignLog
from atoma_stores.sqlite import files
from atoma_stores.sqlite.device_files import read_sync
from tests.unit.stores.kit import insert, opened

pytestmark = pytest.mark.xdist_group("machine")
WRITER = """
import sys, trio
from tests.unit.stores.kit import insert, opened

async def main():
    async with opened(sys.argv[1]) as db:
        for id in sys.argv[2:]:
            await db.write(insert(id))
        print("written", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
REPOSITORY = Path(__file__).parents[3]


async def write(path: Path, *ids: str) -> None:
    """A program that ends as it should."""
    async with opened(path) as db:
        for id in ids:
            await db.write(insert(id))


def write_and_kill(path: Path, *ids: str) -> None:
    """A program that is ended by kill -9: its last writes are in the log alone."""
    command = [sys.executable, "-c", WRITER, str(path), *ids]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "written\n"
        program.kill()
    assert log_of(path).stat().st_size > 0


async def ids(path: Path) -> set[str]:
    async with opened(path) as db:
        return set(await db.rows())


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def by_cp(path: Path, target: Path) -> None:
    shutil.copy(path, target)


def by_back_up(path: Path, target: Path) -> None:
    files.back_up(str(path), str(target), lambda _done, _total: None)


async def refused(path: Path) -> None:
    """Whoever opens it is told where the log is, and nothing is changed."""
    before = path.read_bytes(), log_of(path).read_bytes()
    with pytest.raises(ForeignLog, match=f"move {log_of(path)} away") as caught:
        await ids(path)
    assert caught.value.code == "FOREIGN_LOG"
    for door in (files.survey_file, read_sync, files.read_quarantine):
        with pytest.raises(ForeignLog):
            door(str(path))
    assert (path.read_bytes(), log_of(path).read_bytes()) == before


@pytest.mark.parametrize("copy", [by_cp, by_back_up])
async def test_an_older_copy_under_the_log_of_a_killed_program_is_refused_with_both_ways_out(
    tmp_path: Path, copy: object
) -> None:
    """SQLite would replay the log over the copy, and nothing would be left of either."""
    path, older, newer = (tmp_path / name for name in ("app.db", "older.db", "newer.db"))
    await write(path, "a", "b")
    assert callable(copy)
    copy(path, older)
    await write(path, *map(str, range(40)))
    write_and_kill(path, "of the killed one")
    shutil.copy(path, newer)
    shutil.copy(older, path)
    await refused(path)
    log_of(path).rename(tmp_path / "aside")
    assert await ids(path) == {"a", "b"}
    shutil.copy(newer, path)
    shutil.copy(tmp_path / "aside", log_of(path))
    assert await ids(path) == {"a", "b", *map(str, range(40)), "of the killed one"}


@pytest.mark.paths
async def test_a_newer_file_under_the_log_of_an_older_one_is_refused(tmp_path: Path) -> None:
    path, crashed = tmp_path / "app.db", tmp_path / "crashed.db"
    async with opened(path) as db:
        await db.write(insert("a"))
        shutil.copy(log_of(path), log_of(crashed))
        for number in range(20):
            await db.write(insert(str(number)))
    shutil.copy(path, crashed)
    await refused(crashed)


async def test_the_log_of_a_file_that_a_checkpoint_has_moved_on_is_not_the_one_of_an_earlier_moment(
    tmp_path: Path,
) -> None:
    """Whatever is in the main file by a checkpoint, the next commit writes down in the log."""
    path, older = tmp_path / "app.db", tmp_path / "older.db"
    await write(path, "a")
    shutil.copy(path, older)
    async with opened(path) as db:
        assert db.db.sqlite.statistics.checkpoints == 0
        number = 0
        while db.db.sqlite.statistics.checkpoints < 2:
            await db.write(*[insert(f"{number}.{each}") for each in range(100)])
            number += 1
        await db.write(insert("last"))
        shutil.copy(path, tmp_path / "app2.db")
        shutil.copy(log_of(path), log_of(tmp_path / "app2.db"))
        shutil.copy(log_of(path), log_of(older))
    assert "last" in await ids(tmp_path / "app2.db"), "its own"
    await refused(older)
