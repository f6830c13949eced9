"""Live queries against two oracles: fresh SQL, and the meaning of queries in plain Python over the rows as they were.

After every commit the batches, replayed on what the reader had, must give what a fresh query gives; each batch must give
the result at the very commit it names. Deliberate bugs show that the oracle can fail.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings
from msgspec.structs import replace

import atoma.query.compiled
import atoma_stores.live
from atoma.contracts.execution import QueryResult
from atoma.contracts.query import NULL, BoundQuery, Call, Col, Expr, Lit, Order, Plan, Store
from atoma.contracts.raw import Question
from atoma.contracts.values import RowImage, StoredRow
from atoma.errors import ConflictError
from atoma.ports import LiveBatch, LiveQueries, LocalTx, Reset, apply_batch
from atoma.ports.environment import seeded_environment
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.query.seek import seek
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.changes import CommitDelta
from atoma_stores.live.dispatch import LocalLiveQueries
from atoma_stores.live.source import LiveSource, Snapshot
from atoma_stores.sqlite.engine import SQLiteEngine, SQLiteLocalDatabase

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Item:
    id: str
    a: int | None = None
    t: str | None = None
    r: float | None = None
    b: bytes | None = None
    u: int | None = None


SCHEMA = Schema(
    StoreSpec("items", Item, indexes=[Index("a"), Index("u", unique=True)]),
    StoreSpec("other", Item),
)
STORES = ("items", "other")
COLUMNS = ("a", "t", "r", "b", "u")
BUFFER = 2
ASKED_MAX = 500
IDS = 10
BY_A = Plan(Store("items"), order=(Order(Col(0, "a")),))

Rows: TypeAlias = tuple[StoredRow, ...]
OpenLiveQueries: TypeAlias = Callable[..., AbstractAsyncContextManager[LocalLiveQueries]]

# what is generated: small domains, so that rows meet queries, and the corners of each type

ids = st.sampled_from([f"k{number}" for number in range(IDS)])
integers = st.one_of(st.none(), st.integers(0, 3), st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1]))
asked_texts = st.one_of(st.none(), st.sampled_from(["", "a", "A", "ab", "aB", "é", "É", "%", "z", "\U0001f600"]))
texts = st.one_of(asked_texts, asked_texts, st.just("a\x00b"))  # older files may hold a NUL; a bound query never does
reals = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 1.5, 2.0, float("inf"), float("-inf"), 2.0**53]))
blobs = st.one_of(st.none(), st.sampled_from([b"", b"a", b"\x00", b"\xff"]))
uniques = st.one_of(st.none(), st.none(), st.integers(0, 4))
values: dict[str, st.SearchStrategy[Any]] = {"a": integers, "t": texts, "r": reals, "b": blobs, "u": uniques}
asked = {**values, "t": asked_texts, "id": ids}
images = st.fixed_dictionaries(values)
any_patch = st.dictionaries(st.sampled_from(COLUMNS), st.none(), min_size=1, max_size=2).flatmap(
    lambda names: st.fixed_dictionaries({name: values[name] for name in names})
)
patches = st.one_of(st.fixed_dictionaries({"a": st.integers(0, 3)}), any_patch)

TYPES = {"a": "int", "t": "text", "r": "real", "b": "blob", "u": "int", "id": "text"}
comparisons = st.sampled_from(("eq", "ne", "lt", "le", "gt", "ge"))
columns = st.sampled_from(COLUMNS)


def literal(name: str, value: object) -> Lit:
    return Lit(NULL if value is None else TYPES[name], value)


def comparison(name: str) -> st.SearchStrategy[Expr]:
    return st.builds(lambda fn, value: Call(fn, (Col(0, name), literal(name, value))), comparisons, asked[name])


def among(name: str) -> st.SearchStrategy[Expr]:
    given = st.lists(asked[name], max_size=3)
    return given.map(lambda found: Call("in", (Col(0, name), *(literal(name, value) for value in found))))


simple = st.builds(lambda fn, value: Call(fn, (Col(0, "a"), Lit("int", value))), comparisons, st.integers(0, 3))
patterns = st.sampled_from(["a%", "_b", "%", "é", "\\%", "%b", "A_"])
regexes = st.sampled_from(["^a", ".b", "é", "%$", "(?i)a.?$", "[^a]{2}"])
leaves: st.SearchStrategy[Expr] = st.one_of(
    st.integers(0, 3).map(lambda value: Call("eq", (Col(0, "a"), Lit("int", value)))),
    st.sampled_from((*COLUMNS, "id")).flatmap(comparison),
    columns.flatmap(among),
    columns.map(lambda name: Call("is_null", (Col(0, name),))),
    patterns.map(lambda pattern: Call("like", (Col(0, "t"), Lit("text", pattern)))),
    regexes.map(lambda pattern: Call("regex", (Col(0, "t"), Lit("text", pattern)))),
)
conditions: st.SearchStrategy[Expr] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda args: Call("and", tuple(args))),
        st.lists(inner, max_size=3).map(lambda args: Call("or", tuple(args))),
        inner.map(lambda arg: Call("not", (arg,))),
    ),
    max_leaves=4,
)
any_order = st.lists(
    st.tuples(st.sampled_from((*COLUMNS, "id")), st.booleans()), max_size=3, unique_by=lambda key: key[0]
).map(lambda keys: total(tuple(keys)))
orders = st.one_of(st.booleans().map(lambda down: (("a", down), ("id", False))), any_order)
Keys: TypeAlias = tuple[tuple[str, bool], ...]


def total(keys: Keys) -> Keys:
    names = [name for name, _ in keys]
    return keys[: names.index("id") + 1] if "id" in names else (*keys, ("id", False))


def cursor(keys: Keys) -> st.SearchStrategy[tuple[object, ...] | None]:
    seen = st.tuples(*(ids if name == "id" else asked[name] for name, _ in keys))
    return st.one_of(st.none(), st.none(), seen)


def plan_of(
    keys: Keys, where: Expr | None, limit: int | None, offset: int = 0, seen: tuple[object, ...] | None = None
) -> Plan:
    order = tuple(Order(Col(0, name), descending) for name, descending in keys)
    plan = Plan(Store("items"), where=where, order=order, limit=limit, offset=offset)
    return plan if seen is None else seek(plan, seen)


windows = st.one_of(st.none(), st.sampled_from([0, 1, 2, 2, 3, 3, 5, 9]))
queries: st.SearchStrategy[Plan] = st.one_of(
    orders.flatmap(
        lambda keys: st.builds(
            plan_of,
            st.just(keys),
            st.one_of(st.none(), simple, simple, conditions, conditions),
            windows,
            st.sampled_from([0, 0, 0, 1, 2]),
            cursor(keys),
        )
    ),
    orders.flatmap(lambda keys: st.builds(plan_of, st.just(keys), st.none(), windows)),
    orders.flatmap(lambda keys: st.builds(plan_of, st.just(keys), st.none() | simple, st.sampled_from([5, 9]))),
    st.lists(ids, max_size=4, unique=True).map(lambda given: by_id(given)),
    st.builds(
        lambda keys, limit, id: plan_of(keys, None, limit, 0, (id,)),
        st.booleans().map(lambda down: (("id", down),)),
        windows,
        ids,
    ),
)


def by_id(given: list[str]) -> Plan:
    among_them = Call("in", (Col(0, "id"), *(Lit("text", id) for id in given)))
    return Plan(Store("items"), where=among_them)


Write: TypeAlias = tuple[str, str, str, RowImage]
"""``(operation, store, id, values)``; ``deal`` gives each id in ``values`` a new ``a``, ``drop`` deletes each."""
deals = st.tuples(
    st.just("deal"), st.just("items"), st.just(""), st.dictionaries(ids, st.integers(0, 5), min_size=3, max_size=8)
)
drops = st.tuples(
    st.just("drop"), st.just("items"), st.just(""), st.dictionaries(ids, st.none(), min_size=1, max_size=4)
)
writes: st.SearchStrategy[Write] = st.one_of(
    drops,
    drops,
    st.tuples(st.just("put"), st.sampled_from(STORES + STORES[:1]), ids, images),
    st.tuples(st.just("put"), st.sampled_from(STORES + STORES[:1]), ids, images),
    st.tuples(st.just("patch"), st.just("items"), ids, patches),
    st.tuples(st.just("patch"), st.just("items"), ids, patches),
    st.tuples(st.just("patch"), st.sampled_from(STORES), ids, patches),
    st.tuples(st.just("delete"), st.sampled_from(STORES + STORES[:1]), ids, st.just({})),
    deals,
    deals,
    st.tuples(st.just("clear"), st.sampled_from(STORES), st.just(""), st.just({})),
)
transactions = st.tuples(
    st.lists(writes, min_size=1, max_size=6), st.sampled_from(["commit"] * 5 + ["roll back"]), st.integers(0, 4)
)
Transaction: TypeAlias = tuple[list[Write], str, int]
"""What is written, whether it is committed, and for how many steps of the loop the live queries may run behind it."""
bursts = st.one_of(st.lists(transactions, min_size=1, max_size=1), st.lists(transactions, min_size=2, max_size=6))
"""Transactions between which nobody waits until the live queries have done their work."""
Asked: TypeAlias = tuple[str, Plan, bool, bool]
"""``(store, query, whether its reader is slow, whether commits follow before it has an answer)``."""
subscriptions = st.tuples(st.sampled_from(STORES + STORES[:1]), queries, st.booleans(), st.booleans())
steps = st.lists(st.one_of(bursts, bursts, bursts, bursts, subscriptions), min_size=2, max_size=8)


class RollBack(Exception):
    """Raised inside a transaction that is to leave nothing behind."""


def carry_out(transaction: Transaction, tx: LocalTx) -> None:
    for operation, store, id, given_values in transaction[0]:
        row = tx.rows.read(store, id) if id else None
        try:
            if operation == "put":
                tx.rows.put(store, id, "main", given_values)
            elif operation == "patch" and row is not None:
                tx.rows.put(store, id, "main", {**row.image, **given_values})
            elif operation == "delete" and row is not None:
                tx.rows.put(store, id, "main", None)
            elif operation == "deal":
                for dealt, a in given_values.items():
                    if held := tx.rows.read(store, dealt):
                        tx.rows.put(store, dealt, "main", {**held.image, "a": a})
            elif operation == "drop":
                for dropped in given_values:
                    tx.rows.put(store, dropped, "main", None)
            elif operation == "clear":
                for number in range(IDS):
                    if tx.rows.read(store, f"k{number}") is not None:
                        tx.rows.put(store, f"k{number}", "main", None)
        except ConflictError:
            pass  # the unique index refused it
    if transaction[1] == "roll back":
        raise RollBack


def meaning(query: BoundQuery, rows: Rows) -> Rows:
    """What ``query`` answers, by the reference."""
    return tuple(evaluate(query, {query.store: rows}))


class History:
    """The rows of each store after each commit, kept from the change sets alone."""

    def __init__(self) -> None:
        self.commit = 0
        self._rows: dict[str, dict[str, StoredRow]] = {store: {} for store in STORES}
        self._at: dict[int, dict[str, Rows]] = {0: dict.fromkeys(STORES, ())}

    def hear(self, change: CommitDelta) -> None:
        for store, delta in change.changes.items():
            for id, (old, new) in delta.items():
                assert old == self._rows[store].pop(id, None)
                assert old != new
                if new is not None:
                    self._rows[store][id] = new
        self.commit = change.commit
        self._at[change.commit] = {store: tuple(rows.values()) for store, rows in self._rows.items()}

    def rows(self, store: str, commit: int) -> Rows:
        return self._at[commit][store]


class Reader:
    """Follows one query, checking each batch as it comes; a slow one only reads when it is told to."""

    def __init__(self, store: str, plan: Plan, slow: bool, history: History, seen: Counter[str]) -> None:
        self.query = bind(replace(plan, source=Store(store)), SCHEMA.store)
        self.rows: Rows = ()
        self.fresh: list[LiveBatch[StoredRow]] = []
        self.count = 0
        self._history = history
        self._seen = seen
        self._may_read = trio.Semaphore(1 if slow else 10**9)
        self.is_slow = slow

    async def run(self, live: LiveQueries) -> None:
        async with live.open_live(self.query) as batches:
            while True:
                await self._may_read.acquire()
                self.take(cast("LiveBatch[StoredRow]", await anext(batches)))

    def release(self) -> None:
        for _ in range(BUFFER + 2):
            self._may_read.release()

    def take(self, batch: LiveBatch[StoredRow]) -> None:
        resets = [change for change in batch.changes if isinstance(change, Reset)]
        if self.count == 0:
            assert len(batch.changes) == len(resets) == 1, "the first batch is one Reset"
        else:
            self._seen["resets"] += len(resets)
        before = {row.id: row for row in self.rows}
        self.rows = apply_batch(self.rows, batch)
        expected = meaning(self.query, self._history.rows(self.query.store, batch.commit))
        assert self.rows == expected, f"wrong result at commit {batch.commit}: {self.query}"
        for row in self.rows:
            assert before.get(row.id) is row or before.get(row.id) != row, "an unchanged row is another object"
        self.count += 1
        self.fresh.append(batch)
        self._seen["non-empty"] += bool(self.rows)
        for change in batch.changes:
            self._seen[type(change).__name__] += 1


class Counted:
    """The database, for live queries that read no more than they have to."""

    def __init__(self, database: SQLiteLocalDatabase) -> None:
        self.subscribe_commits = database.subscribe_commits
        self.hear_others = database.hear_others
        self._database = database
        self._asked = 0

    @asynccontextmanager
    async def open_snapshot(self) -> AsyncIterator[Snapshot]:
        async with self._database.open_snapshot() as snapshot:
            self._snapshot, self.commit = snapshot, snapshot.commit
            yield self

    async def answer(self, queries: Sequence[Question]) -> Sequence[QueryResult]:
        self._asked += 1
        assert self._asked < ASKED_MAX, "it reads again and again"
        return await self._snapshot.answer(queries)


class Overtaken:
    """The database as readers with a snapshot see it, who are slow, so that commits overtake them.

    What they read is what the reference makes of the rows as they were at the commit that they hold.
    """

    def __init__(self, database: SQLiteLocalDatabase, history: History, lag: int, seen: Counter[str]) -> None:
        self.subscribe_commits = database.subscribe_commits
        self.hear_others = database.hear_others
        self.commit = 0
        self._history = history
        self._lag = lag
        self._seen = seen
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
        results = [
            QueryResult(tuple(map(copied, meaning(query, self._history.rows(query.store, self.commit)))))
            for query in queries
            if isinstance(query, BoundQuery)
        ]
        await self._wait()
        return results

    async def _wait(self) -> None:
        for _ in range(self._lag):
            await trio.lowlevel.checkpoint()


def copied(row: StoredRow) -> StoredRow:
    """A row as a reader decodes it: another object."""
    return replace(row, image=dict(row.image))


async def scenario(
    plan: Sequence[Any], first: Sequence[Any], lag: int, open_live: OpenLiveQueries, seen: Counter[str]
) -> None:
    """Carry out ``plan`` on a database in memory, with the live queries of ``first`` open from the start."""
    history = History()
    engine = SQLiteEngine(":memory:")
    async with engine.open_database(SCHEMA, seeded_environment(1), frozenset()) as database:
        undo = database.subscribe_commits(history.hear)
        source: LiveSource = Overtaken(database, history, lag, seen) if lag else Counted(database)
        async with open_live(source, SCHEMA, buffer=BUFFER) as live, trio.open_nursery() as nursery:
            readers: list[Reader] = []
            for step in [*first, *plan]:
                if isinstance(step, tuple):
                    store, query, slow, hurried = step
                    reader = Reader(store, query, slow, history, seen)
                    readers.append(reader)
                    nursery.start_soon(reader.run, live)
                    if hurried:
                        continue
                    await trio.testing.wait_all_tasks_blocked()
                    assert reader.rows == meaning(reader.query, history.rows(reader.query.store, history.commit))
                elif step is first[0]:
                    await run_burst(database, step, readers, history, seen)
                else:
                    async with live.open_live(readers[0].query) as asked:
                        await anext(asked)
                        await run_burst(database, step, readers, history, seen, asked)
            for reader in readers:
                if reader.is_slow:
                    reader.release()
            await trio.testing.wait_all_tasks_blocked()
            await check(database, readers, history, seen)
            seen["skipped"] += sum(stats.skipped for stats in live.stats())
            seen["evaluated"] += sum(stats.evaluations for stats in live.stats())
            seen["followed in Python"] += sum(stats.tier == 0 for stats in live.stats())
            seen["read again"] += sum(stats.reads - 1 for stats in live.stats())
            seen["refetched"] += sum(stats.reads - 1 for stats in live.stats() if "LIMIT" in stats.query)
            nursery.cancel_scope.cancel()
        undo()


async def run_burst(
    database: SQLiteLocalDatabase,
    burst: list[Transaction],
    readers: list[Reader],
    history: History,
    seen: Counter[str],
    asked: AsyncIterator[object] | None = None,
) -> None:
    """Carry ``burst`` out; after every other commit somebody asks at once, who does not wait."""
    before = {reader: (reader.rows, reader.count) for reader in readers}
    for reader in readers:
        reader.fresh.clear()
    for transaction in burst:
        try:
            await database.apply(partial(carry_out, transaction))
        except RollBack:
            seen["rolled back"] += 1
        else:
            seen["commits"] += 1
            if asked is not None and history.commit % 2:
                seen["asked at once"] += 1
                with trio.move_on_after(0):
                    await anext(asked)
        for _ in range(transaction[2]):
            await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()
    quick = [reader for reader in readers if not reader.is_slow]
    await check(database, quick, history, seen)
    if len(burst) == 1:
        for reader in quick:
            rows, count = before[reader]
            assert not count or reader.count - count == (reader.rows != rows), (
                "one batch for a commit that changes the result"
            )
    positions = {batch.commit for reader in quick for batch in reader.fresh if before[reader][1]}
    assert len(positions) <= len(burst), "queries of one database deliver at the same commits"


async def check(database: SQLiteLocalDatabase, readers: Sequence[Reader], history: History, seen: Counter[str]) -> None:
    """What readers have is what a fresh query gives, and what the query means."""
    for reader in readers:
        result = await database.read(reader.query)
        assert reader.rows == result.rows, f"not what fresh SQL gives: {reader.query}"
        assert result.rows == meaning(reader.query, history.rows(reader.query.store, history.commit))
        seen["checks"] += 1


def search(
    open_live: OpenLiveQueries, examples: int, *phases: Phase, fixed: bool = True, lags: Sequence[int] = (0, 2, 5)
) -> Counter[str]:
    """Try ``examples`` random plans and count what happened in them."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=fixed,
        database=None,
        report_multiple_bugs=False,
        phases=phases or (Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(
        plan=steps,
        first=st.lists(subscriptions, min_size=1, max_size=4),
        rows=st.lists(images, min_size=6, max_size=IDS),
        lag=st.sampled_from(lags),
    )
    def run(plan: list[Any], first: list[Any], rows: list[RowImage], lag: int) -> None:
        filled: list[Write] = [("put", "items", f"k{number}", image) for number, image in enumerate(rows)]
        first = [[(filled, "commit", 0)], ("items", BY_A, False, False), *first, first[0]]  # two readers of one query
        failure: BaseException | None = None
        try:
            trio.run(scenario, plan, first, lag, open_live, seen, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseExceptionGroup as group:
            failure = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        if failure is not None:
            raise failure

    run()
    return seen


LIVE = Path(atoma_stores.live.__file__).parent
MODULES = (
    "rows", "diff", "operators.keys", "operators.sorted_rows", "operators.window", "operators.operator",
    "operators.page", "operators.aggregates", "operators.grouping", "operators.groups", "operators.grouped",
    "links", "operators.restricted", "operators.affected", "operators.children",
    "operators.kept", "operators.keepable", "operators.keeping",
    "operators.assembled", "operators.assembled_groups",
    "operators.listing", "operators.rerun", "ranges", "index", "planner", "family", "delivery", "view", "stores",
    "dispatch",
)  # fmt: skip
TIGHT: Mapping[str, Mapping[str, int]] = {
    "operators.window": {"SLACK_MIN": 0},
    "view": {"CUT_OVER_MIN": 4},
    "dispatch": {"ROWS_AT_ONCE": 6, "TESTS_AT_ONCE": 12, "QUEUED_MAX": 24, "TOGETHER": 2, "STEP_S": -1},
    "ranges": {"PENDING_MAX": 0},
    "operators.sorted_rows": {"BLOCK": 2},
}
"""Bounds so low that what they bound happens all the time."""


@contextmanager
def tight(modules: Mapping[str, types.ModuleType], bounds: Mapping[str, Mapping[str, int]]) -> Iterator[None]:
    """Every module with these bounds instead of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for module, values_of_module in bounds.items():
            for name, value in values_of_module.items():
                patch.setattr(modules[module], name, value)
        yield


REAL = {name: importlib.import_module(f"atoma_stores.live.{name}") for name in MODULES}
open_real: OpenLiveQueries = REAL["dispatch"].open_live_queries


def assert_at_least(seen: Counter[str], least: Mapping[str, int]) -> None:
    assert {name: (seen[name], number) for name, number in least.items() if seen[name] < number} == {}


def test_replayed_batches_are_what_fresh_sql_gives() -> None:
    seen = search(open_real, 60)
    least = {"commits": 200, "rolled back": 20, "checks": 450, "evaluated": 250, "non-empty": 200, "skipped": 50}
    least |= {"asked at once": 75, "Insert": 75, "Remove": 75, "Update": 75, "Move": 20, "Reset": 200, "resets": 3}
    assert_at_least(seen, least | {"followed in Python": 150})


def test_they_are_where_every_bound_is_low() -> None:
    with tight(REAL, TIGHT):
        seen = search(open_real, 60)
    assert_at_least(seen, {"checks": 450, "Move": 20, "read again": 40, "refetched": 5, "overtaken": 4, "resets": 3})


def test_they_are_where_every_query_is_asked_again() -> None:
    seen = search(partial(open_real, least_tier=2), 60)
    assert_at_least(seen, {"checks": 150, "read again": 100, "overtaken": 10})


@pytest.mark.soak
@pytest.mark.parametrize("bounds", [{}, TIGHT], ids=["as they are", "low"])
def test_replayed_batches_are_what_fresh_sql_gives_for_long(bounds: Mapping[str, Mapping[str, int]]) -> None:
    with tight(REAL, bounds):
        seen = search(open_real, 5_000, fixed=False)
    assert seen["resets"] > 100


# the oracle is worth what it finds


PATHS = {
    "compiled": Path(atoma.query.compiled.__file__),
    **{name: LIVE / f"{name.replace('.', '/')}.py" for name in MODULES},
}


def text_of(name: str, old: str, new: str) -> str:
    """The text of a module with ``new`` in the one place where ``old`` stands."""
    text = PATHS[name].read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}.py"
    return text.replace(old, new)


@contextmanager
def mutant(module: str, old: str, new: str) -> Iterator[dict[str, types.ModuleType]]:
    """The live queries with one text of one module replaced, loaded beside the real ones."""
    loaded: dict[str, types.ModuleType] = {}
    try:
        for name, path in PATHS.items():
            text = text_of(name, old, new) if name == module else path.read_text(encoding="utf-8")
            for other in MODULES:
                text = text.replace(f"atoma_stores.live.{other} ", f"live_mutant.{other} ")
            text = text.replace("atoma.query.compiled ", "live_mutant.compiled ")
            loaded[name] = sys.modules[f"live_mutant.{name}"] = types.ModuleType(f"live_mutant.{name}")
            exec(compile(text, f"<mutant {name}>", "exec"), loaded[name].__dict__)
        yield loaded
    finally:
        for name in loaded:
            del sys.modules[f"live_mutant.{name}"]


MUTANTS = {
    "a filter compares the wrong way round": ("compiled", "compare(own, other)", "compare(other, own)"),
    "a value that is listed is not found": ("compiled", "own in present", "own not in present"),
    "a row that fits no more stays": (
        "operators.listing",
        "self._page.window.put(self._key(id), self._taken(new))",
        "self._page.window.put(self._key(id), self._taken(new) or (new if self._page.window.holds(id) else None))",
    ),
    "a row that is held is not looked at": (
        "operators.listing",
        "window.holds(id)\n                or ((row",
        "((row",
    ),
    "a row that comes in is not looked at": (
        "operators.listing",
        "is not None and (not settled or window.admits(row))",
        "is not None and (not settled or window.holds(id))",
    ),
    "what came while a read was under way is judged by what was held before": (
        "view",
        "count, settled = len(delta), self.is_clean and not self.busy",
        "count, settled = len(delta), True",
    ),
    "what stands in front of the cursor is what counts": (
        "operators.page",
        "place > self._seen if self._behind else place < self._seen",
        "place < self._seen if self._behind else place > self._seen",
    ),
    "the cursor's own row is part of what follows": (
        "operators.page",
        "place > self._seen if",
        "place >= self._seen if",
    ),
    "falling text is compared without its end": ("operators.keys", ' + b"\\x00\\x00"', ""),
    "NULL comes first where values fall": (
        "operators.keys",
        "(1, 0) if value is None else (0,",
        "(0, 0) if value is None else (1,",
    ),
    "a window takes what sorts behind its bound": (
        "operators.window",
        "self._bound is None or place <= self._bound",
        "True",
    ),
    "a window that was read whole is taken for a cut one": (
        "operators.window",
        "if keys and len(kept) == self.capacity else None",
        "if keys else None",
    ),
    "a cut window is taken for a whole one": (
        "operators.window",
        "if keys and len(kept) == self.capacity else None",
        "if False else None",
    ),
    "a window does not refill": ("operators.window", "len(self._rows) < self._end", "False"),
    "a window refills one row too late": (
        "operators.window",
        "len(self._rows) < self._end\n",
        "len(self._rows) + 1 < self._end\n",
    ),
    "a row that moves behind the bound stays": (
        "operators.window",
        "elif self.keeps(new):\n            self._move",
        "elif True:\n            self._move",
    ),
    "the row that is pushed out is not told": (
        "operators.window",
        "if len(self._rows) > self._end:",
        "if False:",
    ),
    "the row that comes up is not told": ("operators.window", "if len(self._rows) >= self._end:", "if False:"),
    "the index takes < for =": ("index", 'if part.fn == "eq":', 'if part.fn in ("eq", "lt"):'),
    "the index sees the new row only": ("stores", "self._index.find(old, views, every=every)", "pass"),
    "the index sees the old row only": ("stores", "self._index.find(new, views, every=every)", "pass"),
    "a range has no end": ("ranges", "if last is not None and last < value:", "if last is None or last < value:"),
    "a range does not hold its end": ("ranges", "if high < value:", "if high <= value:"),
    "moves and insertions land one place too early": (
        "diff",
        "current.index(after[at - 1]) + 1",
        "current.index(after[at - 1])",
    ),
    "rows that moved are left where they were": ("diff", "set(_longest_increasing(kept))", "set(kept)"),
    "removals are told from the front": ("diff", "reversed(removed)", "removed"),
    "rows behind the change are not compared": (
        "diff",
        "updates += _updates(old[old_end:], new[new_end:], new_end)",
        "pass",
    ),
    "rows between moves are not compared": (
        "diff",
        "if place in settled and not same(old[first + place], new[at])",
        "if False",
    ),
    "unchanged rows are new objects": (
        "operators.window",
        "keep_unchanged(known, rows, self._key_of)",
        "rows",
    ),
    "a row is kept that has changed": ("rows", "one.version == other.version and one.image == other.image", "True"),
    "only one reader of a shared query is told": (
        "dispatch",
        "for subscription in view.subscriptions:\n                    subscription.push(batch)\n            ready",
        "for subscription in list(view.subscriptions)[:1]:\n                    subscription.push(batch)\n            ready",
    ),
    "a full buffer loses batches without a Reset": (
        "delivery",
        "self._batches.clear()\n            self._behind = True",
        "self._batches.clear()",
    ),
    "a batch names the commit before": ("view", "LiveBatch(commit, changes,", "LiveBatch(commit - 1, changes,"),
    "a batch without changes is delivered": (
        "view",
        "if (changes or other) and not first else None",
        "if not first else None",
    ),
    # the snapshot rule
    "changes are taken up to what was heard, and what is lacking is read later": (
        "dispatch",
        "                commit = snapshot.commit\n",
        "",
    ),
    "changes behind the snapshot are taken": (
        "dispatch",
        "                await self._in_steps(self._taking(commit))\n                await self._read",
        "                await self._in_steps(self._taking(self._position.heard))\n                await self._read",
    ),
    "a query is shown that was read before it was opened": (
        "dispatch",
        "if view.since <= snapshot.commit][:TOGETHER]",
        "][:TOGETHER]",
    ),
    "a large commit is passed over": (
        "dispatch",
        "                yield from self._looking_later(told, told.later)",
        "                pass",
    ),
    "what nobody has looked at yet counts as seen": (
        "dispatch",
        "self._position.unseen = change.commit",
        "pass",
    ),
    "changes that nobody could keep are forgotten": (
        "dispatch",
        "            if told.unknown:\n                self._forget",
        "            if False:\n                self._forget",
    ),
    "of changes that nobody could keep the last one counts": (
        "dispatch",
        "self._queue[0].unknown and self._queue[0].first <= commit",
        "False",
    ),
    "results are told one after the other": (
        "dispatch",
        "            ready.append(view)\n            yield\n        if states",
        "            ready.append(view)\n            self._position.shown = max(self._position.shown, commit)\n"
        "            yield\n        if states",
    ),
}
CONFIGURATIONS: Sequence[Mapping[str, Mapping[str, int]]] = (TIGHT, {})


def test_the_control_passes() -> None:
    with mutant("dispatch", '"""Live queries over', '"""Live queries over') as loaded:
        for bounds in CONFIGURATIONS:
            with tight(loaded, bounds):
                assert search(loaded["dispatch"].open_live_queries, 20, Phase.generate)["checks"] > 50


def test_every_bug_can_be_planted() -> None:
    for planted in MUTANTS.values():
        text_of(*planted)


QUICK = {
    "a filter compares the wrong way round",
    "a value that is listed is not found",
    "a row that fits no more stays",
}
"""Found within seconds, so they are planted at every run; all of them are in a campaign, by the same search."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.soak) for name in MUTANTS]
)
def test_every_planted_bug_is_found(name: str) -> None:
    with mutant(*MUTANTS[name]) as loaded, pytest.raises((AssertionError, IndexError, KeyError)):
        for bounds in CONFIGURATIONS:
            with tight(loaded, bounds):
                search(loaded["dispatch"].open_live_queries, 600, Phase.generate)
