"""Queries of every kind over a few rows, and what plain Python answers to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import NULL, BoundQuery, Call, Col, Lit
from atoma.contracts.values import RowImage, StoredRow
from atoma.query.evaluate import evaluate
from atoma.query.normal import rebind
from atoma.query.plans import by_ids, is_count
from atoma.query.seek import decode_cursor
from atoma.schema.expressions import Condition, Expression, col
from atoma.testing.conformance.checks import expect, expect_equal
from atoma.testing.conformance.notes import NOTES_SCHEMA, note
from atoma.testing.queries import count_of, rows_of

IMAGES: Mapping[str, RowImage] = {
    "a": note("apple", count=1, weight=0.5),
    "b": note("Apple", count=2, blob=b"\x00"),
    "c": note("a_c", count=2, weight=-1.0, blob=b"\x00\x01"),
    "d": note("", count=-(2**63), weight=0.5),
    "e": note("é", count=2**53 + 1),
    "f": note("50%", count=2**53, weight=1e300, blob=b"\xff"),
    "É": note("z", count=0),
}
"""Rows that are told apart by case, by sign, by a digit that a double does not have, by nothing at all."""

_TEXT, _COUNT, _WEIGHT = col("text"), col("count"), col("weight")
_APPLE = _TEXT.like("a%")
_NOTHING: Condition = Expression(Call("eq", (Col(0, "weight"), Lit(NULL, None))))
FILTERS: Mapping[str, Condition] = {
    "eq": _COUNT == 2**53 + 1,
    "ne, which no NULL fits": _WEIGHT != 0.5,
    "lt": _COUNT < 2,
    "le": _TEXT <= "Apple",
    "gt": col("blob") > b"\x00",
    "ge": col("id") >= "c",
    "eq with NULL, which nothing fits": _NOTHING,
    "in": _TEXT.in_(("z", "é", "nothing")),
    "in nothing": _TEXT.in_(()),
    "not in, with a NULL among the values": ~_COUNT.in_((1, None)),
    "null": _WEIGHT.is_null(),
    "not null": _WEIGHT.not_null(),
    "like, which knows ASCII's case": _APPLE,
    "like one letter": _TEXT.like("_"),
    "like, escaped": _TEXT.like(r"a\_c") | _TEXT.like(r"%\%"),
    "and": _APPLE & (_COUNT > 1),
    "or": _WEIGHT.is_null() | (_WEIGHT < 0),
    "not, of what is unknown": ~((_WEIGHT > 0) | (_COUNT == 2)),
    "and of nothing": Expression(Call("and", ())),
    "or of nothing": Expression(Call("or", ())),
}
ORDERS: Mapping[str, tuple[str, ...]] = {
    "by id": ("id",),
    "by id, falling": ("-id",),
    "by weight, NULL first": ("weight",),
    "by weight, falling, NULL last": ("-weight",),
    "by count and text": ("-count", "text"),
    "by blob": ("blob",),
}


def queries() -> dict[str, BoundQuery]:
    """The queries, by what they are about."""
    found = {f"rows where {name}": rows_of("notes", where) for name, where in FILTERS.items()}
    found |= {f"a count where {name}": count_of("notes", where) for name, where in FILTERS.items()}
    found |= {f"rows {name}": rows_of("notes", order_by=order) for name, order in ORDERS.items()}
    found |= {
        f"some rows {name}": rows_of("notes", order_by=order, limit=3, offset=2) for name, order in ORDERS.items()
    }
    found["no rows"] = rows_of("notes", limit=0)
    found["rows of ids"] = by_ids("notes", ("É", "nobody", "b", "a"))
    return found


async def check_queries(ask: Callable[[BoundQuery], Awaitable[QueryResult]]) -> None:
    """Fail the check unless ``ask``, over :data:`IMAGES`, answers each query and each page as plain Python does."""
    rows = {"notes": [StoredRow(id, 1, 0, "main", image) for id, image in IMAGES.items()]}
    for name, query in queries().items():
        bound = rebind(query, NOTES_SCHEMA.store)
        result, due = await ask(bound), evaluate(bound, rows)
        if is_count(bound.plan):
            expect_equal((result.rows, result.tuples), ((), tuple(due)), f"the number of {name}")
        else:
            expect_equal([row.id for row in result.rows], [row.id for row in due], name)
    for name, order in ORDERS.items():
        whole, ids = rebind(rows_of("notes", order_by=order), NOTES_SCHEMA.store), list[str]()
        cursor: str | None = None
        while cursor != "":
            after = None if cursor is None else decode_cursor(cursor, whole)
            page = await ask(rebind(rows_of("notes", order_by=order, limit=2, after=after), NOTES_SCHEMA.store))
            ids += [row.id for row in page.rows]
            expect(len(ids) <= len(rows["notes"]), f"paging {name} comes to no end: {ids}")
            cursor = page.meta.cursor
        expect_equal(ids, [row.id for row in evaluate(whole, rows)], f"the rows of all pages {name}")
