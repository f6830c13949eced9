"""A query that takes ten seconds is stopped where it runs: by a cancel, by the end of a budget, by a lost connection."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.contracts.policy import Policy
from atoma.errors import AtomaError, NodeTimeout
from atoma.kernel import node, timeout

WIRES = ["memory", "websocket", "grpc", "http"]
IDLE_S = 2.0
"""From the cancel to an idle connection and an ended handler; the bar of 0.1 s, which the benchmark measures, and room
for a busy machine. Left alone, the query goes on for ten seconds."""

pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.usefixtures("no_thread_left")]


async def begin_slow(house: Any, nursery: trio.Nursery, slow: Any, pages: Any) -> trio.CancelScope:
    """Start the query at the hub and wait until SQLite works on it; the scope around it."""
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            try:
                await house.client.store(pages).query(slow, policy="direct-remote")
            except AtomaError:
                return

    nursery.start_soon(run)
    await house.until(lambda: house.is_busy_at_the_hub)
    return scope


@pytest.mark.parametrize("wire", WIRES)
async def test_a_cancel_stops_the_hubs_sql(open_house: Any, long_texts: Path, slow: Any, pages: Any, wire: str) -> None:
    async with open_house(wire, long_texts) as house:
        taken = []
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                scope = await begin_slow(house, nursery, slow, pages)
                await trio.sleep(0.02)
                assert house.is_busy_at_the_hub
                scope.cancel()
                taken.append(await house.until(lambda: house.is_idle))
        assert max(taken) < IDLE_S, taken
        assert await house.client.store(pages).count(policy="direct-remote") > 0


@pytest.mark.parametrize("count", [True, False], ids=["count", "rows"])
async def test_a_cancel_stops_the_local_sql_before_the_caller_goes_on(
    open_house: Any, long_texts: Path, slow: Any, pages: Any, count: bool
) -> None:
    async with open_house("memory", long_texts) as house:
        store = house.client.store(pages)
        house.client.sync.pause()  # its lanes read as well
        for _ in range(5):
            await house.until(lambda: house.is_idle)
            begin = trio.current_time()
            with trio.move_on_after(0.1) as scope:
                await (store.count(slow) if count else store.query(slow))
            assert scope.cancelled_caught
            assert house.is_idle
            assert trio.current_time() - begin < 0.1 + IDLE_S
        assert (await store.first()) is not None


@pytest.mark.parametrize("wire", WIRES)
async def test_the_hub_ends_a_query_when_the_callers_time_is_over(
    open_house: Any, long_texts: Path, slow: Any, pages: Any, wire: str
) -> None:
    """The budget travels: it ends the query also when nothing else reaches the hub any more."""
    async with open_house(wire, long_texts) as house:
        await house.client.store(pages).get("nobody", policy="direct-remote")
        over = trio.current_time() + 0.4
        with trio.move_on_at(over):
            async with trio.open_nursery() as nursery:
                await begin_slow(house, nursery, slow, pages)
                house.wire.mute()
                await trio.sleep_forever()
        await house.until(lambda: house.is_idle)
        assert trio.current_time() - over < IDLE_S
        house.wire.repair()


@pytest.mark.parametrize("wire", WIRES)
async def test_a_lost_connection_stops_the_hubs_sql(
    open_house: Any, long_texts: Path, slow: Any, pages: Any, wire: str
) -> None:
    async with open_house(wire, long_texts) as house:
        async with trio.open_nursery() as nursery:
            await begin_slow(house, nursery, slow, pages)
            house.wire.cut()
            assert await house.until(lambda: house.is_idle) < IDLE_S
        house.wire.repair()


def reader_ticks() -> int:
    """Processor time of the reader threads, in ticks of the system: what they really do."""
    ticks = 0
    for thread in threading.enumerate():
        if thread.name == "atoma-reader":
            fields = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell the time of a thread")
async def test_the_threads_of_a_cancelled_query_do_nothing_any_more(
    open_house: Any, long_texts: Path, slow: Any, pages: Any
) -> None:
    async with open_house("websocket", long_texts) as house:
        async with trio.open_nursery() as nursery:
            scope = await begin_slow(house, nursery, slow, pages)
            await house.until(lambda: reader_ticks() > 2)  # it really works
            scope.cancel()
            await house.until(lambda: house.is_idle)
        before = reader_ticks()
        await trio.sleep(0.2)
        assert reader_ticks() - before <= 1


async def test_one_cancelled_query_does_not_disturb_the_others(
    open_house: Any, long_texts: Path, slow: Any, pages: Any
) -> None:
    """Interrupting hits the cancelled read only, whichever thread the others are in."""
    async with open_house("memory", long_texts) as house:
        store = house.client.store(pages)
        everything = await store.count()

        async def read_all() -> None:
            for _ in range(4):
                assert len((await store.query()).items) == everything

        async def cancel_all() -> None:
            for number in range(60):
                with trio.move_on_after(0.001 * (number % 7)):
                    await store.count(slow)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_all)
                nursery.start_soon(cancel_all)
                nursery.start_soon(cancel_all)


async def test_a_timeout_of_the_policy_stops_the_hubs_sql_too(
    open_house: Any, long_texts: Path, slow: Any, pages: Any
) -> None:
    hurried = Policy("hurried", timeout(node("remote-memory"), 0.2), None)
    async with open_house("memory", long_texts, policies=[hurried]) as house:
        with pytest.raises(NodeTimeout):
            await house.client.store(pages).query(slow, policy="hurried")
        assert await house.until(lambda: house.is_idle) < IDLE_S


async def test_a_deadline_ends_a_query_where_there_is_one_connection_and_no_thread(
    open_house: Any, slow: Any, pages: Any, make_note: Any
) -> None:
    async with open_house("memory") as house:
        store = house.client.store(pages)
        (await store.insert_many([make_note(text="m-" * 1000) for _ in range(500)])).raise_for_errors()
        begin = trio.current_time()
        with trio.move_on_after(0.1) as scope:
            await store.count(slow)
        assert scope.cancelled_caught
        assert trio.current_time() - begin < 0.1 + IDLE_S
        await store.insert(make_note(text="still well"))
        assert await store.count() == 501
