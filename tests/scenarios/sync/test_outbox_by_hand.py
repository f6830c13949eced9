"""Writes that wait are listed, held, released, edited and discarded; the hub gets what is left, in order, exactly once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from atoma import Increment, Index, Schema, StoreSpec
from atoma.contracts.outbox import WaitingWrite
from atoma.contracts.replica import SENT_UNKNOWN
from atoma.contracts.sync import PROTOCOL_OLDEST, Limits
from atoma.errors import ConflictError, ValidationError, WriteRejected
from atoma.sync import AlreadySent, NotPending
from tests.scenarios.sync.conftest import Device, World

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str = ""
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Count:
    id: str
    votes: int = 0


CARDS = StoreSpec("cards", Card, indexes=[Index("place", unique=True)])
COUNTS = StoreSpec("counts", Count, merge={"votes": "counter"})


class Placed(World):
    SYNCED = (CARDS, COUNTS)
    schema = Schema(CARDS, COUNTS)

    @asynccontextmanager
    async def device(self, name: str, *, paused: bool = True) -> AsyncGenerator[Device]:
        """The device ``name``, which has met the hub; it sends nothing until it is resumed."""
        async with self.open_device(name) as device:
            await device.settle()
            if paused:
                device.sync.pause()
            yield device

    async def rows(self) -> dict[str, Card]:
        """What a device that comes now gets of the hub."""
        async with self.device("witness", paused=False) as witness:
            return await witness.rows(CARDS)


@asynccontextmanager
async def open_site(folder: Path, **options: Any) -> AsyncGenerator[Placed]:
    site = Placed(folder)
    with trio.fail_after(600):
        async with site.open_hub(**options):
            yield site


def on(entries: Sequence[WaitingWrite], id: str) -> list[WaitingWrite]:
    """Those of ``entries`` that are on the row ``id``."""
    return [entry for entry in entries if ("cards", id) in entry.rows]


async def synced(device: Device) -> None:
    device.sync.resume()
    await device.settle()


@pytest.mark.paths
async def test_what_waits_is_listed(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a") as device:
        cards = device.store(CARDS)
        await cards.insert(Card(id="1", title="one"))
        await cards.update("1", title="two")
        first, second = await device.sync.outbox.entries()
        assert [first.state, second.state] == ["queued", "queued"]
        assert [first.mid, second.mid] == [1, 2]
        assert first.editable
        assert first.rows == {("cards", "1"): "create"}
        assert second.ops[0].values == {"title": "two"}
        await synced(device)
        assert await device.sync.outbox.entries() == []


@pytest.mark.paths
async def test_a_discarded_write_never_was(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a") as device:
        cards = device.store(CARDS)
        for id in "123":
            await cards.insert(Card(id=id))
        handle = await cards.update("2", title="no")
        kept = await cards.update("3", title="yes")
        entries = await device.sync.outbox.entries()
        assert await device.sync.outbox.discard([on(entries, "2")[1]]) == 1
        assert await cards.get("2") == Card(id="2")
        with pytest.raises(WriteRejected) as rejected:
            await handle.accepted()
        assert rejected.value.reason == "TAKEN_BACK"
        assert [entry.mid for entry in await device.sync.outbox.entries()] == [1, 2, 3, 4]
        await synced(device)
        assert await kept.accepted() > 0
        assert {id: card.title for id, card in (await site.rows()).items()} == {"1": "", "2": "", "3": "yes"}


async def test_what_builds_on_a_write_goes_with_it_only_when_it_is_said(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a") as device:
        cards = device.store(CARDS)
        await cards.insert(Card(id="1"))
        await cards.insert(Card(id="2"))
        await cards.update("1", title="on it")
        created = (await device.sync.outbox.entries())[0]
        with pytest.raises(ConflictError, match="1 later writes build on"):
            await device.sync.outbox.discard([created])
        assert len(await device.sync.outbox.entries()) == 3
        assert await device.sync.outbox.discard([created], dependents=True) == 2
        await synced(device)
        assert (await site.rows()).keys() == {"2"}


@pytest.mark.paths
async def test_a_held_write_stays_while_others_go_and_comes_behind_them(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a") as device:
        cards = device.store(CARDS)
        handle = await cards.insert(Card(id="1", title="held"))
        await cards.insert(Card(id="2"))
        await cards.update("1", title="builds on it")
        held = on(await device.sync.outbox.entries(), "1")[0]
        assert await device.sync.outbox.hold([held], why="not today") == 2
        later = await cards.update("1", title="written on it later")
        assert (handle.state, later.state) == ("dead", "dead")
        with pytest.raises(WriteRejected, match="not today"):
            await handle.accepted()
        await synced(device)
        assert device.sync.status.held == 3
        assert device.sync.status.pending == 0
        assert await cards.get("1") == Card(id="1", title="written on it later")
        assert (await site.rows()).keys() == {"2"}
        entries = await device.sync.outbox.entries()
        assert [entry.why for entry in entries] == ["not today", *["it builds on a write that is held"] * 2]
        await cards.insert(Card(id="3"))
        await device.sync.outbox.release([entries[1]])
        await device.settle()
        assert {id: card.title for id, card in (await site.rows()).items()} == {
            "1": "written on it later",
            "2": "",
            "3": "",
        }
        assert device.sync.status.held == 0


async def test_held_writes_stay_held_when_the_program_starts_again(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        async with site.device("a") as device:
            await device.store(CARDS).insert(Card(id="1"))
            await device.sync.outbox.hold(await device.sync.outbox.entries())
        async with site.device("a", paused=False) as device:
            assert [entry.state for entry in await device.sync.outbox.entries()] == ["held"]
            assert await site.rows() == {}
            await device.sync.outbox.release(await device.sync.outbox.entries())
            await device.settle()
            assert (await site.rows()).keys() == {"1"}


@pytest.mark.paths
async def test_an_edited_write_says_something_else_in_its_place(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a") as device:
        cards = device.store(CARDS)
        await cards.insert(Card(id="1", title="wrogn"))
        handle = await cards.update("1", place="window")
        first = (await device.sync.outbox.entries())[0]
        await device.sync.outbox.edit(first, {"title": "right"})
        assert await cards.get("1") == Card(id="1", title="right", place="window")
        await synced(device)
        assert await handle.accepted() == 2
        assert (await site.rows())["1"] == Card(id="1", title="right", place="window")


async def test_an_edit_is_checked_like_a_write(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a") as device:
        cards, outbox = device.store(CARDS), device.sync.outbox
        await cards.insert(Card(id="1", place="window"))
        await cards.insert_many([Card(id="2"), Card(id="3")], atomic=True)
        await cards.insert(Card(id="4"))
        await cards.delete("4")
        _, pair, _, deletion = await outbox.entries()
        with pytest.raises(ValidationError, match="has no field 'colour'"):
            await outbox.edit(pair, {"colour": "red"}, row=("cards", "2"))
        with pytest.raises(ValidationError, match="is on 2 rows"):
            await outbox.edit(pair, {"title": "x"})
        with pytest.raises(ValidationError, match="writes no values"):
            await outbox.edit(deletion, {"title": "x"})
        with pytest.raises(ConflictError, match="place"):
            await outbox.edit(pair, {"place": "window"}, row=("cards", "3"))
        assert await cards.get("3") == Card(id="3")
        await outbox.edit(pair, {"place": "aisle"}, row=("cards", "3"))
        await synced(device)
        assert {card.place for card in (await site.rows()).values()} == {"window", "aisle", None}


@pytest.mark.paths
async def test_what_was_sent_is_the_hubs_to_decide(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a", paused=False) as device:
        cards, outbox = device.store(CARDS), device.sync.outbox
        await cards.insert(Card(id="0"))
        await device.settle()
        device.wire.lose = {"push": 100, "pull": 100, "open": 100}
        await cards.insert(Card(id="1"))
        await trio.sleep(1)  # it was sent, and nobody hears what became of it
        device.sync.pause()
        await cards.insert(Card(id="2"))
        sent, waiting = await outbox.entries()
        assert (sent.state, sent.editable, waiting.state) == ("sent", False, "queued")
        for change in (outbox.hold([sent]), outbox.discard([sent]), outbox.edit(sent, {"title": "x"})):
            with pytest.raises(AlreadySent):
                await change
        await outbox.discard([waiting])
        with pytest.raises(NotPending):
            await outbox.discard([waiting])
        await cards.insert(Card(id="3"))
        device.wire.lose = {}
        await synced(device)
        assert (await site.rows()).keys() == {"0", "1", "3"}


@pytest.mark.paths
async def test_what_is_written_while_the_lane_waits_counts_as_sent(tmp_path: Path) -> None:
    """Its own commit says so: no other one, which a disk would have to take first, comes before the push."""
    async with open_site(tmp_path) as site, site.device("a", paused=False) as device:
        cards, outbox = device.store(CARDS), device.sync.outbox
        await cards.insert(Card(id="0"))
        await device.settle()
        before = (await cards.query()).meta.commit
        device.wire.hold["push"] = release = trio.Event()
        handle = await cards.insert(Card(id="1"))
        await trio.sleep(1)
        assert (await cards.query()).meta.commit == before + 1
        (sent,) = await outbox.entries()
        assert not sent.editable
        with pytest.raises(AlreadySent):
            await outbox.discard([sent])
        await cards.insert(Card(id="2"))  # the lane is busy: this one waits behind it
        waiting = (await outbox.entries())[-1]
        assert waiting.editable
        await outbox.discard([waiting])
        release.set()
        assert await handle.accepted() > 0
        assert (await site.rows()).keys() == {"0", "1"}


async def test_what_an_earlier_version_may_have_sent_stays_the_hubs_to_decide_until_all_of_it_was_sent(
    tmp_path: Path,
) -> None:
    """That version noted nothing: that the first of three writes is sent says nothing of the two behind it."""
    async with open_site(tmp_path, limits=Limits(push_mutations=1)) as site:
        async with site.device("a") as device:
            for id in "123":
                await device.store(CARDS).insert(Card(id=id))
            await device.change(
                lambda tx: tx.outbox.save_identity(replace(tx.outbox.identity(), sent_mid=SENT_UNKNOWN))
            )
            device.wire.hold["push"] = release = trio.Event()
            device.sync.resume()
            await trio.sleep(1)  # the first is on its way
            first, second, third = await device.sync.outbox.entries()
            assert not (first.editable or second.editable or third.editable)
            with pytest.raises(AlreadySent):
                await device.sync.outbox.discard([third])
            release.set()
            await device.settle()
            device.sync.pause()
            await device.store(CARDS).insert(Card(id="4"))
            (new,) = await device.sync.outbox.entries()
            assert new.editable, "all before it was sent by now, and it was not"
        assert (await site.rows()).keys() == {"1", "2", "3"}


async def test_what_an_earlier_life_of_the_file_may_have_sent_stays_the_hubs_to_decide(tmp_path: Path) -> None:
    """In the new life nothing was sent yet of what does not fit into its first request."""
    site = Placed(tmp_path)
    with trio.fail_after(600):
        async with site.open_hub(), site.device("a") as device:
            for id in "12":
                await device.store(CARDS).insert(Card(id=id))
            device.wire.hold["push"] = trio.Event()
            device.sync.resume()
            await trio.sleep(1)  # both are on their way, in one request
            await device.change(lambda tx: tx.outbox.save_identity(replace(tx.outbox.identity(), renew=True)))
        async with site.open_hub(limits=Limits(push_mutations=1)):
            async with site.open_device("a", down=True) as device:
                device.wire.hold["push"] = release = trio.Event()
                device.wire.repair()
                device.sync.poke()
                await trio.sleep(1)  # the first is on its way again
                identity = await device.inspect(lambda tx: tx.outbox.identity())
                assert (identity.incarnation, identity.sent_mid, identity.next_mid) == (2, 1, 3)
                first, second = await device.sync.outbox.entries()
                assert not (first.editable or second.editable)
                outbox = device.sync.outbox
                for change in (outbox.hold([second]), outbox.discard([second]), outbox.edit(second, {"title": "x"})):
                    with pytest.raises(AlreadySent):
                        await change
                release.set()
                await device.settle()
            assert await site.rows() == {"1": Card(id="1"), "2": Card(id="2")}


async def test_a_retry_sends_at_once_what_would_wait_for_its_next_attempt(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a", paused=False) as device:
        device.wire.cut()
        handle = await device.store(CARDS).insert(Card(id="1"))
        with trio.fail_after(600):
            while device.sync.status.attempt < 5:  # by now the next one is far away
                await trio.sleep(1)
        device.wire.repair()
        await device.sync.outbox.retry()
        with trio.fail_after(1):
            assert await handle.accepted() == 1


async def test_a_held_write_whose_root_is_refused_comes_to_the_inbox_when_it_is_released(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a") as device, site.device("b") as other:
        await other.store(CARDS).insert(Card(id="1", title="theirs"))
        await synced(other)
        await device.store(CARDS).insert(Card(id="1", title="mine"))
        await device.store(CARDS).update("1", title="on mine")
        await device.sync.outbox.hold((await device.sync.outbox.entries())[1:2])
        await synced(device)
        assert [entry.code for entry in await device.client.inbox.entries()] == ["ALREADY_EXISTS"]
        await device.sync.outbox.release(await device.sync.outbox.entries())
        await device.settle()
        codes = [entry.code for entry in await device.client.inbox.entries()]
        assert codes == ["ALREADY_EXISTS", "DEPENDENCY_REJECTED"]
        assert (await site.rows())["1"].title == "theirs"


@pytest.mark.paths
async def test_what_is_written_on_a_held_write_does_not_build_on_what_was_refused_before(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a") as device, site.device("b") as other:
        await other.store(CARDS).insert(Card(id="1", title="theirs"))
        await synced(other)
        await device.store(CARDS).insert(Card(id="1", title="mine"))
        await synced(device)
        device.sync.pause()
        await device.store(CARDS).update("1", title="seen")
        await device.sync.outbox.hold(await device.sync.outbox.entries())
        await device.store(CARDS).update("1", title="and more")
        held = await device.sync.outbox.entries()
        assert [entry.state for entry in held] == ["held", "held"]
        await device.sync.outbox.release(held)
        await synced(device)
        assert [entry.code for entry in await device.client.inbox.entries()] == ["ALREADY_EXISTS"]
        assert (await site.rows())["1"].title == "and more"


@pytest.mark.paths
async def test_an_increment_waits_for_a_hub_that_can_count(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, site.device("a") as device:
        device.wire.tamper["open"] = lambda reply: replace(reply, proto=PROTOCOL_OLDEST)
        await device.store(COUNTS).insert(Count("1"))
        await device.store(COUNTS).update("1", votes=Increment(2))
        device.sync.resume()
        await trio.sleep(5)
        error = device.sync.status.error
        assert error is not None and error.code == "PROTO_UNSUPPORTED"
        assert (device.wire.count("push"), device.sync.status.pending) == (0, 2)
        del device.wire.tamper["open"]
        device.wire.cut()
        device.wire.repair()
        device.sync.poke()
        await device.settle()
        assert await device.rows(COUNTS) == {"1": Count("1", 2)}
