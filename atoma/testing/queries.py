"""Queries for tests of engines, nodes and hubs: as a program would ask them, not yet checked against a schema."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.query import BoundQuery, Col, Order, Plan, Store
from atoma.query.plans import counted
from atoma.query.seek import seek
from atoma.schema.expressions import Condition


def rows_of(
    store: str,
    *where: Condition,
    order_by: Sequence[str] = (),
    limit: int | None = None,
    offset: int = 0,
    after: Sequence[object] | None = None,
) -> BoundQuery:
    """Rows of the store of that name.

    Args:
        store: Its name.
        where: Conditions, all of which have to be true.
        order_by: Fields, ``-`` before one that descends.
        limit: At most so many rows.
        offset: Rows to skip.
        after: The sort keys of a row to go on behind, the id last.
    """
    condition = None
    for each in where:
        condition = each if condition is None else condition & each
    order = tuple(Order(Col(0, key.removeprefix("-")), key.startswith("-")) for key in order_by)
    plan = Plan(
        Store(store), where=None if condition is None else condition.node, order=order, limit=limit, offset=offset
    )
    return BoundQuery(plan if after is None else seek(plan, after))


def count_of(store: str, *where: Condition) -> BoundQuery:
    """How many rows of the store of that name there are, for which every condition is true."""
    return counted(rows_of(store, *where))
