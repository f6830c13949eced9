"""The bells: nothing is missed, nothing piles up."""

from __future__ import annotations

import pytest
import trio
import trio.testing

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


async def test_what_is_noted_in_one_pass_is_told_once_and_as_it_was_last() -> None:
    board = StatusBoard(SyncStatus(), Bell())
    heard: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(board.run)
        board.subscribe(lambda status: heard.append(status.pending))
        for pending in (1, 2, 3):
            board.note(SyncStatus(pending=pending))
            assert board.current.pending == pending
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [0, 3]
        board.note(SyncStatus(pending=4))
        board.note(SyncStatus(pending=3))
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [0, 3], "what was told last holds"
        nursery.cancel_scope.cancel()


async def test_who_saw_a_state_that_nobody_was_told_is_told_what_comes_after_it() -> None:
    board = StatusBoard(SyncStatus(pending=1), Bell())
    heard: list[int] = []
    board.subscribe(lambda status: heard.append(status.pending))
    board.note(SyncStatus(pending=2))
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                assert (await board.wait_change(board.current)).pending == 1

            await trio.testing.wait_all_tasks_blocked()
            board.note(SyncStatus(pending=1))
            board.publish()
    assert heard == [1], "what was told holds"
    board.note(SyncStatus(pending=2))
    board.subscribe(lambda status: heard.append(status.pending))
    board.note(SyncStatus(pending=1))
    board.publish()
    assert heard[-1] == 1, "who came in between saw another one"
