"""Live queries over every shape of a plan: after each commit what the reader has is what the reference answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings

from atoma.contracts.query import (
    Agg,
    BoundQuery,
    Branch,
    Call,
    Col,
    Derived,
    Exists,
    Expr,
    Include,
    Join,
    Lit,
    Named,
    Order,
    Plan,
    Scalar,
    Store,
)
from atoma.contracts.values import StoredRow
from atoma.ports import LocalTx, Reset, apply_batch
from atoma.ports.environment import seeded_environment
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind_columns, lifted
from atoma.query.seek import with_keys
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.changes import ChangeSet
from atoma_stores.live.dispatch import open_live_queries
from atoma_stores.sqlite.engine import SQLiteEngine

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Card:
    id: str
    lane: str | None = None
    size: int | None = None
    note: int = 0


@dataclass(frozen=True)
class Remark:
    id: str
    card: str | None = None
    made: int | None = None


SCHEMA = Schema(
    StoreSpec("cards", Card, indexes=[Index("lane")]), StoreSpec("remarks", Remark, indexes=[Index("card")])
)
ID, LANE, SIZE = Col(0, "id"), Col(0, "lane"), Col(0, "size")
CARDS, REMARKS = Store("cards"), Store("remarks")
OF_CARD = Call("eq", (Col(0, "card"), Col(-1, "id")))
COUNT, TOTAL = Agg("count"), Agg("sum", SIZE)
NEWEST = Plan(REMARKS, order=(Order(Col(0, "made"), True),), limit=2)


def columns(**exprs: Expr) -> tuple[Named, ...]:
    return tuple([Named(name, expr) for name, expr in exprs.items()])


PLANS: dict[str, Plan] = {
    "columns": Plan(CARDS, columns=columns(lane=LANE, size=SIZE), order=(Order(SIZE, True),), limit=3),
    "distinct": Plan(CARDS, columns=columns(lane=LANE), distinct=True),
    "groups": Plan(
        CARDS,
        group=(LANE,),
        columns=columns(lane=LANE, many=COUNT, total=TOTAL, least=Agg("min", SIZE), mean=Agg("avg", SIZE)),
    ),
    "groups by their size": Plan(
        CARDS,
        where=Call("gt", (SIZE, Lit("int", 0))),
        group=(LANE,),
        having=Call("gt", (COUNT, Lit("int", 1))),
        columns=columns(lane=LANE, many=COUNT),
        order=(Order(COUNT, True),),
    ),
    "a number": Plan(CARDS, where=Call("eq", (LANE, Lit("text", "a"))), columns=columns(many=COUNT)),
    "joined": Plan(CARDS, (Join("inner", REMARKS, Call("eq", (ID, Col(1, "card")))),)),
    "joined from the left": Plan(
        CARDS,
        (Join("left", REMARKS, Call("eq", (ID, Col(1, "card")))),),
        columns=columns(lane=LANE, made=Col(1, "made")),
    ),
    "groups of joined rows": Plan(
        CARDS,
        (Join("left", REMARKS, Call("eq", (ID, Col(1, "card")))),),
        group=(LANE,),
        columns=columns(lane=LANE, many=Agg("count", Col(1, "id"))),
    ),
    "there are some": Plan(CARDS, where=Exists(Plan(REMARKS, where=OF_CARD))),
    "there are none": Plan(CARDS, where=Exists(Plan(REMARKS, where=OF_CARD), negated=True), limit=3),
    "counted beside": Plan(
        CARDS, columns=columns(id=ID, many=Scalar(Plan(REMARKS, where=OF_CARD, columns=columns(n=COUNT))))
    ),
    "with children": Plan(
        CARDS, include=(Include("remarks", False, (("id", "card"),), (Branch(None, NEWEST),)),), limit=4
    ),
    "over another plan": Plan(
        Derived(Plan(CARDS, columns=columns(lane=LANE, size=SIZE), limit=3)), columns=columns(n=COUNT)
    ),
    "over another plan, where": Plan(
        Derived(Plan(CARDS, columns=columns(lane=LANE, size=SIZE))),
        where=Call("eq", (Col(0, "c0"), Lit("text", "a"))),
        columns=columns(size=Col(0, "c1")),
    ),
}


def bound(plan: Plan) -> BoundQuery:
    """As a builder binds it: what rows are sorted by is among their columns."""
    checked, _ = bind_columns(plan, SCHEMA.store)
    return lifted(with_keys(checked))


cards = st.fixed_dictionaries(
    {
        "lane": st.sampled_from([None, "a", "b", "c"]),
        "size": st.one_of(st.none(), st.integers(0, 3)),
        "note": st.integers(0, 1),
    }
)
remarks = st.fixed_dictionaries(
    {"card": st.one_of(st.none(), st.sampled_from([f"k{n}" for n in range(5)])), "made": st.integers(0, 3)}
)
writes = st.one_of(
    st.tuples(st.just("cards"), st.integers(0, 5), st.one_of(cards, cards, st.none())),
    st.tuples(st.just("remarks"), st.integers(0, 7), st.one_of(remarks, remarks, st.none())),
)
FIRST: list[tuple[str, int, Any]] = [
    *(("cards", number, {"lane": "aab"[number % 3], "size": 1 + number % 2, "note": 0}) for number in range(4)),
    *(("remarks", number, {"card": f"k{number % 2}", "made": number}) for number in range(3)),
]
commits = st.lists(st.lists(writes, min_size=1, max_size=4), min_size=2, max_size=8)


class Reader:
    """Follows one query; each batch has to lead to what the reference answers at its commit."""

    def __init__(self, name: str, history: dict[int, dict[str, list[StoredRow]]], seen: Counter[str]) -> None:
        self.query = bound(PLANS[name])
        self.rows: tuple[Any, ...] = ()
        self.batches = 0
        self._name, self._history, self._seen = name, history, seen

    def expected(self, commit: int) -> tuple[Any, ...]:
        return tuple(evaluate(self.query, self._history[commit]))

    async def run(self, batches: Any) -> None:
        async for batch in batches:
            before = {id(part) for part in stored(self.rows)}
            known = {(part.id, part.version): id(part) for part in stored(self.rows)}
            self.rows = apply_batch(self.rows, batch)
            assert self.rows == self.expected(batch.commit), self._name
            assert types_of(self.rows) == types_of(self.expected(batch.commit)), self._name
            for part in stored(self.rows):
                assert (part.id, part.version) not in known or id(part) in before, "an unchanged row is another object"
            self.batches += 1
            self._seen[self._name] += bool(self.rows) and self.batches > 1
            self._seen["resets"] += self.batches > 1 and any(isinstance(each, Reset) for each in batch.changes)


def stored(row: object) -> Iterable[StoredRow]:
    """Every row of a store that a result is made of."""
    if isinstance(row, StoredRow):
        yield row
    elif isinstance(row, tuple):
        for part in cast("tuple[object, ...]", row):
            yield from stored(part)


def types_of(row: object) -> object:
    return tuple(map(types_of, cast("tuple[object, ...]", row))) if isinstance(row, tuple) else type(row)


async def scenario(script: list[Any], seen: Counter[str]) -> None:
    tables: dict[str, dict[str, StoredRow]] = {"cards": {}, "remarks": {}}
    history: dict[int, dict[str, list[StoredRow]]] = {}

    def hear(change: ChangeSet) -> None:
        for store, delta in change.changes.items():
            for key, (_, new) in delta.items():
                tables[store].pop(key, None)
                if new is not None:
                    tables[store][key] = new
        history[change.commit] = {store: list(rows.values()) for store, rows in tables.items()}

    def put(given: list[tuple[str, int, Any]], tx: LocalTx) -> None:
        for store, number, image in given:
            prefix = "k" if store == "cards" else "r"
            tx.rows.put(store, f"{prefix}{number}", "main", image)

    async with AsyncExitStack() as stack:
        engine = SQLiteEngine(":memory:")
        database = await stack.enter_async_context(engine.open_database(SCHEMA, seeded_environment(1), frozenset()))
        database.subscribe_commits(hear)
        await database.apply(partial(put, FIRST))
        live = await stack.enter_async_context(open_live_queries(database, SCHEMA))
        nursery = await stack.enter_async_context(trio.open_nursery())
        readers = [Reader(name, history, seen) for name in PLANS]
        for reader in readers:
            nursery.start_soon(reader.run, await stack.enter_async_context(live.open_live(reader.query)))
        await trio.testing.wait_all_tasks_blocked()
        for given in script:
            before = [(reader.rows, reader.batches) for reader in readers]
            await database.apply(partial(put, given))
            await trio.testing.wait_all_tasks_blocked()
            last = max(history)
            for reader, (rows, batches) in zip(readers, before, strict=True):
                assert reader.rows == reader.expected(last)
                fresh = await database.read(reader.query)
                assert reader.rows == (fresh.rows or fresh.tuples)
                assert reader.batches - batches == (reader.rows != rows), (
                    "one batch for a commit that changes the result"
                )
        seen["skipped"] += sum(stats.skipped for stats in live.stats())
        nursery.cancel_scope.cancel()


def test_every_shape_of_a_plan_is_followed() -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(commits)
    def run(script: list[Any]) -> None:
        try:
            trio.run(scenario, script, seen, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseExceptionGroup as group:
            failure: BaseException = group
            while isinstance(failure, BaseExceptionGroup):
                failure = failure.exceptions[0]
            raise failure from None

    run()
    assert {name: seen[name] for name in PLANS if seen[name] < 10} == {}
    assert seen["skipped"] > 50
