"""What a restored hub has lost comes back: whose row counts, what waits for a word, and what nobody can prove."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pytest
from msgspec.structs import replace

from atoma.hub import Hub
from tests.scenarios.sync.kit import back_up, inbox, open_restored, put_in

pytestmark = pytest.mark.virtual_time
ORDERS = list(permutations(("early", "middle", "late")))


@dataclass
class Lost:
    """A hub that is about to be restored, and devices that have seen more than its backup.

    Attributes:
        world: Hub and devices.
        epoch: The epoch of which a part is lost.
        devices: By name; away.
    """

    world: Any
    epoch: bytes
    devices: dict[str, Any]

    @asynccontextmanager
    async def restored(self, *, noticed: bool) -> AsyncGenerator[Hub]:
        """The hub from its backup: it finds out by itself, or the operator says so."""
        if noticed:
            shutil.copy(self.world.folder / "backup.db", self.world.folder / "hub.db")
        else:
            self.world.hub_file = "backup.db"
        async with self.world.open_hub() as hub:
            if not noticed:
                await hub.new_epoch()
            yield hub


async def come(device: Any) -> None:
    """Everything up, everything down, and away again."""
    await put_in(device)
    device.wire.cut()


@asynccontextmanager
async def three_witnesses(world: Any, *, named: bool = True) -> AsyncGenerator[Lost]:
    """``early``, ``middle`` and ``late`` have seen more and more of what is lost.

    ``kept`` is in the backup, is changed, changed again, and deleted. ``brief`` is made and deleted within what is lost.
    ``new`` is made, ``same`` is in the backup and deleted at once.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        devices = {name: await enter(world.open_device(name, down=True)) for name in ("early", "middle", "late")}
        early, middle, late = devices.values()
        cards = late.store(world.CARDS)
        async with world.open_hub() as hub:
            epoch = hub.identity.epoch
            await cards.insert_many([world.Card(id=id, title="backup") for id in ("kept", "same", "rest")])
            for device in (late, middle, early):
                await come(device)
        back_up(world)
        async with world.open_hub() as hub:
            if not named:
                await hub.new_epoch()
            await cards.update("kept", title="early")
            await cards.insert(world.Card(id="brief"))
            await come(late)
            await come(early)
            await cards.update("kept", title="middle")
            await cards.delete("same")
            await cards.insert(world.Card(id="new", title="middle"))
            await come(late)
            await come(middle)
            await cards.delete("kept")
            await cards.delete("brief")
            await cards.update("new", title="late")
            await come(late)
        yield Lost(world, epoch, devices)


async def titles(device: Any) -> dict[str, str]:
    return {id: row.title for id, row in (await device.rows()).items()}


@pytest.mark.parametrize("named", [True, False], ids=["named", "unknown"])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_deletions_that_are_held_back_leave_the_row_as_it_was_last_seen(
    world: Any, order: tuple[str, ...], named: bool
) -> None:
    """Whoever comes first: what the restored hub has stays until the word, and then it goes, also of an epoch it never had."""
    async with three_witnesses(world, named=named) as lost, lost.restored(noticed=True) as hub:
        for name in order:
            await come(lost.devices[name])
        for _ in range(2):
            for device in lost.devices.values():
                await come(device)
                assert await inbox(device) == []
        held = {"kept": "middle", "same": "backup", "rest": "backup", "new": "late"}
        assert [await titles(device) for device in lost.devices.values()] == [held] * 3
        waiting = [(row.id, row.reason) for row in await lost.devices["late"].sync.lost.entries()]
        assert ("same", "deletion") in waiting
        await hub.allow_deletes(lost.epoch)
        for _ in range(2):
            for device in lost.devices.values():
                await come(device)
        gone = {"rest": "backup", "new": "late"}
        assert [await titles(device) for device in lost.devices.values()] == [gone] * 3
        assert [await device.sync.lost.entries() for device in lost.devices.values()] == [[]] * 3


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_the_best_witness_is_believed_whoever_comes_first(world: Any, order: tuple[str, ...]) -> None:
    """I22, with deletions: also of rows that came and went within what is lost."""
    async with three_witnesses(world) as lost, lost.restored(noticed=False):
        for name in order:
            await come(lost.devices[name])
        for device in lost.devices.values():
            await come(device)
            assert await inbox(device) == []
        wanted = {"rest": "backup", "new": "late"}
        assert [await titles(device) for device in lost.devices.values()] == [wanted] * 3


@pytest.mark.parametrize("named", [True, False], ids=["named", "unknown"])
async def test_a_deletion_is_carried_out_although_a_better_witness_came_and_went(world: Any, named: bool) -> None:
    """``late`` has said that it has brought everything, and its own deletions wait with it; the operator allows them."""
    async with three_witnesses(world, named=named) as lost, lost.restored(noticed=True) as hub:
        await come(lost.devices["late"])
        await come(lost.devices["middle"])
        await hub.allow_deletes(lost.epoch)
        await come(lost.devices["middle"])
        assert set(await titles(lost.devices["middle"])) == {"rest", "new"}


async def held_by(device: Any) -> set[str]:
    return {row.id for row in await device.sync.lost.entries() if row.reason == "deletion"}


async def test_a_later_epoch_allows_nothing_of_an_earlier_loss(world: Any) -> None:
    """The lost epoch is one that the restored hub has never had; what is said of the restore is said of what it lost."""
    async with three_witnesses(world, named=False) as lost, lost.restored(noticed=True) as hub:
        late = lost.devices["late"]
        await come(late)
        held = await held_by(late)
        assert "same" in held
        await hub.new_epoch()
        await come(late)
        await come(late)
        assert await held_by(late) == held and "same" in await titles(late)
        await hub.allow_deletes(lost.epoch)
        await come(late)
        await come(late)
        assert await held_by(late) == set() and set(await titles(late)) == {"rest", "new"}


async def test_a_later_restore_holds_back_nothing_of_an_earlier_loss(world: Any) -> None:
    async with three_witnesses(world, named=False) as lost:
        late = lost.devices["late"]
        async with lost.restored(noticed=True):
            await come(late)
            assert "same" in await held_by(late)
        shutil.copy(world.folder / "hub.db", world.folder / "again.db")
        async with world.open_hub(), world.open_device("other") as other:
            await other.store(world.CARDS).insert(world.Card(id="other"))
            await come(other)
        shutil.copy(world.folder / "again.db", world.folder / "hub.db")
        async with world.open_hub() as hub:
            assert [ended.deletes for ended in await hub.epochs()] == [False, False]
            await come(late)
            assert "same" in await held_by(late)
            await hub.allow_deletes(lost.epoch)
            await come(late)
            await come(late)
            assert await held_by(late) == set() and "same" not in await titles(late)


@pytest.mark.parametrize("said", ["ask", "forget"])
@pytest.mark.parametrize("device", ["offer", "inbox"])
async def test_the_operator_may_let_devices_offer_later(world: Any, said: Any, device: Any) -> None:
    async with world.open_device("a", down=True, on_hub_loss=device) as a:
        async with world.open_hub() as hub:
            epoch = hub.identity.epoch
            await a.store(world.CARDS).insert(world.Card(id="1", title="before"))
            await come(a)
        back_up(world)
        async with world.open_hub():
            await a.store(world.CARDS).update("1", title="lost")
            await come(a)
        async with open_restored(world, devices=said) as hub:
            await come(a)
            assert [row.reason for row in await a.sync.lost.entries()] == [said]
            assert await titles(a) == {"1": "before"}
            await hub.allow_offers(epoch)
            assert [one.devices for one in await hub.epochs()] == ["offer"]
            await come(a)
            if device == "offer":
                assert await a.sync.lost.entries() == []
                assert await titles(a) == {"1": "lost"}
            else:  # the device's own word is the more careful one
                assert [row.reason for row in await a.sync.lost.entries()] == [said]
                assert await titles(a) == {"1": "before"}


@asynccontextmanager
async def without_proofs(world: Any, *names: str) -> AsyncGenerator[Lost]:
    """Devices whose files are from before proofs; each has seen one change more of the row than the one before."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        writer = await enter(world.open_device("writer", down=True))
        devices = {name: await enter(world.open_device(name, down=True)) for name in names}
        for device in devices.values():
            device.wire.tamper["pull"] = lambda page: replace(page, proof=b"")
        async with world.open_hub() as hub:
            epoch = hub.identity.epoch
            await writer.store(world.CARDS).insert(world.Card(id="1", title="backup"))
            await writer.store(world.CARDS).insert(world.Card(id="2"))
            for device in (writer, *devices.values()):
                await come(device)
        back_up(world)
        async with world.open_hub():
            for name, device in devices.items():
                await writer.store(world.CARDS).update("1", title=name)
                await writer.store(world.CARDS).insert(world.Card(id=f"{name}'s"))
                await come(writer)
                await come(device)
        for device in devices.values():
            del device.wire.tamper["pull"]
        yield Lost(world, epoch, {"writer": writer, **devices})


@pytest.mark.paths
@pytest.mark.parametrize("told", ["before it comes", "after it came"])
async def test_what_nothing_proves_goes_out_when_the_operator_says_so(world: Any, told: str) -> None:
    async with without_proofs(world, "a") as lost, lost.restored(noticed=False) as hub:
        a = lost.devices["a"]
        if told == "after it came":
            await come(a)
            assert sorted((row.id, row.reason) for row in await a.sync.lost.entries()) == [
                ("1", "unproven"),
                ("a's", "unproven"),
            ]
            assert await titles(a) == {"1": "backup", "2": ""}
        await hub.accept_unproven(lost.epoch)
        assert [one.unproven for one in await hub.epochs()] == [True]
        await come(a)
        assert await titles(a) == {"1": "a", "2": "", "a's": ""}
        assert await a.sync.lost.entries() == [] == await inbox(a)


@pytest.mark.parametrize("order", list(permutations(("writer", "a", "b"))), ids="-".join)
async def test_what_is_proved_counts_more_than_what_is_not(world: Any, order: tuple[str, ...]) -> None:
    """Two unproven ones that differ: nobody can tell which is later, so nothing is overwritten and nothing is silent."""
    async with without_proofs(world, "a", "b") as lost, lost.restored(noticed=False) as hub:
        await hub.accept_unproven(lost.epoch)
        for name in order:
            await come(lost.devices[name])
        for device in lost.devices.values():
            await come(device)
            assert await titles(device) == {"1": "b", "2": "", "a's": "", "b's": ""}
        refused = {name: await inbox(lost.devices[name]) for name in ("a", "b")}
        assert {code for entries in refused.values() for code, _ in entries} <= {"HUB_LOST_DATA"}
        if order.index("a") < order.index("writer"):
            assert refused["a"] == [] or order.index("b") < order.index("a")
        else:
            assert refused["a"] == [("HUB_LOST_DATA", "1")], (
                "the row is as somebody proves it, and a's is not gone in silence"
            )


@pytest.mark.paths
async def test_an_unproven_offer_never_overwrites_what_was_written_since(world: Any) -> None:
    async with without_proofs(world, "a") as lost, lost.restored(noticed=False) as hub:
        await hub.accept_unproven(lost.epoch)
        async with world.open_device("c") as c:
            await c.settle()
            await c.store(world.CARDS).update("1", title="new")
            await c.settle()
            await come(lost.devices["a"])
            assert await inbox(lost.devices["a"]) == [("HUB_LOST_DATA", "1")]
            await c.settle()
            assert (await titles(c))["1"] == "new"


@pytest.mark.paths
async def test_a_row_that_needs_a_deletion_is_held_back_with_it(world: Any) -> None:
    """The restored hub still has the row whose unique value another one was given, and a third one that one's."""
    async with world.open_device("a", down=True) as a:
        labels = a.store(world.LABELS)
        async with world.open_hub() as hub:
            epoch = hub.identity.epoch
            await labels.insert_many([world.Note(id=id, text=f"of {id}") for id in "123"])
            await put_in(a)
            a.wire.cut()
        back_up(world)
        async with world.open_hub():
            await put_in(a)
            await labels.delete("1")
            await labels.update("2", text="of 1")
            await labels.update("3", text="of 2")
            await labels.insert(world.Note(id="4", text="free"))
            await a.settle()
            a.wire.cut()
        shutil.copy(world.folder / "backup.db", world.folder / "hub.db")
        async with world.open_hub() as hub, world.open_device("b") as b:
            await put_in(a)
            await b.settle()
            assert await held_by(a) == {"1", "2", "3"} and await inbox(a) == []
            held = {"1": "of 1", "2": "of 2", "3": "of 3", "4": "free"}
            assert {id: row.text for id, row in (await b.rows(world.LABELS)).items()} == held
            await hub.allow_deletes(epoch)
            a.wire.cut()
            b.wire.cut()
            await come(a)
            await come(b)
            assert await held_by(a) == set() and await inbox(a) == []
            wanted = {"2": "of 1", "3": "of 2", "4": "free"}
            for device in (a, b):
                assert {id: row.text for id, row in (await device.rows(world.LABELS)).items()} == wanted
