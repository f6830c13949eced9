"""Restored and copied files, and devices that the hub has forgotten: they are repaired, and nothing is lost or doubled."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.events import RepairDone, RepairStarted
from atoma.contracts.sync import OpenReply
from atoma.errors import ConfigurationError, RemoteError, SyncError
from atoma.sync import Sync
from atoma_stores.sql.hub import clients as bounds
from tests.scenarios.sync.kit import (
    back_up,
    back_up_with,
    client_id,
    copy_file,
    head,
    inbox,
    open_restored,
    put_in,
    unplug,
)

pytestmark = pytest.mark.virtual_time


@pytest.mark.paths
async def test_a_copied_file_takes_an_identity_of_its_own(world: Any) -> None:
    """Both copies write their own mutation 2; the second one to come begins anew."""
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.store(world.CARDS).insert(world.Card(id="1"))
            await a.settle()
        copy_file(world, "a", "copy")
        async with world.open_device("a") as a:
            await a.store(world.CARDS).update("1", title="original")
            await a.settle()
            kept = await client_id(a)
        async with world.open_device("copy", down=True) as copy:
            handle = await copy.store(world.CARDS).update("1", lane="done")
            await put_in(copy)
            assert handle.state == "observed"
            assert await client_id(copy) != kept
            assert (await copy.rows())["1"] == world.Card(id="1", title="original", lane="done")
            assert await copy.outbox() == [] and await inbox(copy) == []
        async with world.open_device("a") as a:
            await a.settle()
            assert await client_id(a) == kept
            assert (await a.rows())["1"].lane == "done"


async def test_two_copies_at_the_same_time_are_told_apart_by_the_digest(world: Any) -> None:
    """The outcome of the other copy's mutation of the same number must not settle mine."""
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.store(world.CARDS).insert(world.Card(id="1"))
            await a.settle()
        copy_file(world, "a", "copy")
        async with world.open_device("a") as a, world.open_device("copy") as copy:
            await a.settle()
            await copy.settle()
            copy.wire.hold["push"] = release = trio.Event()
            handle = await copy.store(world.CARDS).update("1", title="copy")
            await a.store(world.CARDS).update("1", lane="done")
            await a.settle()
            copy.sync.poke()
            await trio.sleep(5)
            assert (await copy.rows())["1"] == world.Card(id="1", title="copy", lane="done")
            assert len(await copy.outbox()) == 1, "the page told the other copy's verdict on number 2"
            release.set()
            await copy.settle()
            await a.settle()
            assert handle.state == "observed"
            assert await a.rows() == await copy.rows()
            assert (await a.rows())["1"] == world.Card(id="1", title="copy", lane="done")


@pytest.mark.parametrize("first", ["a", "copy"])
async def test_writes_that_two_copies_share_have_one_effect(world: Any, first: str) -> None:
    async with world.open_hub():
        async with world.open_device("a", down=True) as a:
            await a.store(world.CARDS).insert(world.Card(id="shared"))
            await a.store(world.CARDS).update("shared", title="shared")
        copy_file(world, "a", "copy")
        async with world.open_device("a", down=True) as a, world.open_device("copy", down=True) as copy:
            await a.store(world.CARDS).insert(world.Card(id="a's"))
            await copy.store(world.CARDS).insert(world.Card(id="copy's"))
            for device in (a, copy) if first == "a" else (copy, a):
                await put_in(device)
            for device in (a, copy):
                device.sync.poke()
                await device.settle()
                assert set(await device.rows()) == {"shared", "a's", "copy's"}
                assert await inbox(device) == []
            assert await head(world) == 4, "insert, update, and one of each"


async def test_copies_of_a_forgotten_device_find_one_another_by_their_first_name(world: Any) -> None:
    """Both are reborn; what they share was decided under the new name of one of them."""
    async with world.open_hub() as hub:
        async with world.open_device("a") as a:
            await a.store(world.MANUAL).insert(world.Note(id="1", text="first"))
            await a.settle()
            a.wire.cut()
            await a.store(world.MANUAL).update("1", text="shared")
        copy_file(world, "a", "copy")
        assert (await hub.compact(client_days=-1)).clients == 1
        async with world.open_device("copy") as copy, world.open_device("c") as c:
            await copy.settle()
            await c.settle()
            await c.store(world.MANUAL).update("1", text="c's")
            await c.settle()
            async with world.open_device("a") as a:
                await a.settle()
                assert (await a.store(world.MANUAL).get("1")).text == "c's", "the shared write came before"
                assert await inbox(a) == [] == await inbox(copy)
                assert await head(world) == 3
                assert len({await client_id(device) for device in (a, copy, c)}) == 3


async def test_a_write_that_was_numbered_anew_is_known_under_its_first_name(world: Any) -> None:
    """A copy is reborn with a write that it shares; before it can send it, the original has sent it under the old name."""

    def refuse(request: object) -> object:
        raise RemoteError("planted", remote_code="UNAVAILABLE", remote_retryable=True)

    async with world.open_hub(), world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
    back_up(world)
    async with world.open_device("a", down=True) as a:
        await a.store(world.CARDS).update("1", title="shared")
    copy_file(world, "a", "copy")
    async with world.open_device("a", down=True) as a, world.open_device("copy", down=True) as copy:
        copy.wire.tamper["push request"] = refuse
        async with world.open_hub(), world.open_device("c") as c:
            await c.settle()
            await c.store(world.CARDS).insert(world.Card(id="lost"))
            await c.settle()
            copy.wire.repair()
            copy.sync.poke()
            with trio.fail_after(60):
                while "lost" not in await copy.rows():
                    await trio.sleep(0.1)
            copy.wire.cut()
        world.hub_file = "backup.db"
        async with world.open_hub() as hub, world.open_device("d") as d:
            await hub.new_epoch()
            copy.wire.repair()
            copy.sync.poke()
            with trio.fail_after(60):
                while not await copy.sync.repairs():
                    await trio.sleep(0.1)
            await put_in(a)
            await d.settle()
            await d.store(world.CARDS).update("1", title="d's")
            await d.settle()
            del copy.wire.tamper["push request"]
            await put_in(copy)
            assert (await copy.rows())["1"].title == "d's", "the shared write came before"
            assert set(await copy.rows()) == {"1", "lost"} and await inbox(copy) == []


async def test_a_restored_older_file_gets_what_it_had_and_goes_on(world: Any) -> None:
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.store(world.CARDS).insert(world.Card(id="1"))
            await a.settle()
        copy_file(world, "a", "backup")
        async with world.open_device("a") as a:
            for id in ("2", "3"):
                await a.store(world.CARDS).insert(world.Card(id=id))
            await a.settle()
        copy_file(world, "backup", "a")
        async with world.open_device("a", down=True) as a:
            handle = await a.store(world.CARDS).insert(world.Card(id="4"))
            await put_in(a)
            assert set(await a.rows()) == {"1", "2", "3", "4"}
            assert handle.state == "observed" and a.wire.count("snapshot") == 0, "the same history: it pulls on"
            assert a.sync.status.state == "online"


@pytest.mark.paths
@pytest.mark.parametrize(
    ("verdict", "changed", "code"),
    [
        ("kept", True, ""),
        ("forgotten", False, ""),  # the row is as it would make it
        ("forgotten", True, "UNKNOWN_OUTCOME"),
    ],
)
async def test_what_a_restored_file_had_pending_is_never_decided_twice(
    world: Any, verdict: str, changed: bool, code: str
) -> None:
    async with world.open_hub() as hub:
        async with world.open_device("a", down=True) as a:
            await a.store(world.CARDS).insert(world.Card(id="other"))
            await a.store(world.CARDS).upsert({"id": "1", "title": "pending", "board": "main"})
        copy_file(world, "a", "backup")
        async with world.open_device("a") as a:
            await a.settle()
            if changed:
                await a.store(world.CARDS).update("1", title="my later life")
            await a.settle()
            a.sync.poke()
            await a.settle()
        await hub.compact(keep=0, keep_days=30 if verdict == "kept" else -1)
        copy_file(world, "backup", "a")
        async with world.open_device("a") as a:
            await a.settle()
            assert (await a.rows())["1"].title == ("my later life" if changed else "pending")
            assert [found for found, id in await inbox(a) if id == "1"] == ([code] if code else [])
            assert await a.outbox() == []
            if code:
                entry = (await a.sync.inbox.entries())[-1]
                assert (entry.mine["title"], entry.theirs["title"]) == ("pending", "my later life")


async def test_a_forgotten_device_sends_what_it_has_with_its_dependencies(world: Any) -> None:
    """Numbers move, links between mutations move along, and what builds on a refusal is refused with it."""
    async with world.open_hub() as hub, world.open_device("c") as c:
        async with world.open_device("a", down=True) as a:
            await put_in(a)
            await a.store(world.CARDS).insert(world.Card(id="0"))
            await a.settle()
            a.wire.cut()
            taken = await a.store(world.CARDS).insert(world.Card(id="taken"))
            built = await a.store(world.CARDS).update("taken", title="a's")
            free = await a.store(world.CARDS).insert(world.Card(id="free"))
            more = await a.store(world.CARDS).update("free", title="a's")
            await c.store(world.CARDS).insert(world.Card(id="taken", title="c's"))
            await c.settle()
            assert (await hub.compact(client_days=-1)).clients == 2
            before = await client_id(a)
            await put_in(a)
            assert await client_id(a) != before
            assert [one.state for one in (taken, built, free, more)] == ["rejected", "rejected", "observed", "observed"]
            assert await inbox(a) == [("UNKNOWN_OUTCOME", "taken"), ("DEPENDENCY_REJECTED", "taken")]
            assert (await a.rows())["taken"].title == "c's" and (await a.rows())["free"].title == "a's"
            entry = (await a.sync.inbox.entries())[0]
            await a.sync.inbox.dismiss(entry)
            assert len(await a.sync.inbox.entries()) == 1
            later = await a.store(world.CARDS).update("0", title="goes on")
            await a.settle()
            assert later.state == "observed"


async def test_a_forgotten_device_keeps_what_it_changed_on_a_row_that_is_gone(world: Any) -> None:
    """A change of a row that is not there changes nothing, which is not the same as having been done before."""
    async with world.open_hub() as hub, world.open_device("c") as c, world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        a.wire.cut()
        handle = await a.store(world.CARDS).update("1", title="typed")
        await c.settle()
        await c.store(world.CARDS).delete("1")
        await c.settle()
        assert (await hub.compact(client_days=-1)).clients == 2
        await put_in(a)
        assert handle.state == "rejected"
        (entry,) = await a.sync.inbox.entries()
        assert (entry.code, entry.mine["title"], entry.theirs) == ("UNKNOWN_OUTCOME", "typed", None)


@pytest.mark.paths
async def test_a_repair_that_is_cut_off_is_made_later(world: Any) -> None:
    async with world.open_hub() as hub:
        async with world.open_device("a") as a:
            await a.store(world.CARDS).insert(world.Card(id="1"))
            await a.settle()
            a.wire.cut()
            handle = await a.store(world.CARDS).update("1", title="pending")
            await hub.compact(client_days=-1)
            before = await client_id(a)
            a.wire.lose["open"] = 3
            await put_in(a)
            assert a.wire.lose["open"] == 0
            assert await client_id(a) != before and handle.state == "observed"


async def test_repairs_that_do_not_help_end_in_a_stall_with_the_reason(world: Any) -> None:
    """As with two hubs behind one address that each forget what the other was told."""

    def forgotten(reply: OpenReply) -> OpenReply:
        return replace(reply, known=False)

    async with world.open_hub(), world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        a.wire.cut()
        a.wire.tamper["open"] = forgotten
        await a.store(world.CARDS).update("1", title="pending")
        a.wire.repair()
        a.sync.poke()
        with trio.fail_after(600):
            while a.sync.status.state != "stalled":
                await trio.sleep(0.5)
        assert a.sync.status.error.code == "CLIENT_EXPIRED"
        assert len(await a.outbox()) == 1
        async with world.open_device("c") as c:  # what others write still comes
            await c.store(world.CARDS).insert(world.Card(id="2"))
            await c.settle()
            with trio.fail_after(120):
                while "2" not in await a.rows():
                    await trio.sleep(0.5)
        assert len(await a.outbox()) == 1 and a.sync.status.state == "stalled"
        pushes = a.wire.count("push")
        a.sync.pause()
        await a.store(world.CARDS).insert(world.Card(id="3"))
        with pytest.raises(SyncError) as refused:
            await a.sync.sync_once()
        assert refused.value.code == "CLIENT_EXPIRED" and a.wire.count("push") == pushes
        a.sync.resume()
        del a.wire.tamper["open"]
        a.sync.poke()
        await a.settle()
        assert await inbox(a) == []
        assert (await a.rows())["1"].title == "pending"


# a hub that was restored from a backup


async def test_what_a_restored_hub_has_lost_comes_back_from_the_devices(world: Any) -> None:
    """Created, changed and deleted rows, by somebody who never comes back as well; pending writes go up behind them."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await a.store(world.CARDS).insert_many([world.Card(id=str(n), title="before") for n in range(4)])
        await back_up_with(world, a, b)
        async with world.open_hub():
            await put_in(b)
            await b.store(world.CARDS).insert(world.Card(id="new", title="b's"))
            await b.store(world.CARDS).update("1", title="b's")
            await b.store(world.CARDS).delete("2")
            await b.settle()
            await put_in(a)
            await unplug(a, b)
        pending = await a.store(world.CARDS).update("new", lane="done")
        wanted = await a.rows()
        async with open_restored(world):
            before = await client_id(a)
            await put_in(a)
            assert await client_id(a) != before
            assert await a.rows() == wanted and pending.state == "observed"
            assert await inbox(a) == [] and await a.outbox() == []
            async with world.open_device("c") as c:
                await c.settle()
                assert await c.rows() == wanted
                await put_in(b)
                assert await b.rows() == wanted and await inbox(b) == []
                later = await b.store(world.CARDS).update("new", title="goes on")
                await b.settle()
                assert later.state == "observed"


async def test_a_held_write_outlives_a_repair_and_says_what_was_seen_of_this_history(world: Any) -> None:
    async with world.open_device("a", down=True) as a:
        await a.store(world.MANUAL).insert(world.Note(id="n", text="before"))
        await back_up_with(world, a)
        async with world.open_hub(), world.open_device("b") as b:
            await b.settle()
            await b.store(world.MANUAL).update("n", color="lost")
            await b.settle()
            await put_in(a)
            await unplug(a)
        await a.store(world.MANUAL).update("n", text="held")
        await a.sync.outbox.hold(await a.sync.outbox.entries())
        world.hub_file = "backup.db"
        async with world.open_hub() as hub, world.open_device("c") as c:
            await hub.new_epoch(devices="forget")
            await c.settle()
            await c.store(world.MANUAL).update("n", text="theirs")
            await c.settle()
            await put_in(a)
            assert [entry.state for entry in await a.sync.outbox.entries()] == ["held"]
            assert (await a.store(world.MANUAL).get("n")).text == "held"
            await a.sync.outbox.release(await a.sync.outbox.entries())
            await a.settle()
            assert await inbox(a) == [("CONFLICT", "n")], "it had seen nothing of what was written since"
            assert (await c.store(world.MANUAL).get("n")).text == "theirs"


@pytest.mark.parametrize("order", ["the one that saw more first", "the one that saw less first"])
async def test_the_device_that_has_seen_most_wins_in_any_order(world: Any, order: str) -> None:
    """I22: also over rows that came and went within what was lost."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await a.store(world.CARDS).insert(world.Card(id="1", title="before"))
        await back_up_with(world, a, b)
        async with world.open_hub():
            await put_in(b)
            await b.store(world.CARDS).update("1", title="early")
            await b.store(world.CARDS).insert(world.Card(id="gone"))
            await b.settle()
            await put_in(a)
            a.wire.cut()
            await b.store(world.CARDS).update("1", title="late")
            await b.store(world.CARDS).delete("gone")
            await b.store(world.CARDS).insert(world.Card(id="2"))
            await b.settle()
            b.wire.cut()
        wanted = await b.rows()
        async with open_restored(world):
            for device in (b, a) if order.startswith("the one that saw more") else (a, b):
                await put_in(device)
            for device in (a, b):
                device.sync.poke()
                await device.settle()
                assert await device.rows() == wanted
                assert await inbox(device) == []


@pytest.mark.parametrize("since", ["changed", "deleted"])
async def test_what_was_written_since_the_restore_is_never_overwritten(world: Any, since: str) -> None:
    """I23: it goes to the inbox, with all three images; compaction forgets nothing that tells the two apart."""
    async with world.open_device("a", down=True) as a:
        await a.store(world.CARDS).insert(world.Card(id="1", title="before"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).update("1", title="lost")
            await a.settle()
            a.wire.cut()
        async with open_restored(world) as hub:
            async with world.open_device("c") as c:
                await c.settle()
                if since == "changed":
                    await c.store(world.CARDS).update("1", title="new")
                else:
                    await c.store(world.CARDS).delete("1")
                await c.settle()
                wanted = await c.rows()
                report = await hub.compact(keep=0)
                assert report.tombstones == 0
                await put_in(a)
                assert await a.rows() == wanted
                (entry,) = await a.sync.inbox.entries()
                assert entry.code == "HUB_LOST_DATA" and entry.mine["title"] == "lost"
                assert entry.theirs == entry.base and (entry.theirs is None) == (since == "deleted")
                await c.settle()
                assert await c.rows() == wanted


@pytest.mark.parametrize("device", ["offer", "inbox", "drop"])
@pytest.mark.parametrize("operator", ["offer", "ask", "forget"])
async def test_the_more_careful_word_counts(world: Any, operator: str, device: str) -> None:
    """Every cell of the table: offered by itself, or listed with the reason; never gone in silence."""
    reason = operator if operator != "offer" else "" if device == "offer" else device
    async with world.open_device("a", down=True, on_hub_loss=device) as a:
        await a.store(world.CARDS).insert(world.Card(id="1", title="before"))
        await a.store(world.CARDS).insert(world.Card(id="2"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).update("1", title="lost")
            await a.store(world.CARDS).delete("2")
            await a.settle()
            a.wire.cut()
        wanted = await a.rows()
        async with open_restored(world, devices=operator):
            await put_in(a)
            entries = await a.sync.lost.entries()
            assert [(entry.id, entry.reason) for entry in entries] == ([("1", reason), ("2", reason)] if reason else [])
            if not reason:
                assert await a.rows() == wanted
                return
            assert {id: row.title for id, row in (await a.rows()).items()} == {"1": "before", "2": ""}
            changed, deleted = entries
            assert (changed.image["title"], changed.theirs["title"]) == ("lost", "before")
            assert deleted.image is None and deleted.theirs is not None
            await a.sync.lost.offer([changed])
            await a.sync.lost.discard([deleted])
            await a.settle()
            assert {id: row.title for id, row in (await a.rows()).items()} == {"1": "lost", "2": ""}
            assert await a.sync.lost.entries() == []
            assert [one.resolution for one in await a.sync.lost.entries(resolved=True)] == ["offered", "discarded"]
            async with world.open_device("c") as c:
                await c.settle()
                assert await c.rows() == await a.rows()


async def test_a_hub_without_proofs_gets_nothing_by_itself(world: Any) -> None:
    """Files from before proofs: their rows are listed, and go up guarded when somebody says so."""
    async with world.open_device("a", down=True) as a:
        a.wire.tamper["pull"] = lambda page: replace(page, proof=b"")
        await a.store(world.CARDS).insert(world.Card(id="1", title="before"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).update("1", title="lost")
            await a.settle()
            a.wire.cut()
        async with open_restored(world):
            del a.wire.tamper["pull"]
            await put_in(a)
            (entry,) = await a.sync.lost.entries()
            assert entry.reason == "unproven"
            await a.sync.lost.offer([entry])
            await a.settle()
            assert (await a.rows())["1"].title == "lost"


async def test_a_restore_that_cost_a_device_nothing_but_its_verdicts(world: Any) -> None:
    """The hub has lost a refusal that this device has heard: nothing to offer, nothing doubled, nothing risen again (I28)."""
    async with world.open_device("a", down=True) as a:
        async with world.open_hub(), world.open_device("c") as c:
            await put_in(a)
            await a.store(world.MANUAL).insert(world.Note(id="1"))
            await a.settle()
            a.wire.cut()
            refused = await a.store(world.MANUAL).update("1", text="a's")
            await c.settle()
            await c.store(world.MANUAL).update("1", text="c's")
            await c.settle()
        back_up(world)
        async with world.open_hub():
            await put_in(a)
            assert refused.state == "rejected"
            (entry,) = await a.sync.inbox.entries()
            await a.sync.inbox.dismiss(entry)
            a.wire.cut()
        handle = await a.store(world.MANUAL).update("1", color="red")
        world.hub_file, snapshots = "backup.db", a.wire.count("snapshot")
        async with world.open_hub() as hub:
            await hub.new_epoch()
            await put_in(a)
            (report,) = await a.sync.repairs()
            assert (report.cause, report.forks, report.offered, report.renumbered) == ("HUB_LOST_DATA", {}, 0, 1)
            assert handle.state == "observed" and a.wire.count("snapshot") == snapshots
            assert await head(world) == 3 and await inbox(a) == []
            assert (await a.store(world.MANUAL).get("1")) == world.Note(id="1", text="c's", color="red")


@pytest.mark.parametrize("lost", ["open", "snapshot", "pull", "push"])
async def test_a_repair_of_several_scopes_is_one_step_wherever_it_is_cut_off(world: Any, lost: str) -> None:
    """I26: until the local transaction the old rows stay; a later session makes the whole of it."""
    scopes = ("main", "other")
    async with world.open_device("a", down=True, scopes=scopes) as a:
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            for board in scopes:
                await a.store(world.CARDS).insert_many([world.Card(id=f"{board}{n}", board=board) for n in range(3)])
            await a.settle()
            a.wire.cut()
        pending = await a.store(world.CARDS).update("other1", title="pending")
        wanted = await a.rows()
        async with open_restored(world):
            async with world.open_device("c", scopes=scopes) as c:
                for board in scopes:  # otherwise there is nothing to take a snapshot of
                    await c.store(world.CARDS).insert(world.Card(id=f"{board} new", board=board))
                await c.settle()
                a.wire.lose[lost] = 1
                seen: list[set[str]] = []

                async def watch() -> None:
                    async with a.client.store(world.CARDS).live() as batches:
                        async for _ in batches:
                            seen.append(set(await a.rows()))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch)
                    await put_in(a)
                    nursery.cancel_scope.cancel()
                await c.settle()
                assert a.wire.lose[lost] == 0
                assert pending.state == "observed"
                assert set(await a.rows()) == {*wanted, "main new", "other new"}
                assert await c.rows() == await a.rows()
                assert all(set(wanted) <= rows for rows in seen), "nothing of it was ever out of sight"


async def test_deletions_wait_where_the_hub_found_out_by_itself(world: Any) -> None:
    """A restore made on purpose is not undone: rows come back, deletions of rows that are there wait for a word."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        async with world.open_hub() as hub:
            lost = hub.identity.epoch
            await a.store(world.CARDS).insert_many([world.Card(id=str(n)) for n in range(3)])
            await put_in(a)
            await put_in(b)
            await unplug(a, b)
        back_up(world)
        async with world.open_hub():
            await put_in(a)
            await put_in(b)
            await a.store(world.CARDS).delete("1")
            await a.store(world.CARDS).insert(world.Card(id="new"))
            await a.store(world.CARDS).insert(world.Card(id="gone"))
            await a.store(world.CARDS).delete("gone")
            await a.settle()
            await b.settle()
            await unplug(a, b)
        shutil.copy(world.folder / "backup.db", world.folder / "hub.db")
        async with world.open_hub() as hub:
            assert hub.identity.epoch != lost
            await put_in(a)
            assert set(await a.rows()) == {"0", "1", "2", "new"}
            (entry,) = await a.sync.lost.entries()
            assert (entry.id, entry.image, entry.reason) == ("1", None, "deletion")
            a.wire.cut()
            await hub.allow_deletes(lost)
            for device in (a, b):
                await put_in(device)
            await a.settle()
            await put_in(a)
            for device in (a, b):
                assert set(await device.rows()) == {"0", "2", "new"}
                assert await device.sync.lost.entries() == [] and await inbox(device) == []


async def test_a_repair_is_told_and_remembered(world: Any) -> None:
    async with world.open_device("a", down=True) as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).insert(world.Card(id="2"))
            await a.settle()
            a.wire.cut()
        await a.store(world.CARDS).update("2", title="pending")
        before = await client_id(a)
        states: list[str] = []
        events: list[Any] = []
        async with open_restored(world):
            a.sync.subscribe(lambda status: states.append(status.state))
            a.probe.context.register_listener(events.append)
            await put_in(a)
        assert "online" in states[states.index("repairing") :]
        (report,) = await a.sync.repairs()
        assert report == a.sync.status.last_repair
        assert (report.cause, report.forks) == ("HUB_LOST_DATA", {"main": 1})
        assert (report.offered, report.renumbered, report.settled, report.doubtful, report.lost) == (1, 1, 0, 0, 0)
        assert (report.old_client_id, report.new_client_id) == (before, await client_id(a))
        told = [event for event in events if isinstance(event, RepairStarted | RepairDone)]
        assert told == [RepairStarted("HUB_LOST_DATA", report.why), RepairDone(report)]
    async with world.open_device("a", down=True) as a:
        assert list(await a.sync.repairs()) == [report]


async def test_a_repair_that_waits_for_somebody_is_rehearsed_and_made(world: Any) -> None:
    async with world.open_device("a", down=True, repair="manual") as a:
        async with world.open_hub():
            await a.store(world.CARDS).insert(world.Card(id="1"))
            await put_in(a)
            assert await a.sync.repair() is None, "nothing is wrong"
            a.wire.cut()
        back_up(world)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).insert(world.Card(id="2"))
            await a.settle()
            a.wire.cut()
        pending = await a.store(world.CARDS).update("2", title="pending")
        wanted, before = await a.rows(), await client_id(a)
        async with open_restored(world):
            a.wire.repair()
            a.sync.poke()
            with trio.fail_after(120):
                while a.sync.status.state != "stalled":
                    await trio.sleep(0.5)
            assert a.sync.status.error.code == "HUB_LOST_DATA"
            assert a.sync.status.reason.endswith("call client.sync.repair()")
            rehearsed = await a.sync.repair(dry_run=True)
            assert (rehearsed.offered, rehearsed.renumbered, rehearsed.old_client_id) == (1, 1, before)
            assert (await a.rows(), await client_id(a), a.sync.status.state) == (wanted, before, "stalled")
            assert await a.sync.repairs() == [] and await head(world) == 1
            made = await a.sync.repair()
            assert replace(made, at_ms=0, new_client_id=b"") == replace(rehearsed, at_ms=0, new_client_id=b"")
            await a.settle()
            assert await a.rows() == wanted and pending.state == "observed"
            assert await client_id(a) == made.new_client_id


@pytest.mark.parametrize("cause", ["CLIENT_FORKED", "CLIENT_EXPIRED"])
async def test_a_file_whose_repair_waits_for_somebody_pulls_on(world: Any, cause: str) -> None:
    """Nothing was lost at the hub, so what others write still comes; only what is pending waits."""
    async with world.open_hub() as hub, world.open_device("c") as c:
        async with world.open_device("a") as a:
            await a.store(world.CARDS).insert(world.Card(id="1"))
            await a.settle()
        copy_file(world, "a", "copy")
        if cause == "CLIENT_FORKED":
            async with world.open_device("a") as a:
                await a.store(world.CARDS).update("1", title="of the original")
                await a.settle()
        else:
            await hub.compact(client_days=-1)
        async with world.open_device("copy", down=True, repair="manual") as copy:
            pending = await copy.store(world.CARDS).update("1", lane="done")
            before = await client_id(copy)
            copy.wire.repair()
            copy.sync.poke()
            for number in range(2):  # before and after it has been rehearsed
                await c.store(world.CARDS).insert(world.Card(id=f"c{number}"))
                await c.settle()
                with trio.fail_after(150):
                    while f"c{number}" not in await copy.rows():
                        await trio.sleep(0.5)
                assert (copy.sync.status.state, copy.sync.status.error.code) == ("stalled", cause)
                assert copy.sync.status.reason.endswith("call client.sync.repair()")
                rehearsed = await copy.sync.repair(dry_run=True)
                assert (rehearsed.cause, rehearsed.renumbered) == (cause, 1)
            with pytest.raises(SyncError) as refused:
                await copy.sync.sync_once()
            assert refused.value.code == cause and refused.value.args[0].endswith("call client.sync.repair()")
            assert copy.wire.count("push") == 0 and await client_id(copy) == before and await copy.sync.repairs() == []
            await copy.sync.repair()
            await copy.settle()
            assert (copy.sync.status.state, pending.state) == ("online", "observed")
            assert (await copy.rows())["1"].lane == "done" and await client_id(copy) != before


@pytest.mark.parametrize("wrong", [{"repair": "never"}, {"on_hub_loss": "forget"}])
def test_words_that_are_none_are_refused(world: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be one of"):
        Sync(world.SYNCED, **wrong)


# a principal with more devices than a hub remembers


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that knows two clients of a principal, and remembers one that it has forgotten."""
    monkeypatch.setattr(bounds, "CLIENTS_MAX", 2)
    monkeypatch.setattr(bounds, "FORGOTTEN_MAX", 1)


@pytest.mark.usefixtures("few")
async def test_a_device_that_was_forgotten_for_the_number_of_others_repairs_itself(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        before = await client_id(a)
        a.wire.cut()
        handle = await a.store(world.CARDS).update("1", title="pending")
        for name in "bc":
            async with world.open_device(name) as other:
                await other.store(world.CARDS).insert(world.Card(id=name))
                await other.settle()
        await put_in(a)
        assert await client_id(a) != before
        assert (a.sync.status.state, a.sync.status.last_repair.cause) == ("online", "CLIENT_EXPIRED")
        assert handle.state == "observed" and await inbox(a) == []
        assert set(await a.rows()) == {"1", "b", "c"}


@pytest.mark.usefixtures("few")
async def test_where_some_were_forgotten_without_a_trace_a_new_device_is_repaired_once_and_then_as_any_other(
    world: Any,
) -> None:
    async with world.open_hub():
        for name in "abcd":
            async with world.open_device(name) as device:
                await device.store(world.CARDS).insert(world.Card(id=name))
                await device.settle()
        async with world.open_device("new", down=True) as new:
            handle = await new.store(world.CARDS).insert(world.Card(id="new"))
            await put_in(new)
            assert new.sync.status.last_repair.cause == "CLIENT_EXPIRED"
            known = await client_id(new)
            assert handle.state == "observed" and await inbox(new) == []
            await new.store(world.CARDS).update("new", title="again")
            await new.settle()
        async with world.open_device("new") as new:
            await new.settle()
            assert await client_id(new) == known
            assert set(await new.rows()) == {"a", "b", "c", "d", "new"}


@pytest.mark.parametrize("seen", [False, True])
async def test_a_decided_write_whose_page_is_lost_twice_over_is_sent_again(world: Any, seen: bool) -> None:
    """Acked before a repair, and then the hub is restored: the number of the ack is one of a history that is gone (I27)."""

    async def until(device: Any, condition: Any) -> None:
        device.wire.repair()
        device.sync.poke()
        with trio.fail_after(20):
            while not await condition():
                await trio.sleep(0.1)

    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.store(world.CARDS).insert(world.Card(id="kept"))
            await a.settle()
    back_up(world)
    async with world.open_hub(), world.open_device("b", down=True) as b:
        async with world.open_device("a", down=True) as a:
            if seen:  # more than the backup has
                await b.store(world.CARDS).insert(world.Card(id="b's"))
                await put_in(b)
                await put_in(a)
            a.wire.hold["pull"] = trio.Event()
            handle = await a.store(world.CARDS).insert(world.Card(id="acked"))
            await until(a, lambda: settled(handle, "accepted"))
        copy_file(world, "a", "copy")
        async with world.open_device("copy", down=True) as copy:
            copy.wire.hold["pull"] = trio.Event()
            mine = await copy.store(world.CARDS).insert(world.Card(id="copy's"))
            await until(copy, lambda: settled(mine, "accepted"))
        async with world.open_device("a", down=True) as a:
            a.wire.hold["pull"] = trio.Event()
            await a.store(world.CARDS).insert(world.Card(id="a's"))
            await until(a, lambda: repaired(a, 1))
            a.wire.cut()
            waiting = await a.inspect(lambda tx: [(item.mid, item.ack_seq) for item in tx.outbox.every()])
            assert waiting[0] == (1, 3 if seen else 2), "numbered like everything else, and still accepted"
    async with open_restored(world):
        async with world.open_device("c") as c, world.open_device("a", down=True) as a:
            for n in range(4):  # the hub gives the numbers of the acks out anew
                await c.store(world.CARDS).insert(world.Card(id=f"c{n}"))
            await c.settle()
            await put_in(a)
            await c.settle()
            assert {"acked", "a's"} <= set(await c.rows()) and await c.rows() == await a.rows()
            assert await inbox(a) == [] and len(await a.sync.repairs()) == (2 if seen else 1)


async def test_what_a_copy_has_confirmed_is_asked_for_although_the_epoch_moves_at_once(world: Any) -> None:
    """Accepted here, while the copy of the file learned the verdicts and let the hub forget them (I15)."""
    async with world.open_hub() as hub:
        async with world.open_device("a") as a:
            await a.store(world.CARDS).insert(world.Card(id="kept"))
            await a.settle()
            a.wire.hold["pull"] = trio.Event()
            handles = [await a.store(world.CARDS).insert(world.Card(id=id)) for id in ("one", "two")]
            with trio.fail_after(20):
                while not await settled(handles[1], "accepted"):
                    await trio.sleep(0.1)
        copy_file(world, "a", "copy")
        for _ in range(2):  # the second opening confirms what the first one has settled
            async with world.open_device("copy") as copy:
                await copy.settle()
        await hub.compact(keep_days=-1)
        await hub.new_epoch()
        async with world.open_device("a") as a:
            with trio.fail_after(20):
                while await a.outbox():
                    await trio.sleep(0.1)
            await a.settle()
            assert set(await a.rows()) == {"kept", "one", "two"} and await inbox(a) == []
            assert await head(world) == 3, "nothing is done twice"


async def settled(handle: Any, state: str) -> bool:
    return bool(handle.state == state)


async def repaired(device: Any, times: int) -> bool:
    return len(await device.sync.repairs()) == times
