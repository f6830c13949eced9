"""Live queries against two oracles: fresh SQL, and the meaning of queries in plain Python over the rows as they were.

After every commit the batches, replayed on what the reader had, must give what a fresh query gives; each batch must give
the result at the very commit it names. Deliberate bugs show that the oracle can fail.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings
from msgspec.structs import replace

import atoma.query.compiled
import atoma_stores.reactive.live
from atoma.contracts.execution import QueryResult
from atoma.contracts.query import NULL, BoundQuery, Call, Col, Expr, Lit, Order, Plan, Store
from atoma.contracts.values import RowImage, StoredRow
from atoma.errors import ConflictError
from atoma.ports import LiveBatch, LiveQueries, LocalTx, Reset, apply_batch
from atoma.ports.environment import seeded_environment
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.query.seek import seek
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.changes import ChangeSet
from atoma_stores.reactive.live import LocalLiveQueries
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
BY_A = Plan(Store("items"), order=(Order(Col(0, "a")),))

Rows: TypeAlias = tuple[StoredRow, ...]
OpenLiveQueries: TypeAlias = Callable[..., AbstractAsyncContextManager[LocalLiveQueries]]

# what is generated: small domains, so that rows meet queries, and the corners of each type

ids = st.sampled_from([f"k{number}" for number in range(8)])
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
leaves: st.SearchStrategy[Expr] = st.one_of(
    st.integers(0, 3).map(lambda value: Call("eq", (Col(0, "a"), Lit("int", value)))),
    st.sampled_from((*COLUMNS, "id")).flatmap(comparison),
    columns.flatmap(among),
    columns.map(lambda name: Call("is_null", (Col(0, name),))),
    patterns.map(lambda pattern: Call("like", (Col(0, "t"), Lit("text", pattern)))),
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


windows = st.one_of(st.none(), st.sampled_from([0, 1, 2, 3, 5, 9]))
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
)


def by_id(given: list[str]) -> Plan:
    among_them = Call("in", (Col(0, "id"), *(Lit("text", id) for id in given)))
    return Plan(Store("items"), where=among_them)


Write: TypeAlias = tuple[str, str, str, RowImage]
"""``(operation, store, id, values)``; ``deal`` gives each id in ``values`` a new ``a``."""
deals = st.tuples(
    st.just("deal"), st.just("items"), st.just(""), st.dictionaries(ids, st.integers(0, 5), min_size=3, max_size=8)
)
writes: st.SearchStrategy[Write] = st.one_of(
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
transactions = st.tuples(st.lists(writes, min_size=1, max_size=6), st.sampled_from(["commit"] * 5 + ["roll back"]))
Transaction: TypeAlias = tuple[list[Write], str]
bursts = st.lists(transactions, min_size=1, max_size=3)
"""Transactions between which nobody waits for the live queries."""
subscriptions = st.tuples(st.sampled_from(STORES + STORES[:1]), queries, st.booleans())
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
            elif operation == "clear":
                for number in range(8):
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

    def hear(self, change: ChangeSet) -> None:
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
                self.take(await anext(batches))

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


class Overtaken:
    """The database, with answers that take a while to arrive, so that commits overtake them."""

    def __init__(self, database: SQLiteLocalDatabase) -> None:
        self.subscribe_commits = database.subscribe_commits
        self._database = database

    async def read_many(self, queries: Sequence[BoundQuery]) -> Sequence[QueryResult]:
        results = await self._database.read_many(queries)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return results


async def scenario(plan: Sequence[Any], first: Sequence[Any], open_live: OpenLiveQueries, seen: Counter[str]) -> None:
    """Carry out ``plan`` on a database in memory, with the live queries of ``first`` open from the start."""
    history = History()
    engine = SQLiteEngine(":memory:")
    async with engine.open_database(SCHEMA, seeded_environment(1), frozenset()) as database:
        undo = database.subscribe_commits(history.hear)
        async with open_live(Overtaken(database), SCHEMA, buffer=BUFFER) as live, trio.open_nursery() as nursery:
            readers: list[Reader] = []
            for step in [*first, *plan]:
                if isinstance(step, tuple):
                    store, query, slow = step
                    reader = Reader(store, query, slow, history, seen)
                    readers.append(reader)
                    nursery.start_soon(reader.run, live)
                    await trio.testing.wait_all_tasks_blocked()
                    assert reader.rows == meaning(reader.query, history.rows(reader.query.store, history.commit))
                else:
                    await run_burst(database, step, readers, history, seen)
            for reader in readers:
                if reader.is_slow:
                    reader.release()
            await trio.testing.wait_all_tasks_blocked()
            await check(database, readers, history, seen)
            seen["skipped"] += sum(stats.skipped for stats in live.stats())
            seen["evaluated"] += sum(stats.evaluations for stats in live.stats())
            nursery.cancel_scope.cancel()
        undo()


async def run_burst(
    database: SQLiteLocalDatabase, burst: list[Transaction], readers: list[Reader], history: History, seen: Counter[str]
) -> None:
    before = {reader: (reader.rows, reader.count) for reader in readers}
    for reader in readers:
        reader.fresh.clear()
    for transaction in burst:
        try:
            await database.apply(functools.partial(carry_out, transaction))
        except RollBack:
            seen["rolled back"] += 1
        else:
            seen["commits"] += 1
    await trio.testing.wait_all_tasks_blocked()
    quick = [reader for reader in readers if not reader.is_slow]
    await check(database, quick, history, seen)
    if len(burst) == 1:
        for reader in quick:
            rows, count = before[reader]
            assert reader.count - count == (reader.rows != rows), "one batch for a commit that changes the result"
    positions = {batch.commit for reader in quick for batch in reader.fresh}
    assert len(positions) <= len(burst), "queries of one database deliver at the same commits"


async def check(database: SQLiteLocalDatabase, readers: Sequence[Reader], history: History, seen: Counter[str]) -> None:
    """What readers have is what a fresh query gives, and what the query means."""
    for reader in readers:
        result = await database.read(reader.query)
        assert reader.rows == result.rows, f"not what fresh SQL gives: {reader.query}"
        assert result.rows == meaning(reader.query, history.rows(reader.query.store, history.commit))
        seen["checks"] += 1


def search(open_live: OpenLiveQueries, examples: int, *phases: Phase, fixed: bool = True) -> Counter[str]:
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
        plan=steps, first=st.lists(subscriptions, min_size=1, max_size=4), rows=st.lists(images, min_size=3, max_size=8)
    )
    def run(plan: list[Any], first: list[Any], rows: list[RowImage]) -> None:
        filled: list[Write] = [("put", "items", f"k{number}", image) for number, image in enumerate(rows)]
        first = [[(filled, "commit")], ("items", BY_A, False), *first, first[0]]  # two readers of one query
        failure: BaseException | None = None
        try:
            trio.run(scenario, plan, first, open_live, seen, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseExceptionGroup as group:
            failure = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        if failure is not None:
            raise failure

    run()
    return seen


def test_replayed_batches_are_what_fresh_sql_gives() -> None:
    seen = search(atoma_stores.reactive.live.open_live_queries, 200)
    least = {"commits": 600, "rolled back": 60, "checks": 1200, "evaluated": 700, "non-empty": 500, "skipped": 150}
    least |= {"Insert": 200, "Remove": 200, "Update": 200, "Move": 50, "Reset": 500, "resets": 10}
    assert {name: (seen[name], number) for name, number in least.items() if seen[name] < number} == {}


@pytest.mark.soak
def test_replayed_batches_are_what_fresh_sql_gives_for_long() -> None:
    seen = search(atoma_stores.reactive.live.open_live_queries, 5_000, fixed=False)
    assert seen["resets"] > 100


# the oracle is worth what it finds

PACKAGE = Path(atoma_stores.reactive.live.__file__).parent
MODULES = {
    "compiled": Path(atoma.query.compiled.__file__),
    **{name: PACKAGE / f"{name}.py" for name in ("diff", "relevance", "checks", "view", "live")},
}


@contextmanager
def mutant(module: str, old: str, new: str) -> Iterator[OpenLiveQueries]:
    """The live queries with one text of one module replaced, loaded beside the real ones."""
    loaded: dict[str, types.ModuleType] = {}
    try:
        for name, path in MODULES.items():
            text = path.read_text(encoding="utf-8")
            if name == module:
                assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}.py"
                text = text.replace(old, new)
            loaded[name] = sys.modules[f"live_mutant.{name}"] = types.ModuleType(f"live_mutant.{name}")
            text = text.replace("atoma_stores.reactive.", "live_mutant.")
            code = compile(text.replace("atoma.query.compiled ", "live_mutant.compiled "), f"<mutant {name}>", "exec")
            exec(code, loaded[name].__dict__)
        yield loaded["live"].__dict__["open_live_queries"]
    finally:
        for name in loaded:
            del sys.modules[f"live_mutant.{name}"]


MUTANTS = {
    "a filter compares the wrong way round": ("compiled", "compare(own, other)", "compare(other, own)"),
    "a value that is listed is not found": ("compiled", "own in present", "own not in present"),
    "skipping looks at the new row only": (
        "relevance",
        "(old is not None and takes_part(old)) or (new is not None and takes_part(new))",
        "new is not None and takes_part(new)",
    ),
    "skipping looks at the old row only": (
        "relevance",
        "(old is not None and takes_part(old)) or (new is not None and takes_part(new))",
        "old is not None and takes_part(old)",
    ),
    "a window that is not full is taken for a full one": ("relevance", "len(rows) == self._limit", "True"),
    "what stands in front of the cursor is what counts": (
        "relevance",
        "not is_beyond(own, seen, order, forward=forward)",
        "is_beyond(own, seen, order, forward=forward)",
    ),
    "the index takes < and > for =": ("relevance", "part.fn == wanted", 'part.fn in (wanted, "lt", "gt")'),
    "the index sees the new row only": (
        "view",
        "                self._index.find(old, candidates)\n",
        "                pass\n",
    ),
    "moves and insertions land one place too early": (
        "diff",
        "current.index(after[at - 1].id) + 1",
        "current.index(after[at - 1].id)",
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
        "if place in settled and not _same(before[place], row)",
        "if False",
    ),
    "unchanged rows are new objects": ("view", "keep_unchanged(self.rows, rows)", "rows"),
    "only one reader of a shared query is told": (
        "live",
        "for subscription in view.subscriptions:",
        "for subscription in list(view.subscriptions)[:1]:",
    ),
    "a full buffer loses batches without a Reset": (
        "view",
        "self._batches.clear()\n                self._behind = True",
        "self._batches.clear()",
    ),
    "a commit during a run is taken for read": (
        "view",
        "self.commit = max(self.commit, commit)",
        "self.commit = max(self.commit, commit, self._group.heard.commit)",
    ),
    "a batch names the commit before": ("view", "LiveBatch(commit, changes)", "LiveBatch(commit - 1, changes)"),
    "a batch without changes is delivered": ("view", "if changes else None", "if not first else None"),
}


def test_the_control_passes() -> None:
    with mutant("live", '"""Live queries over', '"""Live queries over') as open_live:
        assert search(open_live, 40, Phase.generate)["checks"] > 100


@pytest.mark.parametrize("name", MUTANTS)
def test_every_planted_bug_is_found(name: str) -> None:
    with mutant(*MUTANTS[name]) as open_live, pytest.raises((AssertionError, IndexError)):
        search(open_live, 400, Phase.generate)
