"""What the builder says means the same in SQLite, with and without indexes, and in plain Python: groups, joins, subqueries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import trio
from hypothesis import HealthCheck, event, given, settings

from atoma.contracts.values import RowImage, StoredRow
from atoma.ports import LocalTx, seeded_environment
from atoma.query import avg, bind, count, count_of, counted, exists, max_, min_, number_of, scalar, select, sum_
from atoma.query.builder import Query
from atoma.query.evaluate import evaluate
from atoma.query.plans import every_row
from atoma.schema import Index, Schema, StoreSpec
from atoma.schema.expressions import Condition, Expression
from atoma_stores.sqlite.engine import SQLiteEngine, SQLiteLocalDatabase
from tests.properties.test_query_semantics import IDS, Row

NAMES = ("left", "right")
BARE = {name: StoreSpec(name, Row) for name in NAMES}
FAST = {
    name: StoreSpec(f"{name}_fast", Row, indexes=[Index("i", "n"), Index("n"), Index("s", "i"), Index("t")])
    for name in NAMES
}
SCHEMA = Schema(*BARE.values(), *FAST.values())
SMALL = st.sampled_from([0, 1, 2, 3])
IMAGES = st.fixed_dictionaries(
    {
        "i": st.none() | SMALL,
        "r": st.none() | st.sampled_from([0.5, 1.5, -2.0]),
        "t": st.none() | st.sampled_from(["a", "A", "b", "é"]),
        "b": st.just(b""),
        "n": SMALL,
        "s": st.sampled_from(["a", "b", "c"]),
    }
)
TABLES = st.dictionaries(IDS, IMAGES, min_size=2, max_size=9)
Sides = dict[str, StoreSpec[Row]]
Build = Callable[[Sides], Query[Any]]
MADE: Counter[str] = Counter()
"""How many answers there were of each shape, and how many of them had rows, pages and NULLs."""


def whole(spec: StoreSpec[Row], name: str) -> Expression[Any]:
    return spec.col(lambda row: getattr(row, name))


@st.composite
def conditions(draw: st.DrawFn) -> Callable[[StoreSpec[Row]], Condition]:
    name, value, sign = draw(st.sampled_from("in")), draw(SMALL), draw(st.sampled_from("<=!n"))
    signs: dict[str, Callable[[Expression[Any]], Condition]] = {
        "<": lambda column: column < value,
        "=": lambda column: column == value,
        "!": lambda column: ~(column >= value),
        "n": lambda column: column.is_null() | (column > value),
    }
    return lambda spec: signs[sign](whole(spec, name))


KEYS = st.sampled_from(["i", "n", "s", "t", "r"])
ON = st.sampled_from([("i", "n"), ("n", "i"), ("s", "s"), ("t", "t"), ("i", "i")])


@st.composite
def shapes(draw: st.DrawFn) -> tuple[str, Build]:
    keep, inner, other = draw(conditions()), draw(conditions()), draw(conditions())
    key, second, (near, far) = draw(KEYS), draw(KEYS), draw(ON)
    falling, most = draw(st.booleans()), draw(st.integers(0, 2))

    def meets(of: Sides) -> Condition:
        return whole(of["left"], near) == whole(of["right"], far)

    def grouped(of: Sides) -> Query[Any]:
        spec = of["left"]
        number = whole(spec, "i")
        aggregates = (
            count(),
            count(number, where=other(spec)),
            sum_(number),
            avg(number),
            min_(number),
            max_(whole(spec, "t")),
        )
        return select(spec).where(keep(spec)).columns(whole(spec, key), *aggregates).group_by(whole(spec, key))

    def derived(of: Sides) -> Query[Any]:
        spec = of["right"]
        table = select(spec).columns(whole(spec, far), count()).group_by(whole(spec, far)).order_by(count().desc())
        top = (table.limit(most) if falling else table).named("top")
        found: Query[Any] = select(of["left"]).left_join(top, whole(of["left"], near) == top.col(lambda row: row[0]))
        return found

    def among(of: Sides) -> Condition:
        lookup = select(of["right"]).where(inner(of["right"])).columns(whole(of["right"], far))
        return whole(of["left"], near).in_(lookup.limit(most) if falling else lookup)

    def sorted_(query: Query[Any], by: Expression[Any]) -> Query[Any]:
        return query.order_by(by.desc() if falling else by)

    left: dict[str, Build] = {
        "columns": lambda of: sorted_(select(of["left"]).columns(whole(of["left"], "t")), whole(of["left"], key)),
        "distinct": lambda of: select(of["left"]).columns(whole(of["left"], key), whole(of["left"], "n")).distinct(),
        "group": grouped,
        "having": lambda of: sorted_(grouped(of).having(count() > most), count()),
        "join": lambda of: select(of["left"]).join(of["right"], meets(of)).where(keep(of["left"])),
        "left join": lambda of: sorted_(
            select(of["left"]).left_join(of["right"], meets(of)), whole(of["right"], second)
        ),
        "anti join": lambda of: (
            select(of["left"]).left_join(of["right"], meets(of)).where(whole(of["right"], "id").is_null())
        ),
        "group of a join": lambda of: (
            select(of["left"])
            .left_join(of["right"], meets(of))
            .columns(whole(of["left"], key), count(whole(of["right"], "n")), sum_(whole(of["right"], "n")))
            .group_by(whole(of["left"], key))
        ),
        "exists": lambda of: select(of["left"]).where(exists(select(of["right"]).where(meets(of), inner(of["right"])))),
        "not exists": lambda of: select(of["left"]).where(~exists(select(of["right"]).where(meets(of)))),
        "in": lambda of: select(of["left"]).where(among(of)),
        "not in": lambda of: select(of["left"]).where(~among(of)),
        "in, as a value": lambda of: select(of["left"]).columns(whole(of["left"], "id"), among(of)),
        "number": lambda of: sorted_(
            select(of["left"]).columns(whole(of["left"], "id"), count_of(select(of["right"]).where(meets(of)))),
            whole(of["left"], key),
        ),
        "scalar": lambda of: select(of["left"]).columns(
            whole(of["left"], "id"), scalar(select(of["right"]).where(meets(of)).columns(max_(whole(of["right"], "i"))))
        ),
        "derived": derived,
    }
    name = draw(st.sampled_from(sorted(left)))
    return name, left[name]


async def fill(db: SQLiteLocalDatabase, tables: dict[str, dict[str, RowImage]]) -> dict[str, list[StoredRow]]:
    def body(tx: LocalTx) -> None:
        for name, table in tables.items():
            for spec in (BARE[name], FAST[name]):
                tx.base.put_many(spec.name, "main", ((id, image, 1) for id, image in table.items()))

    await db.apply(body)
    return {spec.name: list((await db.read(every_row(spec.name))).rows) for of in (BARE, FAST) for spec in of.values()}


def comparable(rows: list[Any]) -> list[object]:
    """Values with their types; rows of stores by what they hold, so that those of two stores are equal."""

    def plain(cell: object) -> object:
        if isinstance(cell, StoredRow):
            return (cell.id, tuple(cell.image.items()))
        if isinstance(cell, tuple):
            return tuple(map(plain, cell))
        return (int, int(cell)) if isinstance(cell, bool) else (type(cell), cell)  # SQLite has 0 and 1

    return [plain(row) for row in rows]


async def answer(db: SQLiteLocalDatabase, query: Query[Any]) -> tuple[list[Any], str]:
    result = await db.read(bind(query, SCHEMA))
    return list(result.rows or result.tuples), result.meta.cursor


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(left=TABLES, right=TABLES, asked=st.lists(shapes(), min_size=2, max_size=6), size=st.integers(1, 3))
def check_all(left: dict[str, RowImage], right: dict[str, RowImage], asked: list[tuple[str, Build]], size: int) -> None:
    trio.run(check_shapes, left, right, asked, size)


async def check_shapes(
    left: dict[str, RowImage], right: dict[str, RowImage], asked: list[tuple[str, Build]], size: int
) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        tables = await fill(db, {"left": left, "right": right})
        for name, build in asked:
            expected = comparable(evaluate(bind(build(BARE), SCHEMA), tables))
            for of in (BARE, FAST):
                query = build(of)
                rows, _ = await answer(db, query)
                assert comparable(rows) == expected, name
                assert number_of(await db.read(counted(bind(query, SCHEMA)))) == len(expected), name
                pages, cursor = await answer(db, query.limit(size))
                while cursor:
                    page, cursor = await answer(db, query.limit(size).after(cursor))
                    pages += page
                assert comparable(pages) == expected, name
            event(f"{name}: {'some' if expected else 'nothing'}")
            MADE.update(
                {
                    name: 1,
                    "answers": 1,
                    "with rows": bool(expected),
                    "with pages": len(expected) > size,
                    "with NULL": any("NoneType" in repr(row) or "None" in repr(row) for row in expected),
                }
            )


def test_what_the_builder_says_means_the_same_everywhere() -> None:
    MADE.clear()
    check_all()
    answers = MADE["answers"]
    assert MADE["with rows"] >= 0.4 * answers, MADE
    assert MADE["with pages"] >= 0.2 * answers, MADE
    assert MADE["with NULL"] >= 0.2 * answers, MADE
    assert len(MADE) == 16 + 4, "every shape was asked for"
