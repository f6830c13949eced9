"""Whether one condition is true wherever another one is, as far as that shows in how they are written."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from atoma.contracts.query import Call, Col, Expr, Lit

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {"eq": operator.eq, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}
)
_FROM = {("gt", "gt"), ("gt", "ge"), ("ge", "ge"), ("ge", "gt")}
_UP_TO = {("lt", "lt"), ("lt", "le"), ("le", "le"), ("le", "lt")}


def implied(wanted: Iterable[Expr], given: Iterable[Expr]) -> bool:
    """Whether every row for which all of ``given`` is true makes all of ``wanted`` true; False where that does not show.

    Both are conditions on one row in checked form, their values in their places. It shows where a condition stands in both, and where both
    compare one column with values: ``due >= "2026-03"`` implies ``due >= "2026-01"``.
    """
    known = tuple(given)
    return all(any(each == one or _narrower(one, each) for one in known) for each in wanted)


def _narrower(given: Expr, wanted: Expr) -> bool:
    """Whether ``given`` compares the column of ``wanted`` with a value that makes it true."""
    here, there = _comparison(given), _comparison(wanted)
    if here is None or there is None or here[1] != there[1]:
        return False
    (fn, _, values), (other, _, bounds) = here, there
    if fn in ("eq", "in"):
        return all(_holds(other, value, bounds) for value in values)
    if (fn, other) not in _FROM | _UP_TO or not _are_alike(values[0], bounds[0]):
        return False
    value, bound = values[0].value, bounds[0].value
    beyond = _COMPARE["gt" if (fn, other) in _FROM else "lt"](value, bound)
    return beyond or (value == bound and (fn == other or fn in ("gt", "lt")))


def _holds(fn: str, value: Lit, bounds: tuple[Lit, ...]) -> bool:
    """Whether a column that equals ``value`` makes the comparison by ``fn`` with ``bounds`` true."""
    if fn == "in":
        return value in bounds
    return _are_alike(value, bounds[0]) and _COMPARE[fn](value.value, bounds[0].value)


def _are_alike(one: Lit, other: Lit) -> bool:
    """Whether the two compare as columns do, by the values that are stored."""
    return one.type == other.type and type(one.value) is type(other.value)


def _comparison(expr: Expr) -> tuple[str, Col, tuple[Lit, ...]] | None:
    """A comparison of a column with values: how, which, with what; None where it is something else."""
    if not isinstance(expr, Call) or expr.fn not in (*_COMPARE, "in"):
        return None
    column, *values = expr.args
    literals = tuple(value for value in values if isinstance(value, Lit) and value.value is not None)
    return (
        (expr.fn, column, literals) if isinstance(column, Col) and literals and len(literals) == len(values) else None
    )
