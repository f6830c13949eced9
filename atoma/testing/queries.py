"""Queries for tests of engines, nodes and hubs: as a program would ask them, not yet checked against a schema."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from atoma.contracts.query import BoundQuery, Col, Derived, Expr, Include, Order, Plan, Source, Store
from atoma.query.builder import Query
from atoma.query.parts import Children, From, Parts
from atoma.query.plans import counted
from atoma.query.seek import seek
from atoma.schema.expressions import Condition, Expression, SortKey
from atoma.schema.schema import Schema


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


def written(plan: Plan, schema: Schema) -> Query[object]:
    """``plan``, which has no cursor, as if a program had written it."""
    return Query(_parts(plan, schema))


def _parts(plan: Plan, schema: Schema) -> Parts:
    joins = (None, *plan.joins)
    sources = [
        _source(source, f"s{number}", schema)
        if join is None
        else replace(
            _source(source, f"s{number}", schema), kind=join.kind, on=_as_is(join.on), cross_scope=join.cross_scope
        )
        for number, (source, join) in enumerate(zip(plan.sources, joins, strict=True))
    ]
    return Parts(
        tuple(sources),
        () if plan.where is None else (_as_is(plan.where),),
        tuple(map(_as_is, plan.group)),
        () if plan.having is None else (_as_is(plan.having),),
        None if plan.columns is None else tuple([_as_is(named.expr) for named in plan.columns]),
        distinct=plan.distinct,
        order=tuple([SortKey(_as_is(each.expr), each.descending) for each in plan.order]),
        limit=plan.limit,
        offset=plan.offset,
        include=tuple([_children(include, schema) for include in plan.include]),
    )


def _source(source: Source, name: str, schema: Schema) -> From:
    if isinstance(source, Derived):
        return From(name, None, _parts(source.query, schema))
    return From(name, schema.store(source.name))


def _children(include: Include, schema: Schema) -> Children:
    return Children(include, tuple([_parts(branch.query, schema) for branch in include.branches]))


def _as_is(expr: Expr) -> Condition:
    return Expression(lambda places, kept: expr)
