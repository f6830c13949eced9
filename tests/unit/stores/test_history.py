"""What a file remembers of its past: every state above the floor, nothing below it, and nothing of what must not be here."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio

from atoma.contracts.history import Changeset, RowChange
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import RowImage
from atoma.errors import ConfigurationError, QueryError, ValidationError
from atoma.ports import Environment, LocalTx
from atoma.query import col, count, select
from atoma.query.binding import bind
from atoma.query.plans import every_row
from atoma.schema import Convert, Rename, Schema, Sql, StoreSpec
from atoma_stores.sqlite import History, SQLiteEngine
from atoma_stores.sqlite._history import ROW_BYTES, ROWS_MAX, SLACK
from atoma_stores.sqlite._past import FileHistory
from tests.paths import memory
from tests.unit.stores.kit import CARDS, SCHEMA, SYNCED, Opened, card, delete, insert, opened, update
from tests.unit.stores.test_statements import statements

EVERY = every_row("cards")
DAY_MS = 86_400_000


def keeping(path: Path | str | None = None, **bounds: float) -> SQLiteEngine:
    return SQLiteEngine(path or memory(), history=History(**bounds))


def past(db: Opened) -> FileHistory:
    assert db.db.history is not None
    return db.db.history


async def titles(db: Opened, commit: int, query: BoundQuery = EVERY) -> dict[str, object]:
    return {row.id: row.image["title"] for row in (await past(db).read_at(commit, query)).rows}


@dataclass
class Clock:
    """A wall clock that is moved by hand."""

    now_ms: int = 1_800_000_000_000

    def environment(self, environment: Environment) -> Environment:
        return replace(environment, wall_ms=lambda: self.now_ms)


@pytest.mark.paths
async def test_every_commit_above_the_floor_is_read_as_it_was(tmp_path: Path) -> None:
    dice, states = random.Random(7), dict[int, dict[str, object]]()
    async with opened(engine=keeping(tmp_path / "a.db"), synced=SYNCED) as db:
        for number in range(120):
            now, id = await db.rows(), str(dice.randrange(12))
            if id not in now:
                done = await db.write(insert(id, card(f"made {number}")))
            elif dice.random() < 0.3:
                done = await db.write(delete(id))
            else:
                done = await db.write(update(id, title=f"title {number}", rank=number))
            states[done.meta.commit] = {id: image["title"] for id, image in (await db.rows()).items()}
        floor = await past(db).floor()
        assert len(states) == 120 and min(states) > floor
        for commit, rows in list(states.items())[::3]:
            assert await titles(db, commit) == rows
        assert await titles(db, floor) == {}
        middle = sorted(states)[60]
        found = await past(db).read_at(middle, bind(select(CARDS).where(col("title") >= "t").columns(count()), SCHEMA))
        assert found.tuples == ((sum(str(title) >= "t" for title in states[middle].values()),),)
        assert await db.rows() != {} and await titles(db, max(states)) == states[max(states)]


@pytest.mark.paths
async def test_a_commit_is_told_exported_and_inverted() -> None:
    async with opened(engine=keeping()) as db:
        await db.write(insert("1", card("a")))
        done = await db.write(update("1", title="b"), insert("2", card("c")), atomic=True)
        changes = await past(db).changes(done.meta.commit)
        told = [
            (each.id, each.before and each.before["title"], each.after and each.after["title"])
            for each in changes.changes
        ]
        assert told == [("1", "a", "b"), ("2", None, "c")]
        back = changes.inverted()
        assert (back.changes[1].before, back.changes[1].after) == (changes.changes[1].after, None)
        assert back.inverted() == changes == Changeset.from_ndjson(changes.to_ndjson())
        listed = await past(db).commits(before=None, limit=9)
        assert [(each.commit, each.rows) for each in listed] == [(done.meta.commit, 2), (done.meta.commit - 1, 1)]
        assert [each.commit for each in await past(db).commits(before=done.meta.commit, limit=1)] == [
            done.meta.commit - 1
        ]


def test_every_value_of_a_column_survives_the_export() -> None:
    image: RowImage = {"a": b"\x00\xff", "b": float("inf"), "c": 2**62, "d": 0.1, "e": None, "f": "ü\n", "g": True}
    changes = Changeset(3, 5, 1, (RowChange("s", "1", "main", None, image, "DENIED"),))
    assert Changeset.from_ndjson(changes.to_ndjson()) == changes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this text is empty"),
        ("{}", "line 1"),
        ('{"atoma":"changeset","format":9,"schema_version":1,"commit":1,"at_ms":1}', "not a changeset of format 1"),
        ('{"atoma":"changeset","format":1,"schema_version":1,"commit":1,"at_ms":1}\nx', "line 2"),
        (
            '{"atoma":"changeset","format":1,"schema_version":1,"commit":1,"at_ms":1}\n'
            '{"store":"s","id":"1","scope":"m","before":null,"after":{"a":{"$bytes":"?"}}}',
            "line 2: a has a value that no column can hold",
        ),
    ],
)
def test_a_text_that_is_no_changeset_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Changeset.from_ndjson(text)


async def test_a_forgotten_commit_and_one_to_come_are_errors_that_say_so() -> None:
    async with opened(engine=keeping()) as db:
        await db.write(insert("1"))
        floor = await past(db).floor()
        for commit, said in ((floor - 1, "is forgotten"), (99, "has not been made")):
            with pytest.raises(QueryError, match=said):
                await past(db).read_at(commit, EVERY)
        with pytest.raises(QueryError, match="is forgotten"):
            await past(db).changes(floor)


async def test_a_search_in_the_past_says_what_to_do_instead() -> None:
    @dataclass
    class Page:
        id: str
        text: str

    pages = StoreSpec("pages", Page, search=["text"])
    schema = Schema(pages)
    async with opened(engine=keeping(), schema=schema) as db:
        with pytest.raises(QueryError, match="no index of words"):
            await past(db).read_at(0, bind(select(pages).where(pages.matches("tea")), schema))


async def test_a_large_commit_and_a_swap_raise_the_floor() -> None:
    async with opened(engine=keeping(), synced=SYNCED) as db:
        await db.write(insert("1"))
        large = await db.write(*[insert(f"n{number}") for number in range(ROWS_MAX + 1)], atomic=True)
        assert await past(db).floor() == large.meta.commit
        assert list(await past(db).commits(before=None, limit=9)) == []
        last = (await db.write(update("1", title="after"))).meta.commit
        assert (await titles(db, large.meta.commit))["1"] == "a"
        await db.db.apply(lambda tx: tx.scopes.swap("main"))
        assert await past(db).floor() == last + 1


async def test_more_changed_rows_than_fit_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoma_stores.sqlite._past.ROWS_MAX", 3)
    async with opened(engine=keeping()) as db:
        commits = [(await db.write(insert(str(number)))).meta.commit for number in range(5)]
        assert len(await titles(db, commits[1])) == 2
        with pytest.raises(QueryError, match="ask for a later one"):
            await past(db).read_at(commits[0], EVERY)


async def test_as_many_bytes_of_images_are_kept_as_the_bound_says() -> None:
    dice, bound = random.Random(5), History(mib=0.01).size
    seen, trimmed, most, ids = 0, 0, 0, list[str]()
    async with opened(engine=keeping(mib=0.01)) as db:
        for number in range(80):
            if ids and dice.random() < 0.2:
                await db.write(delete(ids.pop(dice.randrange(len(ids)))))
            elif ids and dice.random() < 0.5:
                await db.write(update(dice.choice(ids), title="u" * dice.randrange(2_000)))
            else:
                ids.append(str(number))
                await db.write(insert(ids[-1], card("i" * dice.randrange(500))))
            sizes = await bytes_of_history(db)
            seen, gone = seen + 1, seen + 1 > len(sizes)
            most = max(most, sum(sizes)) if trimmed else 0
            if gone:
                assert bound - 5_000 < sum(sizes) <= bound, "no more is forgotten than is too much"
                seen, trimmed = len(sizes), trimmed + 1
        floor = await past(db).floor()
        assert [each.commit for each in await past(db).commits(before=None, limit=999)][-1] == floor + 1
    assert trimmed > 3
    assert SLACK * bound - 2_000 < most <= SLACK * bound, "it is not trimmed at every write"


@pytest.mark.parametrize(("late_ms", "kept"), [(0, 2), (1, 1)])
async def test_a_commit_is_kept_for_its_days_to_the_millisecond(late_ms: int, kept: int, tmp_path: Path) -> None:
    clock, engine = Clock(), partial(keeping, tmp_path / "a.db", days=1.5)
    async with opened(engine=engine(), environment=clock.environment(Environment())) as db:
        await db.write(insert("1"))
        clock.now_ms += 1
        await db.write(insert("2"))
    clock.now_ms += DAY_MS * 3 // 2 - 1 + late_ms
    async with opened(engine=engine(), environment=clock.environment(Environment())) as db:
        assert len(await past(db).commits(before=None, limit=9)) == kept
        assert len(await titles(db, await past(db).floor())) == 2 - kept


async def test_the_thread_of_the_checkpoints_trims(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(engine=keeping(tmp_path / "a.db", days=2), environment=clock.environment(Environment())) as db:
        first = (await db.write(insert("old"))).meta.commit
        floor = await past(db).floor()
        clock.now_ms += 3 * DAY_MS
        assert await past(db).floor() == floor < first
        with trio.fail_after(60):
            number = 0
            while await past(db).floor() < first:
                number += 1
                await db.write(insert(f"new {number}", card("y" * 50_000)))
        assert db.db.sqlite.statistics.checkpoints > 0
        assert len(await titles(db, first)) == 1


async def test_a_file_that_is_opened_without_a_history_forgets_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(engine=keeping(path)) as db:
        await db.write(insert("1", card("canary")))
    async with opened(engine=SQLiteEngine(path)) as db:
        assert db.db.history is None
        assert rows_of_history(path) == 0
        written = (await db.write(insert("2"))).meta.commit
    async with opened(engine=keeping(path)) as db:
        assert await past(db).floor() == written


@pytest.mark.paths
async def test_a_program_without_a_history_beside_one_that_has_one_raises_the_floor(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(engine=SQLiteEngine(path)) as other, opened(engine=keeping(path)) as db:
        await db.write(insert("1"))
        unseen = (await other.write(insert("2"))).meta.commit
        last = (await db.write(insert("3"))).meta.commit
        assert await past(db).floor() == unseen == last - 1
        assert sorted(await titles(db, unseen)) == ["1", "2"]


async def test_what_another_tool_writes_raises_the_floor(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(engine=keeping(path)) as db:
        await db.write(insert("1", card("before")))
        # the module sqlite3 has an SQLite of its own: closing a file there takes the locks of this process away
        with closing(apsw.Connection(str(path))) as tool:
            tool.execute("UPDATE cards SET title='by hand'")
        last = (await db.write(insert("2"))).meta.commit
        assert await past(db).floor() == last - 1
        assert await titles(db, last - 1) == {"1": "by hand"}


@pytest.mark.paths
async def test_what_must_not_be_here_goes_from_the_history_too(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(engine=keeping(path), synced=SYNCED) as db:
        await db.write(insert("1", card("canary one")), insert("2", card("stays")))
        before = (await db.write(update("1", title="canary two"))).meta.commit

        def leave(tx: LocalTx) -> None:
            tx.base.put("cards", "1", "main", None, 7)
            tx.history.forget([("cards", "1")])

        await db.db.apply(leave)
        assert b"canary" not in everything(path)
        assert await titles(db, before) == {"2": "stays"}


def everything(path: Path) -> bytes:
    """Every value that some table of the file has."""
    with closing(sqlite3.connect(path)) as connection, connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
        return repr([connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names]).encode()


async def bytes_of_history(db: Opened) -> list[int]:
    """What each commit weighs, oldest first."""
    weight = f"sum({ROW_BYTES} + length(coalesce(pre, x'')) + length(coalesce(post, x'')))"
    asked = f"SELECT {weight} FROM _atoma_history GROUP BY n ORDER BY n"
    return await db.db.sqlite.read(lambda connection: [int(row[0]) for row in connection.execute(asked)])


def rows_of_history(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection, connection:
        return int(connection.execute("SELECT count(*) FROM _atoma_history").fetchone()[0])


async def test_a_commit_with_a_history_takes_a_bounded_number_of_statements(tmp_path: Path) -> None:
    counts: list[int] = []
    with statements() as told:
        async with opened(engine=keeping(tmp_path / "a.db")) as db:
            for number in range(40):
                del told[:]
                await db.write(insert(str(number)))
                counts.append(len(told))
    assert set(counts[20:]) == {9}  # 4 without a history


@dataclass
class Old:
    id: str
    name: str
    amount: str


@dataclass
class New:
    id: str
    title: str
    amount: int


OLD = Schema(StoreSpec("things", Old))
NEW = Schema(
    StoreSpec("things", New),
    version=2,
    steps={2: [Rename("things.name", "title"), Convert("things.amount", int, was=str, back=str)]},
)


async def test_steps_convert_the_history_and_what_they_cannot_convert_is_forgotten(tmp_path: Path) -> None:
    path, states = tmp_path / "a.db", dict[int, RowImage]()
    async with opened(engine=keeping(path), schema=OLD) as db:
        for number, amount in enumerate(("1", "much", "2", "3")):
            image: RowImage = {"name": f"n{number}", "amount": amount}
            op = insert("x", image, "things") if not states else update("x", store="things", **image)  # type: ignore[arg-type]
            states[(await db.write(op)).meta.commit] = image
    first, broken, second, third = states
    async with opened(engine=keeping(path), schema=NEW) as db:
        query = every_row("things")
        for commit, title, number in ((second, "n2", 2), (third, "n3", 3)):
            (row,) = (await past(db).read_at(commit, query)).rows
            assert row.image == {"title": title, "amount": number}
        for commit in (first, broken):
            with pytest.raises(QueryError, match="is forgotten"):
                await past(db).read_at(commit, query)
        (change,) = (await past(db).changes(third)).changes
        assert (change.before, change.after) == ({"title": "n2", "amount": 2}, {"title": "n3", "amount": 3})


async def test_a_statement_among_the_steps_ends_the_history_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(engine=keeping(path), schema=OLD) as db:
        last = (await db.write(insert("x", {"name": "n", "amount": "1"}, "things"))).meta.commit
    after = Schema(StoreSpec("things", Old), version=2, steps={2: [Sql("things", "UPDATE things SET name='m'")]})
    async with opened(engine=keeping(path), schema=after) as db:
        assert await past(db).floor() == last


@pytest.mark.parametrize("bounds", [{"days": 0.0}, {"mib": -1.0}, {"days": float("nan")}])
def test_a_history_without_room_is_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="days and MiB above 0"):
        History(**bounds)


def test_a_history_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="history must be History"):
        SQLiteEngine("x.db", history=30)  # type: ignore[arg-type]
