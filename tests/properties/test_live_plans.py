"""Live queries over every shape of a plan: after each commit what the reader has is what the reference answers."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings
from msgspec.structs import replace

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import (
    BoundQuery,
    Plan,
)
from atoma.contracts.raw import Question
from atoma.contracts.values import StoredRow
from atoma.ports import LocalTx, apply_batch
from atoma.ports.environment import seeded_environment
from atoma.query.evaluate import evaluate
from atoma.query.functions import AGGREGATED
from atoma_stores.changes import CommitDelta
from atoma_stores.live.rows import key_of_rows
from atoma_stores.live.source import LiveSource, Snapshot
from atoma_stores.sqlite.engine import SQLiteEngine, SQLiteLocalDatabase
from tests.properties.live_plans import FIRST, GENERATED, PLANS, PREFIXES, SCHEMA, Write, bound, scripts
from tests.properties.test_live_oracle import (
    ASKED_MAX,
    REAL,
    OpenLiveQueries,
    assert_at_least,
    mutant,
    open_real,
    text_of,
    tight,
)
from tests.properties.test_live_oracle import TIGHT as LOW

pytestmark = pytest.mark.virtual_time


class History:
    """The rows of each store after each commit, kept from the change sets alone."""

    def __init__(self) -> None:
        self.commit = 0
        self._tables: dict[str, dict[str, StoredRow]] = {store: {} for store in PREFIXES}
        self._at: dict[int, dict[str, list[StoredRow]]] = {0: {store: [] for store in PREFIXES}}

    def hear(self, change: CommitDelta) -> None:
        for store, delta in change.changes.items():
            for key, (_, new) in delta.items():
                self._tables[store].pop(key, None)
                if new is not None:
                    self._tables[store][key] = new
        self.commit = change.commit
        self._at[change.commit] = {store: list(rows.values()) for store, rows in self._tables.items()}

    def answer(self, query: BoundQuery, commit: int) -> tuple[Any, ...]:
        """What the reference answers at ``commit``."""
        return tuple(evaluate(query, self._at[commit]))


class Overtaken:
    """The database as slow readers with a snapshot see it, so that commits overtake them.

    What they read is what the reference makes of the rows as they were at the commit that they hold.
    """

    def __init__(self, database: SQLiteLocalDatabase, history: History, lag: int, seen: Counter[str]) -> None:
        self.subscribe_commits, self.hear_others = database.subscribe_commits, database.hear_others
        self.commit = 0
        self._history, self._lag, self._seen = history, lag, seen
        self._asked = 0

    @asynccontextmanager
    async def open_snapshot(self) -> AsyncIterator[Snapshot]:
        self.commit = self._history.commit
        await self._wait()
        yield self

    async def answer(self, queries: Sequence[Question]) -> Sequence[QueryResult]:
        await self._wait()
        self._asked += 1
        assert self._asked < ASKED_MAX, "it reads again and again"
        self._seen["overtaken"] += self._history.commit > self.commit
        results = [self._answered(query) for query in queries]
        await self._wait()
        return results

    def _answered(self, query: Question) -> QueryResult:
        assert isinstance(query, BoundQuery)
        found = tuple(map(copied, self._history.answer(query, self.commit)))
        return QueryResult(found) if query.plan.whole_rows else QueryResult((), found)

    async def _wait(self) -> None:
        for _ in range(self._lag):
            await trio.lowlevel.checkpoint()


def copied(row: Any) -> Any:
    """A row as a reader decodes it: other objects."""
    if isinstance(row, StoredRow):
        return replace(row, image=dict(row.image))
    return tuple(map(copied, cast("tuple[object, ...]", row))) if isinstance(row, tuple) else row


class Reader:
    """Follows one query; each batch has to lead to what the reference answers at its commit."""

    def __init__(self, name: str, plan: Plan, history: History, seen: Counter[str]) -> None:
        self.query = bound(plan)
        self.rows: tuple[Any, ...] = ()
        self.batches = 0
        self._key_of = key_of_rows(self.query.plan)
        self._name, self._history, self._seen = name, history, seen

    def expected(self, commit: int) -> tuple[Any, ...]:
        return self._history.answer(self.query, commit)

    async def run(self, batches: Any) -> None:
        async for batch in batches:
            had = self.rows
            self.rows = apply_batch(self.rows, batch)
            expected = self.expected(batch.commit)
            assert self.rows == expected, f"{self._name} at commit {batch.commit}: {self.query}"
            assert types_of(self.rows) == types_of(expected), self._name
            before = {self._key_of(row): row for row in had}
            objects = set(map(id, stored(had)))
            for row in self.rows:
                parts = list(stored(before.get(self._key_of(row))))
                known = {(part.id, part.version) for part in parts}
                assert all((part.id, part.version) not in known or id(part) in objects for part in stored(row)), (
                    "an unchanged row within a row is another object"
                )
            for row in self.rows:
                same = [old for old in had if old == row]  # more than one where nothing tells rows apart
                assert not same or self.rows.count(row) > 1 or any(old is row for old in same), (
                    "an unchanged row is another object"
                )
            self.batches += 1
            self._seen[self._name] += bool(self.rows) and self.batches > 1
            for change in batch.changes if self.batches > 1 else ():
                self._seen[type(change).__name__] += 1


def stored(row: object) -> Iterator[StoredRow]:
    """Every row of a store that a result is made of."""
    if isinstance(row, StoredRow):
        yield row
    elif isinstance(row, tuple):
        for part in cast("tuple[object, ...]", row):
            yield from stored(part)


def types_of(row: object) -> object:
    return tuple(map(types_of, cast("tuple[object, ...]", row))) if isinstance(row, tuple) else type(row)


def put(given: list[Write], tx: LocalTx) -> None:
    for store, number, image in given:
        tx.rows.put(store, f"{PREFIXES[store]}{number}", "main", image)


async def scenario(
    script: list[Any], plans: Mapping[str, Plan], lag: int, open_live: OpenLiveQueries, seen: Counter[str]
) -> None:
    history = History()
    async with AsyncExitStack() as stack:
        engine = SQLiteEngine(":memory:")
        database = await stack.enter_async_context(engine.open_database(SCHEMA, seeded_environment(1), frozenset()))
        database.subscribe_commits(history.hear)
        await database.apply(partial(put, FIRST))
        source: LiveSource = Overtaken(database, history, lag, seen) if lag else database
        live = await stack.enter_async_context(open_live(source, SCHEMA))
        nursery = await stack.enter_async_context(trio.open_nursery())
        readers = [Reader(name, plan, history, seen) for name, plan in plans.items()]
        for reader in readers:
            nursery.start_soon(reader.run, await stack.enter_async_context(live.open_live(reader.query)))
        await trio.testing.wait_all_tasks_blocked()
        for burst in script:
            before = [(reader.rows, reader.batches) for reader in readers]
            for given, pause in burst:
                await database.apply(partial(put, given))
                for _ in range(pause):
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            for reader, (rows, batches) in zip(readers, before, strict=True):
                assert reader.rows == reader.expected(history.commit), reader.query
                fresh = await database.read(reader.query)
                assert reader.rows == (fresh.rows or fresh.tuples)
                assert len(burst) > 1 or reader.batches - batches == (reader.rows != rows), (
                    "one batch for a commit that changes the result"
                )
                seen["checks"] += 1
        for stats in live.stats():
            seen["skipped"] += stats.skipped
            seen[f"tier {stats.tier}"] += 1
            seen["read again"] += stats.reads - 1
            seen["taken"] += stats.evaluations - stats.reads
        nursery.cancel_scope.cancel()


def search(
    plans: st.SearchStrategy[Mapping[str, Plan]],
    open_live: OpenLiveQueries,
    examples: int,
    *phases: Phase,
    lags: Sequence[int] = (2, 5, 2, 5, 0),
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
        phases=phases or (Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(scripts, plans, st.sampled_from(lags))
    def run(script: list[Any], given: Mapping[str, Plan], lag: int) -> None:
        try:
            trio.run(scenario, script, given, lag, open_live, seen, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseExceptionGroup as group:
            failure: BaseException = group
            while isinstance(failure, BaseExceptionGroup):
                failure = failure.exceptions[0]
            raise failure from None

    run()
    return seen


TIGHT: Mapping[str, Mapping[str, int]] = {
    **LOW,
    "operators.aggregates": {"EXTREMES": 1},
    "operators.groups": {"READS": 1},
}
"""Bounds so low that what they bound happens all the time."""


def test_every_shape_of_a_plan_is_followed() -> None:
    seen = search(st.just(PLANS), open_real, 40, lags=(0,))
    assert {name: seen[name] for name in PLANS if seen[name] < 10} == {}
    assert seen["skipped"] > 50


EXAMPLES: Mapping[str, int] = {
    "of one store": 30,
    "with children": 20,
    "kept beside": 25,
    "with subqueries": 20,
    "joined": 20,
}
SHOWN = {"checks": 150, "Insert": 12, "Remove": 25, "Update": 16, "skipped": 35}
LEAST: Mapping[str, Mapping[str, int]] = {
    "of one store": {**SHOWN, "tier 0": 35},
    "with children": {**SHOWN, "tier 1": 25, "overtaken": 5},
    "kept beside": {**SHOWN, "tier 0": 50, "taken": 100, "read again": 20, "overtaken": 5},
    "with subqueries": {**SHOWN, "tier 1": 25, "overtaken": 5},
    "joined": {**SHOWN, "tier 1": 25, "overtaken": 5},
}
"""What has to happen, so that it was worth something."""


@pytest.mark.parametrize("kind", GENERATED)
def test_what_is_generated_is_followed(kind: str) -> None:
    assert_at_least(search(GENERATED[kind], open_real, EXAMPLES[kind]), LEAST[kind])


@pytest.mark.parametrize("kind", GENERATED)
def test_it_is_where_every_bound_is_low(kind: str) -> None:
    with tight(REAL, TIGHT):
        seen = search(GENERATED[kind], open_real, EXAMPLES[kind])
    assert_at_least(seen, {**LEAST[kind], "read again": 1})


@pytest.mark.soak
@pytest.mark.parametrize("kind", GENERATED)
@pytest.mark.parametrize("bounds", [{}, TIGHT], ids=["as they are", "low"])
def test_it_is_followed_for_long(kind: str, bounds: Mapping[str, Mapping[str, int]]) -> None:
    with tight(REAL, bounds):
        seen = search(GENERATED[kind], open_real, 2_000, fixed=False)
    assert_at_least(seen, LEAST[kind])


# aggregates by themselves

numbers = st.one_of(st.integers(-3, 3), st.integers(-3, 3), st.integers(2**55, 2**55 + 3))
reals = st.sampled_from([0.1, 0.2, -0.0, 1e16, -1e16, 1e-300, float("inf"), float("-inf")])
turns = st.tuples(st.booleans(), st.integers(0, 30))


def search_aggregates(aggregates: types.ModuleType, examples: int) -> Counter[str]:
    """Let values come and go, and compare with what they give by themselves."""
    seen: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, phases=(Phase.generate,))
    @given(
        st.sampled_from(["count", "sum", "avg", "min", "max"]),
        st.booleans(),
        st.one_of(st.lists(numbers, min_size=2, max_size=8), st.lists(reals, min_size=2, max_size=8)),
        st.lists(turns, min_size=15, max_size=40),
    )
    def run(fn: str, distinct: bool, pool: list[Any], script: list[tuple[bool, int]]) -> None:
        found = aggregates.MAKE[fn]()
        if distinct and fn not in ("min", "max"):
            found = aggregates.Distinct(found)
        present: list[Any] = []
        for comes, at in script:
            value = pool[at % len(pool)]
            if comes:
                times = 1 + at % 2
                found.add(value, times)
                present += [value] * times
            elif present:
                found.remove(present.pop(at % len(present)))
            if isinstance(found, aggregates.Extreme) and found.lacks:
                values = sorted(set(present), reverse=fn == "max")[: aggregates.EXTREMES]
                found.read([(value, present.count(value)) for value in values])
                seen["read"] += 1
            wanted = AGGREGATED[fn](list(dict.fromkeys(present)) if distinct else present)
            assert (found.value, type(found.value)) == (wanted, type(wanted))
            seen["checks"] += 1

    run()
    return seen


def test_an_aggregate_follows_what_comes_and_goes() -> None:
    with tight(REAL, {"operators.aggregates": {"EXTREMES": 1}}):
        seen = search_aggregates(REAL["operators.aggregates"], 150)
    assert_at_least(seen, {"checks": 2_000, "read": 5})


# the oracle is worth what it finds

MUTANTS: Mapping[str, tuple[str, str, str, str]] = {
    "what leaves a group stays in its sum": ("aggregates", "operators.aggregates", "self.add(value, -1)", "pass"),
    "what leaves a group is still counted": ("aggregates", "operators.aggregates", "self.value -= 1", "pass"),
    "a sum of reals is rounded at every step": (
        "aggregates",
        "operators.aggregates",
        "self._sum += times * (numerator << (_DIGITS + 1 - denominator.bit_length()))",
        "self._sum = int((self._sum / (1 << _DIGITS) + times * value) * 2.0**500) << (_DIGITS - 500)",
    ),
    "an infinity that has left stays": (
        "aggregates",
        "operators.aggregates",
        "self._above += times * (value > 0)",
        "self._above += abs(times) * (value > 0)",
    ),
    "the extreme that was there first is kept": (
        "aggregates",
        "operators.aggregates",
        "del self._values[bisect_left(self._values, value)]",
        "self._values = self._values if len(self._values) == 1 else [v for v in self._values if v != value]",
    ),
    "an extreme that has left has no successor": (
        "aggregates",
        "operators.aggregates",
        "return not self._values and not self._whole",
        "return False",
    ),
    "what is worse than the extremes that are kept is taken for the next one": (
        "aggregates",
        "operators.aggregates",
        "elif self._whole or (self._values and self._is_inside(value)):",
        "elif True:",
    ),
    "the least is the greatest": (
        "aggregates",
        "operators.aggregates",
        "value > self._values[0] if",
        "value < self._values[0] if",
    ),
    "extremes that were read are all there are": (
        "aggregates",
        "operators.aggregates",
        "self._whole = len(self._values) < EXTREMES",
        "self._whole = True",
    ),
    "equal values count as often as they are there": (
        "aggregates",
        "operators.aggregates",
        "if value not in self._counts:\n            self._inner.add",
        "if True:\n            self._inner.add",
    ),
    "a different value leaves with the first that had it": (
        "aggregates",
        "operators.aggregates",
        "if not self._counts[value]:\n            del self._counts[value]\n",
        "if True:\n",
    ),
    "a group without rows stays": ("of one store", "operators.groups", "if not group.rows and not", "if False and not"),
    "a group of everything goes with its last row": (
        "of one store",
        "operators.groups",
        "if not group.rows and not self._grouping.is_one:",
        "if not group.rows:",
    ),
    "having is asked of no group": (
        "of one store",
        "operators.groups",
        "if self._having is not None and",
        "if False and",
    ),
    "a row that changes its group stays in the old one": (
        "of one store",
        "operators.groups",
        "if old is not None:\n            self._remove(old)",
        "if old is not None and (new is None or new[0] == old[0]):\n            self._remove(old)",
    ),
    "groups behind the page are forgotten": (
        "of one store",
        "operators.groups",
        "if self.page.window.lacks:",
        "if False:",
    ),
    "the condition of an aggregate is forgotten": (
        "of one store",
        "operators.grouping",
        "return value if agg.where is None else",
        "return value if True else",
    ),
    "the values of another group are read": (
        "of one store",
        "operators.grouping",
        'Call("is_null", (expr,)) if own is None else Call("eq", (expr, Lit(kind, own)))',
        'Call("is_null", (expr,)) if own is None else Call("not", (Call("is_null", (expr,)),))',
    ),
    "rows that are equal are counted once": (
        "of one store",
        "operators.groups",
        "self._add(each[:-1], each[-1])",
        "self._add(each[:-1], 1)",
    ),
    "a row that is none of the result is counted": (
        "of one store",
        "operators.grouped",
        "if row is None or not self._fits(row):",
        "if row is None:",
    ),
    "columns are those of the row before": (
        "of one store",
        "operators.listing",
        "put(self._key(id), self._taken(new))",
        "put(self._key(id), self._taken(new) and (self._taken(_) or self._taken(new)))",
    ),
    "columns that have changed are not looked at": (
        "of one store",
        "operators.listing",
        "if before != after and (",
        "if (before is None) != (after is None) and (",
    ),
    "a row of another store is not looked at": (
        "with children",
        "operators.affected",
        "elif reaches(change, link.columns):",
        "elif False:",
    ),
    "only the rows that look at a row now are read": (
        "with children",
        "links",
        "[row for row in change if row is not None]",
        "[row for row in change[1:] if row is not None]",
    ),
    "only the rows that looked at a row before are read": (
        "with children",
        "links",
        "[row for row in change if row is not None]",
        "[row for row in change[:1] if row is not None]",
    ),
    "a row has changed when every column has": (
        "with subqueries",
        "links",
        "return any(old.image",
        "return all(old.image",
    ),
    "the ids of rows that look at others are read for nothing": (
        "joined",
        "operators.affected",
        "self.ids.update(dict.fromkeys([str(row[0]) for result in results for row in result.tuples]))",
        "pass",
    ),
    "what is not part of the result any more stays": (
        "joined",
        "operators.assembled",
        "if key not in new:",
        "if False:",
    ),
    "a part that was cut is taken for a whole one": (
        "joined",
        "operators.assembled",
        "if self._page.capacity is not None and len(rows) >= self._page.capacity:",
        "if False:",
    ),
    "a subquery that chooses is taken for one that stands beside": (
        "with subqueries",
        "links",
        "stands = only_shown and top not in shown",
        "stands = True",
    ),
    "what a join reaches only stands beside": (
        "joined",
        "links",
        "own, beside, columns, shown)",
        "own, True, columns, shown)",
    ),
    "a row of the first store that leaves is not looked at": (
        "with children",
        "operators.assembled",
        "        if id in self._parts:",
        "        if id in self._parts and new is not None:",
    ),
    "a row of the first store that comes in is not looked at": (
        "with subqueries",
        "operators.assembled",
        "if new is None or not self._fits(new):\n            return",
        "if True:\n            return",
    ),
    "a part that has left stays in its group": (
        "joined",
        "operators.assembled_groups",
        "for key in dict.fromkeys((*old, *new)):",
        "for key in new:",
    ),
    "children that leave are followed by none": (
        "kept beside",
        "operators.children",
        "len(self._rows) < self._limit\n",
        "False\n",
    ),
    "children behind those that are known are taken in": (
        "kept beside",
        "operators.children",
        "self._bound is not None and after > self._bound",
        "False",
    ),
    "children that are shown are taken for all": (
        "kept beside",
        "operators.kept",
        "whole = self._limit is None or len(found) < self._limit",
        "whole = True",
    ),
    "a child that moves stays where it was": (
        "kept beside",
        "operators.children",
        "if before is not None and before != after:",
        "if before is not None and after is None:",
    ),
    "what leaves its parent stays": (
        "kept beside",
        "operators.kept",
        "row is None or row.column(self.own) != value or not self.fits(row)",
        "row is None or not self.fits(row)",
    ),
    "the condition of what is beside a row is forgotten": (
        "kept beside",
        "operators.kept",
        "row is None or row.column(self.own) != value or not self.fits(row)",
        "row is None or row.column(self.own) != value",
    ),
    "of two columns that have to be equal one is": (
        "kept beside",
        "operators.kept",
        "if own is None or own != of(made):",
        "if own is None:",
    ),
    "a parent that looks for others by its second column keeps those that it had": (
        "kept beside",
        "operators.keepable",
        "above.update(dict.fromkeys([name for _, name in pairs]))",
        "above[link.above] = None",
    ),
    "more children are shown than were asked for": (
        "kept beside",
        "operators.kept",
        "self._with(row, row[self._at][: self._limit])",
        "row",
    ),
    "what is counted no more still counts": (
        "kept beside",
        "operators.kept",
        "self._belonging.holds(new, value, row) - self._belonging.holds(old, value, row)",
        "int(self._belonging.holds(new, value, row) and not self._belonging.holds(old, value, row))",
    ),
    "children of before are kept behind a read": (
        "kept beside",
        "operators.assembled",
        "        for id in ids:\n            self.keeping.remove(id)\n        shown =",
        "        shown =",
    ),
    "a row that looks for others now keeps those that it had": (
        "kept beside",
        "operators.keeping",
        "old is None or any(old.column(name) != new.column(name) for name in self._above)",
        "old is None",
    ),
    "a row is still found by the value that it had": (
        "kept beside",
        "operators.keeping",
        "            rows.remove(id)\n",
        "            rows._values.pop(id, None)\n",
    ),
    "columns of a row beside which others stand are not made anew": (
        "kept beside",
        "operators.keeping",
        "had if get is None else get(new)",
        "had",
    ),
    "a row beside which others stand does not leave": (
        "kept beside",
        "operators.assembled",
        "if new is None or not self._fits(new):\n            self._affected",
        "if new is None:\n            self._affected",
    ),
    "a new row shows what another one refers to": (
        "kept beside",
        "operators.keeping",
        "rows.find(new.column(link.above))",
        "tuple(rows._values)",
    ),
    "a new row shows what one that refers to the same value has by its other columns": (
        "kept beside",
        "operators.keeping",
        "if rows is None or part.is_own:",
        "if rows is None:",
    ),
    "what a new row refers to does not find it": (
        "kept beside",
        "operators.assembled",
        "            self.keeping.put(id, row)\n            self._move((id,))",
        "            self._move((id,))",
    ),
    "what has changed and come back is another object": ("kept beside", "operators.window", "row = told", "pass"),
    "what stands beside a row is looked at by the row that was there": (
        "kept beside",
        "operators.assembled",
        "if link in self.keeping:",
        "if link in self.keeping and not link.is_direct:\n                return False\n            if link in self.keeping:",
    ),
    "children are found by the column of their parent": (
        "with children",
        "planner",
        "replace(wanted, columns=(link.own,))",
        "replace(wanted, columns=('by',))",
    ),
    "children of rows that came in later are not found": (
        "with children",
        "operators.assembled",
        "return {id: id in self._parts for id in moved or ()}",
        "return {id: id in self._parts for id in moved or ()} if not self._page.window.shown else {}",
    ),
    "children of rows that are about to come in are not found": (
        "with children",
        "index",
        "self._ids if every else self._loose",
        "()",
    ),
    "what was heard before a part is read is left out": (
        "joined",
        "view",
        "if self._operator.stale:",
        "if self._operator.lacks:",
    ),
}
"""What is planted: the plans that find it, the module, what stands there, and what is put there instead."""
QUICK = {
    "what leaves a group stays in its sum",
    "only the rows that look at a row now are read",
    "what is not part of the result any more stays",
}
"""Planted at every run; all of them are in a campaign, by the same search."""


def test_every_bug_can_be_planted() -> None:
    for _, module, old, new in MUTANTS.values():
        assert new in text_of(module, old, new)


def test_the_control_passes() -> None:
    with mutant("dispatch", '"""Live queries over', '"""Live queries over') as loaded, tight(loaded, TIGHT):
        for kind in GENERATED:
            assert search(GENERATED[kind], loaded["dispatch"].open_live_queries, 10, Phase.generate)["checks"] > 50


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.soak) for name in MUTANTS]
)
def test_every_planted_bug_is_found(name: str) -> None:
    kind, *planted = MUTANTS[name]
    with mutant(*planted) as loaded, pytest.raises((AssertionError, IndexError, KeyError, ValueError)):
        for bounds in (TIGHT, {}):
            with tight(loaded, bounds):
                if kind == "aggregates":
                    search_aggregates(loaded["operators.aggregates"], 600)
                    continue
                search(GENERATED[kind], loaded["dispatch"].open_live_queries, 400, Phase.generate)
