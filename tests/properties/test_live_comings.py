"""Live queries with everything at once: large and small commits, readers that come and go in the middle of a round, and little memory.

The clock is drawn as well, so that changes are taken or read by chance, whatever the machine: what a reader has must be what
the reference answers at the commit that its batch names.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from types import ModuleType

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings

from atoma.contracts.query import Expr, Lit, Param, Plan
from atoma.errors import QueryError
from atoma.ports import LocalTx
from atoma.ports.environment import seeded_environment
from atoma.query.walk import changed
from atoma_stores.live.dispatch import LocalLiveQueries
from atoma_stores.live.source import LiveSource
from atoma_stores.sqlite.engine import SQLiteEngine
from tests.properties.live_plans import FIRST, GENERATED, SCHEMA, Write, bound
from tests.properties.test_live_oracle import REAL, OpenLiveQueries, assert_at_least, mutant, open_real, tight
from tests.properties.test_live_plans import TIGHT, History, Overtaken, Reader, put

pytestmark = pytest.mark.virtual_time

SIZES = (1, 1, 2, 4, 6, 9, 12, 20, 40)
"""How many rows a commit writes, below and above every number at which live queries go on in another way."""
CARDS, REMARKS = 14, 24
TICKS = ((0.0,), (0.0, 1e-7, 1e-6, 1e-5), (0.0, 1e-6, 1e-5, 1e-3))
"""By how much the clock moves between two looks at it."""
PLENTY = 10**9
TEXTS = ("a", "b", "c", "k0", "k1", "x", "y")


def written(dice: random.Random) -> Write:
    kind, gone = dice.random(), dice.random() < 0.3
    person = dice.choice([None, "p0", "p1", "p2"])
    if kind < 0.5:
        card = {
            "lane": dice.choice([None, "a", "b", "c"]),
            "size": dice.choice([None, 0, 1, 2, 3]),
            "note": dice.randint(0, 1),
            "load": dice.choice([None, 0.1, 0.2, 1e16, float("inf")]),
            "owner": person,
        }
        return "cards", dice.randrange(CARDS), None if gone else card
    if kind < 0.9:
        of = dice.choice([None, "k0", "k0", *[f"k{number}" for number in range(6)], f"k{CARDS - 1}"])
        remark = {"card": of, "made": dice.randint(0, 3), "by": person}
        return "remarks", dice.randrange(REMARKS), None if gone else remark
    return "people", dice.randrange(3), None if gone else {"team": dice.choice([None, "x", "y"])}


def varied(plan: Plan, dice: random.Random) -> Plan:
    """``plan`` with other values, where it is a plan with them: another of its shape."""

    def other(leaf: Lit | Param) -> Expr:
        if not isinstance(leaf, Lit) or leaf.value not in (0, 1, 2, *TEXTS):
            return leaf
        return Lit(leaf.type, dice.choice(TEXTS if isinstance(leaf.value, str) else (0, 1, 2)))

    found = changed(plan, other)
    with suppress(QueryError):
        bound(found)
        return found
    return plan


class Comings:
    """Readers that come and go while rows are written."""

    def __init__(
        self,
        live: LocalLiveQueries,
        plans: Mapping[str, Plan],
        history: History,
        dice: random.Random,
        seen: Counter[str],
    ) -> None:
        self._live, self._plans, self._history, self._dice, self._seen = live, plans, history, dice, seen
        self._readers: dict[Reader, trio.CancelScope] = {}

    async def come(self, steps: int) -> None:
        """Follow one of the plans from ``steps`` steps of the loop on, until :meth:`go`."""
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        name = self._dice.choice(list(self._plans))
        plan = self._plans[name]
        if self._dice.random() < 0.6:
            plan = varied(plan, self._dice)
        reader = Reader(name, plan, self._history, self._seen)
        with trio.CancelScope() as scope:
            async with self._live.open_live(reader.query) as batches:
                self._readers[reader] = scope
                await reader.run(batches)

    def go(self) -> None:
        """Somebody leaves."""
        if self._readers:
            _, scope = self._readers.popitem()
            scope.cancel()

    def check(self) -> None:
        """Everybody has the result."""
        for reader in self._readers:
            assert reader.batches, f"who has come still waits: {reader.query}"
            assert reader.rows == reader.expected(self._history.commit), reader.query
            self._seen["checks"] += 1


async def scenario(
    seed: int, plans: Mapping[str, Plan], lag: int, memory: int, open_live: OpenLiveQueries, seen: Counter[str]
) -> None:
    dice, history, now = random.Random(seed), History(), 0.0
    ticks = dice.choice(TICKS)

    def clock() -> float:
        nonlocal now
        now += dice.choice(ticks)
        return now

    async with AsyncExitStack() as stack:
        opening = SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset())
        database = await stack.enter_async_context(opening)
        database.subscribe_commits(history.hear)
        await database.apply(partial(put, FIRST))
        source: LiveSource = Overtaken(database, history, lag, seen) if lag else database
        live = await stack.enter_async_context(open_live(source, SCHEMA, clock=clock, memory=memory))
        nursery = await stack.enter_async_context(trio.open_nursery())
        comings = Comings(live, plans, history, dice, seen)
        for _ in range(4):
            nursery.start_soon(comings.come, 0)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(dice.randint(2, 6)):
            for _ in range(dice.choice([1, 1, 2, 3])):
                await database.apply(partial(rows_of_chance, dice, dice.choice(SIZES)))
                if dice.random() < 0.4:
                    nursery.start_soon(comings.come, dice.randint(0, 12))
                if dice.random() < 0.15:
                    comings.go()
                for _ in range(dice.choice([0, 0, 1, 3, 8])):
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            comings.check()
        for stats in live.stats():
            seen[f"tier {stats.tier}"] += 1
            seen["read again"] += stats.reads - 1
            seen["little memory"] += "memory" in stats.reason
        nursery.cancel_scope.cancel()


def rows_of_chance(dice: random.Random, count: int, tx: LocalTx) -> None:
    put([written(dice) for _ in range(count)], tx)


def search(
    plans: st.SearchStrategy[Mapping[str, Plan]],
    open_live: OpenLiveQueries,
    examples: int,
    *,
    modules: Mapping[str, ModuleType] = REAL,
    fixed: bool = True,
) -> Counter[str]:
    """Try ``examples`` random histories and count what happened in them."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=fixed,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        st.integers(0, 2**32),
        plans,
        st.sampled_from([0, 0, 2, 5]),
        st.booleans(),
        st.sampled_from([PLENTY, PLENTY, 3_000, 500]),
    )
    def run(seed: int, given: Mapping[str, Plan], lag: int, low: bool, memory: int) -> None:
        with ExitStack() as bounds:
            if low:
                bounds.enter_context(tight(modules, TIGHT))
            try:
                clock = trio.testing.MockClock(autojump_threshold=0)
                trio.run(scenario, seed, given, lag, memory, open_live, seen, clock=clock)
            except BaseExceptionGroup as group:
                failure: BaseException = group
                while isinstance(failure, BaseExceptionGroup):
                    failure = failure.exceptions[0]
                raise failure from None

    run()
    return seen


@pytest.mark.parametrize("kind", GENERATED)
def test_whoever_comes_and_goes_has_the_result(kind: str) -> None:
    assert_at_least(search(GENERATED[kind], open_real, 8), {"checks": 60, "Insert": 15, "Remove": 15, "read again": 5})


@pytest.mark.soak
@pytest.mark.parametrize("kind", GENERATED)
def test_whoever_comes_and_goes_has_the_result_for_long(kind: str) -> None:
    assert_at_least(search(GENERATED[kind], open_real, 2_000, fixed=False), {"checks": 10_000, "little memory": 100})


@pytest.mark.soak
def test_that_who_comes_while_others_are_told_is_not_woken_is_found() -> None:
    planted = (
        "dispatch",
        "woken = list(chain.from_iterable([view.subscriptions for view in ready]))",
        "woken = [each for each in chain.from_iterable([view.subscriptions for view in ready]) if not each._behind]",
    )
    with mutant(*planted) as loaded, pytest.raises(AssertionError):
        for kind in GENERATED:
            search(GENERATED[kind], loaded["dispatch"].open_live_queries, 300, modules=loaded)
