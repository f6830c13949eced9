"""``atoma sync …`` on real files, without the program that made them."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from atoma_stores.sqlite.device_files import read_sync
from tests.scenarios.cli.kit import (
    SCHEMA,
    TASKS,
    TOKEN,
    Lane,
    atoma_beside,
    device,
    running_hub,
    settle,
    task,
    titles,
    write,
)

pytestmark = pytest.mark.xdist_group("machine")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOMA_TOKEN", TOKEN)


def layout(path: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()


def copied(path: Path, target: Path) -> Path:
    for suffix in ("", "-wal"):
        if (source := path.with_name(path.name + suffix)).exists():
            shutil.copy(source, target.with_name(target.name + suffix))
    return target


async def test_the_status_of_a_file_tells_who_it_is_and_what_waits(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    async with running_hub(tmp_path / "hub.db") as (hub, url):
        await write(file, url, [1, 2])
        epoch = hub.identity.epoch.hex()
    async with device(file, "") as client:
        await client.store(TASKS).insert(task(3))
        while_open = await atoma_beside("sync", "status", file)
    closed = await atoma_beside("sync", "status", file)
    assert while_open == closed and closed.code == 0
    for said in (
        "belongs to  ann",
        "stores      tasks",
        "pending     1 write\n",
        "inbox       empty",
        "lost        nothing",
    ):
        assert said in closed.out, closed.out
    assert f"scope red  live at 2, epoch {epoch}" in closed.out
    told = json.loads((await atoma_beside("sync", "status", file, "--json")).out)
    assert (told["pending"], told["identity"]["next_mid"], told["inbox"]) == (1, 4, [])


async def test_a_file_that_has_met_no_hub_says_so(tmp_path: Path) -> None:
    async with device(tmp_path / "a.db", ""):
        pass
    told = await atoma_beside("sync", "status", tmp_path / "a.db")
    assert "hub      none: it has never connected to one" in told.out


@pytest.mark.parametrize("named", ["missing", "hub", "text"])
async def test_only_a_devices_file_has_a_status(tmp_path: Path, named: str) -> None:
    async with running_hub(tmp_path / "hub.db"):
        pass
    (tmp_path / "text.db").write_text("no database " * 100)
    wanted = {"missing": "no such file", "hub": "the file of a hub", "text": "not a SQLite database"}
    for command in ("status", "new-identity"):
        answer = await atoma_beside("sync", command, tmp_path / f"{named}.db")
        assert answer.code == 1 and answer.err.startswith("atoma: ") and wanted[named] in answer.err


async def test_the_schema_that_a_file_tells_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    """All that replication moves is as in the declared one, and opening with it changes no table, index or trigger."""
    file = tmp_path / "a.db"
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(file, url, [1])
        before = layout(file)
        stored = read_sync(str(file))
        assert (stored.stores, stored.scopes, stored.schema.version) == (["tasks"], ["blue", "red"], SCHEMA.version)
        for name, spec in SCHEMA.stores.items():
            told = stored.schema.store(name)
            kinds = {field.name: (field.sql_type, field.nullable) for field in told.fields.values()}
            assert kinds == {field.name: (field.sql_type, field.nullable) for field in spec.fields.values()}
            assert (told.scope_field, told.fixed_scope) == (spec.scope_field, spec.fixed_scope)
        assert (await atoma_beside("sync", "repair", file, "--url", url)).code == 0
        assert layout(file) == before


async def lose(tmp_path: Path) -> tuple[Path, Path]:
    """The hub is restored to task 1; the device has seen task 2, changed it since, and was not told."""
    hub_file, file = tmp_path / "hub.db", tmp_path / "a.db"
    async with running_hub(hub_file) as (_, url):
        await write(file, url, [1])
    assert (await atoma_beside("hub", "backup", hub_file, tmp_path / "backup.db")).code == 0
    async with running_hub(hub_file) as (_, url), device(file, url) as client:
        await client.store(TASKS).insert(task(2, lane=Lane.DONE, done=True, due=None))
        await settle(client)
    async with device(file, "") as client:
        await client.store(TASKS).update("2", tags=("c",))
    assert (await atoma_beside("hub", "restore", tmp_path / "backup.db", hub_file, "--devices", "offer")).code == 0
    return hub_file, file


async def test_a_file_is_repaired_without_its_program(tmp_path: Path) -> None:
    """What its program sees afterwards, and what another device gets, are the very rows."""
    hub_file, file = await lose(tmp_path)
    wanted = task(2, lane=Lane.DONE, done=True, due=None, tags=("c",))
    async with running_hub(hub_file) as (_, url):
        before = (await atoma_beside("sync", "status", file)).out
        rehearsed = await atoma_beside("sync", "repair", file, "--url", url, "--dry-run")
        assert rehearsed.code == 0 and rehearsed.out.startswith(f"{file}: this would be done"), rehearsed
        assert "offered     1 row to the hub" in rehearsed.out and "sent again  1 write" in rehearsed.out
        assert (await atoma_beside("sync", "status", file)).out == before
        made = await atoma_beside("sync", "repair", file, "--url", url, "--sync")
        assert made.code == 0 and made.out.startswith(f"{file}: repaired\n  cause ")
        assert "HUB_LOST_DATA" in made.out and made.out.endswith("synced with the hub, 0 writes pending\n")
        assert titles(hub_file) == ["task 1", "task 2"]
        again = await atoma_beside("sync", "repair", file, "--url", url)
        assert again.out == f"{file}: nothing is wrong; it continues the hub's history\n"
        assert "repaired 20" in (await atoma_beside("sync", "status", file)).out
        async with device(file, url) as client, device(tmp_path / "b.db", url) as other:
            for one in (client, other):
                await settle(one)
                assert await one.store(TASKS).get("2") == wanted
                assert (await one.inbox.entries(), await one.sync.lost.entries()) == ([], [])


@pytest.mark.parametrize("kept", ["inbox", "drop"])
async def test_a_careful_repair_keeps_what_the_hub_has_lost(tmp_path: Path, kept: str) -> None:
    hub_file, file = await lose(tmp_path)
    async with running_hub(hub_file) as (_, url):
        made = await atoma_beside("sync", "repair", file, "--url", url, "--on-hub-loss", kept, "--sync")
        assert made.code == 0 and "kept in lost  1 row" in made.out
    told = await atoma_beside("sync", "status", file)
    assert (
        "1 row waiting for a decision" in told.out
        and f"tasks 2: here; the hub does not have it as it was ({kept})" in told.out
    )
    assert titles(hub_file) == ["task 1"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--url", "ftp://127.0.0.1"], "--url must begin with ws://"),
        (["--url", "ws://127.0.0.1:9/sync", "--timeout", "5"], "127.0.0.1:9"),
        (["--url", "ws://127.0.0.1:9/sync", "--token-file", "missing"], "the token cannot be read"),
        (["--url", "wss://127.0.0.1:9/sync", "--ca-file", "missing"], "no certificates"),
    ],
)
async def test_a_repair_that_cannot_be_made_says_why(tmp_path: Path, options: list[str], told: str) -> None:
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(tmp_path / "a.db", url, [1])
    answer = await atoma_beside("sync", "repair", tmp_path / "a.db", *options)
    assert answer.code == 1 and answer.err.startswith("atoma: ") and told in answer.err
    assert len(answer.err.splitlines()) == 1


async def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And from nowhere else: an argument can be read by everybody on the machine."""
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(tmp_path / "a.db", url, [1])
        monkeypatch.delenv("ATOMA_TOKEN")
        refused = await atoma_beside("sync", "repair", tmp_path / "a.db", "--url", url)
        assert refused.code == 1 and "token" in refused.err
        told = ["sync", "repair", tmp_path / "a.db", "--url", url, "--token-file", tmp_path / "token"]
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        assert (await atoma_beside(*told)).code == 0
        (tmp_path / "token").write_text("two words")
        wrong = await atoma_beside(*told)
        assert wrong.code == 1 and "must hold one token" in wrong.err and "two words" not in wrong.err
    assert (await atoma_beside("sync", "repair", tmp_path / "a.db", "--url", url, "--token", TOKEN)).code == 2


async def test_a_file_is_handed_over_to_another_hub(tmp_path: Path) -> None:
    """The old one is gone without a backup; nothing is sent to another one unless somebody says so."""
    file = tmp_path / "a.db"
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(file, url, [1])
    async with running_hub(tmp_path / "other.db") as (_, url):
        refused = await atoma_beside("sync", "repair", file, "--url", url)
        assert refused.code == 1 and "another hub" in refused.err
        told = await atoma_beside("sync", "repair", file, "--url", url, "--adopt-hub", "--sync")
        assert told.code == 0 and "WRONG_HUB" in told.out and "kept in lost  1 row" in told.out
    assert (
        "tasks 1: here; the hub does not have it as it was (adopted)"
        in (await atoma_beside("sync", "status", file)).out
    )


async def test_a_deliberate_copy_takes_an_identity_of_its_own(tmp_path: Path) -> None:
    """What waits in both is sent once, and neither is ever taken for the other."""
    file, copy = tmp_path / "a.db", tmp_path / "copy.db"
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(file, url, [1])
        async with device(file, "") as client:
            await client.store(TASKS).insert(task(2))
        copied(file, copy)
        asked = await atoma_beside("sync", "new-identity", copy)
        assert asked.out == f"{copy}: takes a new identity at its next contact with the hub\n"
        assert "is already marked" in (await atoma_beside("sync", "new-identity", copy)).out
        assert "takes a new identity at its next contact" in (await atoma_beside("sync", "status", copy)).out
        async with device(copy, url) as renewed, device(file, url) as original:
            await settle(renewed)
            await settle(original)
            (report,) = await renewed.sync.repairs()
            assert (report.cause, report.renumbered) == ("CLIENT_FORKED", 1)
            assert "a new identity was asked for" in report.why
            assert await original.sync.repairs() == []
            await renewed.store(TASKS).insert(task(3))
            await original.store(TASKS).insert(task(4))
            await settle(renewed)
            await settle(original)
            await settle(renewed)
            assert (await renewed.store(TASKS).query()).items == (await original.store(TASKS).query()).items
            assert len(await renewed.sync.repairs()) == 1 and await original.sync.repairs() == []
            assert (await renewed.inbox.entries(), await original.inbox.entries()) == ([], [])
    assert titles(tmp_path / "hub.db") == [f"task {number}" for number in (1, 2, 3, 4)]
    assert "takes a new identity" not in (await atoma_beside("sync", "status", copy)).out
