"""Repairs of much at once: scopes, stores, units of several rows, another schema; and what goes on meanwhile."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from atoma import StoreSpec
from atoma.client import open_client
from atoma.contracts.sync import Limits
from atoma.errors import ValidationError
from atoma.hub import AllowLoopback, open_hub
from atoma.schema import Index, Schema
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from tests.scenarios.sync.conftest import CLIENT, LABELS, MANUAL, SECRETS, SERVER, Device, Note, Probe, Wire
from tests.scenarios.sync.kit import back_up, back_up_with, client_id, copy_file, inbox, open_restored, put_in, unplug

pytestmark = pytest.mark.virtual_time
SCOPES = ("main", "other", "third")


async def everything(world: Any, device: Any) -> dict[str, Any]:
    return {
        f"{store.name}/{id}": row
        for store in (world.CARDS, world.MANUAL, world.SERVER, world.LABELS)
        for id, row in (await device.rows(store)).items()
    }


@pytest.mark.paths
async def test_all_scopes_and_stores_that_are_cut_come_back_in_one_transaction(world: Any) -> None:
    """Units of several rows are offered row by row; unique values, too, are as they were."""
    async with world.open_device("a", down=True, scopes=SCOPES) as a:
        await a.store(world.CARDS).insert_many([world.Card(id=scope, board=scope) for scope in SCOPES])
        await a.store(world.LABELS).insert(world.Note(id="1", text="red"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            async with a.client.transaction() as unit:
                for n in range(3):
                    await unit.store(world.CARDS).insert(world.Card(id=f"unit{n}", board="other"))
                await unit.store(world.CARDS).delete("other")
            await a.store(world.CARDS).update("main", title="lost")
            await a.store(world.MANUAL).insert(world.Note(id="1", text="lost"))
            await a.store(world.SERVER).insert(world.Note(id="1", text="lost"))
            await a.store(world.LABELS).update("1", text="blue")
            await a.store(world.LABELS).insert(world.Note(id="2", text="red"))
            await a.settle()
            a.wire.cut()
        pending = await a.store(world.CARDS).update("unit1", title="pending")
        wanted = await everything(world, a)
        world.hub_file = "backup.db"
        async with world.open_hub() as hub, world.open_device("c", scopes=SCOPES) as c:
            await hub.new_epoch()
            await put_in(a)
            await c.settle()
            (report,) = await a.sync.repairs()
            assert set(report.forks) == {"main", "other"}, "the third one has lost nothing"
            assert (report.offered, report.renumbered) == (9, 1)
            assert await everything(world, a) == wanted == await everything(world, c)
            assert await inbox(a) == [] and pending.state == "observed"


async def test_a_unique_value_is_given_up_before_another_row_takes_it(world: Any) -> None:
    """Whatever the ids are: here each row took over what the next one had before."""
    async with world.open_device("a", down=True) as a:
        await a.store(world.LABELS).insert_many([world.Note(id=id, text=f"of {id}") for id in "2345"])
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.LABELS).update("5", text="new")
            for id, before in (("4", "of 5"), ("3", "of 4"), ("2", "of 3")):
                await a.store(world.LABELS).update(id, text=before)
            await a.store(world.LABELS).insert(world.Note(id="1", text="of 2"))
            await a.settle()
            a.wire.cut()
        wanted = await everything(world, a)
        world.hub_file = "backup.db"
        async with world.open_hub() as hub, world.open_device("c") as c:
            await hub.new_epoch()
            await put_in(a)
            await c.settle()
            assert await inbox(a) == []
            assert await everything(world, a) == wanted == await everything(world, c)


@pytest.mark.paths
@pytest.mark.parametrize("devices", ["offer", "ask"])
async def test_rows_that_have_exchanged_unique_values_come_back_together(world: Any, devices: Any) -> None:
    """Two that changed places, three that went round, one behind them, and one that was given up for a new row."""
    async with world.open_device("a", down=True) as a:
        labels = a.store(world.LABELS)
        await labels.insert_many([world.Note(id=id, text=f"of {id}") for id in "12345678"])
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            for circle in ("12", "345"):
                last = circle[-1]
                await labels.update(last, text="for a moment")
                for id, after in zip(reversed(circle[:-1]), reversed(circle[1:]), strict=True):
                    await labels.update(id, text=f"of {after}")
                await labels.update(last, text=f"of {circle[0]}")
            await labels.update("7", text="new")
            await labels.update("6", text="of 7")
            await labels.delete("8")
            await labels.insert(world.Note(id="9", text="of 8"))
            await a.settle()
            a.wire.cut()
        wanted = await everything(world, a)
        assert [wanted.get(f"labels/{id}", world.Note(id=id)).text for id in "12345679"] == [
            "of 2", "of 1", "of 4", "of 5", "of 3", "of 7", "new", "of 8",
        ]  # fmt: skip
        world.hub_file = "backup.db"
        async with world.open_hub() as hub, world.open_device("c") as c:
            await hub.new_epoch(devices=devices)
            await put_in(a)
            if devices == "ask":
                kept = await a.sync.lost.entries()
                assert {entry.id for entry in kept} == set("123456789")
                await a.sync.lost.offer(sorted(kept, key=lambda entry: entry.id))
                await a.settle()
            await c.settle()
            assert await inbox(a) == []
            assert await everything(world, a) == wanted == await everything(world, c)


async def test_reads_live_queries_and_writes_go_on_while_a_file_is_stalled_and_repaired(world: Any) -> None:
    """A write that was observed once never says anything less, and one that is numbered anew is followed to its end."""
    async with world.open_device("a", down=True, repair="manual") as a:
        await a.store(world.CARDS).insert(world.Card(id="kept"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            observed = await a.store(world.CARDS).insert(world.Card(id="lost"))
            await a.settle()
            a.wire.cut()
        before = await a.store(world.CARDS).update("lost", title="before the stall")
        async with open_restored(world):
            a.wire.repair()
            a.sync.poke()
            with trio.fail_after(60):
                while a.sync.status.state != "stalled":
                    await trio.sleep(0.1)
            states: list[tuple[str, ...]] = []
            handles = [observed, before]
            seen: list[set[str]] = []

            async def follow() -> None:
                async with a.client.store(world.CARDS).live() as batches:
                    async for _ in batches:
                        seen.append(set(await a.rows()))
                        states.append(tuple(handle.state for handle in handles))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                await trio.sleep(1)
                handles.append(await a.store(world.CARDS).insert(world.Card(id="stalled")))
                assert set(await a.rows()) == {"kept", "lost", "stalled"} and a.sync.status.state == "stalled"
                a.wire.hold["snapshot"] = trio.Event()
                nursery.start_soon(a.sync.repair)
                with trio.fail_after(20):
                    while a.sync.status.state != "repairing":
                        await trio.sleep(0.1)
                handles.append(await a.store(world.CARDS).insert(world.Card(id="repairing")))
                assert "repairing" in await a.rows() and a.sync.status.repair is not None
                idle = trio.Event()

                async def wait() -> None:
                    await a.sync.wait_idle()
                    idle.set()

                nursery.start_soon(wait)
                await trio.sleep(5)
                assert not idle.is_set() and a.sync.status.state == "repairing", "it waits through the repair"
                a.wire.hold["snapshot"].set()
                with trio.fail_after(60):
                    await idle.wait()
                nursery.cancel_scope.cancel()
            assert [handle.state for handle in handles] == ["observed"] * 4
            assert {state[0] for state in states} == {"observed"}
            assert all({"kept", "lost"} <= rows for rows in seen) and {"stalled", "repairing"} <= seen[-1]
            assert await inbox(a) == []


async def widest(device: Device, id: str) -> None:
    """Insert a note as large as a device may write."""
    notes, size = device.store(SERVER), Limits().mutation_bytes
    while True:
        try:
            await notes.insert(Note(id=id, text="x" * size))
        except ValidationError as too_large:
            found = re.search(r"of (\d+) bytes", str(too_large))
            assert found is not None
            size -= int(found[1]) - Limits().mutation_bytes
        else:
            return


async def test_a_row_as_large_as_may_be_comes_back(world: Any) -> None:
    """What an offer says beside the row made it larger than a mutation may be: the row was in the inbox, and nowhere else."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        async with world.open_hub():
            await put_in(a)
        back_up(world)
        async with world.open_hub():
            await widest(a, "wide")
            for device in (a, b):
                await put_in(device)
            wanted = await b.rows(SERVER)
            await unplug(a, b)
        async with open_restored(world):
            for device in (b, a):
                await put_in(device)
                assert await device.rows(SERVER) == wanted and set(wanted) == {"wide"}
                assert await inbox(device) == []


async def test_a_write_as_large_as_may_be_is_sent_under_another_number(world: Any) -> None:
    """Its earlier name is told with it, and made it too large."""
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.settle()
        copy_file(world, "a", "copy")
        async with world.open_device("a") as a:
            await a.store(SERVER).insert(Note(id="other"))
            await a.settle()
        async with world.open_device("copy", down=True) as copy:
            await widest(copy, "wide")
            await put_in(copy)
            assert [report.cause for report in await copy.sync.repairs()] == ["CLIENT_FORKED"]
            assert set(await copy.rows(SERVER)) == {"other", "wide"} and await inbox(copy) == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card of the next version of the program."""

    id: str
    title: str = ""
    lane: str = "todo"
    board: str = "main"
    color: str = "none"


CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("lane")])
NEXT = Schema(CARDS, SERVER, CLIENT, MANUAL, SECRETS, LABELS, version=2)


async def test_the_schema_may_have_changed_in_between(world: Any) -> None:
    """Hub and device are both newer than what was lost, and than what is pending."""

    @asynccontextmanager
    async def next_device(name: str) -> AsyncIterator[Device]:
        wire, probe = Wire(lambda: world.hub), Probe()
        engine = LocalExecution(SQLiteEngine(world.folder / f"{name}.db"))
        plugins: list[Any] = [engine, probe, wire, Sync((CARDS,), ("main",))]
        async with open_client(
            NEXT, plugins=plugins, policy="sync-queue", environment=world.environment(name)
        ) as client:
            yield Device(name, client, wire, probe)

    async with world.open_device("a", down=True) as a:
        await a.store(world.CARDS).insert(world.Card(id="kept"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).insert(world.Card(id="lost", title="lost"))
            await a.settle()
            a.wire.cut()
        await a.store(world.CARDS).update("lost", lane="done")
        await a.store(world.CARDS).insert(world.Card(id="pending"))
        before = await client_id(a)
    environment = world.environment("hub")
    store = SQLiteHubStore(world.folder / "backup.db")
    async with open_hub(NEXT, store, verifier=AllowLoopback(), environment=environment) as hub:
        world.hub = hub
        await hub.new_epoch()
        async with next_device("a") as a, next_device("b") as b:
            await a.settle()
            await b.settle()
            assert await client_id(a) != before and await inbox(a) == [] == await a.outbox()
            rows = {row.id: row for row in await b.store(CARDS).query()}
            assert rows == {row.id: row for row in await a.store(CARDS).query()}
            assert rows["lost"] == Card(id="lost", title="lost", lane="done")
            assert set(rows) == {"kept", "lost", "pending"}
