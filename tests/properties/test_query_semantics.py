"""A query means the same in SQLite and in plain Python, with and without an index, whole and page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import HealthCheck, event, example, given, settings

from atoma.contracts.query import And, Compare, CompareOp, In, IsNull, Like, Not, Or, Predicate, QuerySpec, Sort
from atoma.contracts.values import RowImage, Scalar, StoredRow
from atoma.ports import LocalTx, seeded_environment
from atoma.query import decode_cursor
from atoma.query.evaluate import evaluate, total_order
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
        "z\x00",
        "z\x00b",
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
) | st.text("aA%_é\\\x00", max_size=4)
BLOBS = st.sampled_from([b"", b"\x00", b"a", b"\xff", b"\x00\x01"])
ANY_VALUE: st.SearchStrategy[Scalar] = st.one_of(INTEGERS, REALS, TEXTS, BLOBS, st.booleans(), st.none())
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
OPS: st.SearchStrategy[CompareOp] = st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"])


@st.composite
def fitting(draw: st.DrawFn, field: str) -> Scalar:
    """Mostly a value of the field's own kind, sometimes any other."""
    if draw(st.integers(0, 3)) == 0:
        return draw(ANY_VALUE)
    return draw(IDS if field == "id" else KINDS[field])


@st.composite
def leaves(draw: st.DrawFn) -> Predicate:
    field = draw(FIELDS)
    match draw(st.integers(0, 3)):
        case 0:
            among = In(field, tuple(draw(st.lists(st.none() | fitting(field), max_size=4))))
            return Not(among) if draw(st.booleans()) else among  # only a negation tells false from unknown
        case 1:
            return IsNull(field)
        case 2:
            return Like(draw(st.sampled_from(["t", "s", "id"])), draw(st.text("aA%_é\\b\x00", max_size=5)))
        case _:
            return Compare(draw(OPS), field, draw(fitting(field)))


def combined(inner: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    some = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(some.map(And), some.map(Or), inner.map(Not))


PREDICATES = st.none() | st.recursive(leaves(), combined, max_leaves=8)
ORDERS = st.lists(st.tuples(FIELDS, st.booleans()), max_size=3, unique_by=lambda key: key[0]).map(
    lambda keys: tuple(Sort(*key) for key in keys)
)


@st.composite
def queries(draw: st.DrawFn) -> QuerySpec:
    order = draw(ORDERS)
    after: tuple[object, ...] | None = None
    if draw(st.booleans()):
        keys = total_order(QuerySpec(order=order))
        after = tuple(draw(st.none() | fitting(key.field)) if key.field != "id" else draw(IDS) for key in keys)
    limit = draw(st.none() | st.integers(0, 6))
    return QuerySpec(draw(PREDICATES), order, limit, draw(st.integers(0, 3)), after, None, draw(st.integers(0, 9)) == 0)


async def fill(db: SQLiteLocalDatabase, table: dict[str, RowImage]) -> list[StoredRow]:
    def body(tx: LocalTx) -> None:
        for store in SCHEMA.stores:
            tx.put_base_many(store, "main", ((id, image, 1) for id, image in table.items()))

    await db.apply(body)
    return list((await db.read("plain", QuerySpec())).rows)


def comparable(rows: Sequence[StoredRow]) -> list[tuple[str, list[tuple[str, object]]]]:
    """Values with their types, so that 1 and 1.0 and True differ."""
    return [(row.id, [(name, (type(value), value)) for name, value in row.image.items()]) for row in rows]


def plain(id: str, **values: Scalar) -> dict[str, RowImage]:
    return {id: {"i": None, "r": None, "t": None, "b": None, "n": 0, "s": "", **values}}


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(table=TABLES, specs=st.lists(queries(), min_size=1, max_size=8))
@example(
    table={"a0": {"i": BIG + 1, "r": float(BIG), "t": None, "b": None, "n": 0, "s": ""}},
    specs=[
        QuerySpec(Compare("eq", "i", float(BIG))),
        QuerySpec(Compare("lt", "r", BIG + 1)),
        QuerySpec(In("r", (BIG + 1,))),
    ],
)
@example(  # a column's affinity would turn the one into the other
    table={**plain("a0", i=5, r=5.0, t="5"), **plain("a1", t="x", n=5)},
    specs=[
        QuerySpec(
            Or((Compare("eq", "i", "5"), Compare("eq", "r", "5.0"), Compare("eq", "t", 5), Compare("ge", "n", "")))
        ),
        QuerySpec(Or((In("i", ("5",)), In("t", (5,)), Compare("lt", "s", 1), Compare("gt", "s", b"")))),
        QuerySpec(None, (Sort("t"), Sort("id")), after=(5, "a0")),
    ],
)
async def test_sqlite_and_python_agree(table: dict[str, RowImage], specs: list[QuerySpec]) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        rows = await fill(db, table)
        assert {row.id: row.image for row in rows} == table
        for spec in specs:
            expected = evaluate(spec, rows)
            event("empty" if not expected else "all" if len(expected) == len(rows) else "some")
            for store in SCHEMA.stores:
                result = await db.read(store, spec)
                if spec.count:
                    assert result.total == len(expected)
                else:
                    assert comparable(result.rows) == comparable(expected)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(table=TABLES, where=PREDICATES, order=ORDERS, size=st.integers(1, 5))
@example(  # NULL comes last descending, also for a comparison of whole keys
    table={**plain("a0", i=1), **plain("a1"), **plain("a2")},
    where=None,
    order=(Sort("i", True), Sort("id", True)),
    size=1,
)
async def test_pages_put_together_are_the_whole_list(
    table: dict[str, RowImage], where: Predicate | None, order: tuple[Sort, ...], size: int
) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        await fill(db, table)
        for store in SCHEMA.stores:
            whole = (await db.read(store, QuerySpec(where, order))).rows
            pages: list[StoredRow] = []
            after: tuple[object, ...] | None = None
            while True:
                page = await db.read(store, QuerySpec(where, order, size, 0, after))
                assert len(page.rows) <= size
                pages += page.rows
                if not page.meta.cursor:
                    break
                assert len(page.rows) == size
                after = decode_cursor(page.meta.cursor, total_order(QuerySpec(order=order)))
            assert pages == list(whole)


@settings(max_examples=150)
@given(pattern=st.text("aA%_é\\b\x00É", max_size=6), text=st.text("aAbBé%_\\\x00É", max_size=6))
async def test_like_is_sqlites(pattern: str, text: str) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        image: RowImage = {"i": None, "r": None, "t": text, "b": None, "n": 0, "s": text}
        rows = await fill(db, {"a0": image})
        spec = QuerySpec(Like("s", pattern))
        assert len((await db.read("plain", spec)).rows) == len(evaluate(spec, rows))


@settings(max_examples=40)
@given(table=TABLES, ids=st.lists(IDS, max_size=6))
async def test_ids_are_answered_in_their_order(table: dict[str, RowImage], ids: list[str]) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        rows = await fill(db, table)
        spec = QuerySpec(ids=tuple(ids))
        found = (await db.read("plain", spec)).rows
        assert [row.id for row in found] == [id for id in ids if id in table]
        assert list(found) == list(evaluate(spec, rows))
