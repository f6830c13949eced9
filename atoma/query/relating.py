"""Includes: relations whose children are read with the rows of a plan."""

from __future__ import annotations

from msgspec.structs import replace

from atoma.contracts.query import AS_WRITTEN, Branch, Include, Lit, Plan, Store
from atoma.errors import QueryError
from atoma.query.literals import for_field, known_field
from atoma.query.scope import AnyStore, Stores
from atoma.query.typed import CheckPlan
from atoma.query.walk import is_grouped
from atoma.schema.fields import Field


def check_includes(plan: Plan, parent: AnyStore | None, stores: Stores, check_plan: CheckPlan) -> tuple[Include, ...]:
    """The includes of ``plan``, checked.

    Raises:
        QueryError: One does not fit: keys of two types, a variant without its kind, children that are not rows of one store.
    """
    if plan.joins or plan.columns is not None or parent is None:
        raise QueryError("include() goes with the whole rows of one store")
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
    if query.distinct or is_grouped(query):
        hint = "count_of(…) and scalar(…) are columns"
        raise QueryError(f"include {include.name!r} reads rows as they are, not groups or distinct rows", hint=hint)
    if include.kind and query.columns is not None:
        raise QueryError(f"include {include.name!r} reads whole rows: they are of several stores")
    child = stores(query.source.name)
    for above, below in include.keys:
        _check_key(include, known_field(above, parent), known_field(below, child), stores)
    value = branch.kind
    if kind is not None:
        typed = value if isinstance(value, Lit) else Lit(AS_WRITTEN if not isinstance(value, str) else kind.type, value)
        value = for_field(typed, kind, parent).value
    return replace(branch, kind=value, query=query)


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
