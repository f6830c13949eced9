"""The bells: nothing is missed, nothing piles up."""

from __future__ import annotations

import pytest
import trio

from atoma.sync.status import StatusBoard, SyncStatus
from atoma.sync.wake import Bell, Wake

pytestmark = pytest.mark.virtual_time


async def test_a_poke_before_the_wait_counts_once() -> None:
    wake = Wake()
    wake.poke()
    wake.poke()
    assert await wake.wait(10)
    began = trio.current_time()
    assert not await wake.wait(10)
    assert trio.current_time() - began == pytest.approx(10)


async def test_a_poke_ends_the_wait() -> None:
    wake = Wake()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def later() -> None:
            await trio.sleep(3)
            wake.poke()

        assert await wake.wait(60)
        assert trio.current_time() < 4


async def test_status_is_told_once_per_change_and_a_bad_listener_harms_nobody() -> None:
    board = StatusBoard(SyncStatus(), Bell())
    heard: list[str] = []

    def bad(status: SyncStatus) -> None:
        if status.state == "online":
            raise KeyError("listener")

    board.subscribe(bad)
    undo = board.subscribe(lambda status: heard.append(status.state))
    board.show(SyncStatus(state="online"))
    board.show(SyncStatus(state="online"))
    board.show(SyncStatus(state="stalled"))
    undo()
    board.show(SyncStatus(state="stopped"))
    assert heard == ["offline", "online", "stalled"]


async def test_watching_starts_with_now_and_skips_what_was_overwritten() -> None:
    board = StatusBoard(SyncStatus(), Bell())
    async with board.watch() as values:
        assert (await anext(values)).state == "offline"
        board.show(SyncStatus(state="connecting"))
        board.show(SyncStatus(state="online"))
        assert (await anext(values)).state == "online"
        with trio.move_on_after(5) as scope:
            await anext(values)
        assert scope.cancelled_caught
