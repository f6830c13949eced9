"""Fields that nobody writes: when a row was made and changed last, and what the hub sets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import Index, Schema, StoreSpec, open_client
from atoma.errors import ConfigurationError, ConflictError, SchemaError, ValidationError
from atoma.hub import Hub
from atoma.hub.setting import HubField, Setting
from atoma.ports import seeded_environment
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine
from tests.paths import memory
from tests.scenarios.sync.conftest import World
from tests.scenarios.sync.kit import back_up, back_up_with, copy_file, open_restored, put_in

pytestmark = pytest.mark.virtual_time

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    id: str
    text: str = ""
    lane: str = "new"
    made: datetime = field(default_factory=lambda: LONG_AGO)
    changed: datetime = LONG_AGO
    number: int | None = None


HERE = StoreSpec("orders", Order, created_at="made", updated_at="changed", conflict="manual")
THERE = StoreSpec(
    "orders",
    Order,
    created_at="made",
    updated_at="changed",
    by="hub",
    hub_fields=("number",),
    indexes=[Index("number", unique=True)],
)


def number(of: Setting) -> int:
    return of.previous.number if of.previous is not None else of.counter()


class ByDevice(World):
    ORDERS = HERE
    SYNCED = (HERE,)
    schema = Schema(HERE)


class ByHub(World):
    ORDERS = THERE
    SYNCED = (THERE,)
    schema = Schema(THERE)
    functions: Mapping[str, Mapping[str, HubField]] = {"orders": {"number": number}}

    @asynccontextmanager
    async def open_hub(self, **options: Any) -> AsyncGenerator[Hub]:
        async with super().open_hub(hub_fields=self.functions, **options) as hub:
            yield hub


@pytest.mark.paths
async def test_the_device_sets_when_a_row_was_made_and_changed() -> None:
    plugins = [LocalExecution(SQLiteEngine(memory()))]
    async with open_client(Schema(HERE), plugins=plugins, environment=seeded_environment(1)) as client:
        orders = client.store(HERE)
        made = (await orders.insert(Order(id="1", text="a"))).value
        assert made.made == made.changed > LONG_AGO
        await trio.sleep(5)
        same = await orders.update("1", text="a")
        assert not same.changed and same.value == made, "what changes nothing does not count"
        back = await orders.upsert(Order(id="1", text="a", changed=LONG_AGO), apply="replace")
        assert not back.changed and back.value == made, "a stale row that a caller gives back neither"
        await trio.sleep(5)
        later = (await orders.update("1", lambda order: replace(order, text="b", made=LONG_AGO))).value
        assert later.made == made.made and later.changed > made.changed
        for write in (
            orders.upsert({"id": "1", "text": "c"}),
            orders.upsert(Order(id="1", text="d"), apply="replace"),
            orders.upsert(Order(id="1", text="e")),
        ):
            await trio.sleep(1)
            before = await orders.get("1")
            await write
            after = await orders.get("1")
            assert before is not None and after is not None
            assert after.made == made.made and after.changed > before.changed
        await orders.insert_many([Order(id=f"m{n}") for n in range(20)])
        assert {order.made == order.changed > LONG_AGO for order in await orders.query() if order.id != "1"} == {True}
        with pytest.raises(ValidationError, match=r"orders\.changed is set by the store itself"):
            await orders.update("1", changed=LONG_AGO)


async def test_undo_takes_back_what_was_written_whatever_was_set_since(tmp_path: Path) -> None:
    plugins = [LocalExecution(SQLiteEngine(tmp_path / "a.db", history=History(days=1)))]
    async with open_client(Schema(HERE), plugins=plugins, environment=seeded_environment(1)) as client:
        orders = client.store(HERE)
        await orders.insert(Order(id="1", text="a"))
        await trio.sleep(5)
        with client.undo.group("Write"):
            await orders.update("1", text="b")
            await orders.insert(Order(id="2"))
        await trio.sleep(5)
        moved = (await orders.update("1", lane="done")).value
        await trio.sleep(5)
        await client.undo.undo()
        after = await orders.get("1")
        assert after is not None and await orders.get("2") is None
        assert (after.text, after.lane, after.made) == ("a", "done", moved.made)
        assert after.changed > moved.changed, "it is a write like any other"


async def test_what_a_device_sets_is_no_conflict(tmp_path: Path) -> None:
    """Under the rule ``manual``, which refuses every column that both have changed."""
    world: Any = ByDevice(tmp_path)
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.store(HERE).insert(Order(id="1"))
        await a.settle()
        await b.settle()
        a.wire.cut()
        await a.store(HERE).update("1", text="a")
        await trio.sleep(1)
        await b.store(HERE).update("1", lane="done")
        await b.settle()
        await put_in(a)
        await b.settle()
        assert await a.rows(HERE) == await b.rows(HERE)
        row = (await a.rows(HERE))["1"]
        assert (row.text, row.lane) == ("a", "done")
        assert await a.sync.inbox.entries() == []
        for device in (a, b):
            device.wire.cut()
            await device.store(HERE).update("1", text="both")
            await trio.sleep(1)
        await put_in(a)
        await put_in(b)
        await a.settle()
        assert await a.rows(HERE) == await b.rows(HERE)
        assert await b.sync.inbox.entries() == [], "the same text is the same row, whenever it was written"


@pytest.mark.paths
async def test_the_hub_sets_times_and_numbers_and_the_device_shows_its_prediction_until_then(tmp_path: Path) -> None:
    world: Any = ByHub(tmp_path)
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        a.wire.cut()
        orders = a.store(THERE)
        handle = await orders.insert(Order(id="1", number=99, made=LONG_AGO))
        shown = (await a.rows(THERE))["1"]
        assert shown.number is None and shown.made == shown.changed > LONG_AGO
        await orders.update("1", text="one")
        await orders.insert(Order(id="2"))
        (first, *_) = await a.outbox()
        assert b"made" not in first.body and b"number" not in first.body, "the body has nothing that the hub decides"
        assert (await a.rows(THERE))["1"].made == shown.made
        await b.store(THERE).insert(Order(id="b"))
        await b.settle()
        await trio.sleep(3600)
        version = await orders.version("1")
        await put_in(a)
        await b.settle()
        assert await a.rows(THERE) == await b.rows(THERE)
        rows = await a.rows(THERE)
        assert {id: order.number for id, order in rows.items()} == {"b": 1, "1": 2, "2": 3}
        assert (rows["1"].made - shown.made).total_seconds() > 3000, "the hub's clock, when it was decided"
        assert handle.state == "observed"
        assert await orders.version("1") == version, "what the hub has set is no reason to refuse a compare-and-set"
        await trio.sleep(60)
        await orders.update("1", base_version=version, text="two")
        await orders.update("1", text="two")
        await a.settle()
        later = (await a.rows(THERE))["1"]
        assert (later.number, later.made) == (2, rows["1"].made) and later.changed > rows["1"].changed
        await orders.upsert(replace(later, text="three", number=7), apply="replace")
        await orders.upsert(later)
        await a.settle()
        await b.settle()
        assert (await b.rows(THERE))["1"].number == 2 and (await b.rows(THERE))["1"].made == later.made
        with pytest.raises(ConflictError):
            await orders.update("1", base_version=version, text="stale")


@pytest.mark.paths
async def test_pages_of_others_leave_the_prediction_alone_and_bring_the_rest(tmp_path: Path) -> None:
    """Rebase reads the prediction that was made once, at the local commit."""
    world: Any = ByHub(tmp_path)
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await b.store(THERE).insert(Order(id="1"))
        await b.settle()
        await a.settle()
        a.wire.hold["push"] = release = trio.Event()
        await a.store(THERE).update("1", text="mine")
        shown = (await a.rows(THERE))["1"]
        await trio.sleep(60)
        await b.store(THERE).update("1", lane="done")
        await b.settle()
        a.sync.poke()
        await trio.sleep(60)
        assert (await a.rows(THERE))["1"] == replace(shown, lane="done")
        release.set()
        await a.settle()
        await b.settle()
        assert await a.rows(THERE) == await b.rows(THERE)


async def test_what_a_hub_has_lost_comes_back_as_it_was_set_and_a_number_in_use_is_drawn_anew(tmp_path: Path) -> None:
    world: Any = ByHub(tmp_path)
    async with world.open_hub(), world.open_device("a") as a:
        await a.store(THERE).insert(Order(id="kept"))
        await a.settle()
    back_up(world)
    async with world.open_hub(), world.open_device("a") as a:
        for id in ("x", "y", "z"):
            await a.store(THERE).insert(Order(id=id))
            await a.settle()
        was = await a.rows(THERE)
        assert [was[id].number for id in ("kept", "x", "y", "z")] == [1, 2, 3, 4]
    async with open_restored(world):
        async with world.open_device("b") as b:
            await b.store(THERE).insert(Order(id="new"))
            await b.settle()
            assert (await b.rows(THERE))["new"].number == 2
        async with world.open_device("a") as a, world.open_device("b") as b:
            await a.settle()
            await b.settle()
            rows = await b.rows(THERE)
            assert rows == await a.rows(THERE)
            assert {id: rows[id].made for id in was} == {id: was[id].made for id in was}, "times are taken as they were"
            assert (rows["kept"].number, rows["new"].number) == (1, 2), "x had the 2 before, and takes another one"
            assert len({order.number for order in rows.values()} - {None}) == 5
            await b.store(THERE).insert(Order(id="last"))
            await b.settle()
            assert len({order.number for order in (await b.rows(THERE)).values()}) == 6


async def test_what_comes_back_with_a_value_in_use_that_cannot_be_drawn_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is in use as well: it would take another one, and is still not unique."""
    unique = StoreSpec(
        "orders", Order, by="hub", hub_fields=["number"],
        indexes=[Index("number", unique=True), Index("text", unique=True)],
    )  # fmt: skip
    monkeypatch.setattr(ByHub, "schema", Schema(unique))
    monkeypatch.setattr(ByHub, "SYNCED", (unique,))
    world: Any = ByHub(tmp_path)
    await back_up_with(world)
    async with world.open_hub(), world.open_device("a") as a:
        await a.store(unique).insert(Order(id="lost", text="same"))
        await a.settle()
    async with open_restored(world):
        async with world.open_device("b") as b:
            await b.store(unique).insert(Order(id="new", text="same"))
            await b.settle()
        async with world.open_device("a") as a:
            await a.settle()
            assert {id: order.number for id, order in (await a.rows(unique)).items()} == {"new": 1}
            assert [(entry.id, entry.code) for entry in await a.sync.inbox.entries()] == [("lost", "CONSTRAINT")]


async def test_a_copied_file_sends_its_writes_again_without_what_the_hub_sets(tmp_path: Path) -> None:
    world: Any = ByHub(tmp_path)
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.store(THERE).insert(Order(id="1"))
            await a.settle()
        copy_file(world, "a", "copy")
        async with world.open_device("a") as a:
            await a.store(THERE).insert(Order(id="2"))
            await a.settle()
        async with world.open_device("copy", down=True) as copy:
            await copy.store(THERE).insert(Order(id="3"))
            await put_in(copy)
            assert {id: order.number for id, order in (await copy.rows(THERE)).items()} == {"1": 1, "2": 2, "3": 3}


async def test_what_cannot_be_set_is_refused_at_the_start(tmp_path: Path) -> None:
    options: list[tuple[dict[str, Any], str]] = [
        ({"created_at": "id"}, "'id' cannot be set"),
        ({"created_at": "text"}, "'text' holds a time and is declared as str"),
        ({"updated_at": "nothing"}, "'nothing' cannot be set"),
        ({"created_at": "made", "updated_at": "made"}, "one is named twice"),
        ({"hub_fields": ["text"]}, "'text' is None until the hub has set it"),
        ({"hub_fields": "number"}, "hub_fields is a list of fields"),
        ({"by": "anybody"}, "by is device or hub"),
    ]
    for given, why in options:
        with pytest.raises(SchemaError, match=why):
            StoreSpec("orders", Order, **given)
    with pytest.raises(ConfigurationError, match="'orders' has fields that the hub sets"):
        async with open_client(Schema(THERE), plugins=[LocalExecution(SQLiteEngine(memory()))]):
            pass
    world: Any = ByHub(tmp_path)
    for functions, why in (
        ({}, "orders.number has no function"),
        ({"orders": {"number": number, "text": number}}, "orders.text is not declared"),
        ({"orders": {"number": 7}}, "must be a function"),
    ):
        world.functions = functions
        with pytest.raises(ConfigurationError, match=why):
            async with world.open_hub():
                pass
