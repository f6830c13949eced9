"""The meaning of every function of the table in Python: SQL's three-valued logic, without SQL.

Booleans are True, False and None here; columns hold 0 and 1, which are equal to them.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, TypeAlias

from atoma.contracts.functions import AGGREGATES, COMPARISONS, FUNCTIONS, for_each
from atoma.contracts.limits import REPLACED_MAX
from atoma.errors import QueryError
from atoma.query.paths import json_bool, json_has, json_int, json_real, json_text
from atoma.query.patterns import LOWER, like
from atoma.query.regex import looks
from atoma.query.searching import highlighted, matches, rank, snippet
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


def whole(value: int) -> int:
    """``value``, a result, when 64 bits can hold it.

    Raises:
        QueryError: They cannot.
    """
    if INT64_MIN <= value <= INT64_MAX:
        return value
    raise QueryError("integer overflow: a result does not fit into 64 bits")


def _number(value: Value) -> Value:
    """A result of arithmetic: no number is NULL, and there is one zero."""
    if isinstance(value, float):
        return None if math.isnan(value) else value + 0.0
    return whole(value)


def _arithmetic(function: Callable[[Value, Value], Value]) -> Meaning:
    return _of_two(lambda left, right: _number(function(left, right)))


def _truncated(left: int, right: int) -> int | None:
    if right == 0:
        return None
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _remainder(left: int, right: int) -> int | None:
    if right == 0:
        return None
    return abs(left) % abs(right) * (-1 if left < 0 else 1)


def rounded(value: float, places: int) -> float:
    """``value`` to so many places, of its shortest decimal form, a half away from zero."""
    if not math.isfinite(value):
        return value
    exact = Decimal(repr(value))
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int) or exponent >= -places:
        return value
    if exact.adjusted() < -places - 1:
        return 0.0
    return float(exact.quantize(Decimal((0, (1,), -places)), ROUND_HALF_UP)) + 0.0


_INTEGER = re.compile(r"([+-]?)0*([0-9]{0,19})", re.ASCII)
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


def to_int(value: float | str) -> int | None:
    """A real without what is behind its point, or the whole number that a text is; NULL for a text that is none.

    Raises:
        QueryError: 64 bits do not hold the real.
    """
    if not isinstance(value, str):
        return whole(math.trunc(value)) if math.isfinite(value) else whole(2**64)
    found = _INTEGER.fullmatch(value)
    if found is None or not value[-1:].isdigit():
        return None
    number = int(found[1] + (found[2] or "0"))
    return number if INT64_MIN <= number <= INT64_MAX else None


def to_real(value: int | str) -> float | None:
    """A whole number as a real, or the real that a text is; NULL for a text that is none."""
    if isinstance(value, str) and _REAL.fullmatch(value) is None:
        return None
    return float(value) + 0.0


def _substr(values: Sequence[Value]) -> str | None:
    text, start, length = values
    if text is None or start is None or length is None:
        return None
    found: str = text[max(start, 1) - 1 : max(start + length - 1, 0)]
    return found


def _concat(values: Sequence[Value]) -> str | None:
    return None if None in values else "".join(values)


def _replace(values: Sequence[Value]) -> str | None:
    text, old, new = values
    if text is None or old is None or new is None:
        return None
    if not old:
        return str(text)
    if len(new) > len(old) and len(text) + text.count(old) * (len(new) - len(old)) > REPLACED_MAX:
        raise QueryError(f"replace() would make a text of more than {REPLACED_MAX:,} characters")
    return str(text.replace(old, new))


def _digits(at: int, count: int = 2) -> Meaning:
    """The number that stands at a place of a date, or of a moment."""
    return _of_one(lambda text: int(text[at : at + count]))


def _time_digits(at: int) -> Meaning:
    """The number that stands at a place of a time of day, which in a moment is behind the day."""
    return _of_one(lambda text: int(text.partition("T")[2][at : at + 2] or text[at : at + 2]))


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
        "starts": _of_two(str.startswith),
        "ends": _of_two(str.endswith),
        "contains": _of_two(operator.contains),
        "regex": _of_two(looks),
        "if": lambda values: values[1] if values[0] else values[2],
        "coalesce": _first,
        "add": _arithmetic(operator.add),
        "sub": _arithmetic(operator.sub),
        "mul": _arithmetic(operator.mul),
        "div": _of_two(lambda left, right: None if right == 0 else _number(float(left) / float(right))),
        "floordiv": _of_two(lambda left, right: None if right == 0 else _number(_truncated(left, right))),
        "mod": _of_two(_remainder),
        "neg": _of_one(lambda value: _number(-value)),
        "abs": _of_one(lambda value: _number(abs(value))),
        "round": _of_two(rounded),
        "lower": _of_one(lambda text: text.translate(LOWER)),
        "upper": _of_one(lambda text: text.translate(_UPPER)),
        "length": _of_one(len),
        "concat": _concat,
        "substr": _substr,
        "replace": _replace,
        "trim": _of_one(lambda text: text.strip(" ")),
        "ltrim": _of_one(lambda text: text.lstrip(" ")),
        "rtrim": _of_one(lambda text: text.rstrip(" ")),
        "to_int": _of_one(to_int),
        "to_real": _of_one(to_real),
        "to_text": _of_one(str),
        "to_date": _of_one(lambda text: text[:10]),
        "year": _digits(0, 4),
        "month": _digits(5),
        "day": _digits(8),
        "hour": _time_digits(0),
        "minute": _time_digits(3),
        "second": _time_digits(6),
        "matches": lambda values: matches(values[0], values[1:]),
        "rank": lambda values: rank(values[0], values[1:]),
        "highlight": lambda values: None if None in values else highlighted(*values),
        "snippet": lambda values: None if None in values else snippet(*values),
        "json_int": _of_two(json_int),
        "json_real": _of_two(json_real),
        "json_text": _of_two(json_text),
        "json_bool": _of_two(json_bool),
        "json_has": lambda values: None if None in values else json_has(*values),
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
    """The sum of ``values``, rounded once; NULL for a sum of infinities of both signs, which is not a number."""
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
