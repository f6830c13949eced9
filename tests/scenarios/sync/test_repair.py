"""Restored and copied files, and devices that the hub has forgotten: they are repaired, and nothing is lost or doubled."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.sync import OpenReply

pytestmark = pytest.mark.virtual_time


def copy_file(world: Any, name: str, to: str) -> None:
    """What lies on the disk, as a person copies it; the device is closed."""
    for suffix in ("", "-wal", "-shm"):
        source, target = world.folder / f"{name}.db{suffix}", world.folder / f"{to}.db{suffix}"
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copy(source, target)


async def client_id(device: Any) -> bytes:
    found: bytes = await device.inspect(lambda tx: tx.identity().client_id)
    return found


async def inbox(device: Any) -> list[tuple[str, str]]:
    return [(entry.code, entry.id) for entry in await device.sync.inbox.entries()]


async def head(world: Any) -> int:
    (state,) = await world.hub._core.database.scopes(["main"])
    found: int = state.head
    return found


async def put_in(device: Any) -> None:
    """Connect the device and wait until all is done."""
    device.wire.mend()
    device.sync.poke()
    await device.settle()


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
        a.wire.mend()
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
        del a.wire.tamper["open"]
        a.sync.poke()
        await a.settle()
        assert await inbox(a) == []
        assert (await a.rows())["1"].title == "pending"
