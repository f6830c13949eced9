"""Repairs upon repairs, and what the hub has forgotten meanwhile: nothing is lost, doubled, refused or brought back wrongly."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.codec import decode
from atoma.contracts.events import RepairDone
from atoma.contracts.mutations import MutationBody
from atoma.contracts.sync import PushRequest
from atoma.errors import ChannelBroken
from atoma_stores.sqlite.device_files import ask_renewal
from tests.scenarios.sync.kit import back_up, back_up_with, copy_file, head, inbox, open_restored, put_in, unplug

pytestmark = pytest.mark.virtual_time


async def take_a_new_identity(copy: Any) -> None:
    """Let ``copy`` be repaired, and cut it off before a page comes."""

    def cut_off(event: object) -> None:
        if isinstance(event, RepairDone):
            copy.wire.cut()

    undo = copy.probe.context.register_listener(cut_off)
    copy.wire.repair()
    copy.sync.poke()
    await trio.sleep(5)
    undo()
    assert copy.wire.down
    assert [report.cause for report in await copy.sync.repairs()] == ["CLIENT_FORKED"]


async def two_copies_of_a_pending_write(world: Any) -> None:
    """``a`` has sent the first write of ``copy`` and one of its own."""
    async with world.open_device("a", down=True) as a:
        await a.store(world.CARDS).insert(world.Card(id="1", title="shared"))
    copy_file(world, "a", "copy")
    async with world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="2"))
        await a.settle()


@pytest.mark.paths
async def test_a_write_on_a_row_whose_page_is_to_come_after_a_repair_is_taken(world: Any) -> None:
    async with world.open_hub():
        await two_copies_of_a_pending_write(world)
        async with world.open_device("copy", down=True) as copy:
            await copy.store(world.CARDS).insert(world.Card(id="3"))
            await take_a_new_identity(copy)
            handle = await copy.store(world.CARDS).update("1", title="more")
            await put_in(copy)
            assert handle.state == "observed" and await inbox(copy) == []
            assert {id: row.title for id, row in (await copy.rows()).items()} == {"1": "more", "2": "", "3": ""}
            assert await head(world) == 4, "the shared write is not there twice"


async def test_what_a_repair_found_decided_is_not_when_the_hub_goes_back_before_the_page_comes(world: Any) -> None:
    await back_up_with(world)
    async with world.open_hub():
        await two_copies_of_a_pending_write(world)
        async with world.open_device("copy", down=True) as copy:
            await copy.store(world.CARDS).insert(world.Card(id="3"))
            await take_a_new_identity(copy)
    async with open_restored(world):
        async with world.open_device("copy") as copy:
            await copy.settle()
            assert set(await copy.rows()) == {"1", "3"} and await inbox(copy) == []
        async with world.open_device("fresh") as fresh:
            await fresh.settle()
            assert set(await fresh.rows()) == {"1", "3"}


async def test_a_handle_that_has_heard_its_verdict_hears_nothing_of_its_number_in_another_life(world: Any) -> None:
    """What is offered takes the numbers from 1 on, and has no handle of its own."""
    await back_up_with(world)
    async with world.open_device("a", down=True) as a:
        async with world.open_hub():
            await put_in(a)
            handle = await a.store(world.CARDS).insert(world.Card(id="1"))
            await a.settle()
            assert handle.state == "observed"
            a.wire.cut()
        async with open_restored(world):
            await put_in(a)
            assert (await a.sync.repairs())[0].offered == 1
            assert handle.state == "observed"


async def test_a_doubtful_write_does_not_bring_back_a_row_whose_deletion_is_forgotten(world: Any) -> None:
    async with world.open_hub() as hub:
        async with world.open_device("a", down=True) as a:
            await a.store(world.CARDS).insert(world.Card(id="1"))
        copy_file(world, "a", "copy")
        async with world.open_device("a") as a:
            await a.settle()
            await a.store(world.CARDS).delete("1")
            await a.settle()
        await trio.sleep(1)
        assert (await hub.compact(keep=0, keep_days=0, client_days=-1)).tombstones == 1
        async with world.open_device("copy") as copy:
            await copy.settle()
            assert await copy.rows() == {}
            assert await inbox(copy) == [("UNKNOWN_OUTCOME", "1")]


async def test_an_offer_does_not_bring_back_a_row_whose_deletion_is_forgotten(world: Any) -> None:
    """The log ends above the fork, as when somebody compacts it whole: what it no longer tells goes to the inbox."""
    await back_up_with(world)
    async with world.open_device("a", down=True) as a:
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).insert(world.Card(id="1", title="lost"))
            await a.settle()
            a.wire.cut()
        async with open_restored(world) as hub:
            async with world.open_device("b") as b:
                await b.store(world.CARDS).insert(world.Card(id="1", title="new"))
                await b.settle()
                await b.store(world.CARDS).delete("1")
                await b.settle()
            await trio.sleep(1)
            assert (await hub.compact(keep=0, keep_days=0)).tombstones == 1
            await put_in(a)
            assert await a.rows() == {}
            assert await inbox(a) == [("HUB_LOST_DATA", "1")]


async def test_the_log_of_a_scope_that_began_after_the_backup_is_kept_behind_the_restore(world: Any) -> None:
    """Else every row that comes back there might be one that somebody has deleted since, and would end in the inbox."""
    await back_up_with(world)
    async with world.open_device("a", down=True) as a:
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).insert(world.Card(id="1", title="lost"))
            await a.settle()
            a.wire.cut()
        async with open_restored(world) as hub:
            async with world.open_device("b") as b:
                await b.store(world.CARDS).insert(world.Card(id="2", title="new"))
                await b.settle()
            await hub.compact(keep=0)
            await put_in(a)
            assert await inbox(a) == []
            assert {card.title for card in (await a.rows()).values()} == {"lost", "new"}


@pytest.mark.paths
async def test_what_was_accepted_behind_a_refusal_is_sent_again_by_a_device_that_writes_nothing_more(
    world: Any,
) -> None:
    """The refusal has left the outbox and the hub does not know of it any more: its number will never come again."""
    async with world.open_device("a", down=True) as a:
        async with world.open_hub(), world.open_device("c") as c:
            await c.store(world.MANUAL).insert(world.Note(id="1"))
            await c.settle()
            await put_in(a)
            a.wire.cut()
        back_up(world)
        async with world.open_hub(), world.open_device("c") as c:
            await c.store(world.MANUAL).update("1", text="c's")
            await c.settle()
            before = await a.store(world.CARDS).insert(world.Card(id="before"))
            refused = await a.store(world.MANUAL).update("1", text="a's")
            behind = await a.store(world.CARDS).insert(world.Card(id="behind"))
            a.wire.hold["pull"] = trio.Event()
            a.wire.repair()
            a.sync.poke()
            await trio.sleep(5)
            assert (before.state, refused.state, behind.state) == ("accepted", "rejected", "accepted")
            a.wire.cut()
        world.hub_file = "backup.db"
        del a.wire.hold["pull"]
        a.wire.outcomes.clear()  # verdicts are final within one history, and this is another one
        async with world.open_hub() as hub:
            await hub.new_epoch()
            with trio.fail_after(30):  # the opening shows it, and no failure has to be waited out
                await put_in(a)
            (report,) = await a.sync.repairs()
            assert (report.cause, report.forks, report.renumbered) == ("HUB_LOST_DATA", {}, 2)
            assert (before.state, refused.state, behind.state) == ("observed", "rejected", "observed")
            assert await inbox(a) == [("CONFLICT", "1")] and await head(world) == 3


def without_the_last_word(request: PushRequest) -> PushRequest:
    """Offers reach the hub; "that was all" does not."""

    def is_last_word(body: bytes) -> bool:
        recovers = decode(body, MutationBody).recovers
        return recovers is not None and recovers.last

    kept = tuple(mutation for mutation in request.mutations if not is_last_word(mutation.body))
    if not kept:
        raise ChannelBroken("the link went down")
    return replace(request, mutations=kept)


async def one_of_two_witnesses_has_come(world: Any, early: Any, late: Any) -> None:
    """The hub has lost ``both`` and ``late's``, and ``early`` has brought the first one back; a backup is made of that."""
    cards = late.store(world.CARDS)
    await back_up_with(world, late, early)
    async with world.open_hub():
        await cards.insert(world.Card(id="both"))
        await put_in(late)
        await put_in(early)
        await unplug(early)
        await cards.insert(world.Card(id="late's"))
        await put_in(late)
        await unplug(late)
    async with open_restored(world):
        async with world.open_device("other") as other:  # so that nothing comes back to its old place in the log
            await other.store(world.CARDS).insert(world.Card(id="new"))
            await other.settle()
        await put_in(early)
        await unplug(early)
    shutil.copy(world.folder / "backup.db", world.folder / "again.db")


@pytest.mark.parametrize("said", ["offer", "ask"])
async def test_that_all_has_been_offered_is_not_said_when_the_hub_has_lost_a_part_of_it_again(
    world: Any, said: Any
) -> None:
    """What ``early`` has brought back would be taken for something that ``late`` has seen deleted."""
    async with world.open_device("early", down=True) as early, world.open_device("late", down=True) as late:
        await one_of_two_witnesses_has_come(world, early, late)
        async with world.open_hub():
            late.wire.tamper["push request"] = without_the_last_word
            late.wire.repair()
            late.sync.poke()
            with trio.fail_after(60):
                while await head(world) < 3:
                    await trio.sleep(0.1)
                late.wire.hold["push"] = trio.Event()  # whoever comes first: the page of what was accepted comes
                while len(await late.outbox()) > 1:
                    await trio.sleep(0.1)
            await unplug(late)
            del late.wire.hold["push"]
        world.hub_file = "again.db"
        del late.wire.tamper["push request"]
        async with world.open_hub() as hub:
            await hub.new_epoch(devices=said)
            await put_in(late)
            await put_in(early)
            kept = [row.id for row in await late.sync.lost.entries()]
            assert kept == ([] if said == "offer" else ["late's"])
            for device in (early, late):
                assert await device.rows() == {
                    id: world.Card(id=id) for id in ("both", "new", "late's") if id not in kept
                }
                assert await inbox(device) == []


async def test_that_all_has_been_offered_is_not_said_when_an_offer_was_refused_in_a_history_that_is_gone(
    world: Any,
) -> None:
    """No page has come, so no row of the device is from the part that the hub has lost; only the refusal is."""
    async with world.open_device("early", down=True) as early, world.open_device("late", down=True) as late:
        await one_of_two_witnesses_has_come(world, early, late)
        async with world.open_hub():
            late.wire.tamper["push request"] = without_the_last_word
            late.wire.hold["push"] = released = trio.Event()
            late.wire.repair()
            late.sync.poke()
            await trio.sleep(5)
            late.wire.hold["pull"] = trio.Event()
            async with world.open_device("other") as other:
                await other.settle()
                await other.store(world.CARDS).update("both", title="other's")
                await other.settle()
            released.set()
            await trio.sleep(5)
            await unplug(late)
            assert await inbox(late) == [("HUB_LOST_DATA", "both")] and len(await late.outbox()) == 2
        world.hub_file = "again.db"
        late.wire.tamper.clear()
        late.wire.hold.clear()
        async with world.open_hub() as hub:
            await hub.new_epoch()
            await put_in(late)
            await put_in(early)
            for device in (early, late):
                assert await device.rows() == {id: world.Card(id=id) for id in ("both", "new", "late's")}


async def write_unseen(world: Any, name: str) -> None:
    """A write that has not left the device."""
    async with world.open_device(name) as device:
        await device.settle()
        device.wire.cut()
        await device.store(world.CARDS).update("1", title="shared")


async def come(world: Any, name: str) -> None:
    """Push, and confirm the verdicts at the next opening."""
    for _ in range(2):
        async with world.open_device(name) as device:
            await device.settle()


@pytest.mark.paths
@pytest.mark.parametrize("forgotten", ["its verdict", "its client"])
@pytest.mark.parametrize("first", ["under its own name", "under a later name"])
async def test_a_write_that_two_copies_share_is_guarded_once_the_hub_has_forgotten_that_it_took_it(
    world: Any, first: str, forgotten: str
) -> None:
    """Under whichever name it was taken, and comes again: the hub does not know it, and has not forgotten that it did."""
    async with world.open_hub() as hub, world.open_device("other") as other:
        await other.store(world.CARDS).insert(world.Card(id="1"))
        await other.settle()
        await write_unseen(world, "a")
        copy_file(world, "a", "copy")
        ask_renewal(str(world.folder / ("copy.db" if first == "under its own name" else "a.db")))
        if first == "under its own name":  # the copy takes its new name before anybody has pushed
            async with world.open_device("copy", down=True) as copy:
                copy.wire.hold["push"] = trio.Event()
                copy.wire.repair()
                await trio.sleep(5)
                assert len(await copy.sync.repairs()) == 1
        await come(world, "a")
        await other.settle()
        assert {card.title for card in (await other.rows()).values()} == {"shared"}
        await other.store(world.CARDS).update("1", title="other's")
        await other.settle()
        await trio.sleep(1)
        other.sync.poke()
        await other.settle()
        report = await hub.compact(
            keep_days=0, client_days=400 if forgotten == "its verdict" else 0.5 / 86_400, force=True
        )
        assert report.outcomes if forgotten == "its verdict" else report.clients
        async with world.open_device("copy") as copy:
            await copy.settle()
            assert await inbox(copy) == [("UNKNOWN_OUTCOME", "1")]
            assert {card.title for card in (await copy.rows()).values()} == {"other's"}


@pytest.mark.paths
async def test_a_write_does_not_fall_with_a_refusal_of_the_same_number_in_an_earlier_life(world: Any) -> None:
    file = str(world.folder / "a.db")
    async with world.open_hub(), world.open_device("other") as other:
        await other.store(world.MANUAL).insert(world.Note(id="1"))
        await other.settle()
        async with world.open_device("a") as a:
            await a.settle()
            a.wire.cut()
            await other.store(world.MANUAL).update("1", text="other's")
            await other.settle()
            await a.store(world.MANUAL).update("1", text="refused")
            await put_in(a)
            assert await inbox(a) == [("CONFLICT", "1")]
        ask_renewal(file)
        async with world.open_device("a") as a:
            await a.settle()
            a.wire.cut()
            await a.store(world.MANUAL).update("1", text="first")
            await a.store(world.MANUAL).update("1", color="red")
            assert [pending.mid for pending in await a.outbox()] == [1, 2], (
                "the first one has the number of the refusal"
            )
        ask_renewal(file)
        async with world.open_device("a") as a:
            await a.settle()
            assert await inbox(a) == [("CONFLICT", "1")]
            assert [report.renumbered for report in await a.sync.repairs()] == [0, 2]
        await other.settle()
        assert list((await other.rows(world.MANUAL)).values()) == [world.Note(id="1", text="first", color="red")]
