"""``atoma hub …`` on real files: backups of a running hub, restores that are whole or not there, and epochs."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio

from atoma_stores.sqlite.copies import UNFINISHED
from tests.scenarios.cli.kit import TASKS, Answer, atoma, atoma_beside, device, running_hub, settle, task, titles, write

pytestmark = pytest.mark.xdist_group("machine")


def numbers(*wanted: int) -> list[str]:
    return [f"task {number}" for number in wanted]


async def fill(path: Path, file: Path, *wanted: int) -> None:
    """Run a hub on ``path``, to which the device ``file`` writes."""
    async with running_hub(path) as (_, url):
        await write(file, url, wanted)


async def test_a_backup_of_a_running_hub_is_one_state_of_it(tmp_path: Path) -> None:
    hub_file, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(hub_file) as (_, url):
        await write(tmp_path / "a.db", url, range(20))
        assert hub_file.with_name("hub.db-wal").stat().st_size > 0, "what the main file lacks is in its log"
        answer = await atoma_beside("hub", "backup", hub_file, backup)
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.startswith(f"{backup}: ") and "20 changes in 1 scope, checked, on the disk" in answer.out
        await write(tmp_path / "a.db", url, [20])
    assert titles(backup) == numbers(*range(20))
    assert oct(backup.stat().st_mode & 0o777) == "0o600"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("backup")] == ["backup.db"]


async def test_a_backup_is_never_written_over_anything(tmp_path: Path) -> None:
    await fill(tmp_path / "hub.db", tmp_path / "a.db", 1)
    (tmp_path / "there.db").write_text("dear to somebody")
    answer = await atoma_beside("hub", "backup", tmp_path / "hub.db", tmp_path / "there.db")
    assert answer.code == 1 and answer.err.startswith("atoma: ") and "exists" in answer.err
    assert (tmp_path / "there.db").read_text() == "dear to somebody"


@pytest.mark.parametrize("named", ["missing", "device", "foreign", "text"])
async def test_only_a_hubs_file_is_backed_up(tmp_path: Path, named: str) -> None:
    await fill(tmp_path / "hub.db", tmp_path / "device.db", 1)
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as foreign, foreign:
        foreign.execute("CREATE TABLE t(a)")
    (tmp_path / "text.db").write_text("no database " * 100)
    wanted = {"missing": "no such file", "device": "the file of a client", "foreign": "not a database of Atoma"}
    answer = await atoma_beside("hub", "backup", tmp_path / f"{named}.db", tmp_path / "backup.db")
    assert answer.code == 1 and wanted.get(named, "not a SQLite database") in answer.err
    assert not list(tmp_path.glob("backup*"))


async def lose(tmp_path: Path, **options: str) -> tuple[Path, Path, Path]:
    """A hub with tasks 1 and 2 in a backup; task 3 came later, and task 1 was deleted later. The device saw all."""
    hub_file, backup, file = tmp_path / "hub.db", tmp_path / "backup.db", tmp_path / "a.db"
    await fill(hub_file, file, 1, 2)
    assert atoma("hub", "backup", hub_file, backup).code == 0
    async with running_hub(hub_file) as (_, url), device(file, url) as client:
        await client.store(TASKS).insert(task(3))
        await client.store(TASKS).delete("1")
        await settle(client)
    return hub_file, backup, file


@pytest.mark.parametrize(
    ("word", "back", "lost"),
    [("offer", (2, 3), 0), ("ask", (1, 2), 2), ("forget", (1, 2), 2)],
    ids=lambda value: str(value),
)
async def test_a_restore_begins_an_epoch_with_the_operators_word(
    tmp_path: Path, word: str, back: tuple[int, ...], lost: int
) -> None:
    hub_file, backup, file = await lose(tmp_path)
    before = backup.read_bytes()
    answer = await atoma_beside("hub", "restore", backup, hub_file, "--devices", word)
    assert (answer.code, answer.err) == (0, "")
    assert titles(hub_file) == numbers(1, 2) and backup.read_bytes() == before
    (ended,) = json.loads((await atoma_beside("hub", "epochs", hub_file, "--json")).out)["ended"]
    assert (ended["ended"]["devices"], ended["ended"]["deletes"]) == (word, True)
    assert [client["principal"] for client in ended["absent"]] == ["ann"]
    async with running_hub(hub_file) as (hub, url), device(file, url) as client:
        assert len(await hub.epochs()) == 1, "the hub found the file that it was told of"
        await settle(client)
        assert titles(hub_file) == numbers(*back)
        assert len(await client.sync.lost.entries()) == lost
        assert await hub.absent(bytes.fromhex(ended["ended"]["epoch"])) == []
    shown = (await atoma_beside("hub", "epochs", hub_file)).out
    assert f"devices       {word}: devices " in shown and "every device that has written" in shown


async def test_a_restore_says_for_what_and_keeps_away_from_a_running_hub(tmp_path: Path) -> None:
    hub_file, backup, _ = await lose(tmp_path)
    untold = await atoma_beside("hub", "restore", backup, hub_file)
    assert untold.code == 2 and "--devices" in untold.err
    async with running_hub(hub_file):
        refused = await atoma_beside("hub", "restore", backup, hub_file, "--devices", "offer")
        assert refused.code == 1 and "another hub is running on this file" in refused.err
    reading = f"import sqlite3; c = sqlite3.connect({str(hub_file)!r}); c.execute('SELECT 1 FROM tasks').fetchall(); print(); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    async with trio.open_nursery() as nursery:  # as Litestream does, or somebody's shell
        other = await nursery.start(partial(trio.run_process, [sys.executable, "-c", reading], check=False, **pipes))
        assert await other.stdout.receive_some() == b"\n"
        refused = await atoma_beside("hub", "restore", backup, hub_file, "--devices", "offer")
        assert refused.code == 1 and "another program has it open" in refused.err
        await other.stdin.send_all(b"\n")
    assert titles(hub_file) == numbers(2, 3), "nothing was replaced"
    assert not hub_file.with_name(hub_file.name + UNFINISHED).exists()


async def test_a_damaged_backup_changes_nothing(tmp_path: Path) -> None:
    hub_file, backup, _ = await lose(tmp_path)
    data = bytearray(backup.read_bytes())
    for page in range(4096 * 3, len(data), 4096):
        data[page : page + 200] = os.urandom(200)
    backup.write_bytes(data)
    answer = await atoma_beside("hub", "restore", backup, hub_file, "--devices", "offer")
    assert answer.code == 1 and "damaged" in answer.err
    assert titles(hub_file) == numbers(2, 3)


async def test_a_slip_of_the_pen_replaces_nothing(tmp_path: Path) -> None:
    hub_file, backup, file = await lose(tmp_path)
    await fill(tmp_path / "other.db", tmp_path / "b.db", 7)
    for target, told in [
        (file, "the file of a client"),
        (tmp_path / "other.db", "is the file of hub"),
        (backup, "is the hub file itself"),
    ]:
        before = target.read_bytes()
        answer = await atoma_beside("hub", "restore", backup, target, "--devices", "offer")
        assert answer.code == 1 and told in answer.err
        assert target.read_bytes() == before
    for taken in (("restore", file, tmp_path / "new.db", "--devices", "offer"), ("epochs", file)):
        answer = await atoma_beside("hub", *taken)
        assert answer.code == 1 and "the file of a client" in answer.err
    assert sorted(path.name for path in tmp_path.glob("*.hub-lock")) == ["hub.db.hub-lock", "other.db.hub-lock"]
    assert titles(hub_file) == numbers(2, 3)


@pytest.mark.parametrize("left", [b"no database " * 1000, b"\x00" * 8192, b""])
async def test_a_damaged_hub_is_replaced_and_its_log_falls_upon_nothing(tmp_path: Path, left: bytes) -> None:
    hub_file, backup, file = tmp_path / "hub.db", tmp_path / "backup.db", tmp_path / "a.db"
    async with running_hub(hub_file) as (_, url):
        await write(file, url, [1, 2])
        assert (await atoma_beside("hub", "backup", hub_file, backup)).code == 0
        async with device(file, url) as client:
            await client.store(TASKS).insert(task(3))
            await client.store(TASKS).delete("1")
            await settle(client)
        log = hub_file.with_name("hub.db-wal").read_bytes()
    hub_file.write_bytes(left)
    hub_file.with_name("hub.db-wal").write_bytes(log)
    assert (await atoma_beside("hub", "restore", backup, hub_file, "--devices", "offer")).code == 0
    assert titles(hub_file) == numbers(1, 2)
    async with running_hub(hub_file) as (_, url), device(file, url) as client:
        await settle(client)
    assert titles(hub_file) == numbers(2, 3)


async def test_a_backup_with_its_log_is_restored_with_it_and_both_stay_as_they_are(tmp_path: Path) -> None:
    """A snapshot of the file system takes both at one moment."""
    hub_file, file = tmp_path / "hub.db", tmp_path / "a.db"
    async with running_hub(hub_file) as (_, url):
        await write(file, url, [1, 2])
        for suffix in ("", "-wal"):
            shutil.copy(f"{hub_file}{suffix}", tmp_path / f"snapshot.db{suffix}")
        await write(file, url, [3])
    taken = {path: path.read_bytes() for path in tmp_path.glob("snapshot.db*")}
    assert (await atoma_beside("hub", "restore", tmp_path / "snapshot.db", hub_file, "--devices", "ask")).code == 0
    assert titles(hub_file) == numbers(1, 2)
    assert {path: path.read_bytes() for path in taken} == taken


async def test_deletions_are_allowed_in_the_place_of_the_hub(tmp_path: Path) -> None:
    """The hub has found out by itself that it was restored, and holds them back until it is told."""
    hub_file, backup, file = await lose(tmp_path)
    for suffix in ("-wal", "-shm"):
        hub_file.with_name(f"hub.db{suffix}").unlink(missing_ok=True)
    shutil.copy(backup, hub_file)
    async with running_hub(hub_file) as (_, url):
        async with device(file, url) as client:
            await settle(client)
            assert titles(hub_file) == numbers(1, 2, 3)
        shown = await atoma_beside("hub", "epochs", hub_file)
        assert "held back on the devices; --allow-deletes allows them" in shown.out
        (epoch,) = [line for line in shown.out.splitlines() if len(line) == 32]
        busy = await atoma_beside("hub", "epochs", hub_file, "--allow-deletes", epoch)
        assert busy.code == 1 and "stop it first" in busy.err and "hub.allow_deletes(…)" in busy.err
    wrong = await atoma_beside("hub", "epochs", hub_file, "--allow-deletes", "zz")
    assert wrong.code == 1 and "no epoch that has ended begins with 'zz'" in wrong.err
    told = await atoma_beside("hub", "epochs", hub_file, "--allow-deletes", epoch[:6], "--accept-unproven", epoch)
    assert told.code == 0 and "deletions     allowed" in told.out and "unproven      accepted" in told.out
    async with running_hub(hub_file) as (_, url), device(file, url) as client:
        await settle(client)
        await settle(client)
        assert titles(hub_file) == numbers(2, 3)


async def test_offers_are_allowed_later(tmp_path: Path) -> None:
    hub_file, backup, file = await lose(tmp_path)
    assert (await atoma_beside("hub", "restore", backup, hub_file, "--devices", "ask")).code == 0
    async with running_hub(hub_file) as (_, url), device(file, url) as client:
        await settle(client)
        assert titles(hub_file) == numbers(1, 2)
    (ended,) = json.loads((await atoma_beside("hub", "epochs", hub_file, "--json")).out)["ended"]
    assert (await atoma_beside("hub", "epochs", hub_file, "--allow-offers", ended["ended"]["epoch"])).code == 0
    async with running_hub(hub_file) as (_, url), device(file, url) as client:
        await settle(client)
        await settle(client)
        assert titles(hub_file) == numbers(2, 3)


async def test_an_epoch_whose_devices_bring_nothing_back_says_nothing_of_deletions(tmp_path: Path) -> None:
    hub_file, backup, _ = await lose(tmp_path)
    for devices, told in (("forget", False), ("offer", True)):
        assert (await atoma_beside("hub", "restore", backup, hub_file, "--devices", devices)).code == 0
        shown = (await atoma_beside("hub", "epochs", hub_file)).out
        assert f"devices       {devices}: " in shown
        assert ("deletions" in shown) is told


def test_a_hub_is_not_started_on_a_devices_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    trio.run(fill, tmp_path / "hub.db", file, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    answer = atoma("hub", "serve", file, "--schema", "tests.scenarios.cli.kit:SCHEMA", "--loopback")
    assert answer.code == 1 and "the file of a client, not of a hub" in answer.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


async def test_a_look_from_outside_replays_no_foreign_log(tmp_path: Path) -> None:
    """After kill -9 and a copy over the main file its old log is not this file's; a tool that opens it must not mix them."""
    hub_file, backup, file = tmp_path / "hub.db", tmp_path / "backup.db", tmp_path / "a.db"
    await fill(hub_file, file, 1, 2)
    assert atoma("hub", "backup", hub_file, backup).code == 0
    await fill(hub_file, file, 3)
    async with running_hub(hub_file) as (_, url):
        await write(file, url, [4])
        for suffix in ("", "-wal", ".hub-lock"):
            shutil.copy(f"{hub_file}{suffix}", tmp_path / f"crash.db{suffix}")
    shutil.copy(backup, tmp_path / "crash.db")
    assert (await atoma_beside("hub", "epochs", tmp_path / "crash.db")).code == 0
    assert titles(tmp_path / "crash.db") == numbers(1, 2)
    assert len(list(tmp_path.glob("crash.db-wal.orphan-*"))) == 1


PLACES_MIN = 25


async def test_a_restore_that_is_killed_anywhere_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """``restoring.py`` kills a restore before its first step, its second, … and tells what a hub finds afterwards."""
    hub_file, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with running_hub(tmp_path / "first.db") as (_, url):
        await write(tmp_path / "a.db", url, [1, 2])
        assert (await atoma_beside("hub", "backup", tmp_path / "first.db", backup)).code == 0
        await write(tmp_path / "a.db", url, [3])
        await trio.sleep(1.1)  # the lock file is written once a second
        await write(tmp_path / "a.db", url, [4])
        for suffix in ("", "-wal", ".hub-lock"):  # what kill -9 leaves
            shutil.copy(f"{tmp_path / 'first.db'}{suffix}", f"{hub_file}{suffix}")
    program = Path(__file__).with_name("restoring.py")
    command = [sys.executable, str(program), str(hub_file), str(backup)]
    run = await trio.to_thread.run_sync(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    )
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) >= PLACES_MIN and found[-1]["finished"] and not any(one["finished"] for one in found[:-1])
    old = {"titles": numbers(1, 2, 3, 4), "words": []}
    new = {"titles": numbers(1, 2), "words": ["forget"]}
    seen = [{"titles": one["titles"], "words": one["words"]} for one in found]
    assert [one for one in found if {"titles": one["titles"], "words": one["words"]} not in (old, new)] == []
    assert seen[0] == old and seen[-1] == new
    turn = seen.index(new)
    assert all(one == new for one in seen[turn:]), "one moment decides"
    again = [one["again"] for one in found if "again" in one]
    assert again and all(one == numbers(1, 2) for one in again), "done again, it comes to its end"


def test_usage_is_told(tmp_path: Path) -> None:
    assert atoma("hub").code == 2
    assert isinstance(atoma("hub", "backup", tmp_path / "a"), Answer)
