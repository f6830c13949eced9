"""Whether a query can be followed on a store; told when it is opened, not at the first commit."""

from __future__ import annotations

from typing import get_args

from atoma.contracts.query import Compare, CompareOp, In, IsNull, Like, Predicate, QuerySpec
from atoma.errors import QueryError
from atoma.query.bounds import conditions
from atoma.query.evaluate import total_order
from atoma.schema import StoreSpec

OPERATORS: tuple[str, ...] = get_args(CompareOp)


def checked(query: QuerySpec, store: StoreSpec[object]) -> QuerySpec:
    """``query`` with a total order, and each id once.

    Raises:
        QueryError: It counts instead of listing, names an unknown field or operator, or has a cursor of another order.
    """
    if query.count:
        raise QueryError("a live query lists rows; follow the rows and take their number")
    if query.ids is not None:
        return QuerySpec(ids=tuple(dict.fromkeys(query.ids)))
    for condition in conditions(query.where):
        _check(condition, store)
    order = total_order(query)
    for sort in order:
        _column(sort.field, store)
    if query.after is not None and len(query.after) != len(order):
        raise QueryError(f"the cursor has {len(query.after)} values for {len(order)} sort keys")
    return QuerySpec(where=query.where, order=order, limit=query.limit, offset=query.offset, after=query.after)


def _column(name: str, store: StoreSpec[object]) -> str:
    if name not in store.fields:
        raise QueryError(f"store {store.name!r} has no field {name!r}; it has: {', '.join(store.columns)}")
    return store.fields[name].sql_type


def _check(node: Predicate, store: StoreSpec[object]) -> None:
    match node:
        case Compare(op=op, field=field):
            if op not in OPERATORS:
                raise QueryError(f"unknown operator {op!r}; there are: {', '.join(OPERATORS)}")
            _column(field, store)
        case In(field=field) | IsNull(field=field):
            _column(field, store)
        case Like(field=field):
            if _column(field, store) != "TEXT":
                raise QueryError(f"like needs a text field; {store.name}.{field} is none")
        case _:
            pass
