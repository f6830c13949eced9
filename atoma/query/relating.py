"""Includes: relations whose children are read with the rows of a plan."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from msgspec.structs import replace

from atoma.contracts.query import AS_WRITTEN, Branch, Col, Include, Lit, Plan, Store
from atoma.errors import QueryError
from atoma.query.literals import for_field, known_field
from atoma.query.scope import Stores
from atoma.query.typed import CheckPlan
from atoma.query.walk import has_subquery, is_grouped, outputs
from atoma.schema.fields import Field
from atoma.schema.spec import AnyStore


def found_by(include: Include, scope_field: str | None) -> tuple[str, ...]:
    """The columns of a parent, which takes its scope from ``scope_field``, by which its children are found."""
    scope = () if include.cross_scope or scope_field is None else (scope_field,)
    kind = (include.kind,) if include.kind else ()
    return tuple(dict.fromkeys([*[above for above, _ in include.keys], *kind, *scope]))


def of_parent(plan: Plan, name: str) -> Callable[[Any], Any]:
    """How the value of a column is taken from a row of ``plan``, which has includes; its columns hold what they are found by."""
    if plan.columns is None:
        return lambda row: row.column(name)
    return itemgetter([named.expr for named in plan.columns].index(Col(0, name)))


def check_includes(plan: Plan, parent: AnyStore | None, stores: Stores, check_plan: CheckPlan) -> tuple[Include, ...]:
    """The includes of ``plan``, checked.

    Raises:
        QueryError: One does not fit: keys of two types, a variant without its kind, children that are not rows of one store.
    """
    if plan.joins or parent is None:
        raise QueryError("include() goes with the rows of one store")
    if plan.columns is not None:
        shown = {named.expr for named in plan.columns}
        for include in plan.include:
            for name in found_by(include, parent.scope_field):
                if Col(0, name) not in shown:
                    raise QueryError(
                        f"include {include.name!r}: the children are found by {name!r}, which is no column"
                    )
    if len({include.name for include in plan.include}) < len(plan.include):
        raise QueryError("two includes have one name")
    return tuple([_check_include(include, parent, stores, check_plan) for include in plan.include])


def _check_include(include: Include, parent: AnyStore, stores: Stores, check_plan: CheckPlan) -> Include:
    if not include.keys or not include.branches:
        raise QueryError(f"include {include.name!r} has no key, or nothing to read")
    if bool(include.kind) != all(branch.kind is not None for branch in include.branches):
        raise QueryError(f"include {include.name!r}: a kind for every branch, or one branch without")
    if not include.kind and len(include.branches) > 1:
        raise QueryError(f"include {include.name!r}: a column of the parent has to choose between branches")
    if include.through is not None and len(include.keys) > 1:
        raise QueryError(f"include {include.name!r}: a relation through a store has one key at each end")
    kind = known_field(include.kind, parent) if include.kind else None
    branches = [_check_branch(include, branch, kind, parent, stores, check_plan) for branch in include.branches]
    return replace(include, branches=tuple(branches))


def _check_branch(
    include: Include, branch: Branch, kind: Field | None, parent: AnyStore, stores: Stores, check_plan: CheckPlan
) -> Branch:
    try:
        query, _ = check_plan(branch.query, ())
    except QueryError as error:
        error.within(f"include.{include.name[:80]}")
        raise
    if query.joins or not isinstance(query.source, Store) or query.seek or query.offset:
        raise QueryError(f"include {include.name!r} reads rows of one store, from the first on")
    if include.kind and query.columns is not None:
        raise QueryError(f"include {include.name!r} reads whole rows: they are of several stores")
    if is_grouped(query):
        _check_groups(include, query)
    child = stores(query.source.name)
    for above, below in include.keys:
        _check_key(include, known_field(above, parent), known_field(below, child), stores)
    value = branch.kind
    if kind is not None:
        typed = value if isinstance(value, Lit) else Lit(AS_WRITTEN if not isinstance(value, str) else kind.type, value)
        value = for_field(typed, kind, parent).value
    return replace(branch, kind=value, query=query)


def _check_groups(include: Include, query: Plan) -> None:
    """See that the groups of children can be made of those of each parent, of a parent without children, too."""
    if query.distinct:
        raise QueryError(f"include {include.name!r} has groups or distinct rows, not groups that are made distinct")
    shown = [*outputs(query), *([] if query.having is None else [query.having])]
    if not query.group and any(map(has_subquery, shown)):
        hint = "write group_by(…), or read it beside the parent"
        raise QueryError(f"include {include.name!r} aggregates, and looks at another query beside it", hint=hint)


def _check_key(include: Include, above: Field, below: Field, stores: Stores) -> None:
    ends = [(above, below)]
    if include.through is not None:
        link = stores(include.through.store)
        ends = [
            (above, known_field(include.through.parent, link)),
            (known_field(include.through.child, link), below),
        ]
    for left, right in ends:
        why = left.comparisons.equality or right.comparisons.equality
        if left.type != right.type or why or left.type == "blob":
            raise QueryError(
                f"include {include.name!r}: {left.name} and {right.name} cannot be compared{why and ': '}{why}"
            )
