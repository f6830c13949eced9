"""Sort keys as values that Python compares in the order of a query, each column in its own direction."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from atoma.contracts.query import Col, Expr, Order
from atoma.query.compiled import Getter
from atoma.query.evaluate import sort_key
from atoma.schema.spec import AnyStore

Key: TypeAlias = tuple[Any, ...]
"""The position of a row; no two rows of a result have the same one, because the order of a checked plan is total."""
KeyPart: TypeAlias = Callable[[Any], Any]

_INVERTED = bytes(255 - byte for byte in range(256))
_NUMBERS = frozenset({"INTEGER", "REAL"})


def falling(value: Any) -> Any:
    """Return a value that sorts among others of its type as ``value`` does in the reverse order."""
    if isinstance(value, str):
        return falling(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        # a prefix comes last: the end differs from every byte, even from zero
        return (value.replace(b"\x00", b"\x00\xff") + b"\x00\x00").translate(_INVERTED)
    return -value


class Sorting:
    """The order of a plan.

    Args:
        order: Its sort keys.
        getters: The function that takes each of them from a row.
        stores: The stores of the plan's sources; None for those whose rows may be missing.
        turned: Whether every direction is reversed.
    """

    def __init__(
        self, order: Sequence[Order], getters: Sequence[Getter], stores: Sequence[AnyStore | None], *, turned: bool
    ) -> None:
        self._parts = [_part(each.expr, each.descending is not turned, stores) for each in order]
        self.of = _joined([_after(get, part) for get, part in zip(getters, self._parts, strict=True)])

    of: Callable[[Any], Key]
    """Returns the position of a row."""

    def at(self, values: Sequence[object]) -> Key:
        """Return the position of a row whose sort keys have these values."""
        return tuple([value if part is None else part(value) for part, value in zip(self._parts, values, strict=True)])


def _part(expr: Expr, descending: bool, stores: Sequence[AnyStore | None]) -> KeyPart | None:
    """Return the conversion of a sort key's value; None if it is compared as it is."""
    store = stores[expr.source] if isinstance(expr, Col) and expr.source < len(stores) else None
    if not isinstance(expr, Col) or store is None:
        return _falling_or_null if descending else sort_key
    field = None if expr.name == "id" else store.fields[expr.name]
    if field is not None and field.nullable:
        return _falling_or_null if descending else sort_key
    if not descending:
        return None
    return operator.neg if field is not None and field.sql_type in _NUMBERS else falling


def _falling_or_null(value: Any) -> Any:
    return (1, 0) if value is None else (0, falling(value))


def _after(get: KeyPart, part: KeyPart | None) -> KeyPart:
    return get if part is None else lambda row: part(get(row))


def _joined(parts: Sequence[KeyPart]) -> Callable[[Any], Key]:
    match parts:
        case [one]:
            return lambda row: (one(row),)
        case [one, two]:
            return lambda row: (one(row), two(row))
        case _:
            return lambda row: tuple([part(row) for part in parts])
