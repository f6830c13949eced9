"""Values that travel in another form than their columns hold, through repairs, conflicts and what was there before sync."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
import trio

from atoma.schema import Index, Scale, Schema, StoreSpec
from tests.scenarios.sync.conftest import World
from tests.scenarios.sync.kit import back_up, back_up_with, copy_file, inbox, put_in, unplug

pytestmark = pytest.mark.virtual_time

Price = Annotated[Decimal, Scale(2)]


@dataclass(frozen=True, kw_only=True)
class Trip:
    id: str
    price: Price = Decimal("1.50")
    took: timedelta = timedelta(hours=1)
    leaves: time = time(8, 30)
    stops: list[str] = field(default_factory=lambda: ["a", "b"])
    note: str = ""


TRIPS = StoreSpec("trips", Trip, conflict="manual")
SLOTS = StoreSpec("slots", Trip, indexes=[Index("took", unique=True)])


class Travelling(World):
    TRIPS = TRIPS
    SLOTS = SLOTS
    SYNCED = (TRIPS, SLOTS)
    schema = Schema(TRIPS, SLOTS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Devices and a hub that share such values."""
    return Travelling(tmp_path)


A = Trip(id="1", price=Decimal("-12.30"), took=timedelta(days=-2, microseconds=1), leaves=time(0, 0, 1), stops=[])
B = Trip(id="2", price=Decimal("1000"), took=timedelta(days=400), leaves=time(23, 59), stops=["ü", '"'])


def as_seen(spec: StoreSpec[Trip], trip: Trip) -> dict[str, Any]:
    """A row as an entry shows it: in the form that its columns hold."""
    return dict(spec.encode(trip)[1])


@pytest.mark.paths
async def test_what_a_hub_has_lost_comes_back_as_it_was_also_when_two_devices_bring_it(world: Any) -> None:
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await a.store(TRIPS).insert(A)
        await back_up_with(world, a, b)
        changed = replace(A, price=Decimal("0.01"), took=timedelta(0), leaves=time(12), stops=["x"])
        async with world.open_hub():
            await put_in(a)
            await a.store(TRIPS).upsert(changed)
            await a.store(TRIPS).insert(B)
            await a.settle()
            await put_in(b)
            await unplug(a, b)
        world.hub_file = "backup.db"
        async with world.open_hub() as hub, world.open_device("fresh") as fresh:
            await hub.new_epoch()
            new = replace(B, id="new")
            await fresh.store(TRIPS).insert(new)  # so that nothing comes back to its old place in the log
            await fresh.settle()
            for device in (a, b):
                await put_in(device)
                assert [report.offered for report in await device.sync.repairs()] == [2]
            for device in (a, b, fresh):
                await device.settle()
                assert await device.rows(TRIPS) == {"1": changed, "2": B, "new": new}
                assert await inbox(device) == [] == await device.sync.lost.entries()


async def test_rows_that_a_device_kept_are_shown_and_offered_by_value(world: Any) -> None:
    async with world.open_device("a", down=True, on_hub_loss="inbox") as a:
        await a.store(TRIPS).insert(A)
        await back_up_with(world, a)
        changed = replace(A, price=Decimal("7"), took=timedelta(seconds=1), stops=["x"])
        async with world.open_hub():
            await put_in(a)
            await a.store(TRIPS).upsert(changed)
            await a.store(SLOTS).insert(B)
            await a.settle()
            await unplug(a)
        world.hub_file = "backup.db"
        async with world.open_hub() as hub, world.open_device("fresh") as fresh:
            await hub.new_epoch()
            await put_in(a)
            assert await a.rows(TRIPS) == {"1": A} and await a.rows(SLOTS) == {}
            entries = {entry.store: entry for entry in await a.sync.lost.entries()}
            assert entries["trips"].image == as_seen(TRIPS, changed)
            assert entries["trips"].theirs == as_seen(TRIPS, A)
            assert (entries["slots"].image, entries["slots"].theirs) == (as_seen(SLOTS, B), None)
            await a.sync.lost.offer(list(entries.values()))
            for device in (a, fresh):
                await device.settle()
                assert await device.rows(TRIPS) == {"1": changed} and await device.rows(SLOTS) == {"2": B}
            assert await inbox(a) == [] == await a.sync.lost.entries()


async def test_a_conflict_shows_three_values_and_only_what_was_changed_is_written_again(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.store(TRIPS).insert(A)
        await a.settle()
        await b.settle()
        await unplug(a)
        theirs = replace(A, took=timedelta(hours=5), price=Decimal("3.00"))
        await a.store(TRIPS).update("1", took=timedelta(hours=4), stops=["mine"])
        await b.store(TRIPS).update("1", took=theirs.took, price=theirs.price)
        await b.settle()
        await put_in(a)
        (entry,) = await a.client.inbox.entries()
        assert (entry.code, entry.base) == ("CONFLICT", as_seen(TRIPS, A))
        assert entry.mine == as_seen(TRIPS, replace(A, took=timedelta(hours=4), stops=["mine"]))
        assert entry.theirs == as_seen(TRIPS, theirs)
        await a.client.inbox.keep_mine(entry)
        for device in (a, b):
            await device.settle()
            assert await device.rows(TRIPS) == {"1": replace(theirs, took=timedelta(hours=4), stops=["mine"])}
        assert await inbox(a) == [] == await inbox(b)


@pytest.mark.parametrize("spelt", [Decimal("3"), Decimal("3.0"), Decimal("3.00"), Decimal("30E-1")])
async def test_values_that_are_equal_do_not_conflict_however_they_are_spelt(world: Any, spelt: Decimal) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.store(TRIPS).insert(A)
        await a.settle()
        await b.settle()
        await unplug(a)
        await a.store(TRIPS).update("1", price=spelt, took=timedelta(minutes=60), stops=["a"])
        await a.store(TRIPS).insert(replace(B, price=spelt))
        await b.store(TRIPS).update("1", price=Decimal("3.00"), took=timedelta(hours=1), stops=["a"])
        await b.store(TRIPS).insert(replace(B, price=Decimal("3.00")))
        await b.settle()
        await put_in(a)
        assert await inbox(a) == []
        assert await a.rows(TRIPS) == await b.rows(TRIPS)


@pytest.mark.parametrize("known", [True, False])
async def test_a_creation_whose_answer_was_lost_is_no_row_that_exists_already(world: Any, known: bool) -> None:
    """Sent again under its own number, or, by a device that the hub has forgotten, as a doubtful one under a new name."""
    async with world.open_hub() as hub, world.open_device("a") as a:
        await a.settle()
        a.wire.lose["push"], a.wire.hold["pull"] = 1, trio.Event()
        async with a.client.transaction() as tx:
            await tx.store(TRIPS).insert(A)
            await tx.store(TRIPS).insert(B)
        with trio.fail_after(20):
            while a.wire.lose["push"]:
                await trio.sleep(0.01)
        await unplug(a)
        if not known:
            assert (await hub.compact(client_days=-1)).clients == 1
        del a.wire.hold["pull"]
        await put_in(a)
        assert [report.doubtful for report in await a.sync.repairs()] == ([] if known else [1])
        assert await inbox(a) == [] and await a.rows(TRIPS) == {"1": A, "2": B} and await a.outbox() == []


async def test_a_creation_that_somebody_else_has_brought_back_is_in_no_inbox(world: Any) -> None:
    """Who made it has heard that it was taken, and not seen it in the log; the hub went back before it."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        async with world.open_hub():
            await put_in(a)
            await put_in(b)
            await unplug(b)
        back_up(world)
        async with world.open_hub():
            a.wire.hold["pull"] = trio.Event()
            made = await a.store(TRIPS).insert(A)
            await made.accepted()
            await unplug(a)
            await put_in(b)
            await unplug(b)
        world.hub_file = "backup.db"
        del a.wire.hold["pull"]
        async with world.open_hub() as hub:
            await hub.new_epoch()
            for device in (b, a):
                await put_in(device)
                assert await device.rows(TRIPS) == {"1": A} and await inbox(device) == []
            assert made.state == "observed"


async def test_a_creation_that_two_copies_share_is_made_once(world: Any) -> None:
    async with world.open_hub():
        async with world.open_device("a", down=True) as a:
            await a.store(TRIPS).insert(A)
            await a.store(SLOTS).insert(B)
        copy_file(world, "a", "copy")
        async with world.open_device("a") as a, world.open_device("copy") as copy:
            await a.store(TRIPS).update("1", note="a")
            await a.settle()
            await copy.store(SLOTS).update("2", note="copy")
            await copy.settle()
            for device in (a, copy):
                device.sync.poke()
                await device.settle()
                assert await device.rows(TRIPS) == {"1": replace(A, note="a")}
                assert await device.rows(SLOTS) == {"2": replace(B, note="copy")}
                assert await inbox(device) == []


async def test_rows_that_have_exchanged_unique_values_come_back(world: Any) -> None:
    one, two = replace(A, id="1", took=timedelta(hours=1)), replace(A, id="2", took=timedelta(hours=2))
    async with world.open_device("a", down=True) as a:
        await a.store(SLOTS).insert_many([one, two])
        await back_up_with(world, a)
        swapped = {"1": replace(one, took=two.took), "2": replace(two, took=one.took)}
        async with world.open_hub():
            await put_in(a)
            async with a.client.transaction() as tx:
                await tx.store(SLOTS).delete("1")
                await tx.store(SLOTS).upsert(swapped["2"])
                await tx.store(SLOTS).insert(swapped["1"])
            await a.settle()
            assert await inbox(a) == []
            await unplug(a)
        world.hub_file = "backup.db"
        async with world.open_hub() as hub, world.open_device("fresh") as fresh:
            await hub.new_epoch()
            await put_in(a)
            await fresh.settle()
            assert await a.rows(SLOTS) == swapped == await fresh.rows(SLOTS)
            assert await inbox(a) == []


async def test_what_two_devices_had_before_sync_meets_as_equal(world: Any) -> None:
    async with world.open_hub():
        for name in ("a", "b"):
            async with world.open_device(name, plugins=()) as alone:
                await alone.store(TRIPS).insert(A)
                await alone.store(SLOTS).insert(B)
        async with world.open_device("a") as a, world.open_device("b") as b:
            for device in (a, b):
                await device.settle()
                assert await inbox(device) == []
                assert await device.rows(TRIPS) == {"1": A} and await device.rows(SLOTS) == {"2": B}
