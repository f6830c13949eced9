"""Sort keys as values that Python compares the way a query orders, each column in its own direction."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from atoma.contracts.query import Col, Expr, Order
from atoma.contracts.values import StoredRow
from atoma.query.compiled import compiled
from atoma.query.evaluate import sort_key
from atoma.schema.spec import StoreSpec

Key: TypeAlias = tuple[Any, ...]
"""Where a row stands; no two rows of a result have the same one, because the order of a checked plan is total."""
Part: TypeAlias = Callable[[Any], Any]

_INVERTED = bytes(255 - byte for byte in range(256))
_NUMBERS = frozenset({"INTEGER", "REAL"})


def falling(value: Any) -> Any:
    """A value that stands among others of its type as ``value`` does when their order is turned round."""
    if isinstance(value, str):
        return falling(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        # a prefix comes last: the end is told apart from every byte, zero included
        return (value.replace(b"\x00", b"\x00\xff") + b"\x00\x00").translate(_INVERTED)
    return -value


class Sorting:
    """The order of a plan.

    Args:
        order: Its sort keys.
        params: The values of the query.
        store: The store whose rows are sorted.
        turned: Whether every direction is turned round.
    """

    def __init__(
        self, order: Sequence[Order], params: Sequence[object], store: StoreSpec[object], *, turned: bool = False
    ) -> None:
        self._parts = [_part(each.expr, each.descending is not turned, store) for each in order]
        getters = [compiled(each.expr, params) for each in order]
        self._of = _joined([_after(get, part) for get, part in zip(getters, self._parts, strict=True)])

    def of(self, row: StoredRow) -> Key:
        """Where ``row`` stands."""
        return self._of(row)

    def at(self, values: Sequence[object]) -> Key:
        """Where a row stands whose sort keys have these values."""
        return tuple([value if part is None else part(value) for part, value in zip(self._parts, values, strict=True)])


def _part(expr: Expr, descending: bool, store: StoreSpec[object]) -> Part | None:
    """What is made of the value of a sort key; None when it is compared as it is."""
    field = store.fields[expr.name] if isinstance(expr, Col) and expr.name != "id" else None
    nullable = field.nullable if field is not None else not isinstance(expr, Col)
    if not nullable:
        if not descending:
            return None
        return operator.neg if field is not None and field.sql_type in _NUMBERS else falling
    return _falling_or_null if descending else sort_key


def _falling_or_null(value: Any) -> Any:
    return (1, 0) if value is None else (0, falling(value))


def _after(get: Part, part: Part | None) -> Part:
    return get if part is None else lambda row: part(get(row))


def _joined(parts: Sequence[Part]) -> Callable[[Any], Key]:
    match parts:
        case [one]:
            return lambda row: (one(row),)
        case [one, two]:
            return lambda row: (one(row), two(row))
        case _:
            return lambda row: tuple([part(row) for part in parts])
