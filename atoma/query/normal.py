"""The normal form: two spellings of one query are one value, and the values it is asked with stand beside it."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from atoma.contracts.query import AS_WRITTEN, NULL, BoundQuery, Call, Exists, Expr, Lit, Param, Plan, Scalar
from atoma.errors import QueryError
from atoma.query.bounds import check_bounds
from atoma.query.check import check
from atoma.query.scope import Stores
from atoma.query.walk import changed

_SETS = frozenset({"and", "or"})
_encode = msgspec.msgpack.Encoder().encode


def bind(plan: Plan, stores: Stores) -> BoundQuery:
    """``plan`` checked and in normal form.

    Raises:
        QueryError: It does not fit the stores, or not the bounds.
        UnknownStore: It reads a store that is not declared.
    """
    return normalised(check(plan, stores))


def rebind(query: BoundQuery, stores: Stores) -> BoundQuery:
    """``query``, which somebody else has bound, checked here and in normal form.

    Raises:
        QueryError: It does not fit the stores, or not the bounds; or a parameter has no value, or a value no type.
        UnknownStore: It reads a store that is not declared.
    """
    check_bounds(query.plan)  # without recursion, before anything goes through a plan that a stranger made
    return bind(with_values(query), stores)


def with_values(query: BoundQuery) -> Plan:
    """The plan of ``query`` with its values in their places.

    Raises:
        QueryError: A parameter has no value, or a value no type: only a query that is being built here may leave it open.
    """
    params = query.params

    def value(leaf: Expr) -> Expr:
        if isinstance(leaf, (Lit, Param)) and leaf.type == AS_WRITTEN:
            raise QueryError("a value in a query has no type")
        if not isinstance(leaf, Param):
            return leaf
        if not 0 <= leaf.index < len(params):
            raise QueryError(f"parameter {leaf.index} has no value; there are {len(params)}")
        return Lit(leaf.type, params[leaf.index])

    return changed(query.plan, value)


def normalised(plan: Plan) -> BoundQuery:
    """A checked plan in normal form."""
    values: list[object] = []

    def lift(leaf: Expr) -> Expr:
        if not isinstance(leaf, Lit) or leaf.type == NULL:
            return leaf
        values.append(leaf.value)
        return Param(len(values) - 1, leaf.type)

    return BoundQuery(changed(_sorted_plan(plan), lift), tuple(values))


def _sorted_plan(plan: Plan) -> Plan:
    where = None if plan.where is None else _sorted(plan.where)
    having = None if plan.having is None else _sorted(plan.having)
    joins = tuple([replace(join, on=_sorted(join.on)) for join in plan.joins])
    include = tuple(
        [
            replace(
                each,
                branches=tuple([replace(branch, query=_sorted_plan(branch.query)) for branch in each.branches]),
            )
            for each in plan.include
        ]
    )
    return replace(plan, where=where, having=having, joins=joins, include=include)


def _sorted(expr: Expr) -> Expr:
    match expr:
        case Call(fn=fn, args=args) if fn in _SETS:
            flat: list[Expr] = []
            for arg in map(_sorted, args):
                flat.extend(arg.args if isinstance(arg, Call) and arg.fn == fn else (arg,))
            unlike = list(dict.fromkeys(flat))
            return unlike[0] if len(unlike) == 1 else Call(fn, tuple(sorted(unlike, key=_encode)))
        case Call(fn=fn, args=args):
            if not any(isinstance(arg, (Call, Exists, Scalar)) for arg in args):
                return expr
            return Call(fn, tuple([_sorted(arg) for arg in args]))
        case Exists(query=query) | Scalar(query=query):
            return replace(expr, query=_sorted_plan(query))
        case _:
            return expr
