"""A query means the same in SQLite and in plain Python, with and without an index, whole and page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import HealthCheck, event, example, given, settings
from msgspec.structs import replace

from atoma.contracts.query import NULL, BoundQuery, Call, Col, Expr, Lit, Order, Plan, Store
from atoma.contracts.values import RowImage, Scalar, StoredRow
from atoma.ports import LocalTx, seeded_environment
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind, rebind
from atoma.query.plans import by_ids, counted, every_row, number_of
from atoma.query.seek import decode_cursor, seek
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.sqlite.engine import SQLiteEngine, SQLiteLocalDatabase


@dataclass
class Row:
    id: str
    i: int | None
    r: float | None
    t: str | None
    b: bytes | None
    n: int
    s: str


PLAIN = StoreSpec("plain", Row)
INDEXED = StoreSpec(
    "indexed", Row, indexes=[Index("i"), Index("r", "t"), Index("t"), Index("b", "n"), Index("n"), Index("s", "i")]
)
SCHEMA = Schema(PLAIN, INDEXED)
BIG = 2**53

INTEGERS = st.sampled_from([0, 1, 5, -1, 2, BIG, BIG + 1, -BIG - 1, 2**63 - 1, -(2**63), 2**62])
REALS = st.sampled_from(
    [0.0, -0.0, 1.0, -1.5, 2.0, 5.0, float(BIG), float("inf"), float("-inf"), 9.223372036854775807e18, 1e300, 5e-324]
)
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "A",
        "b",
        "ab",
        "aB",
        "é",
        "É",
        "ß",
        "z",
        "\U0001f600",
        "\uffff",
        "1",
        "5",
        "5.0",
        "%",
        "_",
        "\\",
        "a_b",
    ]
) | st.text("aA%_é\\", max_size=4)
BLOBS = st.sampled_from([b"", b"\x00", b"a", b"\xff", b"\x00\x01"])
KINDS: dict[str, st.SearchStrategy[Scalar]] = {
    "i": INTEGERS,
    "r": REALS,
    "t": TEXTS,
    "b": BLOBS,
    "n": INTEGERS,
    "s": TEXTS,
}
IDS = st.sampled_from([f"{letter}{number}" for letter in "aAé" for number in range(6)])
IMAGES = st.fixed_dictionaries(
    {name: strategy if name in "ns" else st.none() | strategy for name, strategy in KINDS.items()}
)
TABLES = st.dictionaries(IDS, IMAGES, max_size=14)
FIELDS = st.sampled_from([*KINDS, "id"])
REGEXES = st.sampled_from(["", "^a", "[%_]", "(?i)A.", r"\w{2}$", "é|^$", r"[^\\]{2}", "(a|A)*5"])
OPS = st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"])


TYPES = {"i": "int", "r": "real", "t": "text", "b": "blob", "n": "int", "s": "text", "id": "text"}


def literal(field: str, value: Scalar) -> Lit:
    return Lit(NULL if value is None else TYPES[field], value)


def fitting(field: str) -> st.SearchStrategy[Scalar]:
    """A value of the field's own kind; asked for, text may hold a NUL."""
    if field in "ts":
        return TEXTS | st.sampled_from(["z\x00", "z\x00b", "\x00"])
    return IDS if field == "id" else KINDS[field]


@st.composite
def leaves(draw: st.DrawFn) -> Expr:
    field = draw(FIELDS)
    column = Col(0, field)
    match draw(st.integers(0, 7)):
        case 0:
            values = draw(st.lists(st.none() | fitting(field), max_size=4))
            among = Call("in", (column, *(literal(field, value) for value in values)))
            return Call("not", (among,)) if draw(st.booleans()) else among  # only a negation tells false from unknown
        case 1:
            return Call("is_null", (column,))
        case 2:
            text = Col(0, draw(st.sampled_from(["t", "s", "id"])))
            return Call("like", (text, Lit("text", draw(st.text("aA%_é\\b\x00", max_size=5)))))
        case 7:
            text = Col(0, draw(st.sampled_from(["t", "s", "id"])))
            return Call("regex", (text, Lit("text", draw(REGEXES))))
        case 3:
            other = Col(0, draw(st.sampled_from([name for name in TYPES if TYPES[name] == TYPES[field]])))
            return Call(draw(OPS), (column, other))
        case 4:
            text = Col(0, draw(st.sampled_from(["t", "s"])))
            folded = Call(draw(st.sampled_from(["lower", "upper"])), (text,))
            return Call(draw(OPS), (folded, Lit("text", draw(TEXTS))))
        case 5:
            held = Call("coalesce", (Col(0, "t"), Col(0, "s")))
            return Call(draw(OPS), (Call("length", (held,)), Lit("int", draw(st.integers(0, 3)))))
        case _:
            args = (column, literal(field, draw(fitting(field))))
            return Call(draw(OPS | st.just("is_same")), args if draw(st.booleans()) else args[::-1])


def combined(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    some = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(
        some.map(lambda args: Call("and", args)),
        some.map(lambda args: Call("or", args)),
        inner.map(lambda arg: Call("not", (arg,))),
    )


CONDITIONS = st.none() | st.recursive(leaves(), combined, max_leaves=8)
ORDERS = st.lists(st.tuples(FIELDS, st.booleans()), max_size=3, unique_by=lambda key: key[0]).map(
    lambda keys: tuple(Order(Col(0, name), descending) for name, descending in keys)
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    plan = Plan(
        Store("plain"),
        where=draw(CONDITIONS),
        order=draw(ORDERS),
        limit=draw(st.none() | st.integers(0, 6)),
        offset=draw(st.integers(0, 3)),
    )
    if not draw(st.booleans()):
        return plan
    names = [order.expr.name for order in bind(plan, SCHEMA.store).plan.order if isinstance(order.expr, Col)]
    values = [draw(IDS if name == "id" else KINDS[name] if name in "ns" else st.none() | KINDS[name]) for name in names]
    return seek(plan, values, forward=draw(st.booleans()))


def of(store: str, plan: Plan) -> BoundQuery:
    return bind(replace(plan, source=Store(store)), SCHEMA.store)


async def fill(db: SQLiteLocalDatabase, table: dict[str, RowImage]) -> list[StoredRow]:
    def body(tx: LocalTx) -> None:
        for store in SCHEMA.stores:
            tx.base.put_many(store, "main", ((id, image, 1) for id, image in table.items()))

    await db.apply(body)
    return list((await db.read(every_row("plain"))).rows)


def comparable(rows: Sequence[StoredRow]) -> list[tuple[str, list[tuple[str, object]]]]:
    """Values with their types, so that 1 and 1.0 and True differ."""
    return [(row.id, [(name, (type(value), value)) for name, value in row.image.items()]) for row in rows]


def plain(id: str, **values: Scalar) -> dict[str, RowImage]:
    return {id: {"i": None, "r": None, "t": None, "b": None, "n": 0, "s": "", **values}}


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(table=TABLES, asked=st.lists(plans(), min_size=1, max_size=8))
@example(  # NULL comes last descending, also for a comparison of whole keys
    table={**plain("a0", i=1), **plain("a1"), **plain("a2")},
    asked=[seek(Plan(Store("plain"), order=(Order(Col(0, "i"), True),)), (None, "a1"))],
)
async def test_sqlite_and_python_agree(table: dict[str, RowImage], asked: list[Plan]) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        rows = await fill(db, table)
        assert {row.id: row.image for row in rows} == table
        for plan in asked:
            expected = evaluate(of("plain", plan), {"plain": rows})
            event("empty" if not expected else "all" if len(expected) == len(rows) else "some")
            for store in SCHEMA.stores:
                query = of(store, plan)
                assert comparable((await db.read(query)).rows) == comparable(expected)
                whole = bind(Plan(query.plan.source, where=replace(plan, seek=None).where), SCHEMA.store)
                assert number_of(await db.read(counted(whole))) == len(evaluate(whole, {store: rows}))


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(table=TABLES, where=CONDITIONS, order=ORDERS, size=st.integers(1, 5))
@example(
    table={**plain("a0", i=1), **plain("a1"), **plain("a2")},
    where=None,
    order=(Order(Col(0, "i"), True), Order(Col(0, "id"), True)),
    size=1,
)
async def test_pages_put_together_are_the_whole_list(
    table: dict[str, RowImage], where: Expr | None, order: tuple[Order, ...], size: int
) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        await fill(db, table)
        for store in SCHEMA.stores:
            every = Plan(Store(store), where=where, order=order)
            whole = (await db.read(bind(every, SCHEMA.store))).rows
            pages: list[StoredRow] = []
            plan = replace(every, limit=size)
            while True:
                page = await db.read(bind(plan, SCHEMA.store))
                assert len(page.rows) <= size
                pages += page.rows
                if not page.meta.cursor:
                    break
                assert len(page.rows) == size
                plan = seek(plan, decode_cursor(page.meta.cursor, bind(every, SCHEMA.store)))
            assert pages == list(whole)


@settings(max_examples=150)
@given(pattern=st.text("aA%_é\\b\x00É", max_size=6), text=st.text("aAbBé%_\\É", max_size=6))
async def test_like_is_sqlites(pattern: str, text: str) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        image: RowImage = {"i": None, "r": None, "t": text, "b": None, "n": 0, "s": text}
        rows = await fill(db, {"a0": image})
        query = of("plain", Plan(Store("plain"), where=Call("like", (Col(0, "s"), Lit("text", pattern)))))
        assert len((await db.read(query)).rows) == len(evaluate(query, {"plain": rows}))


@settings(max_examples=40)
@given(table=TABLES, ids=st.lists(IDS, max_size=6))
async def test_the_rows_of_ids_come_by_id_each_once(table: dict[str, RowImage], ids: list[str]) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        await fill(db, table)
        found = (await db.read(by_ids("plain", tuple(ids)))).rows
        assert [row.id for row in found] == sorted({id for id in ids if id in table})


@settings(max_examples=200)
@given(plan=plans())
def test_the_normal_form_is_its_own_and_means_the_same(plan: Plan) -> None:
    bound = of("plain", plan)
    assert rebind(bound, SCHEMA.store) == bound
