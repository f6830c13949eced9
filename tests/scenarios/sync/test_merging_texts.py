"""Texts that merge, on devices: what several have written apart is one text everywhere, and nobody is asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

import atoma.hub.service
from atoma import Schema, StoreSpec, col, select
from atoma.contracts.limits import TEXT_BYTES_MAX, TEXTS_MAX
from atoma.errors import ValidationError
from atoma.schema.texts import read
from atoma.testing.seats import Device
from atoma.testing.world import World, open_world
from atoma_stores.sqlite import History
from tests.scenarios.sync.merging import codes, same_row, write_apart
from tests.unit.schema.test_texts import TANGLED

pytest.importorskip("pycrdt", reason="the extra text is not installed")
pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Note:
    id: str
    title: str = ""
    body: str = ""
    body_state: bytes | None = None


NOTES = StoreSpec("notes", Note, merge={"body": "text", "title": "manual"})
SCHEMA = Schema(NOTES)
apart = partial(write_apart, NOTES)


@asynccontextmanager
async def pair(folder: Path, body: str = "", **options: Any) -> AsyncGenerator[tuple[World, Device, Device]]:
    """Two devices that have the note ``1``."""
    async with open_world(SCHEMA, folder) as world, world.hub():
        async with world.device("a", **options) as a, world.device("b", **options) as b:
            await a.store(NOTES).insert(Note("1", body=body))
            await world.settle()
            yield world, a, b


async def adds(device: Device, new: str) -> None:
    """At the end of what is there then."""
    await device.store(NOTES).update("1", lambda note: replace(note, body=note.body + new))


async def same(*devices: Device) -> str:
    """The text that all of them have, and of which their states are."""
    row = await same_row(NOTES, *devices)
    assert row.body_state is None or read(row.body_state) == row.body
    return row.body


@pytest.mark.paths
async def test_what_two_have_written_apart_is_one_text_and_nobody_is_asked(tmp_path: Path) -> None:
    async with pair(tmp_path, "one two three") as (world, a, b):
        await apart(world, (a, {"body": "one TWO, two three"}), (b, {"body": "two three, four 😀"}))
        assert await same(a, b) == "TWO, two three, four 😀"
        await a.store(NOTES).update("1", lambda note: replace(note, body=note.body + "!"))
        async with b.client.transaction() as tx:
            await tx.store(NOTES).update("1", body="")
        await world.settle()
        assert "one" not in await same(a, b)
        assert await codes(a) == await codes(b) == []


async def test_a_row_that_was_read_is_written_back_over_what_came_meanwhile(tmp_path: Path) -> None:
    """Its state says what the user had before them."""
    async with pair(tmp_path, "one") as (world, a, b):
        read_ = await b.store(NOTES).get("1")
        assert read_ is not None
        await a.store(NOTES).update("1", body="zero, one")
        await world.settle()
        shown = await b.store(NOTES).get("1")
        assert shown is not None
        await a.store(NOTES).update("1", body="zero, one, three")
        await world.settle()
        await b.store(NOTES).upsert(replace(shown, body="zero, one, two"))
        await world.settle()
        assert await same(a, b) in ("zero, one, two, three", "zero, one, three, two")
        assert await codes(b) == []


async def test_two_who_make_the_same_row_or_the_same_edit_have_made_one(tmp_path: Path) -> None:
    async with open_world(SCHEMA, tmp_path) as world, world.hub():
        async with world.device("a") as a, world.device("b") as b:
            for device, body in ((a, "shared"), (b, "shared")):
                device.unplug()
                await device.store(NOTES).upsert(Note("1", body=body))
            for device in (a, b):
                device.plug_in()
            await world.settle()
            assert await same(a, b) == "shared"
            await apart(world, (a, {"body": "shared!"}), (b, {"body": "shared!"}))
            assert await same(a, b) == "shared!"
            for device, body in ((a, "left"), (b, "right")):
                device.unplug()
                await device.store(NOTES).upsert(Note("2", body=body))
            for device in (a, b):
                device.plug_in()
                await world.settle()
            assert {(await d.store(NOTES).get("2")).body for d in (a, b)} <= {"leftright", "rightleft"}  # type: ignore[union-attr]
            assert await codes(a) == await codes(b) == []


async def test_undo_takes_back_what_was_typed_here_and_leaves_what_others_have(tmp_path: Path) -> None:
    async with pair(tmp_path, "middle", history=History()) as (world, a, b):
        with a.client.undo.group("Type"):
            await a.store(NOTES).update("1", body="mine, middle")
        await world.settle()
        await b.store(NOTES).update("1", body="mine, middle, theirs")
        a.unplug()
        await a.client.undo.undo()
        assert await same(a) == "middle"
        a.plug_in()
        await world.settle()
        assert await same(a, b) == "middle, theirs"
        await a.client.undo.redo()
        await world.settle()
        assert await same(a, b) == "mine, middle, theirs"
        assert await codes(a) == await codes(b) == []


async def test_a_text_that_was_refused_with_its_row_is_kept_and_merges_when_it_is_written_anew(tmp_path: Path) -> None:
    async with pair(tmp_path, "text") as (world, a, b):
        await apart(world, (a, {"title": "a", "body": "text of a"}), (b, {"title": "b", "body": "b: text"}))
        (entry,) = await b.client.inbox.entries()
        assert (entry.code, await same(a, b)) == ("CONFLICT", "text of a")
        await b.client.inbox.keep_mine(entry)
        await world.settle()
        assert await same(a, b) == "b: text of a"


async def test_a_text_meets_a_deletion_and_can_be_brought_back_whole(tmp_path: Path) -> None:
    async with pair(tmp_path, "text") as (world, a, b):
        for device in (a, b):
            device.unplug()
        await a.store(NOTES).delete("1")
        await b.store(NOTES).update("1", body="text, and more")
        for device in (a, b):
            device.plug_in()
            await world.settle()
        (entry,) = await b.client.inbox.entries()
        await b.client.inbox.keep_mine(entry)
        await world.settle()
        assert await same(a, b) == "text, and more"


async def test_what_is_too_much_together_is_kept_by_the_second_and_both_go_on(tmp_path: Path) -> None:
    much = TEXT_BYTES_MAX * 2 // 3
    async with pair(tmp_path) as (world, a, b):
        await apart(world, (a, {"body": "x" * much}), (b, {"body": "y" * much}))
        (entry,) = await b.client.inbox.entries()
        assert (entry.code, await same(a, b), await codes(a)) == ("INVALID", "x" * much, [])
        with pytest.raises(ValidationError, match="divide it among rows"):
            await b.client.inbox.keep_mine(entry)
        await b.store(NOTES).insert(Note("2", body="y" * much))
        await adds(b, "!")
        await world.settle()
        assert await same(a, b) == "x" * much + "!"


async def test_a_text_that_was_edited_too_often_is_begun_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoma.schema.text_states.TEXT_PIECES_MAX", 20)
    async with pair(tmp_path) as (world, a, b):
        for _ in range(20):
            await adds(a, "a")
        with pytest.raises(ValidationError, match="in more than 20 places; go on in a new row"):
            await adds(a, "b")
        await a.store(NOTES).update("1", title="goes on")
        await world.settle()
        assert await same(a, b) == "a" * 20
        async with b.client.transaction() as tx:
            await tx.store(NOTES).delete("1")
            await tx.store(NOTES).insert(Note("1", body="a" * 20))
        await world.settle()
        await apart(world, (a, {"body": "c" + "a" * 20}), (b, {"body": "a" * 20 + "b"}))
        assert await same(a, b) == "c" + "a" * 20 + "b"
        assert await codes(a) == await codes(b) == []


async def test_who_cannot_go_on_with_a_state_of_somebody_else_is_told_so(tmp_path: Path) -> None:
    """What they had typed stood elsewhere in the text, or nowhere, and nobody heard of it."""
    async with pair(tmp_path) as (world, a, b):
        await a.store(NOTES).insert(Note("2", body=read(TANGLED), body_state=TANGLED))
        await world.settle()
        with pytest.raises(ValidationError, match=r"notes/2: body_state: the order .*; go on in a new row"):
            await b.store(NOTES).update("2", body="affZZbdbe")
        async with b.client.transaction() as tx:
            await tx.store(NOTES).delete("2")
            await tx.store(NOTES).insert(Note("2", body="affZZbdbe"))
        await world.settle()
        assert [row.body for row in await a.store(NOTES).query(select(NOTES).where(col("id") == "2"))] == ["affZZbdbe"]


async def test_a_text_that_was_begun_afresh_comes_back_so_to_a_restored_hub(tmp_path: Path) -> None:
    """The hub still has the old one, another device brings one that is a little later, and nobody has written to it since."""
    async with open_world(SCHEMA, tmp_path) as world, world.hub() as hub:
        async with world.device("a") as a, world.device("b") as b:
            await a.store(NOTES).insert(Note("1", body="old"))
            await world.settle()
            backup = await hub.backup()
            await adds(a, "!")
            await world.settle()
            b.unplug()
            async with a.client.transaction() as tx:
                await tx.store(NOTES).delete("1")
                await tx.store(NOTES).insert(Note("1", body="fresh"))
            await world.settle()
            a.unplug()
            await world.restore_hub(backup)
            for device in (b, a):
                device.plug_in()
                await world.settle()
            assert (await same(a, b), await codes(a), await codes(b)) == ("fresh", [], [])


async def test_what_was_typed_since_a_restore_is_not_deleted_by_who_brings_the_past(tmp_path: Path) -> None:
    """One device brings the row, which is joined with what was typed since, and the next one has seen it deleted."""
    async with open_world(SCHEMA, tmp_path) as world, world.hub() as hub:
        async with world.device("a") as a, world.device("b") as b, world.device("c") as c:
            await a.store(NOTES).insert(Note("1", body="old"))
            await world.settle()
            backup = await hub.backup()
            c.unplug()
            await a.store(NOTES).update("1", body="old, b")
            await world.settle()
            b.unplug()
            await a.store(NOTES).delete("1")
            await world.settle()
            a.unplug()
            await world.restore_hub(backup)
            await adds(c, ", c")
            for device in (c, b, a):
                device.plug_in()
                await world.settle()
            text = await same(a, b, c)
            assert text.startswith("old") and sorted(text) == sorted("old, b, c")


async def test_a_transaction_merges_so_many_texts(tmp_path: Path) -> None:
    async with pair(tmp_path) as (world, a, b):
        notes = [Note(f"n{number}", body="one") for number in range(TEXTS_MAX + 1)]
        await a.store(NOTES).insert_many(notes)
        await world.settle()
        with pytest.raises(
            ValidationError, match=f"an atomic unit merges {TEXTS_MAX + 1} texts, {TEXTS_MAX} at most; split it"
        ):
            async with a.client.transaction() as tx:
                for note in notes:
                    await tx.store(NOTES).update(note.id, body="two")
        await a.store(NOTES).upsert_many([replace(note, body="two") for note in notes])
        await world.settle()
        assert {note.body for note in await b.store(NOTES).query(select(NOTES))} == {"", "two"}


async def test_queries_and_live_queries_see_the_text(tmp_path: Path) -> None:
    async with pair(tmp_path, "tea") as (world, a, b):
        wanted = select(NOTES).where(col("body") == "coffee, tea or cake")
        async with b.store(NOTES).live(wanted) as batches:
            await anext(batches)
            await apart(world, (a, {"body": "tea or cake"}), (b, {"body": "coffee, tea"}))
            shown = await anext(batches)
            assert "coffee, tea or cake" in str(shown)
        assert [note.id for note in await a.store(NOTES).query(wanted)] == ["1"]


class Typing:
    """Somebody who puts a character into the text, and may take some away; asked again, they do the same to what is there then."""

    def __init__(self, random: Random, new: str) -> None:
        self._seed = random.random()
        self._new = new
        self.taken = ""

    def __call__(self, note: Note) -> Note:
        random, text = Random(self._seed), note.body
        at = random.randint(0, len(text))
        text = text[:at] + self._new + text[at:]
        first, width = random.randint(0, len(text)), random.choice([0, 0, 1, 3])
        self.taken = text[first : first + width]
        return replace(note, body=text[:first] + text[first + width :])


@pytest.mark.parametrize("seed", range(3))
async def test_devices_that_were_apart_end_alike_with_every_character_once(seed: int, tmp_path: Path) -> None:
    """Each one is its own, so the model needs no order: what was inserted is there, but for what somebody has deleted."""
    random = Random(seed)
    typed = list[tuple[str, Typing]]()
    async with open_world(SCHEMA, tmp_path, seed=seed) as world, world.hub():
        async with world.device("a") as a, world.device("b") as b, world.device("c") as c:
            devices = [a, b, c]
            await a.store(NOTES).insert(Note("1"))
            await world.settle()
            for number in range(40):
                device, new = random.choice(devices), chr(0x1F600 + number if number % 3 else 0x400 + number)
                if random.random() < 0.4:
                    (device.unplug if random.random() < 0.6 else device.plug_in)()
                typed.append((new, Typing(random, new)))
                await device.store(NOTES).update("1", typed[-1][1])
            for device in devices:
                device.plug_in()
            await world.settle()
            assert sorted(await same(a, b, c)) == sorted(
                {new for new, _ in typed} - {each for _, one in typed for each in one.taken}
            )
            assert [await codes(device) for device in devices] == [[], [], []]


@pytest.mark.parametrize("seed", range(3))
async def test_after_restores_of_hub_and_devices_every_character_is_in_once(seed: int, tmp_path: Path) -> None:
    """Devices come and go in the middle of calls, the hub and a device go back to what they were, and all bring what they have."""
    random = Random(seed)
    inserted = list[str]()
    async with open_world(SCHEMA, tmp_path, seed=seed) as world, world.hub() as hub:
        async with world.device("a") as a, world.device("b") as b, world.device("c") as c:
            devices = [a, b, c]
            await a.store(NOTES).insert(Note("1"))
            await world.settle()
            backup = await hub.backup()
            for step in range(24):
                device, new = random.choice(devices), chr(0x400 + step)
                await adds(device, new)
                inserted.append(new)
                device.plug_in()
                await trio.sleep(random.choice([0, 0.0005, 0.002, 0.01, 5]))
                if random.random() < 0.7:
                    device.unplug()
                if step % 6 == 5:
                    await world.restore_hub(backup)
                    if random.random() < 0.5:
                        backup = await hub.backup()
            for device in devices:
                device.plug_in()
            await world.settle()
            text = await same(a, b, c)
            assert sorted(text) == sorted(inserted), [await codes(device) for device in devices]


async def test_a_file_that_is_put_back_or_copied_brings_nothing_twice(tmp_path: Path) -> None:
    async with pair(tmp_path, "0") as (world, a, b):
        b.unplug()
        await adds(b, "1")
        copy = b.snapshot_file()
        await adds(b, "2")
        b.plug_in()
        await world.settle()
        await adds(a, "3")
        await world.settle()
        await world.restore_file(b, copy)
        await adds(b, "4")
        await world.settle()
        async with world.clone(b, "twin") as twin:
            await adds(twin, "5")
            await adds(b, "6")
            await world.settle()
            assert sorted(await same(a, b, twin)) == list("0123456")
            assert [await codes(device) for device in (a, b, twin)] == [[], [], []]


async def test_a_text_waits_for_a_hub_that_can_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        open_world(SCHEMA, tmp_path) as world,
        world.hub() as hub,
        world.device("a") as a,
        world.device("b") as b,
    ):
        await a.store(NOTES).insert(Note("1", body="text"))
        await world.settle()
        await hub.stop()
        with monkeypatch.context() as older:
            older.setattr(atoma.hub.service, "PROTOCOL_VERSION", 3)
            await hub.start()
            await a.store(NOTES).update("1", body="text, and more")
            await trio.sleep(120)
            status = a.sync.status
            assert status.error is not None
            assert (status.state, status.pending, status.error.code) == ("stalled", 1, "PROTO_UNSUPPORTED")
            await b.store(NOTES).insert(Note("2"))
            await trio.sleep(1)
            assert await a.store(NOTES).get("2") is not None, "what others write comes as ever"
            await hub.stop()
        await hub.start()
        await world.settle()
        assert (await same(a), a.sync.status.pending, await codes(a)) == ("text, and more", 0, [])
