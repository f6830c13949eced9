"""``atoma outbox …`` and ``atoma inbox …`` on a device's file, without the program that made it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest
import trio

from atoma import select
from atoma.ports import Environment
from tests.free_port import free_port
from tests.scenarios.cli.kit import TASKS, TOKEN, Answer, Lane, atoma_beside, device, running_hub, settle, task, write

pytestmark = pytest.mark.xdist_group("machine")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOMA_TOKEN", TOKEN)


async def done(*arguments: object) -> str:
    """What a command says that does what it is asked to."""
    answer: Answer = await atoma_beside(*arguments)
    assert answer.code == 0, answer
    return answer.out


async def keys(file: Path) -> list[str]:
    return [entry["key"] for entry in json.loads(await done("outbox", "list", file, "--json"))]


async def test_writes_are_held_released_and_discarded(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(file, url, [1])
        await write(file, "", [2, 3, 4])
        one, two, three = await keys(file)
        listed = await done("outbox", "list", file)
        assert "3 writes in the outbox" in listed
        assert f"{one[-8:]}  queued" in listed
        assert "create tasks 2" in listed
        assert "1 write held" in await done("outbox", "hold", file, two[-8:], "--why", "ask Ann first")
        assert "1 write; see atoma outbox list" in await done("sync", "status", file)
        assert "1 write discarded" in await done("outbox", "discard", file, three)
        async with device(file, url) as client:
            await settle(client)
            assert client.sync.status.held == 1
            assert "ask Ann first" in await done("outbox", "list", file)
            await done("outbox", "release", file, two)
        async with device(file, url) as client, device(tmp_path / "b.db", url) as other:
            await settle(client)
            await settle(other)
            assert {row.id for row in await other.query(select(TASKS))} == {"1", "2", "3"}
    assert await done("outbox", "list", file) == f"{file}: nothing in the outbox\n"


async def test_a_write_is_edited_by_the_words_of_a_csv_file(tmp_path: Path) -> None:
    file, schema = tmp_path / "a.db", ("--schema", "tests.scenarios.cli.kit:SCHEMA")
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(file, url, [1])
        async with device(file, "") as client:
            await client.store(TASKS).insert_many([task(2), task(3)], atomic=True)
            (key,) = await keys(file)
            values = (
                "--set",
                "title=a=b",
                "--set",
                "price=2.75",
                "--set",
                "lane=done",
                "--set",
                "done=true",
                "--set",
                "due=",
            )
            refused = await atoma_beside("outbox", "edit", file, key, *schema, *values)
            assert refused.code == 1 and "the write is on 2 rows" in refused.err
            assert "edited" in await done("outbox", "edit", file, key[-8:], *schema, *values, "--row", "tasks", "3")
            wanted = task(3, title="a=b", price=Decimal("2.75"), lane=Lane.DONE, done=True, due=None)
            assert await client.store(TASKS).get("3") == wanted, "its program, which has the file open, shows it"
        for wrong, told in (
            ("price=dear", "price"), ("nothing=1", "name a field and its value"), ("title", "name a field and its value"),
            ("team=blue", "never changes"),
        ):  # fmt: skip
            answer = await atoma_beside("outbox", "edit", file, key, *schema, "--set", wrong, "--row", "tasks", "3")
            assert answer.code == 1 and told in answer.err, answer
        await write(file, url, [])
        async with device(tmp_path / "b.db", url) as other:
            await settle(other)
            assert await other.store(TASKS).get("3") == wanted
        late = await atoma_beside("outbox", "edit", file, key, *schema, "--set", "title=late")
        assert late.code == 1 and "no write in the outbox" in late.err


async def test_a_retry_reaches_the_program_that_has_the_file_open(tmp_path: Path) -> None:
    file, hub_file, port = tmp_path / "a.db", tmp_path / "hub.db", free_port()
    async with running_hub(hub_file, port) as (_, url):
        await write(file, url, [1])
    async with device(file, url) as client:
        await client.store(TASKS).insert(task(2))
        with trio.fail_after(60):
            while client.sync.status.next_attempt_ms < Environment().wall_ms() + 8_000:
                client.sync.poke()
                await trio.sleep(0.05)
        due = client.sync.status.next_attempt_ms
        async with running_hub(hub_file, port):
            assert "1 write to send" in await done("outbox", "retry", file)
            with trio.fail_after(30):
                while client.sync.status.pending:
                    await trio.sleep(0.01)
            assert Environment().wall_ms() < due, "it was the next attempt"
    assert await done("outbox", "retry", file) == f"{file}: nothing to send\n"


async def test_an_unknown_key_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(file, url, [1])
    await write(file, "", [2])
    answer = await atoma_beside("outbox", "discard", file, "nonsense")
    assert answer.code == 1
    assert "no write in the outbox with a key that ends in 'nonsense'" in answer.err
    assert len(await keys(file)) == 1


async def test_what_waits_is_seen_by_plain_sql(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(file, url, [1])
    await write(file, "", [2, 3])
    await done("outbox", "hold", file, (await keys(file))[0])
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        found = connection.execute('SELECT state, store, id, why FROM atoma_outbox ORDER BY "order"').fetchall()
    assert found == [("held", "tasks", "2", "somebody holds it"), ("queued", "tasks", "3", "")]


async def test_an_entry_of_the_inbox_is_kept_or_left(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    async with running_hub(tmp_path / "hub.db") as (_, url):
        async with device(tmp_path / "b.db", url) as other:
            for number in (1, 2):
                await other.store(TASKS).insert(task(number, title=f"theirs {number}"))
            await settle(other)
        await write(file, "", [1, 2])  # which they cannot know of
        async with device(file, url) as client:
            await settle(client)
        listed = await done("inbox", "list", file)
        assert "2 open entries in the inbox" in listed
        assert "title: mine 'task 1', theirs 'theirs 1'" in listed
        assert (await atoma_beside("inbox", "keep-mine", file, "tasks", "9")).code == 1
        assert "written again" in await done(
            "inbox", "keep-mine", file, "tasks", "1", "--field", "title", "--field", "price"
        )
        assert "stays as the hub has it" in await done("inbox", "take-theirs", file, "tasks", "2")
        async with device(file, url) as client:
            await settle(client)
            assert {row.title for row in await client.query(select(TASKS))} == {"task 1", "theirs 2"}
            assert [row.price for row in await client.query(select(TASKS))] == [Decimal("1.50")] * 2
    assert await done("inbox", "list", file) == f"{file}: nothing in the inbox\n"
