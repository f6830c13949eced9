"""A query that is written anew is the one that is checked as a whole, whatever values it has."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum

import pytest

from atoma import Schema, StoreSpec, col, select
from atoma.contracts.limits import PARAMETERS_BYTES_MAX
from atoma.errors import AtomaError
from atoma.query.binding import Asked, asked
from atoma.query.builder import Condition, Rows
from atoma.query.templates import LONG, SHAPE_VALUES_MAX
from atoma.schema.expressions import SortKey
from atoma.schema.terms import Term


class Kind(Enum):
    BUG = "bug"
    WISH = "wish"


@dataclass(frozen=True, slots=True)
class Ticket:
    id: str
    title: str
    kind: Kind
    size: int
    weight: float | None
    at: datetime
    done: bool
    price: Decimal
    note: bytes


TICKETS = StoreSpec("tickets", Ticket, soft_delete=True)
NAMES = ("id", "title", "kind", "size", "weight", "at", "done", "price", "note")
VALUES: tuple[object, ...] = (
    "a", "b", "", "bug", "a\x00b", "x" * 1_001, "\ud800", Kind.BUG, Kind.WISH, 0, 1, -7, 2**63, 1.5, float("nan"), True, False,
    datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01", Decimal("1.50"), b"", b"\x00", b"y" * 1_001,
)  # fmt: skip
COMPARE: tuple[Callable[[object, object], object], ...] = (
    lambda column, value: column == value,
    lambda column, value: column != value,
    lambda column, value: column < value,  # type: ignore[operator]
    lambda column, value: column >= value,  # type: ignore[operator]
    lambda column, value: value <= column,  # type: ignore[operator]
)
WELL = {
    "id": ("a", "b"), "title": ("a", "", "a\x00b", "x" * 1_001), "kind": (Kind.BUG, Kind.WISH), "size": (0, -7), "weight": (1.5, 2),
    "at": (datetime(2026, 1, 1, tzinfo=UTC),), "done": (True, False), "price": (Decimal("1.50"),), "note": (b"", b"\x00", b"y" * 1_001),
}  # fmt: skip


def condition(shapes: random.Random, values: random.Random, depth: int = 0) -> Condition:
    """Some condition, most often one that fits."""
    if depth < 2 and shapes.random() < 0.5:
        first, second = condition(shapes, values, depth + 1), condition(shapes, values, depth + 1)
        return shapes.choice((first & second, first | second, ~first))
    name = shapes.choice(NAMES)
    value = values.choice(VALUES if values.random() < 0.1 else WELL[name])
    return shapes.choice(COMPARE)(col(name), value)  # type: ignore[return-value]


def query(shapes: random.Random, values: random.Random) -> Rows[Ticket]:
    """Some query."""
    made = select(TICKETS, include_deleted=shapes.random() < 0.1)
    made = made.where(*[condition(shapes, values) for _ in range(shapes.randrange(3))])
    if shapes.random() < 0.5:
        keys: list[str | SortKey | Term] = ["size", "-size", "title", col("at").desc(), col("weight")]
        made = made.order_by(*shapes.sample(keys, 2))
    return made.limit(shapes.choice((5, 50))) if shapes.random() < 0.5 else made


def said(made: Rows[Ticket], schema: Schema) -> tuple[object, ...]:
    """What is made of it: plan and values with their types, or what is wrong with it."""
    try:
        found: Asked[Ticket] = asked(made, schema)
    except AtomaError as error:
        return type(error), str(error)
    return found.query.plan, found.query.params, tuple(map(type, found.query.params))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_a_whole_check_makes_of_it(seed: int) -> None:
    schema, drawn = Schema(TICKETS), random.Random(seed)
    plans: dict[int, object] = {}
    counted: Counter[str] = Counter()
    for number in range(800):
        made = query(random.Random(drawn.randrange(100)), drawn)
        found = said(made, schema)
        assert found == said(made, Schema(TICKETS)), f"seed {seed}, query {number}: {made.parts}"
        counted["refused" if len(found) == 2 else "known" if id(found[0]) in plans else "new"] += 1
        plans[id(found[0])] = found[0]
    assert min(counted.values()) > 20, counted


def test_queries_that_differ_in_values_have_one_plan() -> None:
    schema = Schema(TICKETS)
    made = [
        asked(select(TICKETS).where((col("size") > size) & (col("title") == "a")).limit(5), schema) for size in (1, 2)
    ]
    assert made[0].query.plan is made[1].query.plan
    assert [sorted(each.query.params, key=str) for each in made] == [[1, "a"], [2, "a"]]
    other = asked(select(TICKETS).where((col("size") > 1) & (col("title") == "a")).limit(6), schema)
    assert other.query.plan.limit == 6


def test_values_are_held_against_the_bounds_of_a_query() -> None:
    schema = Schema(TICKETS)
    asked(select(TICKETS).where(col("title") == "a"), schema)
    with pytest.raises(AtomaError, match="bytes together"):
        asked(select(TICKETS).where(col("title") == "x" * PARAMETERS_BYTES_MAX + "y"), schema)
    assert SHAPE_VALUES_MAX * LONG * len("\U0001f600".encode()) <= PARAMETERS_BYTES_MAX, (
        "so many short ones never are too long"
    )


def test_another_declaration_of_the_same_name_is_read_by_its_own_class() -> None:
    @dataclass(frozen=True)
    class Other:
        id: str
        title: str

    others, schema = StoreSpec("tickets", Other), Schema(TICKETS)
    of_one = asked(select(TICKETS).where(col("title") == "a"), schema)
    of_other = asked(select(others).where(col("title") == "b"), schema)
    assert (of_one.read_all, of_other.read_all) == (TICKETS.read_rows, others.read_rows)


def test_an_order_by_a_name_is_not_that_by_a_column_with_that_name() -> None:
    schema = Schema(TICKETS)
    assert asked(select(TICKETS).order_by("-size"), schema).query.plan.order[0].descending
    with pytest.raises(AtomaError, match="'-size'"):
        asked(select(TICKETS).order_by(col("-size")), schema)
