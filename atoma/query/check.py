"""Whether a query fits a store: the one place that decides, for the builder, the hub and live queries.

A comparison that would mean something else in SQL than in Python, because of how the field's type is stored, is refused
with what to do about it. Text with a NUL is in no row that may be written, so a comparison with it is turned into one
that asks the same of all other text, and that every engine can be sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias, get_args

import msgspec

from atoma.contracts.query import And, Compare, CompareOp, In, IsNull, Like, Not, Or, Predicate, QuerySpec, Sort
from atoma.contracts.values import Scalar
from atoma.errors import QueryError, ValidationError
from atoma.query.bounds import check_filter, check_values
from atoma.schema.fields import Field
from atoma.schema.spec import StoreSpec

MAX_NAME = 80
SIGNS: dict[str, str] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_OPERATORS: tuple[CompareOp, ...] = get_args(CompareOp)
_BY_EQUALITY = ("eq", "ne")

AnyStore: TypeAlias = StoreSpec[object]


def known_field(name: str, store: AnyStore) -> Field:
    """The field of that name.

    Raises:
        QueryError: There is none.
    """
    field = store.fields.get(name)
    if field is None:
        raise QueryError(f"store {store.name!r} has no field {name[:MAX_NAME]!r}; it has: {', '.join(store.columns)}")
    return field


def _refused(asked: str, name: str, store: AnyStore, why: str) -> QueryError:
    return QueryError(f"{asked} cannot be asked of {store.name}.{name}: {why}")


def compare(op: CompareOp, name: str, value: Scalar, store: AnyStore) -> Predicate:
    """``name op value``, in a form that every engine answers as Python would.

    Raises:
        QueryError: No such field or operator, or one that its type has no answer for.
    """
    comparisons = known_field(name, store).comparisons
    if op not in _OPERATORS:
        raise QueryError(f"unknown operator {op!r}; there are: {', '.join(_OPERATORS)}")
    why = comparisons.equality if op in _BY_EQUALITY else comparisons.order
    if why:
        raise _refused(SIGNS[op], name, store, why)
    if comparisons.any_text and type(value) is str and "\x00" in value:
        return _compare_nul(op, name, value.partition("\x00")[0])
    return Compare(op, name, value)


def _compare_nul(op: CompareOp, name: str, before: str) -> Predicate:
    """``name op text`` for a text that begins with ``before`` and a NUL: it stands right behind ``before``."""
    match op:
        case "eq":
            return _no_text(name)
        case "ne":
            return Compare("ge", name, "")  # every text
        case "lt" | "le":
            return Compare("le", name, before)
        case "gt" | "ge":
            return Compare("gt", name, before)


def _no_text(name: str) -> Predicate:
    """False, and unknown where the field is NULL."""
    return Compare("lt", name, "")


def among(name: str, values: Sequence[Scalar], store: AnyStore) -> Predicate:
    """``name in values``.

    Raises:
        QueryError: No such field, one whose type cannot be compared, or too many values.
    """
    comparisons = known_field(name, store).comparisons
    if comparisons.equality:
        raise _refused("in_()", name, store, comparisons.equality)
    check_values(len(values))
    kept = tuple(values)
    if comparisons.any_text:
        kept = tuple(value for value in values if type(value) is not str or "\x00" not in value)
    return In(name, kept) if kept or not values else _no_text(name)


def is_null(name: str, store: AnyStore) -> Predicate:
    """``name`` has no value; every type has an answer to that."""
    known_field(name, store)
    return IsNull(name)


def like(name: str, pattern: str, store: AnyStore) -> Predicate:
    """``name`` fits ``pattern``.

    Raises:
        QueryError: No such field, or one that holds no text.
    """
    why = known_field(name, store).comparisons.text
    if why:
        raise _refused("like()", name, store, why)
    return _no_text(name) if "\x00" in pattern else Like(name, pattern)


def sort_keys(keys: Iterable[Sort], store: AnyStore) -> tuple[Sort, ...]:
    """``keys`` with the id behind them, so that the order is total.

    Raises:
        QueryError: No such field, one that does not sort, or one that is named twice.
    """
    order: dict[str, Sort] = {}
    for key in keys:
        why = known_field(key.field, store).comparisons.order
        if why:
            raise _refused("order_by()", key.field, store, why)
        if key.field in order:
            raise QueryError(f"order_by names {key.field!r} twice")
        order[key.field] = key
    order.setdefault("id", Sort("id"))
    return tuple(order.values())


def check_query(query: QuerySpec, store: AnyStore) -> QuerySpec:
    """``query``, which somebody else has bound, with its order total and its literals as ``store`` keeps them.

    Raises:
        QueryError: It does not fit the store, or not the bounds.
    """
    check_filter(query.where)
    where = None if query.where is None else _fit(query.where, store)
    order = sort_keys(query.order, store)
    if query.after is not None and len(query.after) != len(order):
        raise QueryError(f"the cursor has {len(query.after)} values for {len(order)} sort keys")
    return msgspec.structs.replace(query, where=where, order=order)


def _fit(node: Predicate, store: AnyStore) -> Predicate:
    match node:
        case Compare(op, name, value):
            return compare(op, name, _literal(name, value, store), store)
        case In(name, values):
            return among(name, [_literal(name, value, store) for value in values], store)
        case IsNull(name):
            return is_null(name, store)
        case Like(name, pattern):
            return like(name, pattern, store)
        case And(items):
            return And(tuple(_fit(item, store) for item in items))
        case Or(items):
            return Or(tuple(_fit(item, store) for item in items))
        case Not(item):
            return Not(_fit(item, store))


def _literal(name: str, value: object, store: AnyStore) -> Scalar:
    known_field(name, store)
    if value is None:
        return None
    if not isinstance(value, (bool, int, float, str, bytes)):
        raise QueryError(f"a {type(value).__name__} is no column value")
    try:
        return store.canonical(name, value, literal=True)
    except ValidationError as error:
        raise literal_error(error) from None


def literal_error(error: ValidationError) -> QueryError:
    """The error for a value that a field cannot be compared with."""
    return QueryError(f"in a query: {error}")
