"""Which indexes a query would like to have, and which of them are missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from atoma.contracts.explanation import Access
from atoma.contracts.query import Call, Col, Expr, Order, Plan, Store
from atoma.query.indexes import spelled
from atoma.query.scope import Stores
from atoma.query.walk import conjuncts, inner_plans, is_grouped, plans
from atoma.schema.indexes import Index

_EQUAL = frozenset({"eq", "in", "is_same"})
_RANGE = frozenset({"lt", "le", "gt", "ge"})
INDEXED = frozenset(
    {
        *("lower", "upper", "length", "year", "month", "day", "hour", "minute", "second", "to_date"),
        *("json_int", "json_text", "json_bool"),
    }
)
"""Functions of one column over which an index is advised."""


def missing_indexes(plan: Plan, sources: Sequence[Access], stores: Stores) -> tuple[str, ...]:
    """What to add to which store, for those of ``sources`` that read every row, or sort what they have read."""
    found: dict[str, None] = {}
    asked = {_shape(each) for found_plan in plans(plan) for each in conjuncts(found_plan.where)}
    for store, index in wanted_indexes(plan):
        if any(_serves(each, index, asked) for each in stores(store).indexes):
            continue
        line = f"add {spelled(index)}"
        read = [each for each in sources if each.store == store]
        if any(each.scans for each in read):
            found[f"{store}: every row is read; {line}"] = None
        elif any(each.sorts for each in read):
            found[f"{store}: what was found is sorted; {line}"] = None
    return tuple(found)


def _serves(index: Index, wanted: Index, asked: Collection[object]) -> bool:
    """Whether ``index`` is what is ``wanted``, where the conditions of these shapes are asked for."""
    within = conjuncts(index.where)
    if not all(_shape(each) in asked for each in within):
        return False
    known = {each.args[0] for each in within if isinstance(each, Call) and each.fn == "eq"}
    keys = tuple([key for key in wanted.keys if key.expr not in known])
    return index.keys[: len(keys)] == keys


def _shape(expr: Expr) -> object:
    """``expr`` without its values, and without the number of its source."""
    if isinstance(expr, Call):
        return expr.fn, tuple(map(_shape, expr.args))
    return expr.name if isinstance(expr, Col) else None


def wanted_indexes(plan: Plan) -> Iterator[tuple[str, Index]]:
    """For each source of ``plan`` and of the plans within it: its store, and the index by which it would be looked up."""
    left: list[tuple[Plan, tuple[Expr, ...]]] = [(plan, ())]
    while left:
        found, keys = left.pop()
        for number, source in enumerate(found.sources):
            if isinstance(source, Store):
                yield from _wanted(source.name, found, number, keys)
        children = [(include, branch.query) for include in found.include for branch in include.branches]
        within = [each for each in inner_plans(found) if not any(each is child for _, child in children)]
        left += [(each, ()) for each in within]
        left += [
            (child, () if include.through is not None else tuple([Col(0, below) for _, below in include.keys]))
            for include, child in children
        ]


def _wanted(store: str, plan: Plan, number: int, keys: tuple[Expr, ...]) -> Iterator[tuple[str, Index]]:
    equal, between = list(keys), list[Expr]()
    for each in (*conjuncts(plan.where), *(part for join in plan.joins for part in conjuncts(join.on))):
        if isinstance(each, Call) and each.fn in _EQUAL | _RANGE:
            (equal if each.fn in _EQUAL else between).extend(_keys_of(each.args, number))
    ordered = _sorted_by(plan, number)
    if not equal and not ordered:
        return  # a range alone is read in the order of ids, without an index, so that nothing has to be sorted
    behind = ordered or [Order(each) for each in between[:1]]
    orders = {order.expr: order for order in (*(Order(each) for each in equal), *behind)}
    if orders and Col(0, "id") not in orders:
        yield store, Index.of(tuple(orders.values()))


def _keys_of(args: Sequence[Expr], number: int) -> Iterator[Expr]:
    """What a comparison compares of the source with a value, or with a column of a source before it."""
    own = [key for arg in args if (key := _key_of(arg, number)) is not None]
    if len(own) == 1 and not any(isinstance(arg, Col) and arg.source > number for arg in args):
        yield own[0]


def _key_of(expr: Expr, number: int) -> Expr | None:
    """``expr`` as an index of the source would have it: a column, or what is computed of one and of values alone."""
    if isinstance(expr, Col):
        return Col(0, expr.name) if expr.source == number else None
    if isinstance(expr, Call) and expr.fn in INDEXED:
        first, *path = expr.args
        key = _key_of(first, number) if isinstance(first, Col) else None
        return None if key is None else Call(expr.fn, (key, *path))
    return None


def _sorted_by(plan: Plan, number: int) -> list[Order]:
    """The sort keys before the id, when an index can give the rows in this order."""
    keys = [order for order in plan.order if order.expr != Col(number, "id")]
    backward = any(
        order.descending for order in plan.order if order.expr == Col(number, "id")
    )  # an index has ids rising
    found = [Order(key, each.descending is not backward) for each in keys if (key := _key_of(each.expr, number))]
    return found if len(found) == len(keys) and not is_grouped(plan) else []
