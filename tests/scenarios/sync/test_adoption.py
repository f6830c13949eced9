"""A file that is handed over: to a hub that was set up anew, to another one, to another user of the same one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from atoma.codes import CODES, HELP
from atoma.errors import ConnectFailed, RemoteError, SyncError
from tests.scenarios.sync.kit import back_up_with, client_id, head, inbox, open_restored, put_in

pytestmark = pytest.mark.virtual_time


@asynccontextmanager
async def another_hub(world: Any, *devices: Any) -> AsyncGenerator[Any]:
    """A hub that knows nothing of them stands under the address of theirs."""
    other = type(world)(world.folder, seed=2, hub_file="other.db")
    async with other.open_hub():
        for device in devices:
            device.wire.hub = other.running_hub
        yield other


async def stalled(device: Any) -> str:
    device.wire.repair()
    device.sync.poke()
    with trio.fail_after(120):
        while device.sync.status.state != "stalled":
            await trio.sleep(0.1)
    code: str = device.sync.status.error.code
    return code


@pytest.mark.paths
async def test_a_file_is_handed_over_to_a_hub_that_was_set_up_anew(world: Any) -> None:
    """The hub is gone without a backup: its rows are still on the device, and go up at a word."""
    async with world.open_device("a", down=True) as a:
        async with world.open_hub():
            await a.store(world.CARDS).insert_many([world.Card(id=str(n), title="kept") for n in range(3)])
            await put_in(a)
            a.wire.cut()
        fresh = await a.store(world.CARDS).insert(world.Card(id="fresh"))
        changed = await a.store(world.CARDS).update("1", title="pending")
        async with another_hub(world, a) as other:
            before, pushes = await client_id(a), a.wire.count("push")
            assert await stalled(a) == "HUB_MISMATCH"
            assert a.sync.status.helps == HELP["adopt"] and "adopt_hub()" in HELP["adopt"]
            assert a.wire.count("push") == pushes
            rehearsed = await a.sync.adopt_hub(dry_run=True)
            assert (rehearsed.cause, rehearsed.renumbered, rehearsed.doubtful, rehearsed.lost) == ("WRONG_HUB", 2, 2, 3)
            assert (await client_id(a), a.sync.status.state, len(await a.rows())) == (before, "stalled", 4)
            made = await a.sync.adopt_hub()
            assert replace(made, at_ms=0, new_client_id=b"") == replace(rehearsed, at_ms=0, new_client_id=b"")
            await a.settle()
            assert (a.sync.status.state, a.sync.status.error, await a.outbox()) == ("online", None, [])
            assert fresh.state == "observed" and changed.state == "rejected"
            assert set(await a.rows()) == {"fresh"}, "what the new hub has, and what was made here"
            assert await inbox(a) == [("UNKNOWN_OUTCOME", "1")]
            listed = await a.sync.lost.entries()
            assert sorted((row.id, row.reason) for row in listed) == [(str(n), "adopted") for n in range(3)]
            await a.sync.lost.offer(listed)
            await a.settle()
            assert set(await a.rows()) == {"fresh", "0", "1", "2"}
            async with other.open_device("b") as b:
                await b.settle()
                assert await b.rows() == await a.rows()
            assert await a.sync.adopt_hub() is None, "it belongs here"
    async with other.open_hub(), other.open_device("a") as a:
        await a.store(world.CARDS).update("2", title="goes on")
        await a.settle()
        assert (await a.rows())["2"].title == "goes on" and len(await a.sync.repairs()) == 1


async def test_another_hub_has_rows_of_its_own(world: Any) -> None:
    """Equal rows are not a loss; other rows are as that hub has them; an offer never overwrites one of its rows."""
    async with world.open_device("a", down=True) as a:
        async with world.open_hub():
            await a.store(world.CARDS).insert_many([world.Card(id=id, title="old") for id in ("same", "other", "mine")])
            await put_in(a)
            a.wire.cut()
        wrote = await a.store(world.CARDS).update("other", lane="done")
        async with another_hub(world, a) as other, other.open_device("b") as b:
            await b.store(world.CARDS).insert_many(
                [world.Card(id="same", title="old"), world.Card(id="other", title="new"), world.Card(id="theirs")]
            )
            await b.settle()
            await stalled(a)
            await a.sync.adopt_hub()
            await a.settle()
            assert await a.rows() == await b.rows() and wrote.state == "rejected"
            listed = {row.id: row for row in await a.sync.lost.entries()}
            assert set(listed) == {"other", "mine"}
            assert (listed["other"].image["title"], listed["other"].theirs["title"]) == ("old", "new")
            await a.sync.lost.offer(list(listed.values()))
            await a.settle()
            await b.settle()
            assert (await b.rows())["other"].title == "new" and "mine" in await b.rows()
            assert ("CONFLICT", "other") in await inbox(a)


@pytest.mark.paths
@pytest.mark.parametrize("pushed", [False, True])
async def test_a_file_is_handed_over_to_another_user_of_its_hub(world: Any, pushed: bool) -> None:
    """Rows and cursors stay; what is pending goes up in the new user's name, and nothing before the call."""
    async with world.open_hub(), world.open_device("a") as a, world.open_device("c") as c:
        if pushed:
            await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        a.wire.cut()
        pending = await a.store(world.CARDS).insert(world.Card(id="2"))
        a.wire.principal, snapshots, at = "eve", a.wire.count("snapshot"), await head(world)
        assert await stalled(a) == "WRONG_HUB"
        assert a.sync.status.helps == HELP[CODES["WRONG_HUB"].help]
        assert await head(world) == at
        report = await a.sync.adopt_hub()
        await a.settle()
        await c.settle()
        assert (report.cause, report.forks, report.lost, report.doubtful) == ("WRONG_HUB", {}, 0, 1)
        assert pending.state == "observed" and a.wire.count("snapshot") == snapshots
        assert (a.sync.status.principal, await a.rows()) == ("eve", await c.rows())
        a.wire.cut()
        a.wire.principal = "ann"
        assert await stalled(a) == "WRONG_HUB", "it is eve's now"


async def test_what_was_decided_at_the_old_hub_is_doubtful_at_the_new_one(world: Any) -> None:
    """Acked, and its page had not come: at the other hub nobody knows it, so it is sent, under a guard."""
    async with world.open_device("a", down=True) as a:
        async with world.open_hub():
            await put_in(a)
            a.wire.hold["pull"] = trio.Event()
            handle = await a.store(world.CARDS).insert(world.Card(id="acked"))
            with trio.fail_after(60):
                while handle.state != "accepted":
                    await trio.sleep(0.1)
            a.wire.cut()
            del a.wire.hold["pull"]
        async with another_hub(world, a) as other, other.open_device("b") as b:
            await stalled(a)
            report = await a.sync.adopt_hub()
            await a.settle()
            await b.settle()
            assert (report.settled, report.doubtful, report.withdrawn) == (0, 1, (handle.key,))
            assert set(await b.rows()) == {"acked"} == set(await a.rows()) and handle.state == "observed"


async def test_an_offer_that_waits_is_no_offer_to_another_hub(world: Any) -> None:
    """The file has just been repaired towards its own hub; its offers and what it lists are of no history of the new one."""
    async with world.open_device("a", down=True, on_hub_loss="offer") as a:
        await a.store(world.CARDS).insert_many([world.Card(id="1", title="backup"), world.Card(id="gone")])
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).update("1", title="lost")
            await a.store(world.CARDS).delete("gone")
            await a.settle()
            a.wire.cut()
        async with open_restored(world):
            a.wire.tamper["push request"] = refuse
            a.wire.repair()
            a.sync.poke()
            with trio.fail_after(60):
                while len(await a.outbox()) < 3:  # two rows, and that this was all
                    await trio.sleep(0.1)
            a.wire.cut()
            del a.wire.tamper["push request"]
        async with another_hub(world, a) as other, other.open_device("b") as b:
            await stalled(a)
            await a.sync.adopt_hub()
            await a.settle()
            await b.settle()
            assert {code for code, _ in await inbox(a)} <= {"UNKNOWN_OUTCOME"}
            assert await b.rows() == await a.rows()
            assert (await a.rows())["1"].title == "lost"


def refuse(request: object) -> object:
    raise RemoteError("planted", remote_code="UNAVAILABLE", remote_retryable=True)


async def test_nothing_is_handed_over_that_cannot_be_reached_or_read(world: Any) -> None:
    class Rules:
        def scope_access(self, principal: Any, scope: str) -> Any:
            return "none" if principal.subject == "eve" else "write"

    async with world.open_hub(rules=Rules()), world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await a.settle()
        before = await client_id(a)
        a.wire.cut()
        with pytest.raises(ConnectFailed):
            await a.sync.adopt_hub()
        a.wire.repair()
        a.wire.principal = "eve"
        with pytest.raises((RemoteError, SyncError), match="may not read"):
            await a.sync.adopt_hub()
        assert await client_id(a) == before
        a.wire.principal = "ann"
        a.sync.poke()
        await a.settle()
        assert a.sync.status.state == "online"
