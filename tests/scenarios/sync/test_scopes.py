"""Scopes come and go while a device runs: brought along by who uses them, dropped when nobody has for long."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from atoma.contracts.events import ScopeBrought, ScopeLeft
from atoma.contracts.sync import Limits
from atoma.errors import ConfigurationError, RemoteError, ScopeNotSubscribed
from atoma.query import col, exists, select
from atoma.sync import IdleScopes, ScopeInUse, TooManyScopes
from tests.scenarios.sync.boards import arrive, ids, open_boards, told, use
from tests.scenarios.sync.conftest import CARDS, Card, Device, World

pytestmark = pytest.mark.virtual_time


@pytest.mark.paths
async def test_a_scope_is_here_for_as_long_as_somebody_uses_it_and_follows_what_others_write(world: World) -> None:
    async with open_boards(world) as writer, world.open_device("a") as a:
        await a.settle()
        assert await ids(a) == {"of main"}
        assert await told(a) == "partial"
        async with a.sync.scope("board:7"):
            await arrive(a, "board:7")
            assert await ids(a) == {"of main", "of board:7"}
            assert await told(a) == "complete"
            progress = a.sync.status.scope("board:7")
            assert (progress.state, progress.brought, progress.error) == ("live", True, None)
            assert not a.sync.status.scope("main").brought
            await writer.store(CARDS).insert(Card(id="news", board="board:7"))
            await writer.settle()
            await trio.sleep(1)
            assert "news" in await ids(a), "a hint tells of it, no poll"
            own = await a.store(CARDS).insert(Card(id="own", board="board:7"))
            await own.observed()
            await trio.sleep(1)
            assert "own" in await ids(writer)
        assert await told(a) == "complete", "it stays for a while"


@pytest.mark.paths
async def test_a_scope_is_dropped_with_its_rows_and_nothing_else_is_touched(world: World) -> None:
    async with open_boards(world) as writer, world.open_device("a") as a:
        await use(a, "board:7", "board:8")
        await a.sync.drop("board:7")
        assert await ids(a) == {"of main", "of board:8"}
        assert await told(a) == "partial"
        assert [progress.scope for progress in a.sync.status.scopes] == ["main", "board:8"]
        assert await a.inspect(lambda tx: tx.scopes.every()) == ["board:8", "main"]
        await a.settle()
        await trio.sleep(100)
        assert await ids(a) == {"of main", "of board:8"}
        with pytest.raises(ScopeNotSubscribed):
            await a.store(CARDS).insert(Card(id="late", board="board:7"))
        await writer.settle()
        assert "of board:7" in await ids(writer), "at the hub nothing has changed"
        async with a.sync.scope("board:7"):
            await arrive(a, "board:7")
            assert "of board:7" in await ids(a)


async def test_what_is_used_or_waits_is_not_dropped(world: World) -> None:
    async with open_boards(world), world.open_device("a") as a:
        await a.settle()
        with pytest.raises(ScopeInUse, match="Sync"):
            await a.sync.drop("main")
        async with a.sync.scope("board:7"), a.sync.scope("board:7"):
            async with a.sync.scope("board:7"):
                pass
            with pytest.raises(ScopeInUse, match="uses it"):
                await a.sync.drop("board:7")
            await arrive(a, "board:7")
            a.wire.cut()
            await a.store(CARDS).insert(Card(id="waits", board="board:7"))
        with pytest.raises(ScopeInUse, match="outbox"):
            await a.sync.drop("board:7")
        assert "waits" in await ids(a)
        assert a.sync.status.scope("board:7").brought
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        await a.sync.drop("board:7")
        assert await ids(a) == {"of main"}


async def test_a_scope_that_is_dropped_while_it_is_tried_again_keeps_nothing_waiting(world: World) -> None:
    def fails(request: Any) -> Any:
        if request.scope == "board:7":
            raise RemoteError("planted", remote_code="UNAVAILABLE", remote_retryable=True)
        return request

    async with open_boards(world) as writer, world.open_device("a") as a:
        await use(a, "board:7")
        a.wire.tamper["pull request"] = fails
        await writer.store(CARDS).insert(Card(id="news", board="board:7"))
        with trio.fail_after(100):
            while a.sync.status.state != "stalled":
                await trio.sleep(0.1)
        await a.sync.drop("board:7")
        await trio.sleep(1)
        assert (a.sync.status.state, a.sync.status.error) == ("online", None)


async def test_offline_a_scope_waits_and_is_partial(world: World) -> None:
    async with open_boards(world), world.open_device("a", down=True) as a, a.sync.scope("board:7"):
        await trio.sleep(5)
        assert await told(a) == "partial"
        await a.store(CARDS).insert(Card(id="early", board="board:7"))
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        assert await told(a) == "complete"
        assert await ids(a) == {"of main", "of board:7", "early"}
        await trio.sleep(10)
        a.wire.cut()
        await trio.sleep(5)
        assert await told(a) == "stale"


@pytest.mark.paths
async def test_what_was_brought_is_followed_again_after_a_restart(world: World) -> None:
    async with open_boards(world) as writer:
        async with world.open_device("a") as a:
            await use(a, "board:7")
        await writer.store(CARDS).insert(Card(id="news", board="board:7"))
        await writer.settle()
        async with world.open_device("a") as a:
            assert await told(a) == "stale"
            await a.settle()
            assert await ids(a) == {"of main", "of board:7", "news"}
            assert await told(a) == "complete"


@pytest.mark.parametrize("count", [0, 2])
async def test_the_longest_unused_go_first_and_so_many_stay(world: World, count: int) -> None:
    async with open_boards(world), world.open_device("a", idle=IdleScopes(count=count)) as a:
        async with a.sync.scope("board:9"):
            await use(a, "board:1", "board:2", "board:3", "board:1", "board:4")
            left = {"board:1", "board:4"} if count else set[str]()
            assert await ids(a) == {"of main", "of board:9", *(f"of {board}" for board in left)}
            assert {each.scope for each in a.sync.status.scopes} == {"main", "board:9", *left}


@pytest.mark.paths
async def test_a_scope_ages_out_by_its_last_use(world: World) -> None:
    heard: list[object] = []
    async with open_boards(world), world.open_device("a", idle=IdleScopes(seconds=3600)) as a:
        a.client.listen(heard.append)
        await use(a, "board:1", "board:2")
        await trio.sleep(3000)
        await use(a, "board:1")
        async with a.sync.scope("board:3"):
            await trio.sleep(700)
            assert await ids(a) == {"of main", "of board:1", "of board:3"}
            await trio.sleep(9000)
            assert await ids(a) == {"of main", "of board:3"}, "what is used never ages"
        await trio.sleep(3601)
        assert await ids(a) == {"of main"}
        await trio.testing.wait_all_tasks_blocked()
    assert [event for event in heard if isinstance(event, ScopeLeft)] == [
        ScopeLeft("board:2"),
        ScopeLeft("board:1"),
        ScopeLeft("board:3"),
    ]
    assert [event.scope for event in heard if isinstance(event, ScopeBrought)] == ["board:1", "board:2", "board:3"]


async def test_a_scope_with_waiting_work_ages_out_when_that_is_done(world: World) -> None:
    async with open_boards(world), world.open_device("a", idle=IdleScopes(seconds=60)) as a:
        await use(a, "board:7")
        a.wire.cut()
        await a.store(CARDS).insert(Card(id="waits", board="board:7"))
        await trio.sleep(1000)
        assert {"waits", "of board:7"} <= await ids(a)
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        await trio.sleep(120)
        assert await ids(a) == {"of main"}


async def test_as_many_are_used_as_a_hub_takes_and_idle_ones_make_room(world: World) -> None:
    async with open_boards(world), world.open_device("a", limits=Limits(scopes=3)) as a:
        await use(a, "board:1", "board:2")
        async with a.sync.scope("board:3"):
            assert {each.scope for each in a.sync.status.scopes} == {"main", "board:2", "board:3"}
            async with a.sync.scope("board:4"):
                with pytest.raises(TooManyScopes):
                    async with a.sync.scope("board:5"):
                        pytest.fail("it was let in")
            assert {each.scope for each in a.sync.status.scopes} == {"main", "board:3", "board:4"}


async def test_nothing_goes_where_there_is_no_room_for_all(world: World) -> None:
    elsewhere = exists(select(CARDS).where(col("board") == "board:4"))
    wanted = select(CARDS).where(col("board") == "board:3", elsewhere)
    async with open_boards(world), world.open_device("a", limits=Limits(scopes=4)) as a:
        await use(a, "board:1", "board:2")
        a.wire.cut()
        await a.store(CARDS).insert(Card(id="waits", board="board:1"))  # it cannot be dropped, though nobody uses it
        async with a.sync.scope("board:5"):
            with pytest.raises(TooManyScopes):
                await a.store(CARDS).query(wanted, bring=True)
            assert await ids(a) == {"of main", "of board:1", "waits", "of board:2"}


async def test_several_who_come_at_once_do_not_find_room_for_one(world: World) -> None:
    let_in: list[str] = []

    async def hold(device: Device, scope: str) -> None:
        try:
            async with device.sync.scope(scope):
                let_in.append(scope)
                await trio.sleep(10)
        except TooManyScopes:
            pass

    async with world.open_hub(), world.open_device("a", limits=Limits(scopes=3)) as a:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(hold, a, f"board:{number}")
        assert len(let_in) == 2


@pytest.mark.paths
async def test_closing_waits_for_nobody_and_whoever_leaves_a_scope_later_is_no_news(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_boards(world), AsyncExitStack() as later:
        async with world.open_device("a") as a:
            await later.enter_async_context(a.sync.scope("board:7"))
            await arrive(a, "board:7")
            began = trio.current_time()
        assert trio.current_time() - began < 0.1
        await later.aclose()
    assert not caplog.records


async def test_bad_input_is_said(world: World) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("p", mode="push-only") as p:
        with pytest.raises(ConfigurationError, match="no name of a scope"):
            async with a.sync.scope(""):
                pytest.fail("it was let in")
        with pytest.raises(ConfigurationError, match="push-only"):
            async with p.sync.scope("board:7"):
                pytest.fail("it was let in")
        with pytest.raises(ConfigurationError, match="IdleScopes"):
            IdleScopes(count=-1)
        await a.sync.drop("never heard of")
