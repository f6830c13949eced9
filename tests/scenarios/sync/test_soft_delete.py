"""Soft delete between devices: the mark travels like a field, and counts as what it means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import Index, Schema, StoreSpec, select
from atoma.errors import ConflictError, NotFoundError
from tests.scenarios.sync.conftest import World
from tests.scenarios.sync.kit import put_in
from tests.scenarios.sync.test_two_devices import both_settle

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    lane: str = "new"


NOTES = StoreSpec("notes", Note, soft_delete=timedelta(minutes=10), indexes=[Index("text", unique=True)])
EVERY = select(NOTES, include_deleted=True)


class Soft(World):
    SYNCED = (NOTES,)
    schema = Schema(NOTES)


async def marked(device: Any) -> dict[str, bool]:
    """Every row that a device has, and whether it is hidden."""
    rows = await device.client.query(EVERY.columns(NOTES.col(lambda note: note.id), NOTES.deleted_at))
    return {id: when is not None for id, when in rows}


@pytest.mark.paths
async def test_a_deletion_and_a_return_reach_the_other_device(tmp_path: Path) -> None:
    world: Any = Soft(tmp_path)
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        notes, others = a.store(NOTES), b.store(NOTES)
        await notes.insert_many([Note(id="1", text="one"), Note(id="2", text="two")])
        await both_settle(a, b)
        handle = await notes.delete("1")
        assert handle.state == "queued" and await notes.get("1") is None
        await both_settle(a, b)
        assert handle.state == "observed"
        assert await a.rows(NOTES) == await b.rows(NOTES) == {"2": Note(id="2", text="two")}
        assert await marked(a) == await marked(b) == {"1": True, "2": False}
        when = select(NOTES, include_deleted=True).columns(NOTES.deleted_at)
        assert (await a.client.query(when)).items == (await b.client.query(when)).items, "by the hub's clock"
        with pytest.raises(ConflictError, match="restore"):
            await others.insert(Note(id="1"))
        await others.restore("1")
        await both_settle(b, a)
        assert (await a.rows(NOTES))["1"] == (await b.rows(NOTES))["1"] == Note(id="1", text="one")
        await notes.purge("1")
        await both_settle(a, b)
        assert await marked(a) == await marked(b) == {"2": False}
        assert await a.sync.inbox.entries() == await b.sync.inbox.entries() == []


@pytest.mark.paths
async def test_a_change_that_meets_a_deletion_comes_to_the_inbox_and_can_bring_the_row_back(tmp_path: Path) -> None:
    world: Any = Soft(tmp_path)
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.store(NOTES).insert(Note(id="1", text="one"))
        await both_settle(a, b)
        b.wire.cut()
        await b.store(NOTES).update("1", lane="mine")
        await a.store(NOTES).delete("1")
        await a.settle()
        await put_in(b)
        await both_settle(b, a)
        (entry,) = await b.sync.inbox.entries()
        assert (entry.code, entry.store, entry.id) == ("CONFLICT", "notes", "1")
        assert await b.store(NOTES).get("1") is None
        await b.client.inbox.keep_mine(entry)
        await both_settle(b, a)
        assert await a.rows(NOTES) == await b.rows(NOTES) == {"1": Note(id="1", text="one", lane="mine")}


async def test_a_deletion_that_is_refused_can_be_kept(tmp_path: Path) -> None:
    careful = StoreSpec("notes", Note, soft_delete=True, conflict="manual")

    class Careful(World):
        SYNCED = (careful,)
        schema = Schema(careful)

    world: Any = Careful(tmp_path)
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.store(careful).insert(Note(id="1", text="one"))
        await both_settle(a, b)
        b.wire.cut()
        await b.store(careful).delete("1")
        await a.store(careful).update("1", lane="theirs")
        await a.settle()
        await put_in(b)
        await both_settle(b, a)
        (entry,) = await b.sync.inbox.entries()
        assert (await b.rows(careful))["1"].lane == "theirs"
        await b.client.inbox.keep_mine(entry)
        await both_settle(b, a)
        assert await a.rows(careful) == await b.rows(careful) == {}
        await a.store(careful).restore("1")
        assert (await a.rows(careful))["1"].lane == "theirs"


async def test_offline_a_restore_onto_a_taken_value_is_refused_here_and_at_the_hub(tmp_path: Path) -> None:
    world: Any = Soft(tmp_path)
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.store(NOTES).insert(Note(id="1", text="same"))
        await a.store(NOTES).delete("1")
        await both_settle(a, b)
        b.wire.cut()
        await b.store(NOTES).restore("1")
        await a.store(NOTES).insert(Note(id="2", text="same"))
        with pytest.raises(ConflictError, match="another row has the same text"):
            await a.store(NOTES).restore("1")
        await a.settle()
        await put_in(b)
        await both_settle(b, a)
        (entry,) = await b.sync.inbox.entries()
        assert entry.code == "CONSTRAINT"
        assert await a.rows(NOTES) == await b.rows(NOTES) == {"2": Note(id="2", text="same")}


async def test_what_a_hub_purges_goes_from_devices(tmp_path: Path) -> None:
    world: Any = Soft(tmp_path)
    async with world.open_hub() as hub, world.open_device("a") as a, world.open_device("b") as b:
        await a.store(NOTES).insert_many([Note(id="1", text="one"), Note(id="2", text="two")])
        await a.store(NOTES).delete("1")
        await both_settle(a, b)
        await trio.sleep(700)
        assert (await hub.compact()).purged == 1
        await both_settle(a, b)
        assert await marked(a) == await marked(b) == {"2": False}
        with pytest.raises(NotFoundError):
            await b.store(NOTES).restore("1")


async def test_a_device_that_does_not_know_of_soft_delete_does_not_get_the_store(tmp_path: Path) -> None:
    hard = StoreSpec("notes", Note, indexes=[Index("text", unique=True)])

    class Before(World):
        SYNCED = (hard,)
        schema = Schema(hard)

    world: Any = Soft(tmp_path)
    async with world.open_hub(), world.open_device("a") as a:
        await a.store(NOTES).insert(Note(id="1", text="one"))
        await a.store(NOTES).delete("1")
        await a.settle()
        before: Any = Before(tmp_path)
        before.running_hub = world.running_hub
        async with before.open_device("old") as old:
            with trio.fail_after(60):
                while old.sync.status.state != "stalled":
                    await trio.sleep(1)
            error = old.sync.status.error
            assert error is not None and error.code == "SCHEMA_MISMATCH"
            assert "soft_delete=False here and soft_delete=True at the hub" in error.message
            assert await old.rows(hard) == {}
