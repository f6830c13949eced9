"""The children of an include: one statement for those of every parent, with the limit counted for each parent."""

from __future__ import annotations

from msgspec.structs import replace

from atoma.contracts.query import Branch, Include, Store
from atoma.query.scope import AnyStore, Stores
from atoma_stores.sql.names import quote
from atoma_stores.sql.select import Compiler, Statement, whole_row


def is_scoped(include: Include, parent: AnyStore, child: AnyStore) -> bool:
    """Whether children are looked for in the scope of their parent only."""
    return not include.cross_scope and None not in (parent.scope_field, child.scope_field)


def compile_branch(include: Include, branch: Branch, parent: AnyStore, stores: Stores) -> Statement:
    """The children of a branch; its parents are the only value that is no parameter of the query.

    That value is a JSON array: for each parent the array of its keys, and its scope where that counts. A row begins
    with the number of its parent in it; children come in their order.
    """
    compiler = Compiler(stores)
    keys = compiler.bind(None)
    plan = replace(branch.query, include=())
    assert isinstance(plan.source, Store)
    child = stores(plan.source.name)
    belongs = _belongs(include, parent, child)
    parents = f"FROM json_each({keys}) AS k"
    if plan.limit is None:
        (shown,), conditions, order = compiler.parts(plan, belongs)
        text = f"{parents} JOIN {quote(child.name)} AS {shown.name} ON {conditions}"
    else:
        (first,), conditions, inner = compiler.parts(plan, belongs)
        shown = compiler.alias(child, plan.source)
        order = compiler.order(plan, (shown,), ())
        text = (
            f"{parents} JOIN {quote(child.name)} AS {shown.name} ON {shown.name}.id IN (SELECT {first.name}.id "
            f"FROM {quote(child.name)} AS {first.name} WHERE {conditions} ORDER BY {inner} LIMIT {plan.limit})"
        )
    columns = ", ".join(whole_row(shown))
    return compiler.statement(f"SELECT k.key, {columns} {text} ORDER BY k.key, {order}", (child,))


def _belongs(include: Include, parent: AnyStore, child: AnyStore) -> str:
    """The condition that a child belongs to the parent whose keys are ``k.value``; ``{}`` is the child's alias."""
    if include.through is None:
        same = [f"{{0}}.{quote(below)} = {_key(at)}" for at, (_, below) in enumerate(include.keys)]
    else:
        link, ((_, below),) = include.through, include.keys
        same = [
            f"{{0}}.{quote(below)} IN (SELECT {quote(link.child)} FROM {quote(link.store)} "
            f"WHERE {quote(link.parent)} = {_key(0)})"
        ]
    if is_scoped(include, parent, child):
        same.append(f"{{0}}._scope = {_key(len(include.keys))}")
    return " AND ".join(same)


def _key(at: int) -> str:
    return f"json_extract(k.value, '$[{at}]')"
