"""Whether one condition follows from another one: what is said to follow does, for every value there is."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from typing import Any

import pytest

from atoma.contracts.query import Call, Col, Expr, Lit
from atoma.query.implying import implied

A, B = Col(0, "a"), Col(0, "b")
HOW: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge
}  # fmt: skip
VALUES = range(6)


def compared(fn: str, column: Col, *values: int) -> Expr:
    return Call(fn, (column, *[Lit("int", value) for value in values]))


def drawn(random: random.Random) -> Expr:
    column = random.choice((A, A, B))
    if random.random() < 0.2:
        return compared("in", column, *random.sample(VALUES, random.randrange(1, 4)))
    return compared(random.choice(tuple(HOW)), column, random.choice(VALUES))


def is_true(condition: Expr, row: dict[str, int]) -> bool:
    assert isinstance(condition, Call)
    column, *literals = condition.args
    assert isinstance(column, Col)
    value, values = row[column.name], [each.value for each in literals if isinstance(each, Lit)]
    return value in values if condition.fn == "in" else HOW[condition.fn](value, values[0])


def test_what_is_said_to_follow_does() -> None:
    draw, said, follows = random.Random(7), 0, 0
    rows = [{"a": a, "b": b} for a in VALUES for b in VALUES]
    for _ in range(8_000):
        given, wanted = ([drawn(draw) for _ in range(draw.randrange(1, 3))] for _ in range(2))
        true = all(
            all(is_true(each, row) for each in wanted) for row in rows if all(is_true(each, row) for each in given)
        )
        if implied(wanted, given):
            said += 1
            assert true, (given, wanted)
        follows += true
    assert said > 300
    assert said > follows / 4, "it sees little of what follows"


@pytest.mark.parametrize(
    ("given", "wanted", "follows"),
    [
        (compared("ge", A, 3), compared("ge", A, 3), True),
        (compared("gt", A, 3), compared("ge", A, 3), True),
        (compared("ge", A, 3), compared("gt", A, 3), False),
        (compared("eq", A, 3), compared("in", A, 2, 3), True),
        (compared("in", A, 2, 3), compared("eq", A, 3), False),
        (compared("lt", A, 3), compared("ge", A, 1), False),
        (Call("ge", (A, Lit("text", "3"))), compared("ge", A, 1), False),
        (Call("ge", (A, B)), Call("ge", (A, B)), True),
    ],
)
def test_comparisons_of_one_column(given: Expr, wanted: Expr, follows: bool) -> None:
    assert implied([wanted], [given]) is follows


def test_nothing_follows_from_anything() -> None:
    assert implied([], [])
    assert not implied([compared("eq", A, 1)], [])
