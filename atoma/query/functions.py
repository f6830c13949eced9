"""The meaning of every function of the table in Python: SQL's three-valued logic, without SQL.

Booleans are True, False and None here; columns hold 0 and 1, which are equal to them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from atoma.contracts.functions import AGGREGATES, COMPARISONS, FUNCTIONS, for_each
from atoma.errors import QueryError
from atoma.query.patterns import LOWER, like
from atoma.schema.kinds import INT64_MAX, INT64_MIN

Value: TypeAlias = Any
Meaning: TypeAlias = Callable[[Sequence[Value]], Value]
"""Takes the values of the arguments, gives the value of the call."""

_UPPER = {small: capital for capital, small in LOWER.items()}


def _of_one(function: Callable[[Value], Value]) -> Meaning:
    """NULL when the argument is."""
    return lambda values: None if values[0] is None else function(values[0])


def _of_two(function: Callable[[Value, Value], Value]) -> Meaning:
    """NULL when an argument is."""
    return lambda values: None if values[0] is None or values[1] is None else function(values[0], values[1])


def _and(values: Sequence[Value]) -> bool | None:
    if any(value is not None and not value for value in values):
        return False
    return None if None in values else True


def _or(values: Sequence[Value]) -> bool | None:
    if any(values):
        return True
    return None if None in values else False


def _in(values: Sequence[Value]) -> bool | None:
    wanted, among = values[0], values[1:]
    if not among:
        return False
    if wanted is None:
        return None
    if any(value is not None and value == wanted for value in among):
        return True
    return None if None in among else False


def _first(values: Sequence[Value]) -> Value:
    return next((value for value in values if value is not None), None)


COMPARE: Mapping[str, Callable[[Value, Value], bool]] = for_each(
    dict.fromkeys(COMPARISONS),
    "the comparison of two values in Python",
    {
        "eq": operator.eq,
        "ne": operator.ne,
        "lt": operator.lt,
        "le": operator.le,
        "gt": operator.gt,
        "ge": operator.ge,
    },
)
"""What the comparisons say of two values, neither of which is NULL."""

MEANINGS: Mapping[str, Meaning] = for_each(
    FUNCTIONS,
    "the meaning of a function in Python",
    {
        "and": _and,
        "or": _or,
        "not": _of_one(operator.not_),
        **{name: _of_two(compare) for name, compare in COMPARE.items()},
        "is_same": lambda values: values[0] == values[1],
        "is_null": lambda values: values[0] is None,
        "in": _in,
        "like": _of_two(lambda text, pattern: like(pattern, text)),
        "coalesce": _first,
        "lower": _of_one(lambda text: text.translate(LOWER)),
        "upper": _of_one(lambda text: text.translate(_UPPER)),
        "length": _of_one(len),
    },
)


def _sum(values: Sequence[Value]) -> Value:
    """The exact sum, rounded once.

    Raises:
        QueryError: A sum of whole numbers does not fit into 64 bits.
    """
    if not values:
        return None
    if isinstance(values[0], float):
        return exact_sum(values)
    total = sum(values)
    if not INT64_MIN <= total <= INT64_MAX:
        raise QueryError("integer overflow: a sum does not fit into 64 bits")
    return total


def exact_sum(values: Sequence[float]) -> float | None:
    """The sum of ``values``, rounded once; NULL for a sum of infinities of both signs, which is no number."""
    try:
        total = math.fsum(values)
    except OverflowError:  # in between; what is left may still be finite, and then it is exact in halves
        total = 2 * math.fsum([value / 2 for value in values])
    except ValueError:
        return None
    return total


def _avg(values: Sequence[Value]) -> float | None:
    if not values:
        return None
    total = exact_sum(values) if isinstance(values[0], float) else sum(values)
    return None if total is None else total / len(values)


AGGREGATED: Mapping[str, Meaning] = for_each(
    AGGREGATES,
    "the meaning of an aggregate in Python",
    {
        "count": len,
        "sum": _sum,
        "avg": _avg,
        "min": lambda values: min(values, default=None),
        "max": lambda values: max(values, default=None),
    },
)
"""The meaning of every aggregate, of the values that are not NULL."""
