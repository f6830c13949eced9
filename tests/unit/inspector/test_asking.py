"""What somebody looks up in the inspector: pages of rows, and SQL of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from atoma.errors import QueryError
from atoma.inspector import add_inspector, asking
from atoma.inspector.asking import ROWS_SHOWN, SQL_ROWS_SHOWN, answer_sql, look_at_rows, plan_of
from atoma.inspector.conflicts import LETTERS_SHOWN
from atoma.inspector.snapshot import take_snapshot
from atoma.ports import Peer
from atoma.query import col, select
from atoma_transports.calls import ChannelLimits
from tests.unit.inspector.test_inspection import NOTES, Note, opened
from tests.unit.inspector.test_repairs import ask
from tests.unit.transports.http.kit import Hub, Site

COUNT = 2 * ROWS_SHOWN + 3
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n, notes"


async def test_every_row_is_on_one_page(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        ids = [f"n{number:04}" for number in range(COUNT)]
        await client.store(NOTES).insert_many([Note(id=id, text=f"note {id}") for id in ids])
        seen: list[object] = []
        sizes: list[int] = []
        after = ""
        while after or not seen:
            page = await look_at_rows(target, "notes", after=after)
            seen += [row[0] for row in page.rows]
            sizes.append(len(page.rows))
            after = page.after
        assert (seen, sizes) == (ids, [ROWS_SHOWN, ROWS_SHOWN, 3])


async def test_rows_are_found_by_what_stands_in_a_text(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        for id, text in (("n1", "Oil the vice"), ("n2", "100% done"), ("oil", "a note"), ("n4", "1000 done")):
            await client.store(NOTES).insert(Note(id=id, text=text))
        found = {
            containing: [row[0] for row in (await look_at_rows(target, "notes", containing=containing)).rows]
            for containing in ("oil", "100%", "nothing")
        }
        assert found == {"oil": ["n1", "oil"], "100%": ["n2"], "nothing": []}


async def test_sql_is_answered_with_its_plan(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        await client.store(NOTES).insert_many([Note(id=f"n{at:04}", text="t") for at in range(SQL_ROWS_SHOWN + 1)])
        answer = await answer_sql(target, "SELECT id, 9007199254740993 AS big, x'00ff' AS raw, 1e999 AS far FROM notes")
        assert answer.columns == ("id", "big", "raw", "far")
        assert (answer.rows[0], len(answer.rows), answer.more) == (
            ("n0000", "9007199254740993", "00ff", "inf"),
            SQL_ROWS_SHOWN,
            True,
        )
        assert answer.sources == ("SCAN notes",) and "tier 2" in answer.live and answer.us > 0
        (total,) = (await answer_sql(target, "SELECT count(*) FROM notes")).rows
        assert total == (SQL_ROWS_SHOWN + 1,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("DELETE FROM notes", "modify notes"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("PRAGMA user_version", "only reads"),
        ("SELECT * FROM _atoma_outbox", "the engine"),
        ("SELEC", "syntax error"),
    ],
)
async def test_sql_that_does_more_than_read_stores_is_refused(tmp_path: Path, text: str, why: str) -> None:
    async with opened(tmp_path / "notes.db") as (client, target), trio.open_nursery() as nursery:
        await client.store(NOTES).insert(Note(id="n1", text="kept"))
        site = Site(nursery, Hub(), ChannelLimits(), peer=Peer("127.0.0.1", True, "http"))
        add_inspector(site.handler, [target])
        status, answer = await ask(site, {"client": "one", "text": text}, "sql")
        assert status == 400 and why in answer["error"]["message"]
        assert (await client.store(NOTES).get("n1")) == Note(id="n1", text="kept")
        nursery.cancel_scope.cancel()


async def test_a_statement_that_does_not_end_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SQL_S", 0.2)
    async with opened(tmp_path / "notes.db") as (client, target):
        await client.store(NOTES).insert(Note(id="n1", text="kept"))
        with trio.fail_after(30), pytest.raises(QueryError, match="took more than"):
            await answer_sql(target, ENDLESS)
        assert (await answer_sql(target, "SELECT id FROM notes")).rows == (("n1",),), "the next one is answered"


async def test_a_live_query_shows_how_it_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        await client.store(NOTES).insert(Note(id="n1", text="kept"))
        query = select(NOTES).where(col("text") == "kept").order_by("text")
        async with client.live(query) as rows, client.live_sql(str, "SELECT text FROM notes") as texts:
            await anext(rows)
            await anext(texts)
            found = {item.store: item for item in (await take_snapshot(target, [target])).live}
            plan = await plan_of(target, "notes", found["notes"].query)
            assert plan.sources == ("SCAN notes",) and "Index" in plan.warnings[0]
            assert (await plan_of(target, "", found[""].query)).sources == ("SCAN notes",)
        with pytest.raises(QueryError, match="not followed any more"):
            await plan_of(target, "notes", found["notes"].query)


async def test_a_live_query_of_any_length_shows_how_it_is_read(tmp_path: Path) -> None:
    long = f"SELECT text FROM notes WHERE text <> '{'x' * 10_000}'"
    async with opened(tmp_path / "notes.db") as (client, target), trio.open_nursery() as nursery:
        site = Site(nursery, Hub(), ChannelLimits(), peer=Peer("127.0.0.1", True, "http"))
        add_inspector(site.handler, [target])
        async with client.live_sql(str, long) as texts:
            await anext(texts)
            (listed,) = (await take_snapshot(target, [target])).live
            asked = {"client": "one", "store": listed.store, "query": listed.query}
            assert await ask(site, asked, "plan") == (200, {"sources": ["SCAN notes"], "warnings": []})
        nursery.cancel_scope.cancel()


async def test_long_texts_are_shown_by_their_beginning(tmp_path: Path) -> None:
    async with opened(tmp_path / "notes.db") as (client, target):
        await client.store(NOTES).insert(Note(id="n1", text="x" * 1_000_000))
        shown = (await look_at_rows(target, "notes")).rows[0][1]
        ((answer,),) = (await answer_sql(target, "SELECT text FROM notes")).rows
        assert shown == answer == "x" * LETTERS_SHOWN + "…"
