"""Verdicts and rows that nobody tells of any more: what a hub has forgotten, or decided anew, is found out and waits for nobody."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import trio

from atoma.contracts.sync import Limits
from atoma_stores.sql.hub import clients as bounds
from tests.scenarios.sync.kit import back_up_with, copy_file, inbox, put_in, unplug

pytestmark = pytest.mark.virtual_time


@pytest.mark.paths
async def test_a_client_that_is_forgotten_in_the_middle_of_a_session_does_not_wait_for_its_verdicts(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user has too many devices by now; with nothing left to send, no call of its own finds that out (I15)."""
    monkeypatch.setattr(bounds, "CLIENTS_MAX", 2)
    async with world.open_hub(), world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="0"))
        await a.settle()
        a.wire.lose["push"] = 1
        a.wire.hold["pull"] = trio.Event()
        handle = await a.store(world.CARDS).insert(world.Card(id="1", title="decided"))
        with trio.fail_after(60):
            while a.wire.count("notify") < 2:
                await trio.sleep(0.1)
        for name in "bc":
            async with world.open_device(name) as other:
                await other.store(world.CARDS).insert(world.Card(id=name))
                await other.settle()
        a.wire.hold.pop("pull").set()
        await a.settle()
        assert handle.state == "observed" and await inbox(a) == [] and await a.outbox() == []
        assert set(await a.rows()) == {"0", "1", "b", "c"}


@pytest.mark.paths
async def test_an_ack_of_a_lost_history_is_not_taken_for_a_verdict_while_the_first_snapshot_is_under_way(
    world: Any,
) -> None:
    """A copy of the file sent the same writes to the restored hub, which refused them and tells of a few at a time (I14)."""
    refused = [("ALREADY_EXISTS", id) for id in "uvwxyz"]
    await back_up_with(world)
    async with world.open_hub():
        async with world.open_device("a", down=True) as a:
            for id in "uvwxyz":
                await a.store(world.MANUAL).insert(world.Note(id=id, text="mine"))
        copy_file(world, "a", "copy")
        async with world.open_device("a", down=True) as a:
            a.wire.hold["snapshot"] = a.wire.hold["pull"] = trio.Event()
            a.wire.repair()
            a.sync.poke()
            with trio.fail_after(60):
                while not all(item.ack_seq for item in await a.outbox()):
                    await trio.sleep(0.1)
    shutil.copy(world.folder / "backup.db", world.folder / "hub.db")
    async with world.open_hub(limits=Limits(page_bytes=400)):
        async with world.open_device("b") as b:
            for id in "uvwxyz":
                await b.store(world.MANUAL).insert(world.Note(id=id, text="theirs"))
            await b.settle()
        async with world.open_device("copy") as copy:
            await copy.settle()
            assert await inbox(copy) == refused
        async with world.open_device("a") as a:
            await a.settle()
            assert await inbox(a) == refused, "the writes are in sight of their user"
            assert {note.text for note in (await a.rows(world.MANUAL)).values()} == {"theirs"}


@pytest.mark.paths
@pytest.mark.parametrize("epochs", [0, 1], ids=["an epoch that it had", "one that it never had"])
async def test_a_row_of_the_lost_part_that_an_older_witness_brought_is_none_that_the_hub_had_kept(
    world: Any, epochs: int
) -> None:
    """It was made and deleted in the lost part, and brought back to its very place in the log (I22)."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await back_up_with(world, a, b)
        async with world.open_hub() as hub:
            for _ in range(epochs):
                await hub.new_epoch()
            for device in (a, b):
                await put_in(device)
            await a.store(world.CARDS).insert(world.Card(id="gone"))
            for device in (a, b):
                await device.settle()
            await unplug(b)
            await a.store(world.CARDS).delete("gone")
            await a.settle()
            await unplug(a)
        shutil.copy(world.folder / "backup.db", world.folder / "hub.db")
        async with world.open_hub():
            await put_in(b)
            assert set(await b.rows()) == {"gone"}
            await put_in(a)
            await b.settle()
            for device in (a, b):
                assert await device.rows() == {} and await device.sync.lost.entries() == []
