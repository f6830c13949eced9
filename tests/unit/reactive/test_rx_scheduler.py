"""reactivex on Trio's clock: its time operators, virtual time, bounds, closing."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

import pytest
import reactivex as rx
import trio
from reactivex import operators as ops
from reactivex.subject import Subject

from atoma.errors import ClosedError, Overloaded
from atoma.ports.environment import Environment, seeded_environment
from atoma.runtime.rx_scheduler import open_rx_scheduler

pytestmark = pytest.mark.virtual_time
ENVIRONMENT: Environment = seeded_environment(1)


async def test_debounce_emits_the_last_value_of_a_burst() -> None:
    seen: list[tuple[float, str]] = []
    async with open_rx_scheduler(ENVIRONMENT) as scheduler:
        source: Subject[str] = Subject()
        began = trio.current_time()
        source.pipe(ops.debounce(1.0, scheduler)).subscribe(lambda x: seen.append((trio.current_time() - began, x)))
        for burst in ("abc", "de"):
            for letter in burst:
                source.on_next(letter)
                await trio.sleep(0.5)
            await trio.sleep(10)
    assert [(round(at, 3), letter) for at, letter in seen] == [(2.0, "c"), (13.0, "e")]


async def test_sample_and_combine_latest_follow_virtual_time() -> None:
    sampled: list[int] = []
    pairs: list[tuple[int, int]] = []
    async with open_rx_scheduler(ENVIRONMENT) as scheduler:
        fast = rx.interval(0.1, scheduler)
        fast.pipe(ops.sample(1.0, scheduler), ops.take(3)).subscribe(sampled.append)
        rx.combine_latest(rx.timer(1.0, 2.0, scheduler), rx.timer(2.5, 2.0, scheduler)).pipe(ops.take(4)).subscribe(
            pairs.append
        )
        await trio.sleep(60)
    assert [abs(value - expected) <= 1 for value, expected in zip(sampled, (9, 19, 29), strict=True)] == [True] * 3
    assert pairs == [(0, 0), (1, 0), (1, 1), (2, 1)]


async def test_an_hour_of_ticks_starts_no_thread_and_keeps_time() -> None:
    threads = threading.active_count()
    ticks: list[float] = []
    async with open_rx_scheduler(ENVIRONMENT) as scheduler:
        began = trio.current_time()
        handle = rx.interval(60, scheduler).subscribe(lambda _: ticks.append(trio.current_time() - began))
        await trio.sleep(3600.5)
        handle.dispose()
        await trio.sleep(600)
        assert threading.active_count() == threads
    assert ticks == [pytest.approx(60.0 * (n + 1), abs=1e-3) for n in range(60)]


async def test_the_subscription_scheduler_serves_operators_without_their_own() -> None:
    threads = threading.active_count()
    seen: list[int] = []
    async with open_rx_scheduler(ENVIRONMENT) as scheduler:
        rx.of(1, 2, 3).pipe(ops.delay(5.0)).subscribe(seen.append, scheduler=scheduler)
        await trio.sleep(4.9)
        assert (seen, threading.active_count()) == ([], threads)
        await trio.sleep(0.2)
    assert seen == [1, 2, 3]


async def test_actions_run_in_the_order_of_their_time() -> None:
    seen: list[str] = []
    async with open_rx_scheduler(ENVIRONMENT) as scheduler:
        for name, seconds in (("c", 3.0), ("a", 1.0), ("b", timedelta(seconds=2)), ("0", 0), ("b2", 2.0)):
            scheduler.schedule_relative(seconds, lambda _, state: seen.append(str(state)), name)
        scheduler.schedule_absolute(scheduler.now + timedelta(seconds=2.5), lambda *_: seen.append("abs"))
        assert seen == []  # never before schedule returns
        await trio.sleep(10)
    assert seen == ["0", "a", "b", "b2", "abs", "c"]


async def test_now_is_the_environments_wall_clock_on_trios_time() -> None:
    async with open_rx_scheduler(ENVIRONMENT) as scheduler:
        before = scheduler.now
        assert before.timestamp() * 1000 == pytest.approx(ENVIRONMENT.wall_ms(), abs=2)
        await trio.sleep(90)
        assert scheduler.now - before == timedelta(seconds=90)


async def test_a_disposed_action_never_runs_and_is_forgotten() -> None:
    seen: list[int] = []
    async with open_rx_scheduler(ENVIRONMENT, limit=10) as scheduler:
        for number in range(10_000):  # as debounce does it: schedule, dispose, schedule
            scheduler.schedule_relative(3600, lambda *_: seen.append(1)).dispose()
            assert scheduler.held <= 100, number
        await trio.sleep(4000)
    assert seen == []


async def test_more_waiting_actions_than_the_limit_are_refused() -> None:
    async with open_rx_scheduler(ENVIRONMENT, limit=3) as scheduler:
        handles = [scheduler.schedule_relative(5, lambda *_: None) for _ in range(3)]
        with pytest.raises(Overloaded):
            scheduler.schedule(lambda *_: None)
        handles[0].dispose()
        scheduler.schedule(lambda *_: None)
        await trio.sleep(6)
        handles[1].dispose()  # after it ran: nothing to take back
        for _ in range(3):
            scheduler.schedule_relative(5, lambda *_: None)
        with pytest.raises(Overloaded):
            scheduler.schedule(lambda *_: None)


async def test_an_action_that_raises_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    async with open_rx_scheduler(ENVIRONMENT) as scheduler:
        with caplog.at_level(logging.ERROR, "atoma.rx"):
            scheduler.schedule_relative(1, lambda *_: [].pop())
            rx.timer(2.0, scheduler=scheduler).subscribe(seen.append)
            await trio.sleep(3)
    assert seen == [0]
    assert "an action of the reactivex scheduler failed" in caplog.text


async def test_a_flood_of_actions_lets_other_tasks_run() -> None:
    turns = 0

    async with open_rx_scheduler(ENVIRONMENT) as scheduler:
        stop = False

        def again(*_: object) -> None:
            if not stop:
                scheduler.schedule(again)

        for _ in range(100):
            scheduler.schedule(again)
        for _ in range(50):
            await trio.lowlevel.checkpoint()
            turns += 1
        stop = True
    assert turns == 50


async def test_after_closing_nothing_can_be_scheduled() -> None:
    async with open_rx_scheduler(ENVIRONMENT) as scheduler:
        handle = scheduler.schedule_relative(1, lambda *_: None)
    with pytest.raises(ClosedError):
        scheduler.schedule(lambda *_: None)
    handle.dispose()


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_rx_scheduler(ENVIRONMENT):
            raise ZeroDivisionError
