"""Undo and redo: by field, through the write path, over restarts, and never over a change that has not come here yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import Schema, StoreSpec, open_client, select
from atoma.client.client import Client
from atoma.contracts.history import Changeset
from atoma.errors import ConfigurationError, ConflictError, QueryError, ValidationError
from atoma.ports import seeded_environment
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine
from tests.scenarios.sync.test_two_devices import both_settle

pytestmark = pytest.mark.virtual_time

KEPT = History()


async def shown(device: Any) -> dict[str, tuple[str, str]]:
    return {id: (card.title, card.lane) for id, card in (await device.rows()).items()}


@pytest.mark.paths
async def test_a_group_is_undone_and_redone_and_both_sync(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", history=KEPT) as a, world.open_device("b") as b:
        cards, undo = a.store(world.CARDS), a.client.undo
        await cards.insert_many([world.Card(id="1", title="one"), world.Card(id="2", title="two")])
        before = await shown(a)
        with undo.group("Tidy up"):
            await cards.update("1", lane="doing")
            await cards.delete("2")
            async with a.client.transaction() as tx:
                await tx.store(world.CARDS).insert(world.Card(id="3", title="three"))
                await tx.store(world.CARDS).update("1", title="uno")
        after = await shown(a)
        await both_settle(a, b)
        done = await undo.undo()
        assert done is not None and (done.label, done.refused) == ("Tidy up", ())
        assert sorted(done.rows) == [("cards", "1"), ("cards", "2"), ("cards", "3")]
        assert await shown(a) == before
        assert (await a.client.handle(done.key)).state == "queued"
        await both_settle(a, b)
        assert await shown(b) == before
        assert [(step.label, step.undone) for step in await undo.steps()] == [("Tidy up", True)]
        assert await undo.undo() is None
        again = await undo.redo()
        assert again is not None
        assert await undo.redo() is None
        await both_settle(a, b)
        assert await shown(a) == await shown(b) == after
        assert await a.client.inbox.entries() == await b.client.inbox.entries() == []


@pytest.mark.paths
async def test_fields_of_others_stay_and_a_field_that_somebody_changed_keeps_the_group_on_the_stack(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", history=KEPT) as a, world.open_device("b") as b:
        cards, undo = a.store(world.CARDS), a.client.undo
        await cards.insert(world.Card(id="1", title="one"))
        with undo.group("Move"):
            await cards.update("1", lane="doing")
        await both_settle(a, b)
        await b.store(world.CARDS).update("1", title="theirs")
        await both_settle(a, b)
        await undo.undo()
        assert await shown(a) == {"1": ("theirs", "todo")}
        await undo.redo()
        await both_settle(a, b)
        await b.store(world.CARDS).update("1", lane="done")
        await both_settle(b, a)
        with pytest.raises(ConflictError, match="cards/1: lane has been changed since"):
            await undo.undo()
        assert await shown(a) == {"1": ("theirs", "done")}
        assert [step.label for step in await undo.steps()] == ["Move"]
        dropped = await undo.discard()
        assert dropped is not None and dropped.label == "Move"
        assert (await undo.undo(), await undo.discard()) == (None, None)


@pytest.mark.parametrize("theirs", [{"title": "theirs"}, {"lane": "done"}, None], ids=["beside", "over", "deleted"])
async def test_a_foreign_change_that_is_not_here_yet_makes_an_undo_a_rejection_never_an_overwrite(
    world: Any, theirs: dict[str, str] | None
) -> None:
    """The store's rule is last writer wins; an undo is not a writer who knows what they write over."""
    async with world.open_hub(), world.open_device("a", history=KEPT) as a, world.open_device("b") as b:
        cards, undo = a.store(world.CARDS), a.client.undo
        await cards.insert(world.Card(id="1", title="one"))
        with undo.group("Move"):
            await cards.update("1", lane="doing")
        await both_settle(a, b)
        a.wire.cut()
        if theirs is None:
            await b.store(world.CARDS).delete("1")
        else:
            await b.store(world.CARDS).update("1", **theirs)
        await b.settle()
        done = await undo.undo()
        assert done is not None and await shown(a) == {"1": ("one", "todo")}
        a.wire.repair()
        await both_settle(a, b)
        expected = {} if theirs is None else {"1": (theirs.get("title", "one"), theirs.get("lane", "doing"))}
        assert await shown(a) == await shown(b) == expected
        (entry,) = await a.client.inbox.entries()
        assert (entry.id, entry.code) == ("1", "CONFLICT")
        redone = await undo.redo()  # nothing of the undo is here any more, so there is nothing to bring back
        assert redone is not None and (redone.rows, [each.refused for each in redone.refused]) == ((), ["CONFLICT"])
        assert await undo.steps() == []


@pytest.mark.paths
async def test_a_write_of_the_group_that_was_rejected_is_left_out_and_told(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", history=KEPT) as a, world.open_device("b") as b:
        notes, undo = a.store(world.SERVER), a.client.undo
        await notes.insert_many([world.Note(id="1", text="one"), world.Note(id="2", text="two")])
        await both_settle(a, b)
        a.wire.cut()
        await b.store(world.SERVER).update("1", text="theirs")
        await b.settle()
        with undo.group("Two notes"):
            await notes.update("1", text="mine")
            await notes.update("2", text="mine too")
        a.wire.repair()
        await both_settle(a, b)
        assert [(entry.id, entry.code) for entry in await a.client.inbox.entries()] == [("1", "CONFLICT")]
        done = await undo.undo()
        assert done is not None
        assert done.rows == (("server_notes", "2"),)
        assert [(each.id, each.refused) for each in done.refused] == [("1", "CONFLICT")]
        await both_settle(a, b)
        assert {id: note.text for id, note in (await b.rows(world.SERVER)).items()} == {"1": "theirs", "2": "two"}


@pytest.mark.paths
async def test_stacks_are_kept_over_a_restart_each_for_itself(world: Any) -> None:
    async with world.open_hub():
        async with world.open_device("a", history=KEPT) as a:
            cards = a.store(world.CARDS)
            await cards.insert(world.Card(id="1", title="0"))
            for number in (1, 2):
                with a.client.undo.group(f"Title {number}"):
                    await cards.update("1", title=str(number))
            with a.client.undo.scope("lanes").group("Lane"):
                await cards.update("1", lane="done")
            await a.client.undo.undo()
        async with world.open_device("a", history=KEPT) as a:
            assert [(step.label, step.undone) for step in await a.client.undo.steps()] == [
                ("Title 2", True),
                ("Title 1", False),
            ]
            await a.client.undo.undo()
            await a.client.undo.scope("lanes").undo()
            assert await shown(a) == {"1": ("0", "todo")}
            await a.client.undo.redo()
            assert await shown(a) == {"1": ("1", "todo")}
            with a.client.undo.group("Another"):
                await a.store(world.CARDS).update("1", title="new")
            assert await a.client.undo.redo() is None
            assert [step.label for step in await a.client.undo.steps()] == ["Another", "Title 1"]
            lanes = await a.client.undo.scope("lanes").steps()
            assert [(step.label, step.undone) for step in lanes] == [("Lane", True)], "it can still be redone"


@pytest.mark.paths
async def test_a_group_over_several_scopes_is_undone_in_one_transaction_all_or_none(world: Any) -> None:
    scopes = ("x", "y")
    async with world.open_hub(), world.open_device("a", scopes=scopes, history=KEPT) as a:
        cards, undo = a.store(world.CARDS), a.client.undo
        await cards.insert_many([world.Card(id=id, board=id, title="old") for id in scopes])
        with undo.group("Both"):
            for id in scopes:
                await cards.update(id, title="new")
        await cards.update("y", title="other")
        commits = len(await a.client.history.commits())
        with pytest.raises(ConflictError):
            await undo.undo()
        assert {id: card.title for id, card in (await a.rows()).items()} == {"x": "new", "y": "other"}
        await cards.update("y", title="new")
        assert await undo.undo() is not None
        assert {id: card.title for id, card in (await a.rows()).items()} == {"x": "old", "y": "old"}
        assert len(await a.client.history.commits()) == commits + 2, "one commit for both"
        assert sorted(item.scope for item in (await a.outbox())[-2:]) == ["x", "y"]
        await a.settle()
        assert await a.client.inbox.entries() == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    id: str
    text: str = ""
    count: int = 0


LINES = StoreSpec("lines", Line)


def alone(folder: Path, history: History | None = KEPT) -> Any:
    return open_client(Schema(LINES), plugins=[LocalExecution(SQLiteEngine(folder / "alone.db", history=history))])


async def test_a_group_larger_than_a_write_is_an_error_before_anything(tmp_path: Path) -> None:
    async with alone(tmp_path) as client:
        with client.undo.group("Import"):
            for start in range(0, 1200, 600):
                await client.store(LINES).insert_many([Line(id=str(start + number)) for number in range(600)])
        with pytest.raises(ValidationError, match="1200 rows of one scope; one write takes 1,000"):
            await client.undo.undo()
        assert await client.store(LINES).count() == 1200


async def test_stacks_are_bounded(tmp_path: Path) -> None:
    async with alone(tmp_path) as client:
        lines = client.store(LINES)
        await lines.insert(Line(id="1"))
        for number in range(1, 106):
            with client.undo.group(str(number)):
                await lines.update("1", count=number)
        assert [step.label for step in await client.undo.steps()] == [str(number) for number in range(105, 5, -1)]
        while await client.undo.undo() is not None:
            pass
        assert await lines.get("1") == Line(id="1", count=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated:
    id: str
    text: str = ""
    count: int = 0
    made: datetime | None = None
    changed: datetime | None = None


DATED = StoreSpec("dated", Dated, created_at="made", updated_at="changed")


@pytest.mark.paths
async def test_what_nobody_writes_does_not_count(tmp_path: Path) -> None:
    plugins = [LocalExecution(SQLiteEngine(tmp_path / "a.db", history=KEPT))]
    async with open_client(Schema(DATED), plugins=plugins, environment=seeded_environment(1)) as client:
        dated: Any = client.store(DATED)
        await dated.insert(Dated(id="1", text="old"))
        with client.undo.group("Rewrite"):
            await dated.update("1", text="new")
        await trio.sleep(60)
        await dated.update("1", count=1)
        await trio.sleep(60)
        before = await dated.get("1")
        await client.undo.undo()
        after = await dated.get("1")
        assert (after.text, after.count, after.made) == ("old", 1, before.made)
        assert after.changed == before.changed + timedelta(minutes=1), "an undo is a change like any other"
        with client.undo.group("Remove"):
            await dated.delete("1")
        await client.undo.undo()
        again = await dated.get("1")
        assert (again.text, again.count) == ("old", 1)
        await client.undo.redo()
        assert await dated.get("1") is None


@pytest.mark.paths
async def test_a_row_that_a_group_made_and_removed_leaves_nothing_to_do(tmp_path: Path) -> None:
    async with alone(tmp_path) as client:
        with client.undo.group("Nothing"):
            await client.store(LINES).insert(Line(id="1"))
            await client.store(LINES).delete("1")
        done = await client.undo.undo()
        assert (done.label, done.rows) == ("Nothing", ())
        assert await client.undo.steps() == []


async def test_a_group_takes_what_tasks_and_inner_groups_write_and_nothing_of_another_client(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with alone(tmp_path) as client, alone(tmp_path / "other") as other, trio.open_nursery() as nursery:
        with client.undo.group("Outer"):
            nursery.start_soon(client.store(LINES).insert, Line(id="1"))
            with client.undo.group("Inner"):
                await client.store(LINES).insert(Line(id="2"))
            await other.store(LINES).insert(Line(id="3"))
        await client.store(LINES).insert(Line(id="4"))
        with trio.fail_after(5):
            while await client.store(LINES).count() < 3:
                await trio.sleep(0.1)
        assert [step.label for step in await client.undo.steps()] == ["Outer"]
        assert await other.undo.steps() == []
        await client.undo.undo()
        assert [line.id for line in await client.store(LINES).query()] == ["4"]


async def test_without_a_history_there_is_no_undo_and_no_past(tmp_path: Path) -> None:
    async with alone(tmp_path, history=None) as client:
        for name in ("undo", "history"):
            with pytest.raises(ConfigurationError, match="history=History"):
                getattr(client, name)


@pytest.mark.paths
async def test_pages_of_the_hub_are_in_the_past_as_own_writes_are(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b", history=KEPT) as b:
        await both_settle(a, b)
        for title in ("one", "two"):
            await a.store(world.CARDS).upsert(world.Card(id="1", title=title))
            await both_settle(a, b)
        second, first = await b.client.history.commits()
        assert (first.key, second.key) == ("", "")
        past: Client = b.client.history.at(first.commit)
        assert [card.title for card in await past.query(select(world.CARDS))] == ["one"]
        assert await past.count(select(world.CARDS)) == 1
        assert await b.client.history.at(first.commit - 1).first(select(world.CARDS)) is None
        assert await b.client.history.at(second.commit).exists(select(world.CARDS))
        with pytest.raises(QueryError):
            await b.client.history.at(await b.client.history.floor() - 1).query(select(world.CARDS))


@pytest.mark.paths
async def test_a_changeset_is_exported_and_applied_elsewhere_and_taken_back(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", history=KEPT) as a, world.open_device("b", history=KEPT) as b:
        await a.store(world.CARDS).insert(world.Card(id="1", title="one"))
        await both_settle(a, b)
        a.wire.cut()
        async with a.client.transaction() as tx:
            await tx.store(world.CARDS).update("1", title="uno")
            await tx.store(world.CARDS).insert(world.Card(id="2"))
        (newest, *_) = await a.client.history.commits()
        text = (await a.client.history.changes(newest.commit)).to_ndjson()
        changes = Changeset.from_ndjson(text)
        assert await b.client.history.apply(changes) == (("cards", "1"), ("cards", "2"))
        assert await shown(b) == await shown(a)
        with pytest.raises(ConflictError, match="cards/1: title has been changed since"):
            await b.client.history.apply(changes)
        await b.client.history.apply(changes.inverted())
        assert await shown(b) == {"1": ("one", "todo")}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            '{"store":"cards","id":"1","scope":"main","before":null,"after":{"title":"x"}}',
            "has not the fields of the store",
        ),
        (
            '{"store":"cards","id":"1","scope":"main","before":null,"after":{"title":1,"lane":"a","board":"main"}}',
            "title",
        ),
    ],
)
async def test_a_changeset_that_does_not_fit_is_refused(world: Any, line: str, error: str) -> None:
    head = '{"atoma":"changeset","format":1,"schema_version":1,"commit":1,"at_ms":1}\n'
    async with world.open_device("a", plugins=[], history=KEPT) as a:
        with pytest.raises(ValidationError, match=error):
            await a.client.history.apply(Changeset.from_ndjson(head + line))
        with pytest.raises(ValidationError, match="schema version 9"):
            await a.client.history.apply(Changeset.from_ndjson(head.replace('version":1', 'version":9')))
        assert await a.rows() == {}
