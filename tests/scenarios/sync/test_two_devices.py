"""Two devices and a hub: writes offline and online, conflicts under every rule, receipts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from atoma.errors import ValidationError, WriteRejected

pytestmark = pytest.mark.virtual_time


@asynccontextmanager
async def pair(world: Any, **options: Any) -> AsyncGenerator[tuple[Any, Any]]:
    async with world.open_hub(), world.open_device("a", **options) as a, world.open_device("b", **options) as b:
        yield a, b


async def both_settle(*devices: Any) -> None:
    """Twice: what the second one pushes, the first one has to pull."""
    for _ in range(2):
        for device in devices:
            await device.settle()


@pytest.mark.paths
async def test_what_is_written_offline_arrives_once_the_cable_is_in(world: Any) -> None:
    async with pair(world) as (a, b):
        a.wire.cut()
        cards = a.store(world.CARDS)
        handle = await cards.insert(world.Card(id="1", title="offline"))
        await cards.update("1", lane="doing")
        await cards.insert_many([world.Card(id=str(number), title="many") for number in range(2, 30)])
        await cards.delete("2")
        assert handle.state == "queued"
        assert len(await a.outbox()) == 31
        expected = await a.rows()
        a.wire.repair()
        await both_settle(a, b)
        assert await b.rows() == await a.rows() == expected
        assert expected["1"] == world.Card(id="1", title="offline", lane="doing")
        assert "2" not in expected
        assert await a.outbox() == []
        assert handle.state == "observed"
        assert await handle.accepted() == await handle.observed() == 1
        assert a.sync.status.pending == 0


async def test_a_write_reaches_the_other_device_by_hint_not_by_polling(world: Any) -> None:
    async with pair(world) as (a, b):
        await both_settle(a, b)
        began = trio.current_time()
        async with b.client.store(world.CARDS).live() as batches:
            await anext(batches)
            await a.store(world.CARDS).insert(world.Card(id="1", title="now"))
            batch = await anext(batches)
        assert batch.changes[0].row.title == "now"
        assert trio.current_time() - began < 1, "the next poll would be 48 s away"


async def conflict(world: Any, a: Any, b: Any, spec: Any) -> None:
    """The same column on both, another one on each; a is first at the hub."""
    await a.store(spec).insert(world.Note(id="n", text="base", color="white"))
    await both_settle(a, b)
    a.wire.cut()
    b.wire.cut()
    await a.store(spec).update("n", text="a")
    await b.store(spec).update("n", text="b", color="blue")
    a.wire.repair()
    a.sync.poke()
    await a.settle()
    b.wire.repair()
    b.sync.poke()
    await both_settle(b, a)
    assert await a.rows(spec) == await b.rows(spec)


async def test_lww_takes_what_arrives_last(world: Any) -> None:
    async with pair(world) as (a, b):
        await a.store(world.CARDS).insert(world.Card(id="c", title="base"))
        await both_settle(a, b)
        a.wire.cut()
        b.wire.cut()
        await a.store(world.CARDS).update("c", title="a", lane="done")
        await b.store(world.CARDS).update("c", title="b")
        a.wire.repair()
        await a.settle()
        b.wire.repair()
        await both_settle(b, a)
        assert await a.rows() == await b.rows() == {"c": world.Card(id="c", title="b", lane="done")}
        assert await a.sync.inbox.entries() == await b.sync.inbox.entries() == []


@pytest.mark.paths
async def test_server_wins_keeps_theirs_and_shows_what_was_dropped(world: Any) -> None:
    async with pair(world) as (a, b):
        await conflict(world, a, b, world.SERVER)
        assert (await b.rows(world.SERVER))["n"] == world.Note(id="n", text="a", color="blue")
        (entry,) = await b.sync.inbox.entries()
        assert (entry.code, entry.store, entry.id) == ("MERGED", "server_notes", "n")
        assert entry.base == {"text": "base", "color": "white"}
        assert entry.mine == {"text": "b", "color": "blue"}
        assert entry.theirs == {"text": "a", "color": "white"}
        assert await a.sync.inbox.entries() == []


async def test_client_wins_takes_mine(world: Any) -> None:
    async with pair(world) as (a, b):
        await conflict(world, a, b, world.CLIENT)
        assert (await a.rows(world.CLIENT))["n"] == world.Note(id="n", text="b", color="blue")
        assert await b.sync.inbox.entries() == []


@pytest.mark.paths
async def test_manual_refuses_and_keeps_everything_for_a_person(world: Any) -> None:
    async with pair(world) as (a, b):
        await conflict(world, a, b, world.MANUAL)
        assert (await b.rows(world.MANUAL))["n"] == world.Note(id="n", text="a", color="white")
        (entry,) = await b.sync.inbox.entries()
        assert entry.code == "CONFLICT"
        assert (entry.base, entry.mine, entry.theirs) == (
            {"text": "base", "color": "white"},
            {"text": "b", "color": "blue"},
            {"text": "a", "color": "white"},
        )


async def test_keep_mine_writes_it_again_and_dismiss_leaves_theirs(world: Any) -> None:
    async with pair(world) as (a, b):
        await conflict(world, a, b, world.MANUAL)
        (entry,) = await b.sync.inbox.entries()
        notes = b.store(world.MANUAL)

        async def rewrite(write: Any) -> None:
            assert write.kind == "upsert"
            assert write.values == {"text": "b", "color": "blue"}
            await notes.update(write.id, **write.values)

        await b.sync.inbox.keep_mine(entry, rewrite)
        await both_settle(b, a)
        assert (await a.rows(world.MANUAL))["n"] == world.Note(id="n", text="b", color="blue")
        assert await b.sync.inbox.entries() == []
        (resolved,) = await b.sync.inbox.entries(resolved=True)
        assert resolved.resolution == "kept_mine"


@pytest.mark.parametrize(
    ("fields", "why"),
    [(["id"], "manual_notes/n: 'id' was not changed here; changed were: text, color"), ([], "names no field")],
)
async def test_only_fields_that_were_changed_can_be_kept(world: Any, fields: list[str], why: str) -> None:
    async with pair(world) as (a, b):
        await conflict(world, a, b, world.MANUAL)
        (entry,) = await b.sync.inbox.entries()

        async def rewrite(_write: Any) -> None:
            raise AssertionError("there is nothing to write")

        with pytest.raises(ValidationError, match=why):
            await b.sync.inbox.keep_mine(entry, rewrite, fields)
        assert await b.sync.inbox.entries() == [entry]


async def test_dismissing_leaves_theirs(world: Any) -> None:
    async with pair(world) as (a, b):
        await conflict(world, a, b, world.MANUAL)
        (entry,) = await b.sync.inbox.entries()
        await b.sync.inbox.dismiss(entry)
        assert await b.sync.inbox.entries() == []
        assert (await b.rows(world.MANUAL))["n"].text == "a"
        assert [item.resolution for item in await b.sync.inbox.entries(resolved=True)] == ["dismissed"]


@pytest.mark.paths
async def test_a_rejection_takes_the_write_and_what_builds_on_it_back_in_one_commit(world: Any) -> None:
    """I14: the commit that learns the verdict shows none of it, and the inbox has it."""
    async with pair(world) as (a, b):
        await both_settle(a, b)
        await a.store(world.CARDS).insert(world.Card(id="1", title="a's"))
        b.wire.cut()
        create = await b.store(world.CARDS).insert(world.Card(id="1", title="b's"))
        patch = await b.store(world.CARDS).update("1", lane="done")
        other = await b.store(world.CARDS).insert(world.Card(id="2", title="fine"))
        assert (await b.rows())["1"].title == "b's"
        seen: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async with b.client.store(world.CARDS).live() as batches:
                    rows: dict[str, Any] = {}
                    async for batch in batches:
                        rows = {item.id: item for item in await b.client.store(world.CARDS).query()}
                        seen.append((batch.commit, rows.get("1")))

            nursery.start_soon(watch)
            b.wire.repair()
            b.sync.poke()
            await both_settle(b, a)
            nursery.cancel_scope.cancel()
        assert {row for _, row in seen} <= {
            world.Card(id="1", title="b's", lane="done"),
            world.Card(id="1", title="a's"),
            None,
        }
        assert (await b.rows())["1"] == world.Card(id="1", title="a's")
        assert await b.rows() == await a.rows()
        with pytest.raises(WriteRejected) as refused:
            await create.accepted()
        assert refused.value.reason == "ALREADY_EXISTS"
        with pytest.raises(WriteRejected) as fallen:
            await patch.observed()
        assert fallen.value.reason == "DEPENDENCY_REJECTED"
        assert await other.observed() > 0
        entries = await b.sync.inbox.entries()
        assert [(entry.id, entry.code) for entry in entries] == [("1", "ALREADY_EXISTS"), ("1", "DEPENDENCY_REJECTED")]
        assert entries[0].theirs is not None
        assert entries[0].theirs["title"] == "a's"
        assert entries[1].mine is not None
        assert entries[1].mine["lane"] == "done"


async def test_a_transaction_is_one_mutation_and_falls_as_one(world: Any) -> None:
    async with pair(world) as (a, b):
        await both_settle(a, b)
        await a.store(world.CARDS).insert(world.Card(id="1", title="a's"))
        b.wire.cut()
        async with b.client.transaction() as tx:
            await tx.store(world.CARDS).insert(world.Card(id="0", title="with it"))
            await tx.store(world.CARDS).insert(world.Card(id="1", title="b's"))
        assert len(await b.outbox()) == 1
        b.wire.repair()
        b.sync.poke()
        await both_settle(b, a)
        assert await b.rows() == await a.rows() == {"1": world.Card(id="1", title="a's")}
        assert [entry.id for entry in await b.sync.inbox.entries()] == ["0", "1"]


async def test_a_store_that_is_not_synced_stays_here(world: Any) -> None:
    async with pair(world) as (a, b):
        await a.client.store(world.SECRETS).insert(world.Note(id="s", text="mine"), policy="direct-local")
        await both_settle(a, b)
        assert await b.rows(world.SECRETS) == {}
        assert list(await a.rows(world.SECRETS)) == ["s"]
        assert not any(method == "push" for method, _ in a.wire.calls)


async def test_two_devices_take_the_same_unique_value(world: Any) -> None:
    """Each device checks its own writes; between devices the hub decides, and a page is never refused."""
    async with pair(world) as (a, b):
        await both_settle(a, b)
        a.wire.cut()
        b.wire.cut()
        await a.store(world.LABELS).insert(world.Note(id="a", text="urgent"))
        mine = await b.store(world.LABELS).insert(world.Note(id="b", text="urgent"))
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        b.wire.repair()
        b.sync.poke()
        await both_settle(b, a)
        assert await a.rows(world.LABELS) == await b.rows(world.LABELS) == {"a": world.Note(id="a", text="urgent")}
        assert mine.state == "rejected"
        (entry,) = await b.sync.inbox.entries()
        assert (entry.code, entry.id, entry.base, entry.theirs) == ("CONSTRAINT", "b", None, None)


async def test_a_page_brings_a_value_that_a_write_here_has_taken(world: Any) -> None:
    """My change is replayed on their row, and beside it stands mine with the same value until the hub has decided."""
    async with pair(world) as (a, b):
        await a.store(world.LABELS).insert(world.Note(id="1", text="calm"))
        await both_settle(a, b)
        b.wire.cut()
        await b.store(world.LABELS).update("1", color="red")
        await b.store(world.LABELS).insert(world.Note(id="2", text="urgent"))
        await a.store(world.LABELS).update("1", text="urgent")
        await a.settle()
        b.wire.hold["push"] = undecided = trio.Event()
        b.wire.repair()
        b.sync.poke()
        with trio.fail_after(60):
            while (await b.rows(world.LABELS))["1"] != world.Note(id="1", text="urgent", color="red"):
                await trio.sleep(0.1)
        assert (await b.rows(world.LABELS))["2"].text == "urgent"
        del b.wire.hold["push"]
        undecided.set()
        await both_settle(b, a)
        assert await a.rows(world.LABELS) == await b.rows(world.LABELS)
        assert (await b.rows(world.LABELS)).keys() == {"1"}


@pytest.mark.paths
async def test_values_that_trade_places_under_a_unique_index(world: Any) -> None:
    async with pair(world) as (a, b):
        labels = a.store(world.LABELS)
        await labels.insert_many([world.Note(id="1", text="x"), world.Note(id="2", text="y")])
        await both_settle(a, b)
        b.wire.cut()
        await b.store(world.LABELS).update("1", color="red")
        await labels.update("1", text="z")
        await labels.update("2", text="x")
        await labels.update("1", text="y")
        await a.settle()
        b.wire.repair()
        b.sync.poke()
        await both_settle(b, a)
        assert await a.rows(world.LABELS) == await b.rows(world.LABELS)
        assert (await b.rows(world.LABELS))["1"] == world.Note(id="1", text="y", color="red")


async def test_many_small_edits_on_one_row_never_conflict_with_themselves(world: Any) -> None:
    async with pair(world) as (a, b):
        notes = a.store(world.MANUAL)
        await notes.insert(world.Note(id="n", text="0"))
        for number in range(1, 40):
            await notes.update("n", text=str(number))
            if number % 7 == 0:
                await trio.sleep(0.01)
        await both_settle(a, b)
        assert (await b.rows(world.MANUAL))["n"].text == "39"
        assert await a.sync.inbox.entries() == []


@pytest.mark.paths
async def test_two_scopes_are_independent(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("a", scopes=("x", "y")) as a,
        world.open_device("b", scopes=("y",)) as b,
    ):
        await a.store(world.CARDS).insert(world.Card(id="1", board="x"))
        await a.store(world.CARDS).insert(world.Card(id="2", board="y"))
        await both_settle(a, b)
        assert list(await b.rows()) == ["2"]
        assert [(item.scope, item.cursor) for item in a.sync.status.scopes] == [("x", 1), ("y", 1)]
