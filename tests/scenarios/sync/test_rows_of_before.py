"""Files and hubs that an older version wrote to hold text with NUL: rows stay and sync, pending writes come back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from atoma.contracts.mutations import Op
from atoma.errors import ValidationError

pytestmark = pytest.mark.virtual_time


async def write_as_before(device: Any, *entries: Op) -> None:
    """Write as a version did that let everything in: past the checks of today."""
    await device.client._runtime.core.writes.write(entries)


@pytest.mark.paths
async def test_pending_writes_with_a_nul_come_back_to_the_inbox_and_nothing_else_waits_for_them(world: Any) -> None:
    async with world.open_hub():
        async with world.open_device("ann", down=True) as ann:
            cards, notes = ann.store(world.CARDS), ann.store(world.MANUAL)
            await cards.insert(world.Card(id="good", title="before"))
            _, image = world.CARDS.encode(world.Card(id="bad", title="x"))
            await write_as_before(ann, Op("create", "cards", "bad", {**image, "title": "a\x00b"}, scope="main"))
            await write_as_before(ann, Op("patch", "cards", "good", {"title": "\x00"}, scope="main"))
            await notes.insert(world.Note(id="later", text="behind them"))
            assert (await cards.get("bad")).title == "a\x00b"
        async with world.open_device("ann") as ann:
            cards = ann.store(world.CARDS)
            await ann.settle()
            assert (await ann.rows())["good"].title == "before"
            assert set(await ann.rows()) == {"good"}
            assert set(await ann.rows(world.MANUAL)) == {"later"}
            entries = {entry.id: entry for entry in await ann.client.inbox.entries()}
            assert {id: entry.code for id, entry in entries.items()} == {"bad": "INVALID", "good": "INVALID"}
            assert "cards.title wants text without NUL" in entries["bad"].message
            assert entries["bad"].mine["title"] == "a\x00b"
            for entry in entries.values():
                with pytest.raises(ValidationError, match=r"cards\.title wants text without NUL"):
                    await ann.client.inbox.keep_mine(entry)
            assert len(await ann.client.inbox.entries()) == 2
            assert await ann.outbox() == []
            await ann.client.inbox.dismiss(entries["good"])
            await cards.insert(world.Card(id="bad", title=entries["bad"].mine["title"].replace("\x00", "")))
            await ann.client.inbox.dismiss(entries["bad"])
            await ann.settle()
            assert await ann.client.inbox.entries() == []
        async with world.open_device("ben", principal="ben") as ben:
            await ben.settle()
            assert {id: card.title for id, card in (await ben.rows()).items()} == {"good": "before", "bad": "ab"}


async def test_rows_with_a_nul_at_a_hub_come_to_devices_and_go_on_being_changed(world: Any) -> None:
    async with world.open_hub():
        async with world.open_device("ann") as ann:
            await ann.store(world.CARDS).insert(world.Card(id="1", title="x"))
            await ann.settle()
    with closing(sqlite3.connect(world.folder / "hub.db")) as file, file:
        file.execute("UPDATE cards SET title = 'a' || char(0) || 'b'")
    async with world.open_hub():
        async with world.open_device("ann") as ann, world.open_device("ben", principal="ben") as ben:
            await ben.settle()
            assert (await ben.rows())["1"].title == "a\x00b"
            cards = ben.store(world.CARDS)
            await cards.update("1", lane="done")
            with pytest.raises(ValidationError, match="without NUL"):
                await cards.update("1", title="b\x00")
            await ben.settle()
            await ann.settle()
            row = (await ann.rows())["1"]
            assert (row.title, row.lane) == ("a\x00b", "done")
            assert await ann.client.inbox.entries() == await ben.client.inbox.entries() == []
