"""What a live result can update from the changes alone, beside its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec.structs import replace

from atoma.contracts.query import Agg, Call, Col, Expr, Include, Named, Plan, Scalar
from atoma.query.compiled import Getter, condition
from atoma.query.relating import of_parent
from atoma.query.walk import conjuncts
from atoma.schema import Schema
from atoma.schema.spec import AnyStore
from atoma_stores.live.links import StoreLink, is_of_source
from atoma_stores.live.operators.kept import Belonging, KeptChildren, KeptCount, KeptPart
from atoma_stores.live.operators.window import capacity_of


def is_seen_by_itself(plan: Plan) -> bool:
    """Return whether a row of the first source of ``plan`` shows by itself whether it belongs to the result, and where."""
    exprs = [*conjuncts(plan.where), *[each.expr for each in plan.order]]
    return not plan.joins and all(map(is_of_source, exprs))


def with_more(include: Include) -> Include:
    """Return ``include`` with a few more children than are shown."""
    (branch,) = include.branches
    if include.one or branch.query.limit is None:
        return include
    query = replace(branch.query, limit=capacity_of(branch.query.limit, 0))
    return replace(include, branches=(replace(branch, query=query),))


def part_of(plan: Plan, link: StoreLink, schema: Schema, above: dict[str, None]) -> KeptPart | None:
    """Return the keeper of what is shown at ``link``; None if that is read again.

    Args:
        plan: The plan.
        link: The place.
        schema: The declared stores.
        above: The parents' columns by which others are found; those of this place are added.
    """
    kind, _, name = link.shown.partition(".")
    if kind == "include":
        at, include = next((at, each) for at, each in enumerate(plan.include, 1) if each.name == name)
        query = include.branches[0].query
        if include.kind or not (query.whole_rows and query.limit != 0 and is_seen_by_itself(query)):
            return None
        found = _belonging(plan, link, [query.where], _pairs_of(include, schema.store(plan.store), schema), above)
        return None if found is None else KeptChildren(found, include, at, schema.store(link.store))
    if kind == "columns":
        at, column = next((at, each) for at, each in enumerate(plan.columns or ()) if each.name == name)
        counted = _counted(column.expr)
        found = None if counted is None else _belonging(plan, link, *counted, above)
        return None if found is None else KeptCount(found, at, within=bool(plan.include))
    return None


_Pairs: TypeAlias = Sequence[tuple[str, str]]
"""Columns of others, each with the column of a parent that it has to equal."""


def _pairs_of(include: Include, parent: AnyStore, schema: Schema) -> _Pairs:
    """Return the columns by which the children of ``include`` are found."""
    child = schema.store(include.branches[0].query.store)
    pairs = [(own, above) for above, own in include.keys]
    if not include.cross_scope and parent.scope_field is not None and child.scope_field is not None:
        pairs.append((child.scope_field, parent.scope_field))
    return pairs


def _counted(expr: Expr) -> tuple[list[Expr | None], _Pairs] | None:
    """Return the conditions of a column that counts rows, and the columns by which these are found; None if it is no such column."""
    if not isinstance(expr, Scalar):
        return None
    query = expr.query
    match query.columns:
        case (Named(expr=Agg(fn="count", distinct=False) as agg),) if not (query.group or query.having or query.joins):
            pass
        case _:
            return None
    if query.limit == 0 or query.offset or query.seek is not None:
        return None
    pairs: list[tuple[str, str]] = []
    others: list[Expr | None] = [agg.where]
    if agg.arg is not None:
        others.append(Call("not", (Call("is_null", (agg.arg,)),)))
    for each in conjuncts(query.where):
        match each:
            case Call(fn="eq", args=(Col(0, own), Col(-1, above)) | (Col(-1, above), Col(0, own))):
                pairs.append((own, above))
            case _:
                others.append(each)
    return others, pairs


def _belonging(
    plan: Plan, link: StoreLink, where: Sequence[Expr | None], pairs: _Pairs, above: dict[str, None]
) -> Belonging | None:
    """Return the test of rows that are found by ``pairs`` of columns, ``link`` among them; None if a row cannot tell by itself."""
    conditions = [each for each in where if each is not None]
    shown = None if plan.columns is None else {each.expr for each in plan.columns}
    if not all(map(is_of_source, conditions)) or (
        shown is not None and not all(name == "id" or Col(0, name) in shown for _, name in pairs)
    ):
        return None
    further = [pair for pair in pairs if pair != (link.own, link.above)]
    above.update(dict.fromkeys([name for _, name in pairs]))
    of = [(own, of_row(plan, name)) for own, name in further]
    return Belonging(link.own, condition(Call("and", tuple(conditions)), ()), tuple(of))


def of_row(plan: Plan, name: str) -> Getter:
    """Return the function that takes a column of the first source from a row of the result, which shows it."""
    get = of_parent(plan, name)
    return (lambda row: get(row[0])) if plan.include else get
