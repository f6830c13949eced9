"""Grouped plans: what stands beside an aggregate has one value in every group."""

from __future__ import annotations

from atoma.contracts.query import Agg, Col, Exists, Expr, Plan, Scalar
from atoma.errors import QueryError
from atoma.query.walk import outer_columns, parts, top_expressions


def check_grouped(plan: Plan) -> None:
    """See that columns, sort keys and ``having`` are made of group keys and aggregates.

    Raises:
        QueryError: A column stands there bare; names the ``group_by`` that is missing.
    """
    for place, top in top_expressions(plan):
        if place.startswith(("columns.", "order_by[", "having")):
            try:
                _check_grouped(top, plan)
            except QueryError as error:
                error.within(place)
                raise


def _check_grouped(top: Expr, plan: Plan) -> None:
    keys = frozenset(plan.group)
    left = [top]
    while left:
        expr: Expr = left.pop()
        if expr in keys or isinstance(expr, Agg):
            continue
        if isinstance(expr, (Exists, Scalar)):
            left += [Col(-1 - found.source, found.name) for found in outer_columns(expr.query)]
            continue
        if isinstance(expr, Col) and expr.source >= 0:
            named = [key.name for key in plan.group if isinstance(key, Col)]
            hint = f"aggregate it, or write group_by({', '.join([*named, expr.name])})"
            raise QueryError(f"{expr.name} has many values in a group", hint=hint)
        left.extend(parts(expr))
