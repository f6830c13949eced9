"""First sync, re-sync, restored hubs and copied files: the outbox survives, and nothing is mixed."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel
from msgspec.structs import replace

from atoma.contracts.sync import Limits, PullReply
from tests.scenarios.sync.kit import back_up, open_restored

pytestmark = pytest.mark.virtual_time


async def until(condition: Any) -> None:
    with trio.fail_after(600):
        while not await condition():
            await trio.sleep(0.05)


async def _is(value: bool) -> bool:
    return value


def small_pages(reply: Any) -> Any:
    """Let the hub ask for pages of a few rows."""
    return replace(reply, limits=replace(reply.limits, page_changes=7))


async def fill(world: Any, device: Any, count: int) -> None:
    result = await device.store(world.CARDS).insert_many(
        [world.Card(id=f"{number:04}", title=str(number)) for number in range(count)]
    )
    result.raise_for_errors()
    await device.settle()


@pytest.mark.paths
async def test_first_sync_comes_in_pages_and_shows_all_or_nothing(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await fill(world, a, 60)
        async with world.open_device("b", down=True) as b:
            b.wire.tamper["open"] = small_pages
            sizes: list[int] = []

            async def watch() -> None:
                async with b.client.store(world.CARDS).live() as batches:
                    async for _ in batches:
                        sizes.append(len(await b.rows()))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await trio.sleep(0.1)
                b.wire.repair()
                b.sync.poke()
                await b.settle()
                await trio.sleep(0.1)
                nursery.cancel_scope.cancel()
            assert b.wire.count("snapshot") >= 60 // 7
            assert set(sizes) == {0, 60}, "never a part of it"
            assert await b.rows() == await a.rows()


@pytest.mark.paths
async def test_an_interrupted_first_sync_continues_where_it_was(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await fill(world, a, 60)
        for page in (2, 5):
            calls: list[Any] = []
            with trio.CancelScope() as process:
                async with world.open_device("b", down=True) as b:
                    calls = b.wire.calls

                    def crash(request: Any, wire: Any = b.wire, page: int = page, process: Any = process) -> Any:
                        if wire.count("snapshot") >= page:
                            process.cancel()
                        return request

                    b.wire.tamper.update({"open": small_pages, "snapshot request": crash})
                    b.wire.repair()
                    b.sync.poke()
                    await trio.sleep_forever()
            tokens = [request.token for method, request in calls if method == "snapshot"]
            assert (b"" in tokens) == (page == 2), "only the very first page has no token"
            await a.store(world.CARDS).update(f"{page:04}", title="moved meanwhile")
            await a.store(world.CARDS).delete(f"{page + 40:04}")
            await a.settle()
        async with world.open_device("b") as b:
            await b.settle()
            assert b"" not in [request.token for method, request in b.wire.calls if method == "snapshot"]
            assert await b.rows() == await a.rows()
            assert len(await b.rows()) == 58


async def test_a_snapshot_token_that_the_hub_no_longer_takes_begins_anew(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await fill(world, a, 30)
        spoiled = 0

        def spoil(reply: Any) -> Any:
            nonlocal spoiled
            spoiled += 1
            return replace(reply, token=b"x" + reply.token) if spoiled == 2 else reply

        async with world.open_device("b", down=True) as b:
            b.wire.tamper.update({"open": small_pages, "snapshot": spoil})
            b.wire.repair()
            b.sync.poke()
            await b.settle()
            assert await b.rows() == await a.rows()
            assert [request.token for method, request in b.wire.calls if method == "snapshot"].count(b"") == 2


@pytest.mark.paths
async def test_writes_made_during_the_first_sync_are_kept(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await fill(world, a, 30)
        async with world.open_device("b", down=True) as b:
            await b.store(world.CARDS).insert(world.Card(id="mine"))
            await b.store(world.CARDS).upsert({"id": "0003", "title": "b's", "board": "main"})
            assert set(await b.rows()) == {"mine", "0003"}
            b.wire.repair()
            b.sync.poke()
            await b.settle()
            await a.settle()
            assert await a.rows() == await b.rows()
            assert len(await a.rows()) == 31
            assert (await a.rows())["0003"].title == "b's"


@pytest.mark.paths
async def test_a_client_that_was_away_too_long_takes_a_snapshot_and_keeps_its_outbox(world: Any) -> None:
    """I16, I17: deletes are not skipped, pending writes are neither lost nor doubled."""
    async with world.open_hub() as hub, world.open_device("a") as a, world.open_device("b") as b:
        await fill(world, a, 20)
        await b.settle()
        b.wire.cut()
        pending = await b.store(world.CARDS).update("0005", title="b's")
        created = await b.store(world.CARDS).insert(world.Card(id="new"))
        for number in range(10, 20):
            await a.store(world.CARDS).delete(f"{number:04}")
        await a.settle()
        await hub.compact(keep=0)
        snapshots = b.wire.count("snapshot")
        b.wire.repair()
        b.sync.poke()
        await b.settle()
        await a.settle()
        assert b.wire.count("snapshot") > snapshots
        assert await a.rows() == await b.rows()
        assert set(await b.rows()) == {*(f"{number:04}" for number in range(10)), "new"}
        assert (await a.rows())["0005"].title == "b's"
        assert pending.state == created.state == "observed"
        assert b.sync.status.scope("main").error is None


@pytest.mark.parametrize("connected", [True, False])
async def test_a_needless_epoch_is_taken_over_without_a_snapshot(world: Any, connected: bool) -> None:
    """Nothing was lost that this device has seen: it goes on where it is."""
    async with world.open_hub() as hub, world.open_device("a") as a:
        await fill(world, a, 5)
        snapshots = a.wire.count("snapshot")
        if not connected:
            a.wire.cut()
        await hub.new_epoch()
        a.wire.repair()
        handle = await a.store(world.CARDS).insert(world.Card(id="x"))
        await a.settle()
        a.sync.poke()
        await a.settle()
        assert handle.state == "observed"
        assert a.wire.count("snapshot") == snapshots
        subscription = await a.inspect(lambda tx: tx.scopes.read("main"))
        assert subscription.cursor.epoch == hub.identity.epoch
        assert len(await a.rows()) == 6


@pytest.mark.parametrize("code", ["CURSOR_TOO_OLD", "CURSOR_AHEAD", "LINEAGE_MISMATCH", "EPOCH_CHANGED"])
async def test_every_reason_to_resync_ends_live_again(world: Any, code: str) -> None:
    from atoma.errors import RemoteError

    refusals = 2

    def refuse(request: Any) -> Any:
        nonlocal refusals
        if refusals and request.cursor.seq:
            refusals -= 1
            raise RemoteError("take a snapshot", remote_code=code)
        return request

    async with world.open_hub(), world.open_device("a") as a:
        await fill(world, a, 12)
        a.wire.cut()
        handle = await a.store(world.CARDS).update("0001", lane="done")
        a.wire.tamper["pull request"] = refuse
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        assert refusals == 0
        assert handle.state == "observed"
        assert a.sync.status.scope("main").state == "live"
        assert (await a.rows())["0001"].lane == "done"
        assert len(await a.rows()) == 12


async def test_a_hub_restored_from_a_backup_gets_again_what_was_only_accepted(world: Any) -> None:
    """What the hub had acknowledged and lost is still in the overlay until its page; it is sent again."""
    async with world.open_device("a", down=True) as a:
        async with world.open_hub():
            a.wire.repair()
            a.sync.poke()
            await fill(world, a, 5)
        a.wire.cut()
        back_up(world)
        async with world.open_hub():
            a.wire.hold["pull"] = trio.Event()
            a.wire.repair()
            a.sync.poke()
            handle = await a.store(world.CARDS).insert(world.Card(id="acked"))
            assert await handle.accepted() == 6
            a.wire.cut()
        async with open_restored(world):
            del a.wire.hold["pull"]
            a.wire.repair()
            a.sync.poke()
            await a.settle()
            assert "acked" in await a.rows()
            async with world.open_device("b") as b:
                await b.settle()
                assert await b.rows() == await a.rows()
                assert len(await b.rows()) == 6


async def test_another_hub_or_another_user_gets_nothing(world: Any) -> None:
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.settle()
        async with world.open_device("a", principal="eve") as a:
            await a.store(world.CARDS).insert(world.Card(id="1"))
            await until(lambda: _is(a.sync.status.state == "stalled"))
            assert a.sync.status.error.code == "WRONG_HUB"
            assert a.wire.count("push") == 0
    world.hub_file = "other.db"
    async with world.open_hub(), world.open_device("a") as a:
        await until(lambda: _is(a.sync.status.state == "stalled"))
        assert a.sync.status.error.code == "HUB_MISMATCH"
        assert len(await a.outbox()) == 1


@pytest.mark.paths
async def test_rows_from_before_are_adopted(world: Any) -> None:
    """A store that was local only: its rows go up with the first sync instead of being swapped away."""
    async with world.open_hub(), world.open_device("b") as b:
        await b.store(world.CARDS).insert(world.Card(id="b"))
        await b.settle()
        async with world.open_device("a", plugins=()) as a:
            await a.store(world.CARDS).insert_many([world.Card(id=f"old{number}") for number in range(3)])
            await a.store(world.CARDS).insert(world.Card(id="elsewhere", board="other"))
        async with world.open_device("a") as a:
            await a.settle()
            await b.settle()
            assert set(await b.rows()) == {"b", "old0", "old1", "old2"}
            assert set(await a.rows()) == {*(await b.rows()), "elsewhere"}
            assert await a.outbox() == []


async def test_a_hub_with_tighter_limits_is_kept_to(world: Any) -> None:
    limits = Limits(push_mutations=3, page_changes=4)
    async with world.open_hub(limits=limits), world.open_device("a") as a, world.open_device("b") as b:
        await fill(world, a, 20)
        await b.settle()
        assert await a.rows() == await b.rows()
        assert all(len(request.mutations) <= 3 for method, request in a.wire.calls if method == "push")
        assert all(request.max_changes <= 4 for method, request in b.wire.calls if method == "pull")


async def test_an_empty_page_moves_the_cursor(world: Any) -> None:
    """A page with nothing for this client is applied all the same, or it would be asked for again for ever."""

    def emptied(reply: PullReply) -> PullReply:
        return replace(reply, stores=())

    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await b.settle()
        b.wire.tamper["pull"] = emptied
        await fill(world, a, 3)
        await b.settle()
        assert b.sync.status.scope("main").cursor == 3
        assert await b.rows() == {}
