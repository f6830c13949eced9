"""Every operator gives in SQLite what it gives in plain Python: the same value, of the same type, or an error in both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import product
from typing import Annotated
from uuid import UUID

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from msgspec.structs import replace

from atoma.contracts.functions import FUNCTIONS
from atoma.contracts.query import AS_WRITTEN, Call, Col, Expr, Lit, Named, Plan, Store
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.ports import LocalTx, seeded_environment
from atoma.query.compiled import compiled
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.query.plans import every_row
from atoma.schema import Scale, Schema, StoreSpec
from atoma_stores.sqlite.engine import SQLiteEngine, SQLiteLocalDatabase


@dataclass
class Thing:
    id: str
    i: int | None
    j: int
    r: float | None
    q: float
    t: str | None
    s: str
    b: bool | None
    m: Annotated[Decimal, Scale(2)]
    k: timedelta
    d: date
    w: datetime | None
    c: time
    u: UUID


THINGS = StoreSpec("things", Thing)
SCHEMA = Schema(THINGS)
COLUMNS: dict[str, Sequence[str]] = {
    "int": "ij", "real": "rq", "text": "ts", "bool": "b", "decimal(2)": "m", "duration": "k", "date": "d", "time": "w",
    "clock": "c", "uuid": "u",
}  # fmt: skip
BIG = 2**63 - 1
INTEGERS = st.sampled_from([0, 1, -1, 2, 7, -7, 10**9, 2**53 + 1, BIG, -BIG - 1, 2**62]) | st.integers(-9, 9)
REALS = st.sampled_from(
    [0.0, 1.0, -1.5, 2.5, 0.1, 2.675, 1e308, 5e-324, 1e16, 9.3e18, math.inf, -math.inf, 0.49999999999999994]
) | st.floats(-99, 99, allow_subnormal=False)
WORDS = [
    "",
    "a",
    "A",
    " a ",
    "ab",
    "aBa",
    "é",
    "É",
    "12",
    "-7",
    "+3",
    " 4",
    "1e3",
    ".5",
    "0x1",
    "9" * 20,
    "\U0001f600b",
    "%",
    "  ",
]
TEXTS = st.sampled_from(WORDS) | st.text("aAb é%1.-", max_size=5)
DAYS = st.dates()
MOMENTS = st.datetimes(timezones=st.just(UTC))
VALUES: dict[str, st.SearchStrategy[object]] = {
    "int": INTEGERS,
    "real": REALS,
    "text": TEXTS,
    "bool": st.booleans(),
    "decimal(2)": st.integers(-(10**6), 10**6).map(lambda value: Decimal(value).scaleb(-2)),
    "duration": st.integers(-(10**12), 10**12).map(lambda value: timedelta(microseconds=value)),
    "date": DAYS,
    "time": MOMENTS,
    "clock": st.times(),
    "uuid": st.uuids(),
}


@st.composite
def things(draw: st.DrawFn) -> list[Thing]:
    def one(kind: str, *, missing: bool = False) -> st.SearchStrategy[object]:
        return st.none() | VALUES[kind] if missing else VALUES[kind]

    nullable = {name for name, field in THINGS.fields.items() if field.nullable}
    made: list[Thing] = []
    for number in range(draw(st.integers(1, 5))):
        values = {name: draw(one(kind, missing=name in nullable)) for kind, names in COLUMNS.items() for name in names}
        made.append(Thing(id=str(number), **values))  # type: ignore[arg-type]  # of that type by its name
    return made


ELSEWHERE = {fn for fn, function in FUNCTIONS.items() if {"path", "search", "regex"} & set(function.takes)} | {
    "in",
    "like",
}
"""Those that have properties of their own."""
FNS = [fn for fn in FUNCTIONS if fn not in ELSEWHERE]


def gives(fn: str, kind: str) -> bool:
    """Whether a call of ``fn`` may be a ``kind``."""
    function = FUNCTIONS[fn]
    if function.gives != "same":
        return function.gives == kind
    return not function.among or kind.partition("(")[0] in function.among


GIVING = {kind: [fn for fn in FNS if gives(fn, kind)] for kind in COLUMNS}


@st.composite
def expressions(draw: st.DrawFn, kind: str, depth: int = 3) -> Expr:
    """An expression of a type."""
    what = draw(st.integers(0, 5))
    if what == 0:
        return Lit(AS_WRITTEN, draw(VALUES[kind]))
    if what == 1 or depth == 0 or not GIVING[kind]:
        return Col(0, draw(st.sampled_from(COLUMNS[kind])))
    fn = draw(st.sampled_from(GIVING[kind]))
    function = FUNCTIONS[fn]
    same = kind
    if function.gives != "same":
        same = draw(
            st.sampled_from(
                [each for each in COLUMNS if not function.among or each.partition("(")[0] in function.among]
            )
        )
    args: list[Expr] = []
    for number, each in enumerate((*function.takes, *function.takes[-1:] * function.rest)):
        if number in function.literals:
            args.append(Lit(AS_WRITTEN, draw(st.integers(-2, 6) if each == "int" else TEXTS)))
        else:
            args.append(draw(expressions(same if each in ("same", "any") else each, depth - 1)))
    return Call(fn, tuple(args))


async def fill(db: SQLiteLocalDatabase, rows: Sequence[Thing]) -> list[StoredRow]:
    images = [THINGS.encode(row) for row in rows]

    def body(tx: LocalTx) -> None:
        tx.base.put_many("things", "main", ((id, image, 1) for id, image in images))

    await db.apply(body)
    return list((await db.read(every_row("things"))).rows)


def typed(value: object, kind: str) -> tuple[str, object]:
    """A value with its type; conditions are 0 and 1 in SQL."""
    if value is None:
        return "null", None
    return ("bool", bool(value)) if kind == "bool" else (type(value).__name__, repr(value))


def shifted(left: str, right: object) -> Expr:
    return Call("add", (Col(0, left), Lit(AS_WRITTEN, right)))


KINDS = st.sampled_from(sorted(COLUMNS))
ONE = Thing(
    "0", None, BIG, None, 2.675, None, "", None, Decimal(1), timedelta(1), date(2026, 1, 31), None, time(1), UUID(int=1)
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=things(),
    asked=st.lists(KINDS.flatmap(lambda kind: st.tuples(st.just(kind), expressions(kind))), min_size=4, max_size=8),
)
@example(rows=[ONE], asked=[("int", shifted("j", 1)), ("int", Call("neg", (Call("neg", (Col(0, "i"),)),)))])
@example(rows=[ONE], asked=[("real", Call("round", (Col(0, "q"), Lit(AS_WRITTEN, 2))))])
async def test_an_operator_means_the_same(rows: list[Thing], asked: list[tuple[str, Expr]]) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        stored = await fill(db, rows)
        for kind, expr in asked:
            try:
                query = bind(Plan(Store("things"), columns=(Named("c", expr),)), SCHEMA.store)
            except QueryError:
                event("refused")  # an overflow of values alone
                continue
            try:
                expected = [typed(row[0], kind) for row in evaluate(query, {"things": stored})]
            except QueryError:
                expected = None
            try:
                found = [typed(row[0], kind) for row in (await db.read(query)).tuples]
            except QueryError:
                found = None
            event("an error" if expected is None else "null" if expected[0][1] is None else "a value")
            assert found == expected, query
            if expected is not None:
                assert query.plan.columns is not None
                value = compiled(query.plan.columns[0].expr, query.params)
                assert [typed(value(row), kind) for row in stored] == expected


ROWS = [
    ONE,
    Thing("1", -7, 2, -1.5, math.inf, " aBa ", "a", True, Decimal("-0.05"), -timedelta(1), date(1, 1, 1),
          datetime(2026, 1, 31, 12, 34, 56, 7, UTC), time(23, 59, 58, 1), UUID(int=2)),
    Thing("2", -BIG - 1, -1, 1e308, -math.inf, "12", "é", False, Decimal(2), timedelta(0), date(9999, 12, 31),
          datetime(1, 2, 3, tzinfo=UTC), time(0), UUID(int=3)),
    Thing("3", 0, 0, 0.0, 0.0, "-7 ", "", None, Decimal(0), timedelta(0), date(2000, 2, 29), None, time(1, 2, 3), UUID(int=0)),
]  # fmt: skip


def calls(fn: str) -> Iterator[tuple[str, Expr]]:
    """``fn`` of columns of every type that it takes, with values of many kinds where it takes values; and what it gives."""
    function = FUNCTIONS[fn]
    for same in COLUMNS if "same" in function.takes or "any" in function.takes else ("",):
        if function.among and same.partition("(")[0] not in function.among:
            continue
        choices: list[list[Expr]] = []
        for number, each in enumerate((*function.takes, *function.takes[-1:] * function.rest)):
            kind = same if each in ("same", "any") else each
            if number in function.literals:
                values: Sequence[object] = (-1, 0, 1, 3) if kind == "int" else ("", "a", "a ", "é")
                choices.append([Lit(AS_WRITTEN, value) for value in values])
            else:
                choices.append([Col(0, name) for name in COLUMNS[kind]])
        for args in product(*choices):
            yield (same if function.gives == "same" else function.gives), Call(fn, args)


@pytest.mark.parametrize("fn", FNS)
async def test_a_function_means_the_same_of_every_column(fn: str) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        for row in ROWS:
            (stored,) = [each for each in await fill(db, [row]) if each.id == row.id]
            for kind, expr in calls(fn):
                plan = Plan(Store("things"), where=Call("eq", (Col(0, "id"), Lit("text", row.id))))
                query = bind(replace(plan, columns=(Named("c", expr),)), SCHEMA.store)
                expected = found = "an error"
                with suppress(QueryError):
                    expected = str(typed(evaluate(query, {"things": [stored]})[0][0], kind))
                with suppress(QueryError):
                    found = str(typed((await db.read(query)).tuples[0][0], kind))
                assert found == expected, query


def test_every_function_is_among_those_that_are_tried() -> None:
    assert {fn for fns in GIVING.values() for fn in fns} | ELSEWHERE == FUNCTIONS.keys()
