"""What a file tells about itself: creation, re-opening, additive changes, refusals, guards, other tools."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import msgspec
import pytest
import trio.testing

from atoma.errors import MigrationError, StoreCorrupt, StoreError
from atoma.schema import Index, Schema, StoreSpec
from atoma.testing.queries import rows_of
from atoma_stores.changes import CommitDelta
from atoma_stores.sqlite._companions import QUIET_S
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.files import check_file
from tests.unit.stores.kit import CARDS, SYNCED, TAGS, Card, card, insert, opened, threaded, until, update

Edit = Callable[[sqlite3.Connection], object]


def tool(path: Path, edit: str) -> subprocess.CompletedProcess[str]:
    """Run SQL in another process with the standard library's sqlite3, as any other tool would."""
    code = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1])\n"
        "with c: print(c.execute(sys.argv[2]).fetchall())\n"
        "c.close()\n"
    )
    return subprocess.run([sys.executable, "-c", code, str(path), edit], capture_output=True, text=True, check=False)


def edit(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.paths
async def test_rows_outlive_the_program(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as first:
        await first.write(insert("1", card("ä\x00b", rank=-(2**63), weight=float("inf"))))
        await first.write(update("1", lane="done"))
        before = await first.get("1")
        identity = await first.db.inspect(lambda tx: tx.outbox.identity())
    async with opened(path) as again:
        assert await again.get("1") == before
        assert await again.db.inspect(lambda tx: tx.outbox.identity()) == identity
        assert (await again.db.read(rows_of("cards"))).meta.commit == 2
        assert (await again.write(insert("2"))).meta.commit == 3
    assert len(identity.client_id) == 16
    assert identity.next_mid == 1


@pytest.mark.paths
async def test_any_tool_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, synced=SYNCED) as db:
        await db.write(insert("1", card("hello", weight=1.5)))
        seen = tool(path, "SELECT id, title, lane, rank, weight, board FROM cards")  # while it is open
    assert seen.stdout.strip() == "[('1', 'hello', 'todo', 0, 1.5, 'main')]"
    assert tool(path, "SELECT id, weight FROM cards").stdout.strip() == "[('1', 1.5)]"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO cards(id,title,lane,rank,board,_ver,_scope) VALUES('2','b','todo',0,'main',1,'main')",
        "UPDATE cards SET title='changed'",
        "DELETE FROM cards",
    ],
)
async def test_writes_past_the_outbox_are_refused_on_synced_stores_only(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "a.db"
    async with opened(path, synced=frozenset({"cards"})) as db:
        await db.write(insert("1"))
        refused = tool(path, statement)
        assert refused.returncode != 0
        assert "atoma_write_goes_through_the_client" in refused.stderr
        assert await db.rows() == {"1": card()}
        await db.write(insert("2"), update("1", title="b"))
    async with opened(path) as db:  # not synced any more: the guards are gone
        pass
    assert tool(path, statement.replace("'2'", "'3'")).returncode == 0


async def test_a_guard_speaks_to_connections_that_know_the_function(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, synced=SYNCED) as db:
        await db.write(insert("1"))
    other = apsw.Connection(str(path))
    other.create_scalar_function("atoma_write_goes_through_the_client", lambda *_: 0, 0, flags=apsw.SQLITE_INNOCUOUS)
    with pytest.raises(apsw.ConstraintError, match="write through Atoma"):
        other.execute("DELETE FROM cards")
    other.close()


@dataclass
class CardPlus(Card):
    due: str | None = None
    effort: int = 3
    labels: list[str] = field(default_factory=list)


class Note(msgspec.Struct):
    id: str
    text: str = "?"


PLUS = StoreSpec("cards", CardPlus, scope="board", indexes=[Index("effort", "due")])


@pytest.mark.paths
async def test_additive_changes_apply_themselves(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as db:
        await db.write(insert("1", card("old")))
    schema = Schema(PLUS, StoreSpec("notes", Note), version=2)
    async with opened(path, schema=schema) as db:
        assert await db.rows() == {"1": {**card("old"), "due": None, "effort": 3, "labels": "[]"}}
        await db.write(insert("n", {"text": "x"}, store="notes"), update("1", effort=5))
    async with opened(path, schema=schema) as db:
        assert (await db.rows())["1"]["effort"] == 5
        assert await db.rows("notes") == {"n": {"text": "x"}}
        # the store that is not declared any more keeps its table, the old index is gone, the new one is there
        names = await db.db.sqlite.read(
            lambda c: {row[0] for row in c.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'")}
        )
    assert {"tags", "_atoma_index_cards__effort__due"} <= names
    assert "_atoma_index_cards__lane__rank" not in names


async def test_images_from_before_a_field_existed_are_completed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, schema=Schema(PLUS), synced=SYNCED) as db:
        await db.db.apply(lambda tx: tx.base.put("cards", "1", "main", card("from an older hub"), 4))
        await db.db.apply(lambda tx: tx.base.put("cards", "2", "main", {**card(), "from_a_newer_one": 1}, 5))
        rows = await db.rows()
        assert rows["1"] == {**card("from an older hub"), "due": None, "effort": 3, "labels": "[]"}
        assert "from_a_newer_one" not in rows["2"]


@dataclass
class Renamed:
    id: str
    heading: str = ""
    lane: str = "todo"
    rank: int = 0
    weight: float | None = None
    board: str = "main"


@dataclass
class Retyped(Card):
    rank: float = 0.0  # type: ignore[assignment]


@dataclass
class Demanding:
    id: str
    title: str
    owner: str
    lane: str = "todo"
    rank: int = 0
    weight: float | None = None
    board: str = "main"


@dataclass
class Strict(Card):
    weight: float = 0.0  # pyright: ignore[reportIncompatibleVariableOverride]


REFUSED: list[tuple[StoreSpec[object], str]] = [
    (
        StoreSpec("cards", Renamed, scope="board"),
        'steps={2: [STEP]}): Rename("cards.title", "heading") if it has another name now',
    ),
    (
        StoreSpec("cards", Renamed, scope="board"),
        'Drop("cards.title") to give its values up',
    ),
    (StoreSpec("cards", Retyped, scope="board"), "'rank' is INTEGER NOT NULL in the file"),
    (StoreSpec("cards", Retyped, scope="board"), 'steps={2: [Convert("cards.rank", FUNCTION, was=TYPE_BEFORE)]}'),
    (StoreSpec("cards", Demanding, scope="board"), "'owner' has neither a constant default nor allows None"),
    (StoreSpec("cards", Strict, scope="board"), "'weight' is REAL in the file"),
    (StoreSpec("cards", Card), "the scope was declared as field board"),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED)
async def test_other_changes_are_refused_before_anything_is_touched(
    tmp_path: Path, spec: StoreSpec[object], message: str
) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as db:
        await db.write(insert("1"))
    before = path.read_bytes()
    with pytest.raises(MigrationError) as refused:
        async with opened(path, schema=Schema(spec, StoreSpec("fresh", Note), version=2)):
            raise AssertionError("opened")
    assert message in str(refused.value)
    assert path.read_bytes() == before
    async with opened(path) as db:
        assert await db.rows() == {"1": card()}


async def test_a_step_run_by_hand_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as db:
        await db.write(insert("1"))
    edit(path, "ALTER TABLE cards RENAME COLUMN title TO heading")
    async with opened(path, schema=Schema(StoreSpec("cards", Renamed, scope="board"), version=2)) as db:
        assert (await db.rows())["1"]["heading"] == "a"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE _atoma_meta SET value=99 WHERE key='format'", "file format 99 is newer"),
        ("UPDATE _atoma_meta SET value=7 WHERE key='schema_version'", "the file has schema version 7, the program"),
    ],
)
async def test_a_file_newer_than_the_code_is_refused(tmp_path: Path, statement: str, message: str) -> None:
    path = tmp_path / "a.db"
    async with opened(path):
        pass
    edit(path, statement)
    with pytest.raises(MigrationError, match=message):
        async with opened(path):
            raise AssertionError("opened")


async def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    edit(path, "CREATE TABLE cards(id TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match="another application"):
        async with opened(path):
            raise AssertionError("opened")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    edit(path, "DROP TABLE cards", "PRAGMA application_id=77")
    with pytest.raises(StoreCorrupt, match="another application"):
        async with opened(path):
            raise AssertionError("opened")


async def test_a_hubs_file_is_no_clients_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path):
        pass
    edit(path, "UPDATE _atoma_meta SET value='hub' WHERE key='layout'")
    with pytest.raises(StoreCorrupt, match="file of a hub"):
        async with opened(path):
            raise AssertionError("opened")


async def test_a_table_in_the_way_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, schema=Schema(CARDS)):
        pass
    edit(path, "CREATE TABLE tags(x)")
    with pytest.raises(MigrationError, match="'tags' that is not a store is in the way"):
        async with opened(path, schema=Schema(CARDS, TAGS)):
            raise AssertionError("opened")


@pytest.mark.paths
async def test_two_programs_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as one, opened(path) as other:
        assert one.db.database == other.db.database
        await one.write(insert("1"))
        result = await other.write(update("1", lane="done"))
        assert (result.meta.commit, result.items[0].version) == (2, 2)
        assert (await one.get("1")) == (await other.get("1"))


async def test_what_another_tool_writes_is_unknown_of_its_store_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as db:
        await db.write(insert("1"), insert("1", {"name": "red"}, store="tags"))
        heard: list[CommitDelta] = []
        db.db.subscribe_commits(heard.append)
        with closing(apsw.Connection(str(path))) as connection:  # that of sqlite3 would take this process's locks along
            connection.execute("UPDATE tags SET name='blue'")
        await db.db.hear_others()
    assert {store for delta in heard for store in delta.unknown} == {"tags"}


async def test_after_a_tool_has_written_the_file_is_looked_at_more_often_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoma_stores.sqlite.engine.LOOK_S", 0.001)
    monkeypatch.setattr("atoma_stores.sqlite.engine.LOOK_ALONE_S", 3_600.0)
    now, heard = [0.0], list[CommitDelta]()
    async with opened(tmp_path / "a.db", environment=threaded(clock=lambda: now[0])) as db:
        await db.write(insert("1", {"name": "red"}, store="tags"))
        db.db.subscribe_commits(heard.append)
        await trio.testing.wait_all_tasks_blocked()
        with closing(apsw.Connection(str(tmp_path / "a.db"))) as connection:
            connection.set_busy_timeout(5_000)
            connection.execute("UPDATE tags SET name='blue'")
            now[0] += 2 * QUIET_S  # in the same step, so that no look lies in between
            assert db.db.lead is not None
            db.db.lead.wake()
            await until(lambda: len(heard) == 1)
            connection.execute("UPDATE tags SET name='green'")
            await until(lambda: len(heard) == 2)
    assert [delta.unknown for delta in heard] == [{"tags"}, {"tags"}]


async def test_nobody_is_told_how_far_a_check_is_as_nobody_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoma_stores.sqlite.connections.BREATH_STEPS", 10)
    path, heard = tmp_path / "a.db", set[tuple[int, int]]()
    async with opened(path) as db:
        await db.write(insert("1"))
    assert check_file(str(path), lambda done, of: heard.add((done, of))) == []
    assert heard == {(0, 0)}


async def test_two_memories_are_two_databases() -> None:
    async with opened() as one, opened() as other:
        assert one.db.database != other.db.database
        await one.write(insert("1"))
        assert await other.rows() == {}


async def test_a_path_is_named_in_errors(tmp_path: Path) -> None:
    engine = SQLiteEngine(tmp_path / "no folder" / "a.db")
    with pytest.raises(StoreError, match="no folder"):
        async with opened(engine=engine):
            raise AssertionError("opened")
