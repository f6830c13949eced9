"""Which indexes a query would like to have, and which of them are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atoma.contracts.explanation import Access
from atoma.contracts.query import Call, Col, Expr, Plan, Store
from atoma.query.scope import Stores
from atoma.query.walk import conjuncts, inner_plans, is_grouped

_EQUAL = frozenset({"eq", "in", "is_same"})
_RANGE = frozenset({"lt", "le", "gt", "ge"})


def missing_indexes(plan: Plan, sources: Sequence[Access], stores: Stores) -> tuple[str, ...]:
    """What to add to which store, for those of ``sources`` that read every row, or sort what they have read."""
    found: dict[str, None] = {}
    for store, columns in wanted_indexes(plan):
        spec = stores(store)
        if any(index.fields[: len(columns)] == columns for index in spec.indexes):
            continue
        names = ", ".join([f'"{name}"' for name in columns])
        line = f"add Index({names})"
        read = [each for each in sources if each.store == store]
        if any(each.scans for each in read):
            found[f"{store}: every row is read; {line}"] = None
        elif any(each.sorts for each in read):
            found[f"{store}: what was found is sorted; {line}"] = None
    return tuple(found)


def wanted_indexes(plan: Plan) -> Iterator[tuple[str, tuple[str, ...]]]:
    """For each source of ``plan`` and of the plans within it: its store, and the columns by which it is looked up."""
    left: list[tuple[Plan, tuple[str, ...]]] = [(plan, ())]
    while left:
        found, keys = left.pop()
        for number, source in enumerate(found.sources):
            if isinstance(source, Store):
                yield from _wanted(source.name, found, number, keys)
        children = [(include, branch.query) for include in found.include for branch in include.branches]
        within = [each for each in inner_plans(found) if not any(each is child for _, child in children)]
        left += [(each, ()) for each in within]
        left += [
            (child, () if include.through is not None else tuple([below for _, below in include.keys]))
            for include, child in children
        ]


def _wanted(store: str, plan: Plan, number: int, keys: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    equal, between = list(keys), list[str]()
    for each in (*conjuncts(plan.where), *(part for join in plan.joins for part in conjuncts(join.on))):
        if isinstance(each, Call) and each.fn in _EQUAL | _RANGE:
            for name in _columns_of(each.args, number):
                (equal if each.fn in _EQUAL else between).append(name)
    ordered = _sorted_by(plan, number)
    if not equal and not ordered:
        return  # a range alone is read in the order of ids, without an index, so that nothing has to be sorted
    columns = tuple(dict.fromkeys([*equal, *(ordered or between[:1])]))
    if columns and "id" not in columns:
        yield store, columns


def _columns_of(args: Sequence[Expr], number: int) -> Iterator[str]:
    """The column of the source that a comparison compares with something else than its own columns."""
    own = [arg for arg in args if isinstance(arg, Col) and arg.source == number]
    if len(own) == 1:
        yield own[0].name


def _sorted_by(plan: Plan, number: int) -> list[str]:
    """The sort keys before the id, when an index can give the rows in this order."""
    keys = [order for order in plan.order if order.expr != Col(number, "id")]
    one_way = len({order.descending for order in plan.order}) == 1 or len(keys) == 1
    plain = [key.expr.name for key in keys if isinstance(key.expr, Col) and key.expr.source == number]
    return plain if one_way and len(plain) == len(keys) and not is_grouped(plan) else []
