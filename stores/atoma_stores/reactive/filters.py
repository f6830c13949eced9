"""Filters as closures: what every live query asks of every commit has to cost well under a microsecond."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from atoma.contracts.query import And, Compare, CompareOp, Predicate
from atoma.contracts.values import RowImage
from atoma.query.evaluate import matches

Filter: TypeAlias = Callable[[str, RowImage], bool | None]
"""Takes a row's id and image; True, False, or None for SQL's unknown."""

_OPERATORS: dict[CompareOp, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def filter_of(predicate: Predicate | None) -> Filter:
    """A function that answers as :func:`atoma.query.evaluate.matches` does."""
    match predicate:
        case None:
            return lambda id, image: True
        case Compare(field=field) if field != "id":
            return _comparison(predicate)
        case And(items=items):
            return _conjunction([filter_of(item) for item in items])
        case _:
            return lambda id, image: matches(predicate, id, image)


def _comparison(node: Compare) -> Filter:
    field, value, kind = node.field, node.value, type(node.value)
    compare = _OPERATORS[node.op]
    is_plain = kind in (int, str, bytes) or (isinstance(value, float) and value == value)

    def fits(id: str, image: RowImage) -> bool | None:
        held = image[field]
        if is_plain and type(held) is kind:
            return compare(held, value)
        return matches(node, id, image)  # NULL, or values of two types: the rules are written there

    return fits


def _conjunction(filters: list[Filter]) -> Filter:
    def fits(id: str, image: RowImage) -> bool | None:
        unknown = False
        for item in filters:
            truth = item(id, image)
            if truth is False:
                return False
            unknown = unknown or truth is None
        return None if unknown else True

    return fits
