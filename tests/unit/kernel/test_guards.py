"""What remembers between requests, what waits, and what runs side by side."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma.contracts.events import BreakerChanged, RetryScheduled, StepFinished
from atoma.contracts.policy import Policy
from atoma.contracts.query import BoundQuery, Exists, Plan, Store
from atoma.errors import (
    ChannelBroken,
    CircuitOpen,
    ConflictError,
    ConnectFailed,
    NodeTimeout,
    Overloaded,
    RemoteError,
    ValidationError,
    WriteUnknown,
)
from atoma.kernel import (
    Backoff,
    KernelLimits,
    breaker,
    bulkhead,
    cache,
    fallback,
    hedge,
    node,
    parallel,
    race,
    refuse,
    retry,
    timeout,
)
from atoma.testing.queries import rows_of

pytestmark = pytest.mark.virtual_time

REMOTE = node("remote-test")


async def test_a_breaker_opens_probes_and_closes(open_house: Any) -> None:
    guarded = breaker(REMOTE, failures=3, window_s=60, cooldown_s=10)
    policy = Policy("guarded", guarded, guarded)
    degrade = Policy("degrade", fallback(guarded, node("local-query")), None)
    async with open_house(policy, degrade) as house:
        remote = house.nodes["remote-test"]
        remote.behaviour = [ConnectFailed("down")] * 4
        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await house.query("guarded")
        for _ in range(5):
            with pytest.raises(CircuitOpen, match="next probe in 10 s"):
                await house.write("guarded")
        assert len(remote.requests) == 3
        degraded = await house.query("degrade")
        assert [(step.node, step.outcome, step.note) for step in degraded.meta.path] == [
            ("remote-test", "skipped", "breaker open"),
            ("local-query", "ok", "fallback: CIRCUIT_OPEN"),
        ]
        await trio.sleep(10)
        with pytest.raises(ConnectFailed):
            await house.query("guarded")
        with pytest.raises(CircuitOpen):
            await house.query("guarded")
        await trio.sleep(10)
        assert (await house.query("guarded")).meta.path[0].note == "breaker half-open"
        await house.query("guarded")
        await wait_all_tasks_blocked()
        states = [event.state for event in house.told if isinstance(event, BreakerChanged)]
        assert states == ["open", "half-open", "open", "half-open", "closed"]


async def test_one_probe_at_a_time_and_a_cancelled_probe_says_nothing(open_house: Any) -> None:
    policy = Policy("guarded", breaker(REMOTE, failures=1, cooldown_s=10), None)
    async with open_house(policy) as house:
        remote = house.nodes["remote-test"]
        remote.behaviour = [ConnectFailed("down"), 60.0]
        with pytest.raises(ConnectFailed):
            await house.query("guarded")
        await trio.sleep(11)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.query, "guarded")
            await wait_all_tasks_blocked()
            with pytest.raises(CircuitOpen):
                await house.query("guarded")
            assert [guard.state for guard in house.kernel.guards()] == ["half-open"]
            nursery.cancel_scope.cancel()
        await house.query("guarded")
        assert house.kernel.guards()[0].state == "closed"


async def test_refusals_and_old_failures_do_not_open_a_breaker(open_house: Any) -> None:
    policy = Policy("guarded", breaker(REMOTE, failures=2, window_s=5), None)
    async with open_house(policy) as house:
        house.nodes["remote-test"].behaviour = [
            ConnectFailed("down"), ValidationError("no"), ConnectFailed("down"), 6.0, ConnectFailed("down"),
        ]  # fmt: skip
        for error in (ConnectFailed, ValidationError, ConnectFailed):
            with pytest.raises(error):
                await house.query("guarded")
        await house.query("guarded")
        with pytest.raises(ConnectFailed):
            await house.query("guarded")
        await trio.sleep(6)
        house.nodes["remote-test"].behaviour = [ConnectFailed("down")]
        with pytest.raises(ConnectFailed):
            await house.query("guarded")
        assert house.kernel.guards()[0].state == "closed"


async def test_a_bulkhead_bounds_what_runs_and_what_waits(open_house: Any) -> None:
    policy = Policy("narrow", bulkhead(REMOTE, 2, 3), None)
    async with open_house(policy) as house:
        remote = house.nodes["remote-test"]
        remote.behaviour = [1.0] * 5
        peak = 0
        ended: list[int] = []

        async def ask(number: int) -> None:
            nonlocal peak
            await house.query("narrow")
            peak = max(peak, remote.running + 1)
            ended.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ask, number)
                await wait_all_tasks_blocked()
            assert (house.kernel.guards()[0].running, house.kernel.guards()[0].waiting) == (2, 3)
            with pytest.raises(Overloaded):
                await house.query("narrow")
        assert peak == 2
        assert sorted(ended[:2]) == [0, 1] and sorted(ended[2:4]) == [2, 3] and ended[4] == 4
        assert house.kernel.guards()[0].state == "free"


async def test_a_cache_shares_what_is_recent_and_what_is_running(open_house: Any) -> None:
    policy = Policy("cached", cache(REMOTE, ttl_s=10), REMOTE)
    async with open_house(policy) as house:
        remote = house.nodes["remote-test"]
        remote.behaviour = [1.0]
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await house.query("cached"))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert len(remote.requests) == 1
        assert sorted(answer.meta.path[0].note for answer in answers) == ["", "shared", "shared", "shared"]
        assert {answer.meta.source for answer in answers} == {"remote"}
        assert (await house.query("cached")).meta.path[0].note == "cached"
        await house.query("cached", query=rows_of("things", limit=1))
        await house.query("cached", store="notes")
        assert len(remote.requests) == 3
        house.kernel.invalidate(["things"])
        await house.query("cached")
        await house.query("cached", store="notes")
        assert len(remote.requests) == 4
        await house.write("cached")
        await house.query("cached")
        assert len(remote.requests) == 6
        await trio.sleep(11)
        await house.query("cached")
        assert len(remote.requests) == 7


async def test_a_change_under_way_is_never_answered_from_before_it(open_house: Any) -> None:
    policy = Policy("cached", cache(REMOTE, ttl_s=10), REMOTE)
    async with open_house(policy) as house:
        house.nodes["remote-test"].behaviour = [1.0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.query, "cached")
            await wait_all_tasks_blocked()
            house.kernel.invalidate(["things"])
            assert (await house.query("cached")).meta.path[0].note == ""
        assert len(house.nodes["remote-test"].requests) == 2


async def test_when_the_one_that_asks_is_cancelled_another_asks(open_house: Any) -> None:
    policy = Policy("cached", cache(REMOTE, ttl_s=10), None)
    async with open_house(policy) as house:
        house.nodes["remote-test"].behaviour = [60.0, ConnectFailed("down")]
        scope = trio.CancelScope()
        errors: list[str] = []

        async def first() -> None:
            with scope:
                await house.query("cached")

        async def other() -> None:
            try:
                await house.query("cached")
            except ConnectFailed as error:
                errors.append(error.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await wait_all_tasks_blocked()
            nursery.start_soon(other)
            nursery.start_soon(other)
            await wait_all_tasks_blocked()
            scope.cancel()
        assert errors == ["CONNECT_FAILED"] * 2
        assert len(house.nodes["remote-test"].requests) == 2


@pytest.mark.parametrize("seed", range(5))
async def test_a_retry_waits_with_full_jitter_within_its_bounds(open_house: Any, seed: int) -> None:
    policy = Policy("again", retry(REMOTE, 6, Backoff(0.5, 2.0, 3.0)), None)
    async with open_house(policy, seed=seed) as house:
        house.nodes["remote-test"].behaviour = [ChannelBroken("lost")] * 5
        started = trio.current_time()
        read = await house.query("again")
        await wait_all_tasks_blocked()
        delays = [event.delay_s for event in house.told if isinstance(event, RetryScheduled)]
        source = random.Random(seed)
        assert delays == [source.random() * bound for bound in (0.5, 1.0, 2.0, 3.0, 3.0)]
        assert trio.current_time() - started == pytest.approx(sum(delays))
        assert [step.attempt for step in read.meta.path] == [1, 2, 3, 4, 5, 6]


async def test_a_retry_keeps_the_key_and_waits_as_long_as_it_is_told(open_house: Any) -> None:
    policy = Policy("again", None, retry(REMOTE, 3, Backoff(0.1)))
    async with open_house(policy) as house:
        remote = house.nodes["remote-test"]
        busy = RemoteError("later", remote_code="OVERLOADED", remote_retryable=True, retry_after_s=7)
        remote.behaviour = [busy, ChannelBroken("lost")]
        started = trio.current_time()
        await house.write("again")
        assert trio.current_time() - started >= 7
        assert [request.idem for request in remote.requests] == ["idem"] * 3
        remote.behaviour = [ChannelBroken("lost"), ConnectFailed("down"), ConnectFailed("down")]
        with pytest.raises(WriteUnknown):
            await house.write("again")
        remote.behaviour = [ChannelBroken("lost"), ConflictError("there already")]
        with pytest.raises(ConflictError):
            await house.write("again")


async def test_a_retry_does_not_begin_a_wait_that_the_budget_cannot_hold(open_house: Any) -> None:
    policy = Policy("again", timeout(retry(REMOTE, 3), 5), None)
    async with open_house(policy) as house:
        busy = RemoteError("later", remote_code="OVERLOADED", remote_retryable=True, retry_after_s=7)
        house.nodes["remote-test"].behaviour = [busy, busy]
        started = trio.current_time()
        with pytest.raises(RemoteError):
            await house.query("again")
        with pytest.raises(RemoteError), trio.fail_after(3):
            await house.query("direct-remote")
        assert trio.current_time() == started


async def test_a_budget_cancels_what_hangs(open_house: Any) -> None:
    policy = Policy("bounded", timeout(REMOTE, 2), timeout(REMOTE, 2))
    async with open_house(policy) as house:
        remote = house.nodes["remote-test"]
        remote.behaviour = [60.0, 60.0, 60.0]
        started = trio.current_time()
        with pytest.raises(NodeTimeout) as caught:
            await house.query("bounded")
        assert (caught.value.node, caught.value.seconds) == ("remote-test", 2)
        assert trio.current_time() - started == 2
        with pytest.raises(WriteUnknown) as unknown:
            await house.write("bounded")
        assert isinstance(unknown.value.__cause__, NodeTimeout)
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await house.query("bounded")
        assert remote.running == 0


async def test_parallel_steps_run_side_by_side(open_house: Any, make_node: Any) -> None:
    names = ("a", "b", "c")
    nodes = {name: make_node(name, remote=name == "c") for name in names}
    steps = [node(name) for name in names]
    policies = [
        Policy("all", parallel(*steps, answer="all"), parallel(*steps, answer="all")),
        Policy("two", parallel(*steps, answer=2), None),
        Policy("first", parallel(*steps), None),
        Policy("race", race(*steps), race(*steps)),
        Policy("hedge", hedge(*steps, delay_s=1), None),
    ]

    def script(*seconds: Any) -> None:
        for name, behaviour in zip(names, seconds, strict=True):
            nodes[name].behaviour = [behaviour]

    async with open_house(*policies, nodes=nodes) as house:
        for policy, lasts, source in (("all", 3, "remote"), ("two", 2, "local"), ("first", 1, "local")):
            script(1.0, 2.0, 3.0)
            started = trio.current_time()
            read = await house.query(policy)
            assert trio.current_time() - started == lasts
            assert read.meta.source == source
            assert read.rows[0].id == names[lasts - 1]
            assert sum(step.outcome == "ok" for step in read.meta.path) == lasts
            assert sum(step.outcome == "cancelled" for step in read.meta.path) == 3 - lasts
        script(ConnectFailed("down"), 2.0, 3.0)
        with pytest.raises(ConnectFailed):
            await house.query("all")
        script(ConnectFailed("down"), 2.0, 3.0)
        with pytest.raises(WriteUnknown):
            await house.write("all")
        script(ConnectFailed("down"), 2.0, 3.0)
        assert (await house.query("race")).rows[0].id == "b"
        script({"a"}, 2.0, 3.0)
        assert (await house.write("race")).status == "rejected"
        script(5.0, 0.5, 3.0)
        hedged = await house.query("hedge")
        assert [(step.node, step.outcome) for step in hedged.meta.path] == [("a", "cancelled"), ("b", "ok")]
        assert all(one.running == 0 for one in nodes.values())


async def test_direct_local_starts_no_task(open_house: Any) -> None:
    class Counting(trio.abc.Instrument):
        spawned = 0

        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            self.spawned += 1

    counting = Counting()
    async with open_house() as house:
        trio.lowlevel.add_instrument(counting)
        await house.query("direct-local")
        await house.write("direct-local")
        trio.lowlevel.remove_instrument(counting)
    assert counting.spawned == 0


async def test_of_two_that_end_at_once_the_trail_ends_with_the_one_that_answers(
    open_house: Any, make_node: Any
) -> None:
    nodes = {"near": make_node("near"), "far": make_node("far", remote=True)}
    policies = [
        Policy("race", race(node("near"), node("far")), None),
        Policy("one", parallel(node("near"), node("far"), answer=1), None),
    ]
    async with open_house(*policies, nodes=nodes) as house:
        for policy in ("race", "one") * 20:  # the scheduler's order is random
            nodes["near"].behaviour, nodes["far"].behaviour = [1.0], [1.0]
            read = await house.query(policy)
            good = [step.node for step in read.meta.path if step.outcome == "ok"]
            assert read.rows[0].id == good[-1]
            assert (read.meta.source == "remote") == (good[-1] == "far")


async def test_a_hedge_that_is_in_doubt_asks_nobody_else(open_house: Any, make_node: Any) -> None:
    names = ("a", "b", "c")
    nodes = {name: make_node(name, remote=True) for name in names}
    policy = Policy("hedge", None, hedge(*(node(name) for name in names), delay_s=1))
    async with open_house(policy, nodes=nodes) as house:
        nodes["a"].behaviour, nodes["b"].behaviour = [5.0], [ChannelBroken("lost")]
        assert (await house.write("hedge")).meta.path[-1].node == "a"
        nodes["a"].behaviour, nodes["b"].behaviour = [ChannelBroken("lost")], []
        with pytest.raises(WriteUnknown):
            await house.write("hedge")
        assert [len(nodes[name].requests) for name in names] == [2, 1, 0]


async def test_who_shares_a_failure_is_told_its_own_code(open_house: Any) -> None:
    policy = Policy("cached", cache(REMOTE, ttl_s=10), None)
    async with open_house(policy) as house:
        down = RemoteError("later", remote_code="UNAVAILABLE", remote_retryable=True)
        house.nodes["remote-test"].behaviour = [down]

        async def ask() -> None:
            with pytest.raises(RemoteError):
                await house.query("cached")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        ends = [(one.outcome, one.error) for one in house.told if isinstance(one, StepFinished)]
        assert ends == [("failed", "UNAVAILABLE")] * 2
        assert len(house.nodes["remote-test"].requests) == 1


async def test_a_guard_is_named_after_its_nodes_only(open_house: Any) -> None:
    policy = Policy("narrow", bulkhead(fallback(REMOTE, refuse("closed")), 1), None)
    async with open_house(policy) as house:
        await house.query("narrow")
        assert [guard.node for guard in house.kernel.guards()] == ["remote-test"]


async def test_a_query_that_was_pushed_out_of_a_cache_takes_nobody_along(open_house: Any) -> None:
    policy = Policy("cached", cache(REMOTE, ttl_s=10), None)
    async with open_house(policy, limits=KernelLimits(cached=1)) as house:
        remote = house.nodes["remote-test"]
        remote.behaviour = [trio.Event(), trio.Event(), trio.Event()]
        first, other, again = remote.behaviour
        scope = trio.CancelScope()

        async def leave() -> None:
            with scope:
                await house.query("cached")

        async def ask(store: str) -> None:
            await house.query("cached", store=store)

        async with trio.open_nursery() as nursery:
            for work in (leave, partial(ask, "notes"), partial(ask, "things"), partial(ask, "things")):
                nursery.start_soon(work)
                await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, "things")
            await wait_all_tasks_blocked()
            assert len(remote.requests) == 3, "the one that runs is shared, whoever began before it has left"
            for gate in (first, other, again):
                gate.set()


async def test_who_is_turned_away_by_a_bulkhead_says_nothing_to_a_breaker(open_house: Any) -> None:
    narrow = bulkhead(REMOTE, 1)
    guarded = Policy("guarded", breaker(narrow, failures=2, cooldown_s=10), None)
    async with open_house(guarded, Policy("beside", narrow, None)) as house:
        remote = house.nodes["remote-test"]

        async def turned_away(while_busy: str) -> str:
            """The breaker's state after some were turned away while one was being served."""
            gate = trio.Event()
            remote.behaviour = [gate]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.query, while_busy)
                await wait_all_tasks_blocked()
                for _ in range(5):
                    with pytest.raises(Overloaded):
                        await house.query("guarded")
                state: str = house.kernel.guards()[0].state
                gate.set()
            return state

        assert await turned_away("guarded") == "closed"
        remote.behaviour = [ConnectFailed("down"), ConnectFailed("down")]
        for _ in range(2):
            with pytest.raises(ConnectFailed):
                await house.query("guarded")
        assert house.kernel.guards()[0].state == "open"
        await trio.sleep(10)
        assert await turned_away("beside") == "half-open", "a probe that was not made is still to be made"
        assert (await house.query("guarded")).meta.path[0].note == "breaker half-open"
        assert house.kernel.guards()[0].state == "closed"


async def test_a_cached_answer_from_several_stores_goes_when_one_of_them_changes(open_house: Any) -> None:
    policy = Policy("cached", cache(REMOTE, ttl_s=10), REMOTE)
    among = Exists(Plan(Store("notes")))
    async with open_house(policy) as house:
        remote = house.nodes["remote-test"]
        for changed, asked in (((), 1), ((), 1), (["notes"], 2), (["things"], 3), (["others"], 3)):
            house.kernel.invalidate(changed)
            await house.query("cached", query=BoundQuery(Plan(Store("things"), where=among)))
            assert len(remote.requests) == asked
