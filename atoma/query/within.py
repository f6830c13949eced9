"""Queries within a query, as they were written: whether one finds a row, a value, one of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import structs

from atoma.contracts.query import NULL, Agg, Call, Col, Derived, Exists, Expr, JoinKind, Lit, Named, Plan, Scalar
from atoma.errors import QueryError
from atoma.query.parts import From, Names, Parts, names_of
from atoma.query.walk import has_aggregate
from atoma.schema.expressions import Condition, Expression
from atoma.schema.relations import Relation
from atoma.schema.spec import StoreSpec
from atoma.schema.terms import Places, Term

More: TypeAlias = Callable[[Names], Expr]


def exists_in(parts: Parts, also: More | None = None) -> Condition:
    """Whether ``parts`` finds a row."""
    if parts.limit is not None or parts.offset or parts.include:
        raise QueryError("a query within exists() has no limit, no offset and no include()")

    def build(places: Places, _: bool) -> Expr:
        return Exists(parts.plan(places, also))

    return Expression(build)


def scalar_of(parts: Parts, also: More | None = None) -> Expression[Any]:
    """The only column of the first row that ``parts`` finds."""
    if parts.columns is None or len(parts.columns) != 1:
        raise QueryError("a query that stands for a value has exactly one column: columns(…)")
    return Expression(lambda places, _: Scalar(parts.plan(places, also)))


def count_in(parts: Parts, also: More | None = None) -> Expression[int]:
    """How many rows ``parts`` finds."""
    if parts.limit is not None or parts.offset or parts.include or parts.distinct or parts.group or parts.having:
        raise QueryError("count_of() counts the rows that conditions keep; for groups use a derived table")

    def build(places: Places, _: bool) -> Expr:
        plan = parts.plan(places, also)
        return Scalar(Plan(plan.source, plan.joins, plan.where, columns=(Named("count", Agg("count")),)))

    return Expression(build)


def one_of(parts: Parts, value: Term) -> Condition:
    """Whether ``value`` is one of the values that ``parts`` finds, with SQL's answer where one of them is NULL."""
    if parts.columns is None or len(parts.columns) != 1:
        raise QueryError("in_() looks into a query with exactly one column: columns(…)")

    def build(places: Places, kept: bool) -> Expr:
        plan = parts.plan(places)
        assert plan.columns is not None
        column, source = plan.columns[0].expr, plan
        if plan.group or plan.having is not None or has_aggregate(column) or plan.limit is not None or plan.offset:
            source, column = Plan(Derived(plan)), Col(0, "c0")
        else:
            source = Plan(plan.source, plan.joins, plan.where)
        wanted = value.at(names_of(places).within)
        found = Exists(_with(source, Call("eq", (column, wanted))))
        if kept:
            return found
        # false only when nothing in it is NULL, and it is not itself, unless there is nothing to look among
        unknown = (
            Call("and", (Call("is_null", (value.at(places),)), Exists(_with(source, None)))),
            Exists(_with(source, Call("is_null", (column,)))),
        )
        return Call("or", (found, Call("and", (Lit(NULL, None), Call("or", unknown)))))

    return Expression(build)


def _with(plan: Plan, condition: Expr | None) -> Plan:
    parts = [each for each in (plan.where, condition) if each is not None]
    where = None if not parts else parts[0] if len(parts) == 1 else Call("and", tuple(parts))
    return structs.replace(plan, where=where)


def children_of(relation: Relation[Any, Any], parts: Parts) -> tuple[Parts, More]:
    """The children of a relation as a query within one of parents, and the condition that they are those of one parent."""
    child: StoreSpec[Any] = relation.children[0][1]
    parent = relation.parent
    if relation.kind:
        raise QueryError(f"relation {relation.name!r} leads into several stores: ask in each of them")
    keys, number = relation.keys, 0
    if relation.through is not None:
        link, ((above, below),) = relation.through, relation.keys
        number = len(parts.sources)
        kind: JoinKind = "inner"
        on: Condition = Expression(lambda _, __: Call("eq", (Col(number, link.child), Col(0, below))))
        between = From(f"{link.store}.{number}", None, None, kind, on, relation.cross_scope, link.store)
        parts = structs.replace(parts, sources=(*parts.sources, between))
        keys = ((above, link.parent),)
    if not relation.cross_scope and parent.scope_field is not None and child.scope_field is not None:
        scopes = [(parent.scope_field, child.scope_field)]
    else:
        scopes = []

    def belongs(names: Names) -> Expr:
        outside = names.outside.number(parent.name)
        same = [Call("eq", (Col(number, below), Col(outside, above))) for above, below in keys]
        same += [Call("eq", (Col(0, below), Col(outside, above))) for above, below in scopes]
        return same[0] if len(same) == 1 else Call("and", tuple(same))

    return parts, belongs
