"""Grouped plans: what stands beside an aggregate has one value in every group."""

from __future__ import annotations

from atoma.contracts.query import Agg, Col, Exists, Expr, Plan, Scalar
from atoma.errors import QueryError
from atoma.query.walk import outer_columns, outputs, parts


def check_grouped(plan: Plan) -> None:
    """See that columns, sort keys and ``having`` are made of group keys and aggregates.

    Raises:
        QueryError: A column stands there bare; names the ``group_by`` that is missing.
    """
    keys = frozenset(plan.group)
    left = list(outputs(plan)) + ([] if plan.having is None else [plan.having])
    while left:
        expr: Expr = left.pop()
        if expr in keys or isinstance(expr, Agg):
            continue
        if isinstance(expr, (Exists, Scalar)):
            left += [Col(-1 - found.source, found.name) for found in outer_columns(expr.query)]
            continue
        if isinstance(expr, Col) and expr.source >= 0:
            raise QueryError(f"{expr.name} has many values in a group: aggregate it, or add it to group_by()")
        left.extend(parts(expr))
