"""Queries of every kind over a few rows, and what plain Python answers to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import And, Compare, In, IsNull, Like, Not, Or, Predicate, QuerySpec, Sort
from atoma.contracts.values import RowImage, StoredRow
from atoma.query.evaluate import evaluate
from atoma.testing.conformance.checks import expect, expect_equal
from atoma.testing.conformance.notes import note

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

_WEIGHT, _TEXT = IsNull("weight"), Like("text", "a%")
FILTERS: Mapping[str, Predicate] = {
    "eq": Compare("eq", "count", 2**53 + 1),
    "ne, which no NULL fits": Compare("ne", "weight", 0.5),
    "lt": Compare("lt", "count", 2),
    "le": Compare("le", "text", "Apple"),
    "gt": Compare("gt", "blob", b"\x00"),
    "ge": Compare("ge", "id", "c"),
    "eq with NULL, which nothing fits": Compare("eq", "weight", None),
    "in": In("text", ("z", "é", "nothing")),
    "in nothing": In("text", ()),
    "not in, with a NULL among the values": Not(In("count", (1, None))),
    "null": _WEIGHT,
    "not null": Not(_WEIGHT),
    "like, which knows ASCII's case": _TEXT,
    "like one letter": Like("text", "_"),
    "like, escaped": Or((Like("text", r"a\_c"), Like("text", r"%\%"))),
    "and": And((_TEXT, Compare("gt", "count", 1))),
    "or": Or((_WEIGHT, Compare("lt", "weight", 0))),
    "not, of what is unknown": Not(Or((Compare("gt", "weight", 0), Compare("eq", "count", 2)))),
    "and of nothing": And(()),
    "or of nothing": Or(()),
}
_ID = Sort("id")
ORDERS: Mapping[str, tuple[Sort, ...]] = {
    "by id": (_ID,),
    "by id, falling": (Sort("id", True),),
    "by weight, NULL first": (Sort("weight"), _ID),
    "by weight, falling, NULL last": (Sort("weight", True), _ID),
    "by count and text": (Sort("count", True), Sort("text"), _ID),
    "by blob": (Sort("blob"), _ID),
}


def queries() -> dict[str, QuerySpec]:
    """The queries, by what they are about."""
    found = {f"rows where {name}": QuerySpec(where=where, order=(_ID,)) for name, where in FILTERS.items()}
    found |= {f"a count where {name}": QuerySpec(where=where, limit=1, count=True) for name, where in FILTERS.items()}
    found |= {f"rows {name}": QuerySpec(order=order) for name, order in ORDERS.items()}
    found |= {f"some rows {name}": QuerySpec(order=order, limit=3, offset=2) for name, order in ORDERS.items()}
    found["no rows"] = QuerySpec(order=(_ID,), limit=0)
    found["rows of ids, in their order"] = QuerySpec(ids=("É", "nobody", "b", "a"))
    return found


async def check_queries(ask: Callable[[QuerySpec], Awaitable[QueryResult]]) -> None:
    """Fail the check unless ``ask``, over :data:`IMAGES`, answers each query and each page as plain Python does."""
    rows = [StoredRow(id, 1, 0, "main", image) for id, image in IMAGES.items()]
    for name, spec in queries().items():
        result, due = await ask(spec), evaluate(spec, rows)
        expect_equal(result.total, len(due) if spec.count else None, f"the total of {name}")
        expect_equal([row.id for row in result.rows], [] if spec.count else [row.id for row in due], name)
    for name, order in ORDERS.items():
        spec, ids = QuerySpec(order=order, limit=2), list[str]()
        while page := (await ask(spec)).rows:
            ids += [row.id for row in page]
            expect(len(ids) <= len(rows), f"paging {name} comes to no end: {ids}")
            last = page[-1]
            after = tuple(last.id if sort.field == "id" else last.image[sort.field] for sort in order)
            spec = replace(spec, after=after)
        expect_equal(ids, [row.id for row in evaluate(QuerySpec(order=order), rows)], f"the rows of all pages {name}")
