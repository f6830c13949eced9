"""Live queries as Observables and Observables as channels: who is told what, and what is left behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import reactivex as rx
import trio
import trio.testing
from reactivex import operators as ops
from reactivex.abc import ObserverBase
from reactivex.subject import Subject

from atoma.errors import ClosedError, ConfigurationError, Overloaded, StoreError
from atoma.ports import Insert, LiveBatch, Remove, Reset, Update
from atoma.ports.environment import seeded_environment
from atoma.ports.loops import LoopGuard
from atoma.runtime.observable import Overflow, observe_batches, observe_live, to_channel
from atoma.runtime.rx_scheduler import open_rx_scheduler

pytestmark = pytest.mark.virtual_time
Batch = LiveBatch[str]

STEPS: list[Batch] = [
    LiveBatch(1, (Reset(("a", "b")),)),
    LiveBatch(2, (Insert(2, "c"),)),
    LiveBatch(3, (Remove(0, "a"), Update(0, "B"))),
]
SNAPSHOTS = [("a", "b"), ("a", "b", "c"), ("B", "c")]


class Live:
    """A live query that delivers what the test sends, and counts how often it is open."""

    def __init__(self) -> None:
        self.open = 0
        self.opened = 0
        self._sends: list[trio.MemorySendChannel[Batch | Exception]] = []

    def __call__(self) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        return self._subscribe()

    @asynccontextmanager
    async def _subscribe(self) -> AsyncGenerator[AsyncIterator[Batch]]:
        send, receive = trio.open_memory_channel[Batch | Exception](100)
        self._sends.append(send)
        self.open += 1
        self.opened += 1
        try:
            yield self._batches(receive)
        finally:
            self.open -= 1
            self._sends.remove(send)

    @staticmethod
    async def _batches(receive: trio.MemoryReceiveChannel[Batch | Exception]) -> AsyncGenerator[Batch]:
        async for item in receive:
            if isinstance(item, Exception):
                raise item
            yield item

    async def deliver(self, *items: Batch | Exception) -> None:
        await trio.testing.wait_all_tasks_blocked()
        for item in items:
            for send in list(self._sends):
                send.send_nowait(item)
        await trio.testing.wait_all_tasks_blocked()

    async def finish(self) -> None:
        for send in list(self._sends):
            send.close()
        await trio.testing.wait_all_tasks_blocked()


class Log(ObserverBase[Any]):
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self.errors: list[Exception] = []
        self.completed = 0

    def on_next(self, value: object) -> None:
        self.values.append(value)

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)

    def on_completed(self) -> None:
        self.completed += 1


async def test_snapshots_and_batches_until_disposed() -> None:
    live, snapshots, batches = Live(), Log(), Log()
    async with trio.open_nursery() as nursery:
        rows = observe_live(live, nursery, LoopGuard("the client"))
        await live.deliver()
        assert live.opened == 0  # cold
        first = rows.subscribe(snapshots)
        second = observe_batches(live, nursery, LoopGuard("the client")).subscribe(batches)
        await live.deliver(*STEPS)
        assert (snapshots.values, batches.values, live.open) == (SNAPSHOTS, STEPS, 2)
        first.dispose()
        await live.deliver(LiveBatch(4, (Reset(()),)))
        assert (snapshots.values, live.open) == (SNAPSHOTS, 1)
        second.dispose()
        await live.deliver()
        assert live.open == 0
        rows.subscribe(snapshots)
        await live.deliver(STEPS[0])
        assert (snapshots.values[-1], live.opened) == (SNAPSHOTS[0], 3)
        nursery.cancel_scope.cancel()
    assert (batches.errors, batches.completed) == ([], 0)


async def test_dispose_before_the_task_ran_tells_nothing() -> None:
    live, log = Live(), Log()
    async with trio.open_nursery() as nursery:
        observe_live(live, nursery, LoopGuard("the client")).subscribe(log).dispose()
        await live.deliver(*STEPS)
    assert (log.values, log.errors, log.completed, live.open) == ([], [], 0, 0)


async def test_an_observer_that_disposes_itself_stops_at_once() -> None:
    live, log = Live(), Log()
    async with trio.open_nursery() as nursery:
        observe_live(live, nursery, LoopGuard("the client")).pipe(ops.take(1)).subscribe(log)
        await live.deliver(*STEPS)
        assert live.open == 0
    assert (log.values, log.completed) == (SNAPSHOTS[:1], 1)


async def test_errors_and_ends_reach_every_observer() -> None:
    live, failed, finished = Live(), Log(), Log()
    error = StoreError("the disk is gone")
    async with trio.open_nursery() as nursery:
        observe_live(live, nursery, LoopGuard("the client")).subscribe(failed)
        await live.deliver(STEPS[0], error)
        observe_live(live, nursery, LoopGuard("the client")).subscribe(finished)
        await live.deliver(STEPS[0])
        await live.finish()
    assert (failed.values, failed.errors, failed.completed) == (SNAPSHOTS[:1], [error], 0)
    assert (finished.errors, finished.completed) == ([], 1)


async def test_an_observer_that_raises_loses_its_subscription_only(caplog: pytest.LogCaptureFixture) -> None:
    live, other = Live(), Log()
    async with trio.open_nursery() as nursery:
        observe_live(live, nursery, LoopGuard("the client")).subscribe(lambda rows: print(rows[5]))
        observe_live(live, nursery, LoopGuard("the client")).subscribe(other)
        with caplog.at_level(logging.ERROR, "atoma.rx"):
            await live.deliver(*STEPS)
        assert (other.values, live.open) == (SNAPSHOTS, 1)
        nursery.cancel_scope.cancel()
    assert caplog.text.count("failed and was unsubscribed") == 1


async def test_closing_the_nursery_tells_observers_that_it_is_over() -> None:
    live, log, late = Live(), Log(), Log()
    async with trio.open_nursery() as nursery:
        rows = observe_live(live, nursery, LoopGuard("the client"))
        rows.subscribe(log)
        await live.deliver(STEPS[0])
        nursery.cancel_scope.cancel()
    rows.subscribe(late)
    assert (log.errors, log.completed) == ([], 1)
    assert [type(error) for error in late.errors] == [ClosedError]
    with pytest.raises(ClosedError):
        rows.subscribe(log.on_next)  # nobody to tell
    assert live.open == 0


async def test_operators_on_virtual_time() -> None:
    live, log = Live(), Log()
    threads = threading.active_count()
    async with trio.open_nursery() as nursery, open_rx_scheduler(seeded_environment(1)) as scheduler:
        rows = observe_live(live, nursery, LoopGuard("the client"))
        both = rx.combine_latest(rows.pipe(ops.map(len)), rows.pipe(ops.debounce(5.0, scheduler)))
        handle = both.subscribe(log, scheduler=scheduler)
        await live.deliver(*STEPS)
        assert log.values == []
        await trio.sleep(6)
        assert (log.values, threading.active_count()) == ([(2, SNAPSHOTS[2])], threads)
        handle.dispose()
        await live.deliver()
        assert live.open == 0


async def test_a_channel_reads_an_observable_and_unsubscribes() -> None:
    live = Live()
    async with trio.open_nursery() as nursery:
        async with to_channel(observe_live(live, nursery, LoopGuard("the client"))) as channel:
            await live.deliver(*STEPS)
            assert [await anext(channel) for _ in STEPS] == SNAPSHOTS
            with trio.move_on_after(5) as scope:
                await anext(channel)
            assert scope.cancelled_caught
            await live.deliver(STEPS[0])
            assert await anext(channel) == SNAPSHOTS[0]  # the cancelled wait lost nothing
        await live.deliver()
        assert live.open == 0
        with pytest.raises(ClosedError):
            await anext(channel)


@pytest.mark.parametrize(
    ("overflow", "kept", "dropped"), [("drop_new", [0, 1, 2], 7), ("drop_old", [7, 8, 9], 7), ("latest", [9], 9)]
)
async def test_what_a_full_buffer_loses(overflow: Overflow, kept: list[int], dropped: int) -> None:
    async with to_channel(rx.range(0, 10), overflow=overflow, buffer=3) as channel:
        assert [value async for value in channel] == kept
        assert channel.dropped == dropped


async def test_a_full_buffer_ends_a_channel_that_may_lose_nothing() -> None:
    source: Subject[int] = Subject()
    async with to_channel(source, buffer=2) as channel:
        for number in range(5):
            source.on_next(number)
        assert (await anext(channel), await anext(channel)) == (0, 1)
        with pytest.raises(Overloaded, match="limit 2"):
            await anext(channel)
        assert source.observers == []


async def test_the_error_of_an_observable_comes_after_its_values() -> None:
    source = rx.concat(rx.of(1), rx.throw(StoreError("gone")))
    async with to_channel(source) as channel:
        assert await anext(channel) == 1
        with pytest.raises(StoreError, match="gone"):
            await anext(channel)


async def test_a_waiting_reader_gets_the_value_when_it_comes() -> None:
    async with open_rx_scheduler(seeded_environment(1)) as scheduler:
        began = trio.current_time()
        async with to_channel(rx.timer(30.0), scheduler=scheduler) as channel:
            assert [value async for value in channel] == [0]
        assert trio.current_time() - began == pytest.approx(30)


async def test_a_channel_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        async with to_channel(rx.never(), buffer=0):
            raise AssertionError


async def test_an_observable_of_another_thread_is_refused_loudly() -> None:
    source: Subject[int] = Subject()
    raised: list[BaseException] = []

    def emit() -> None:
        try:
            source.on_next(1)
        except ConfigurationError as error:
            raised.append(error)

    async with to_channel(source) as channel:
        thread = threading.Thread(target=emit)
        thread.start()
        thread.join()
        with pytest.raises(ConfigurationError, match="another thread"):
            await anext(channel)
    assert len(raised) == 1
