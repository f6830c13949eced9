"""The normal form: two spellings of one query are one value, and the values it is asked with stand beside it."""

from __future__ import annotations

from atoma.contracts.limits import BOUNDS, Bounds
from atoma.contracts.query import NULL, PATH, BoundQuery, Expr, Lit, Param, Plan
from atoma.errors import QueryError
from atoma.query.bounds import check_bounds, check_size
from atoma.query.check import Checker, check, check_bounded
from atoma.query.scope import Stores, TypedColumns
from atoma.query.walk import changed


def bind(plan: Plan, stores: Stores, bounds: Bounds = BOUNDS) -> BoundQuery:
    """``plan`` checked and in normal form.

    Raises:
        QueryError: It does not fit the stores, or not the bounds.
        UnknownStore: It reads a store that is not declared.
    """
    bound = lifted(check(plan, stores, bounds))
    check_size(bound, bounds)
    return bound


def bind_columns(plan: Plan, stores: Stores, bounds: Bounds = BOUNDS) -> tuple[Plan, TypedColumns]:
    """``plan`` checked, and its columns; :func:`lifted` brings it into its normal form.

    Raises:
        QueryError: It does not fit the stores, or not the bounds.
        UnknownStore: It reads a store that is not declared.
    """
    check_bounds(plan, bounds)
    return Checker(stores).plan(plan, ())


def rebind(query: BoundQuery, stores: Stores, bounds: Bounds = BOUNDS) -> BoundQuery:
    """``query``, which somebody else has bound, checked here and in normal form.

    Raises:
        QueryError: It does not fit the stores, or not the bounds; or a parameter has no value.
        UnknownStore: It reads a store that is not declared.
    """
    check_bounds(query.plan, bounds, query.params)  # before anything goes recursively through what a stranger made
    bound = lifted(check_bounded(with_values(query), stores))
    check_size(bound, bounds)
    return bound


def with_values(query: BoundQuery) -> Plan:
    """The plan of ``query`` with its values in their places.

    Raises:
        QueryError: A parameter has no value.
    """
    params = query.params

    def value(leaf: Lit | Param) -> Expr:
        if not isinstance(leaf, Param):
            return leaf
        if not 0 <= leaf.index < len(params):
            raise QueryError(f"parameter {leaf.index} has no value; there are {len(params)}")
        return Lit(leaf.type, params[leaf.index])

    return changed(query.plan, value)


def lifted(plan: Plan) -> BoundQuery:
    """A checked plan with its values beside it."""
    values: list[object] = []

    def lift(leaf: Lit | Param) -> Expr:
        if leaf.type in (NULL, PATH) or not isinstance(leaf, Lit):
            return leaf
        values.append(leaf.value)
        return Param(len(values) - 1, leaf.type)

    return BoundQuery(changed(plan, lift), tuple(values))
