"""Shapes as they are declared, given values, and read again: what does not fit is said where it is written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from uuid import UUID

import pytest

from atoma.contracts.query import Call, Col, Lit
from atoma.contracts.shapes import SHAPE_BYTES, ShapeCall
from atoma.errors import QueryError, SchemaError, ValidationError
from atoma.query import col, select
from atoma.query.shapes import Shapes
from atoma.query.subqueries import exists
from atoma.schema import Schema, Shape, StoreSpec, Wire, param


@dataclass
class Card:
    id: str
    team: str
    due: date
    at: datetime
    clock: time
    lasts: timedelta
    key: UUID
    rank: int
    share: float
    open: bool
    blob: bytes
    state: Literal["new", "done"]


CARDS, OTHERS = StoreSpec("cards", Card, scope="team"), StoreSpec("others", Card)
APART = StoreSpec("apart", Card, replicate=False)
CODED = StoreSpec("coded", Card, wire={"team": Wire(str.encode, bytes.decode), "blob": Wire(bytes, bytes)})
VALUES: dict[str, Any] = {
    "team": "t", "due": date(2024, 1, 2), "at": datetime(2024, 1, 1, tzinfo=UTC), "clock": time(1), "lasts": timedelta(1),
    "key": UUID(int=3), "rank": 1, "share": 2.0, "open": True, "blob": b"x", "state": "done",
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_each_type_comes_to_what_its_column_stores(name: str) -> None:
    shape = Shape("one", CARDS, col(name) == param("value", type(VALUES[name])))
    shapes = Shapes(Schema(CARDS, shapes=[shape]))
    taken = shapes.read(shapes.call(shape.of("t", value=VALUES[name])))
    field = CARDS.fields[name]
    assert (taken.store, taken.where) == (
        "cards",
        Call("eq", (Col(0, name), Lit(field.type, field.literal(VALUES[name])))),
    )


def test_a_whole_number_is_compared_with_a_fraction() -> None:
    shape = Shape("one", CARDS, (col("share") >= param("value", int)) & (col("rank") + 1 >= param("more", int)))
    shapes = Shapes(Schema(CARDS, shapes=[shape]))
    assert shapes.read(shapes.call(shape.of("t", value=1, more=2))).title == "one(more=2, value=1)"


def test_equal_values_are_one_part_and_others_another() -> None:
    shape = Shape("two", CARDS, (col("rank") >= param("low", int)) & (col("rank") <= param("high", int)))
    shapes = Shapes(Schema(CARDS, shapes=[shape]))
    one, same, other = (
        shapes.call(shape.of("t", **values))
        for values in ({"low": 1, "high": 2}, {"high": 2, "low": 1}, {"low": 2, "high": 2})
    )
    assert one == same != other
    assert shapes.read(one).title == "two(high=2, low=1)"


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: param("since", dict), "a parameter is a str, int"),
        (lambda: param("not a name", int), "a name like 'since'"),
        (lambda: Shape("no name", CARDS), "a name like 'recent'"),
        (lambda: Shape("one", CARDS, OTHERS.col(lambda card: card.rank) == 1), "looks at one row of 'cards'"),
        (
            lambda: Shape("one", CARDS, (col("rank") == param("x", int)) & (col("team") == param("x", str))),
            "has two types",
        ),
        (
            lambda: Shapes(Schema(CARDS, shapes=[Shape("one", CARDS), Shape("one", CARDS)])),
            "two shapes are named 'one'",
        ),
        (lambda: Shapes(Schema(CARDS, shapes=[Shape("one", OTHERS)])), "has no store 'others'"),
        (lambda: Shapes(Schema(APART, shapes=[Shape("one", APART)])), "has no store 'apart' that replicates"),
        (lambda: Shapes(Schema(CARDS, shapes=[Shape("one", CARDS, col("none") == 1)])), "does not fit store 'cards'"),
        (
            lambda: Shapes(Schema(CARDS, OTHERS, shapes=[Shape("one", CARDS, exists(select(OTHERS)))])),
            "without queries within it",
        ),
        (
            lambda: Shapes(Schema(CARDS, shapes=[Shape("one", CARDS, col("rank") == param("x", int) + 1)])),
            "a parameter is compared",
        ),
        (
            lambda: Shapes(Schema(CARDS, shapes=[Shape("one", CARDS, col("rank") == param("x", str))])),
            "rank is int, and parameter 'x' is str",
        ),
        (
            lambda: Shapes(Schema(CARDS, shapes=[Shape("one", CARDS, col("due") == param("x", datetime))])),
            "due is date, and parameter 'x' is datetime",
        ),
        (
            lambda: Shapes(Schema(CARDS, shapes=[Shape("one", CARDS, col("rank") + 1 == param("x", str))])),
            "a int is wanted, not str",
        ),
        (
            lambda: Shapes(Schema(CODED, shapes=[Shape("one", CODED, col("team") == param("x", str))])),
            "travels encoded",
        ),
        (lambda: Shapes(Schema(CODED, shapes=[Shape("one", CODED, col("blob") == b"x")])), "travels encoded"),
        (lambda: Shape("one", CARDS).of(), "no name of a scope"),
        (lambda: Shape("one", OTHERS).of("t"), "every row of 'others' is of scope 'main'"),
        (lambda: Shape("one", CARDS).of("t", more=1), "takes the parameters none, not more"),
    ],
)
def test_what_is_no_shape_is_said(declare: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        declare()


def test_a_value_has_to_be_of_its_type_and_fit_its_column() -> None:
    state = Shape("of_state", CARDS, col("state") == param("state", str))
    shapes = Shapes(Schema(CARDS, shapes=[state]))
    with pytest.raises(ValidationError, match="wants str"):
        state.of("t", state=1)
    with pytest.raises(QueryError, match="one of 'new', 'done'"):
        shapes.call(state.of("t", state="gone"))
    long = Shape("of_team", CARDS, col("team") == param("team", str))
    with pytest.raises(QueryError, match=f"at most {SHAPE_BYTES}"):
        Shapes(Schema(CARDS, shapes=[long])).call(long.of("t", team="x" * SHAPE_BYTES))


def test_what_somebody_else_has_made_is_read_with_care() -> None:
    rank = Shape("of_rank", CARDS, col("rank") == param("rank", int))
    shapes = Shapes(Schema(CARDS, shapes=[rank]))
    good = shapes.call(rank.of("t", rank=1))
    condition = good[-16:]
    bad = [
        b"",
        b"\xc1",
        good + b"x",
        good * 200,
        ShapeCall("none", (("rank", 1),), condition).data,
        ShapeCall("of_rank", (), condition).data,
        ShapeCall("of_rank", (("rank", 1), ("rank", 1)), condition).data,
        ShapeCall("of_rank", (("rank", "1"),), condition).data,
        ShapeCall("of_rank", (("rank", [1]),), condition).data,
        ShapeCall("of_rank", (("rank", 2**63),), condition).data,
        ShapeCall("of_rank", (("rank", 2),), condition).data,
    ]
    for data in bad:
        with pytest.raises(QueryError):
            shapes.read(data)
    assert shapes.read(good).title == "of_rank(rank=1)"
