"""What a repair, a restore and a lost row tell those who look: progress, the reason to wait, events, lists that end."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.events import ClientAhead, LostRowsExpired
from atoma.contracts.sync import Limits
from atoma.sync.repair.diagnosis import REPEATED_S
from atoma.sync.repair.offers import LOST_MS
from tests.scenarios.sync.kit import back_up_with, client_id, open_restored, put_in, unplug

pytestmark = pytest.mark.virtual_time
DAY_MS = 86_400_000


async def lose_rows(world: Any, a: Any, *, rows: int = 1) -> None:
    """Device ``a`` sees ``rows`` rows that the backup has not."""
    await a.store(world.CARDS).insert(world.Card(id="before"))
    await back_up_with(world, a)
    async with world.open_hub():
        await put_in(a)
        await a.store(world.CARDS).insert_many([world.Card(id=str(n)) for n in range(rows)])
        await a.settle()
        a.wire.cut()
    world.hub_file = "backup.db"


async def test_the_status_shows_how_far_a_repair_is(world: Any) -> None:
    async with world.open_device("a", down=True) as a:
        await lose_rows(world, a, rows=3)
        await a.store(world.CARDS).update("1", title="pending")
        async with world.open_hub() as hub, world.open_device("c") as c:
            await hub.new_epoch()
            await c.store(world.CARDS).insert_many([world.Card(id=f"c{n}") for n in range(4)])
            await c.settle()
            shown: list[Any] = []
            a.sync.subscribe(lambda status: shown.append((status.state, status.repair)))
            await put_in(a)
            steps = list(dict.fromkeys((p.cause, p.phase, p.done, p.of) for _, p in shown if p is not None))
            assert steps[0] == ("HUB_LOST_DATA", "verdicts", 0, 0), "the hub has decided nothing of what is pending"
            assert ("HUB_LOST_DATA", "snapshot", 5, 0) in steps, "the backup's row and c's"
            assert steps[-1] == ("HUB_LOST_DATA", "commit", 0, 0)
            assert {state for state, progress in shown if progress is not None} == {"repairing"}
            assert a.sync.status.repair is None and a.sync.status.last_repair is not None


async def test_a_repair_that_is_cut_off_leaves_no_progress_behind(world: Any) -> None:
    async with world.open_device("a", down=True) as a:
        await lose_rows(world, a)
        async with world.open_hub() as hub:
            await hub.new_epoch()
            a.wire.lose["snapshot"] = 1
            a.wire.repair()
            a.sync.poke()
            with trio.fail_after(60):
                while a.wire.lose["snapshot"] or a.sync.status.state == "repairing":
                    await trio.sleep(0.01)
            assert a.sync.status.repair is None
            await put_in(a)


async def test_repairs_in_vain_are_counted_in_the_file_and_the_reason_says_what_may_be_wrong(world: Any) -> None:
    """Two hubs under one address that are restores of one file, and a program that is started again each time."""
    clock = {"openings": 0}
    async with world.open_hub(), world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()

    def forgotten(reply: Any) -> Any:
        clock["openings"] += 1
        return replace(reply, known=False)

    ids: list[bytes] = []
    async with world.open_hub():
        for opening in range(3):
            async with world.open_device("a", down=True) as a:
                a.wire.tamper["open"] = forgotten
                a.wire.repair()
                if not opening:
                    await a.store(world.CARDS).update("1", title="pending")
                a.sync.poke()
                with trio.fail_after(600):
                    while a.sync.status.state != "stalled":
                        await trio.sleep(0.5)
                ids.append(await client_id(a))
                assert len(await a.sync.repairs()) == 2
                reason = a.sync.status.reason
                assert "2 repairs within 10 minutes did not help" in reason
                assert "several hubs" in reason and reason.endswith("client.sync.repair() makes one now")
                assert a.sync.status.helps and a.sync.status.next_attempt_ms > 0
        assert len(set(ids)) == 1, "the program that began again did not begin the repairs again"
        async with world.open_device("a", down=True) as a:
            assert await put_in_by_hand(a) == 3
            await trio.sleep(REPEATED_S)
            assert a.sync.status.state == "online"


async def put_in_by_hand(device: Any) -> int:
    """Somebody asks for a repair, or nothing is wrong any more; how many were made in all."""
    device.wire.repair()
    device.wire.tamper["open"] = lambda reply: replace(reply, known=len(device.wire.calls) > 1)
    await device.sync.repair()
    await device.settle()
    return len(await device.sync.repairs())


async def test_repairs_that_lie_further_apart_are_made_by_themselves(world: Any) -> None:
    async with world.open_hub() as hub, world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        for number in range(3):
            a.wire.cut()
            await hub.compact(client_days=-1)
            await a.store(world.CARDS).update("1", title=str(number))
            await put_in(a)
            await trio.sleep(REPEATED_S / 2 + 60)
        assert [report.cause for report in await a.sync.repairs()] == ["CLIENT_EXPIRED"] * 3
        assert a.sync.status.state == "online"


async def test_a_file_that_waits_for_its_repair_does_not_follow_a_hub_that_has_lost_what_it_holds(world: Any) -> None:
    """The hub was restored and has forgotten the device, which has been repaired twice: a snapshot would offer nothing."""
    async with world.open_device("a", down=True) as a:
        async with world.open_hub() as hub:
            for number in range(2):
                await a.store(world.CARDS).upsert(world.Card(id="1", title=str(number)))
                await put_in(a)
                await unplug(a)
                await hub.compact(client_days=-1)
        await lose_rows(world, a)
        assert [report.cause for report in await a.sync.repairs()] == ["CLIENT_EXPIRED"] * 2
        async with world.open_hub() as hub:
            await hub.new_epoch()
            assert (await hub.compact(client_days=-1)).clients == 1
            a.wire.calls.clear()
            a.wire.repair()
            a.sync.poke()
            with trio.fail_after(60):
                while a.sync.status.state != "stalled":
                    await trio.sleep(0.1)
            await trio.sleep(60)
            assert "2 repairs within 10 minutes did not help" in a.sync.status.reason
            assert {method for method, _ in a.wire.calls} == {"open"} and "0" in await a.rows()
            report = await a.sync.repair()
            await a.settle()
            assert (report.cause, report.offered) == ("CLIENT_EXPIRED", 1)
            async with world.open_device("fresh") as fresh:
                await fresh.settle()
                assert set(await fresh.rows()) == set(await a.rows()) == {"1", "before", "0"}


async def test_a_hub_tells_its_operator_that_a_client_knows_more(world: Any) -> None:
    """The hub was restored, and nobody has said so."""
    events: list[Any] = []
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await lose_rows(world, a)
        await unplug(a, b)
        before = await client_id(a)
        async with world.open_hub(listener=events.append):
            await put_in(a)
            await put_in(b)
    (ahead,) = [event for event in events if isinstance(event, ClientAhead)]
    assert (ahead.principal, ahead.client, ahead.last_mid, ahead.confirmed) == ("ann", before, 1, 2)


async def test_an_offer_that_does_not_count_is_listed_as_such(world: Any) -> None:
    """The device that had seen less comes last: its row is not lost in silence."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await lose_rows(world, a)
        world.hub_file = "hub.db"
        async with world.open_hub():
            await put_in(a)
            await put_in(b)
            a.wire.cut()
            await b.store(world.CARDS).update("0", title="b's")
            await b.settle()
            b.wire.cut()
        async with open_restored(world):
            await put_in(b)
            await put_in(a)
            assert (await a.rows())["0"].title == "b's"
            assert await a.sync.lost.entries() == [] == await b.sync.lost.entries(resolved=True)
            (entry,) = await a.sync.lost.entries(resolved=True)
            assert (entry.id, entry.reason, entry.resolution) == ("0", "superseded", "superseded")
            assert (entry.image["title"], entry.theirs["title"]) == ("", "b's")


async def test_two_that_have_seen_the_same_offer_the_same_and_neither_is_listed(world: Any) -> None:
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        await lose_rows(world, a)
        world.hub_file = "hub.db"
        async with world.open_hub():
            await put_in(b)
            b.wire.cut()
        world.hub_file = "backup.db"
        async with world.open_hub(limits=Limits(push_mutations=1)) as hub:
            await hub.new_epoch()
            a.wire.latency = b.wire.latency = lambda: 0.1
            sends = a.wire.hold["push"] = b.wire.hold["push"] = trio.Event()
            for device in (a, b):
                device.wire.repair()
                device.sync.poke()
            await trio.sleep(5)
            assert [len(await device.outbox()) for device in (a, b)] == [2, 2], "the row, and that it was the last"
            sends.set()
            for device in (a, b):
                await device.settle()
                assert set(await device.rows()) == {"before", "0"}
                assert "superseded" not in [entry.reason for entry in await device.sync.lost.entries(resolved=True)]
                assert await device.sync.lost.entries() == []


async def away(device: Any, days: float) -> None:
    """Days later it is there again."""
    device.sync.pause()
    await trio.sleep(days * DAY_MS / 1000)
    device.sync.resume()
    await device.settle()


@pytest.mark.paths
async def test_what_nobody_decides_about_ends_after_thirty_days_and_is_told(world: Any) -> None:
    async with world.open_device("a", down=True, on_hub_loss="inbox") as a:
        await lose_rows(world, a, rows=2)
        async with world.open_hub() as hub:
            await hub.new_epoch()
            await put_in(a)
            first, _ = await a.sync.lost.entries()
            await a.sync.lost.discard([first])
            events: list[Any] = []
            a.probe.context.register_listener(events.append)
            for days, left in ((29, 1), (2, 0)):
                await away(a, days)
                assert len(await a.sync.lost.entries()) == left
            assert [event for event in events if isinstance(event, LostRowsExpired)] == [LostRowsExpired(1)]
            resolved = await a.sync.lost.entries(resolved=True)
            assert [row.resolution for row in resolved] == ["discarded", "expired"]
            await away(a, LOST_MS / DAY_MS)
            assert await a.sync.lost.entries(resolved=True) == []


async def test_what_is_allowed_while_a_device_is_away_is_offered_however_late_it_comes(world: Any) -> None:
    async with world.open_device("a", down=True) as a:
        async with world.open_hub() as hub:
            epoch = hub.identity.epoch
        await lose_rows(world, a)
        async with world.open_hub() as hub:
            await hub.new_epoch(devices="ask")
            await put_in(a)
            a.sync.pause()
            await trio.sleep(LOST_MS / 1000 + 1)
            await hub.allow_offers(epoch)
            a.sync.resume()
            await a.settle()
            assert "0" in await a.rows() and await a.sync.lost.entries() == []


@pytest.mark.paths
async def test_a_device_knows_what_it_has_to_send_as_soon_as_it_is_open(world: Any) -> None:
    async with world.open_device("a", down=True) as a:
        await a.store(world.CARDS).insert_many([world.Card(id=str(n)) for n in range(3)])
    async with world.open_device("a", down=True) as a:
        assert a.sync.status.pending == 3
