"""Going through a plan: the one place that knows what its parts are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from atoma.contracts.query import (
    Agg,
    Call,
    Col,
    Derived,
    Exists,
    Expr,
    Include,
    Lit,
    Param,
    Plan,
    Scalar,
    Source,
    Store,
)

Substitute: TypeAlias = Callable[[Lit | Param], Expr]


def parts(expr: Expr) -> tuple[Expr, ...]:
    """The expressions right below ``expr``; those of plans within it are not among them."""
    if isinstance(expr, Call):
        return expr.args
    if isinstance(expr, Agg):
        return tuple([part for part in (expr.arg, expr.where) if part is not None])
    return ()


def expressions(expr: Expr) -> Iterator[Expr]:
    """``expr`` and all below it, from outside in and from left to right; plans within it are not entered."""
    left = [expr]
    while left:
        found = left.pop()
        yield found
        left.extend(reversed(parts(found)))


def value_of(expr: Expr, params: Sequence[object]) -> object:
    """The value that stands at ``expr``; None where none does, or nobody has given it."""
    if isinstance(expr, Param):
        return params[expr.index] if 0 <= expr.index < len(params) else None
    return expr.value if isinstance(expr, Lit) else None


def has_aggregate(expr: Expr) -> bool:
    """Whether ``expr`` aggregates."""
    return any(isinstance(found, Agg) for found in expressions(expr))


def has_subquery(expr: Expr) -> bool:
    """Whether ``expr`` asks a plan within it."""
    return any(isinstance(found, (Exists, Scalar)) for found in expressions(expr))


def is_grouped(plan: Plan) -> bool:
    """Whether the rows of the result are groups: there is a ``group``, or something aggregates."""
    return bool(plan.group) or plan.having is not None or any(has_aggregate(each) for each in outputs(plan))


def outputs(plan: Plan) -> tuple[Expr, ...]:
    """What is made of the rows that are kept: columns and sort keys."""
    return (*(named.expr for named in plan.columns or ()), *(order.expr for order in plan.order))


def conjuncts(where: Expr | None) -> tuple[Expr, ...]:
    """The conditions that all have to be true for ``where`` to be."""
    if where is None:
        return ()
    if isinstance(where, Call) and where.fn == "and":
        return tuple(each for arg in where.args for each in conjuncts(arg))
    return (where,)


def top_expressions(plan: Plan) -> Iterator[tuple[str, Expr]]:
    """The expressions of ``plan`` with the place of each; plans within it are not entered."""
    for number, join in enumerate(plan.joins):
        yield f"join[{number}]", join.on
    if plan.where is not None:
        yield "where", plan.where
    for number, each in enumerate(plan.group):
        yield f"group_by[{number}]", each
    if plan.having is not None:
        yield "having", plan.having
    for named in plan.columns or ():
        yield f"columns.{named.name}", named.expr
    for number, order in enumerate(plan.order):
        yield f"order_by[{number}]", order.expr
    for number, value in enumerate(plan.seek.values if plan.seek is not None else ()):
        yield f"after[{number}]", value


def inner_plans(plan: Plan) -> Iterator[Plan]:
    """The plans right within ``plan``: derived sources, subqueries, branches of includes."""
    for source in plan.sources:
        if isinstance(source, Derived):
            yield source.query
    for _, top in top_expressions(plan):
        for expr in expressions(top):
            if isinstance(expr, (Exists, Scalar)):
                yield expr.query
    for include in plan.include:
        for branch in include.branches:
            yield branch.query


def plans(plan: Plan) -> Iterator[Plan]:
    """``plan`` and every plan within it."""
    left = [plan]
    while left:
        found = left.pop()
        yield found
        left.extend(inner_plans(found))


def stores_of(plan: Plan) -> Iterator[str]:
    """The stores that ``plan`` and the plans within it read, as often as they do; those between two others are among them."""
    for each in plans(plan):
        for source in each.sources:
            if isinstance(source, Store):
                yield source.name
        for include in each.include:
            if include.through is not None:
                yield include.through.store


def every_expression(plan: Plan) -> Iterator[Expr]:
    """The expressions of ``plan`` and of the plans within it, at every depth."""
    for each in plans(plan):
        for _, top in top_expressions(each):
            yield from expressions(top)


def changed(plan: Plan, leaf: Substitute) -> Plan:
    """``plan`` with ``leaf`` applied to every literal and parameter, plans within it included.

    The order is the one of :func:`top_expressions`, sources first and includes last. What rows are grouped by, and the columns of
    distinct rows, stay equal to themselves wherever else they stand: not every database sees two parameters of one value as one.
    """
    alike: dict[Expr, Expr] = {}

    def expr(node: Expr) -> Expr:
        if alike and node in alike:
            return alike[node]
        if type(node) is Call:
            return Call(node.fn, tuple([arg if type(arg) is Col else expr(arg) for arg in node.args]))
        if type(node) is Lit or type(node) is Param:
            return leaf(node)
        if isinstance(node, Agg):
            arg = None if node.arg is None else expr(node.arg)
            return replace(node, arg=arg, where=None if node.where is None else expr(node.where))
        if isinstance(node, (Exists, Scalar)):
            return replace(node, query=changed(node.query, leaf))
        return node

    def source(node: Source) -> Source:
        return replace(node, query=changed(node.query, leaf)) if isinstance(node, Derived) else node

    parts: dict[str, object] = {}
    if isinstance(plan.source, Derived):
        parts["source"] = source(plan.source)
    if plan.joins:
        parts["joins"] = tuple([replace(each, source=source(each.source), on=expr(each.on)) for each in plan.joins])
    if plan.where is not None:
        parts["where"] = expr(plan.where)
    if plan.group:
        parts["group"] = group = tuple([expr(each) for each in plan.group])
        alike.update(zip(plan.group, group, strict=True))
    if plan.having is not None:
        parts["having"] = expr(plan.having)
    if plan.columns is not None:
        parts["columns"] = columns = tuple([replace(each, expr=expr(each.expr)) for each in plan.columns])
        if plan.distinct:
            alike.update(zip([each.expr for each in plan.columns], [each.expr for each in columns], strict=True))
    if plan.order:
        parts["order"] = tuple(
            [each if type(each.expr) is Col else replace(each, expr=expr(each.expr)) for each in plan.order]
        )
    if plan.seek is not None:
        parts["seek"] = replace(plan.seek, values=tuple([expr(each) for each in plan.seek.values]))
    if plan.include:
        parts["include"] = tuple([_included(each, leaf) for each in plan.include])
    return replace(plan, **parts) if parts else plan


def _included(include: Include, leaf: Substitute) -> Include:
    branches = [replace(branch, query=changed(branch.query, leaf)) for branch in include.branches]
    return replace(include, branches=tuple(branches))


def parameters(plan: Plan) -> int:
    """How many values ``plan`` is asked with."""
    return max([expr.index + 1 for expr in every_expression(plan) if isinstance(expr, Param)], default=0)


def outer_columns(plan: Plan) -> Iterator[Col]:
    """The columns of the next plan outward that ``plan``, or a plan within it, reads; numbered from -1 down."""
    for _, top in top_expressions(plan):
        for expr in expressions(top):
            if isinstance(expr, Col) and expr.source < 0:
                yield expr
            elif isinstance(expr, (Exists, Scalar)):
                for found in outer_columns(expr.query):
                    beyond = -found.source - len(plan.sources)
                    if beyond > 0:
                        yield Col(-beyond, found.name)
