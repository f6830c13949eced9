"""``atoma query``, ``check``, ``backup``, ``doctor`` and ``top`` on files that programs have open."""

from __future__ import annotations

import json
import os
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import trio

from atoma.cli.reports import Exit
from tests.scenarios.cli.kit import TASKS, TOKEN, atoma, atoma_beside, device, running_hub, task, titles, write

pytestmark = pytest.mark.xdist_group("machine")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOMA_TOKEN", TOKEN)


async def test_a_file_is_asked_while_its_program_writes(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(file, url, range(1, 6))
        async with device(file, "") as client:
            await client.store(TASKS).insert(task(6, title="\x1b[31mred\x1b[0m"))
            by_title = "SELECT title, photo FROM tasks WHERE id = :id"
            found = await atoma_beside("query", file, by_title, "--param", "id=6", "--json")
            assert json.loads(found.out) == {
                "columns": ["title", "photo"],
                "rows": [["\x1b[31mred\x1b[0m", "00ff"]],
                "more": False,
            }
            shown = (await atoma_beside("query", file, by_title, "--param", "id=6")).out
            assert "\x1b" not in shown and "\\x1b[31mred" in shown
            some = await atoma_beside("query", file, "SELECT id FROM tasks ORDER BY id", "--limit", 2)
            assert some.out.split() == ["id", "1", "2"] and "--limit 0" in some.err
        hub = await atoma_beside("query", tmp_path / "hub.db", "SELECT count(*) AS n FROM tasks", "--json")
        assert json.loads(hub.out)["rows"] == [[5]]
    for refused in ("DELETE FROM tasks", "SELECT * FROM _atoma_meta", "SELECT nothing FROM tasks"):
        answer = atoma("query", file, refused, "--json")
        assert answer.code == Exit.FAILED and answer.err.startswith("atoma: ")
        assert json.loads(answer.out)["error"]["code"] == "QUERY"
    assert len(titles(file)) == 6


async def test_a_damaged_file_is_told_from_a_sound_one(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    await write(file, "", range(1, 200))
    assert atoma("check", file).out == f"{file}: sound\n"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        where = "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = ?"
        number, size = connection.execute(where, ("_atoma_pending_row",)).fetchone()
    with file.open("r+b") as stream:
        stream.seek((number - 1) * size + 100)
        stream.write(b"\xee" * 2_000)
    answer = atoma("check", file, "--json")
    assert answer.code == Exit.FOUND
    assert json.loads(answer.out)["problems"]
    assert "restore a backup" in atoma("check", file).out
    target = tmp_path / "copy.db"
    assert atoma("backup", file, target).code == Exit.FAILED
    assert os.listdir(tmp_path) == ["a.db"]


async def test_what_waits_is_checked_too(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    await write(file, "", [1])
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE _atoma_pending SET body = x'c1'")
    answer = atoma("check", file)
    assert answer.code == Exit.FOUND and "write 1 of the outbox cannot be read" in answer.out


async def test_a_copy_is_one_state_of_a_file_that_is_written_to(tmp_path: Path) -> None:
    file, copy = tmp_path / "a.db", tmp_path / "copy.db"
    await write(file, "", range(1, 300))
    async with device(file, "") as client, trio.open_nursery() as nursery:
        await client.store(TASKS).insert(task(900))  # which may be in the log alone

        async def pairs() -> None:
            number = 1_000
            while True:
                async with client.transaction() as tx:
                    await tx.store(TASKS).insert(task(number))
                    await tx.store(TASKS).insert(task(number + 1))
                number += 2

        nursery.start_soon(pairs)
        answer = await atoma_beside("backup", file, copy, "--json")
        nursery.cancel_scope.cancel()
    assert answer.code == Exit.DONE, answer.err
    assert json.loads(answer.out) == {
        "file": str(file), "copy": str(copy), "layout": "client", "bytes": copy.stat().st_size
    }  # fmt: skip
    assert (len(titles(copy)) - 300) % 2 == 0 and "task 900" in titles(copy)
    assert atoma("check", copy).code == Exit.DONE
    before = copy.read_bytes()
    again = atoma("backup", file, copy)
    assert again.code == Exit.FAILED and "never written over anything" in again.err
    assert copy.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.db", "copy.db"]


async def test_the_doctor_says_what_is_wrong_and_keeps_secrets(tmp_path: Path) -> None:
    file, bundle = tmp_path / "a.db", tmp_path / "bundle.zip"
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(file, url, [1])
    assert "Nothing is wrong" in (await atoma_beside("doctor", file)).out
    assert (await atoma_beside("doctor", tmp_path / "hub.db")).code == Exit.DONE
    await write(file, "", [2])
    key = json.loads((await atoma_beside("outbox", "list", file, "--json")).out)[0]["key"]
    await atoma_beside("outbox", "hold", file, key, "--why", "a secret reason")
    file.chmod(0o644)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE _atoma_sub SET state = 'tail' WHERE scope = 'red'")
    answer = await atoma_beside("doctor", file, "--bundle", bundle)
    assert answer.code == Exit.FOUND
    for told in (
        "1 write held",
        f"atoma outbox list {file}",
        f"chmod 600 {file}",
        "scope 'red' is not completely fetched",
    ):
        assert told in answer.out
    with zipfile.ZipFile(bundle) as archive:
        written = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert '"rows": {' in written and 'CREATE TABLE "tasks"' in written
    for secret in ("task 1", "ann", "red", "secret reason", str(tmp_path), key):
        assert secret not in written.replace("shared", "").replace("declared", "")
    assert (await atoma_beside("doctor", file, "--bundle", bundle)).code == Exit.FAILED


async def test_top_shows_what_is_written_between_two_looks(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    async with device(file, "") as client, trio.open_nursery() as nursery:
        await client.store(TASKS).insert(task(1))
        looks: list[str] = []

        async def watch() -> None:
            answer = await atoma_beside("top", file, "--looks", 2, "--interval", 1, "--json")
            looks.extend(answer.out.splitlines())

        nursery.start_soon(watch)
        await trio.sleep(0.5)
        await client.store(TASKS).insert_many([task(2), task(3)])
    first, second = map(json.loads, looks)
    assert (first["file"]["rows"]["tasks"], first["changed"]["tasks"]) == (1, 0)
    assert (second["file"]["rows"]["tasks"], second["changed"]["tasks"]) == (3, 2)
    assert second["commits"] == 1 and second["waiting"]["pending"] == 3
    assert "create tasks" in second["latest"][0]["what"]
    assert "tasks     3" in (await atoma_beside("top", file, "--looks", 1)).out


async def test_rows_leave_a_file_and_reach_the_hub_from_another(tmp_path: Path) -> None:
    one, other, rows = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "tasks.ndjson"
    schema = ("--schema", "tests.scenarios.cli.kit:SCHEMA")
    await write(one, "", range(1, 5))
    answer = await atoma_beside("export", one, "tasks", rows, *schema)
    assert (answer.code, answer.out) == (Exit.DONE, f"{rows}: 4 rows\n")
    assert json.loads(rows.read_text().splitlines()[0])["tags"] == ["a", "b"]
    rows.write_text(rows.read_text() + '{"id": "5"}\n')
    async with running_hub(tmp_path / "hub.db") as (_, url):
        await write(other, url, [])
        answer = await atoma_beside("import", other, "tasks", rows, *schema, "--json")
        found = json.loads(answer.out)
        assert answer.code == Exit.FOUND and (found["written"], found["rejected"]) == (4, 1)
        again = await atoma_beside("import", other, "tasks", rows, *schema)
        assert "0 rows written to tasks, 4 already there, 1 line refused\n  line 5: " in again.out
        await write(other, url, [])
    assert titles(tmp_path / "hub.db") == [f"task {number}" for number in range(1, 5)]
    missing = await atoma_beside("import", other, "nothing", rows, *schema)
    assert missing.code == Exit.FAILED and "nothing" in missing.err


def test_what_is_no_text_is_no_statement(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    trio.run(write, file, "", [])
    for sql, more in (("SELECT 1 \0", ()), ("SELECT '\udcff'", ()), ("SELECT :x", ("--param", "x=\udcff"))):
        answer = atoma("query", file, sql, *more)
        assert answer.code == 1 and "lone surrogates" in answer.err and len(answer.err.splitlines()) == 1, answer
