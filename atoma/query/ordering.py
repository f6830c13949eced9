"""The order of a plan, made total: no two rows of a result are equal in it, so that every page has one place."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.query import Col, Expr, Order
from atoma.errors import QueryError
from atoma.query.scope import ReadableSources

ID = (Col(0, "id"),)
"""What tells the rows of one store apart."""
BY_ID = (Order(ID[0]),)


def total_order(order: tuple[Order, ...], unique: Sequence[Expr]) -> tuple[Order, ...]:
    """``order`` with what decides between rows that are equal in it.

    Args:
        order: The sort keys that were asked for.
        unique: Expressions in which no two rows are equal, see :func:`unique_keys`.

    Raises:
        QueryError: A column is named twice.
    """
    if not order and unique is ID:
        return BY_ID
    keys: dict[Expr, Order] = {}
    for each in order:
        if each.expr in keys:
            name = each.expr.name if isinstance(each.expr, Col) else "a key"
            raise QueryError(f"order_by names {name!r} twice")
        keys[each.expr] = each
        if keys.keys() >= set(unique):
            return tuple(keys.values())  # no two rows are equal in these: what comes behind decides nothing
    for expr in unique:
        keys.setdefault(expr, Order(expr))
    return tuple(keys.values())


def unique_keys(scope: ReadableSources) -> Sequence[Expr]:
    """Columns of the sources in which no two rows, neither grouped nor distinct, are equal."""
    if len(scope) == 1 and scope[0].store is not None:
        return ID
    keys: list[Expr] = []
    for number, source in enumerate(scope):
        keys += [Col(number, "id")] if source.store is not None else [Col(number, name) for name in source.types]
    return keys
