"""Expressions over one row as closures: what every live query asks of every commit has to cost well under a microsecond."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from atoma.contracts.query import Agg, BoundQuery, Call, Col, Exists, Expr, Lit, Param, Scalar
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.query.evaluate import sort_key
from atoma.query.functions import COMPARE, MEANINGS
from atoma.query.walk import value_of

Getter: TypeAlias = Callable[[Any], Any]
"""Takes a row, gives the value of an expression; conditions give True, False, or None for SQL's unknown."""
ColumnGetters: TypeAlias = Callable[[Col], Getter]
"""How a column is taken from a row."""


def of_stored_row(col: Col) -> Getter:
    """How a column is taken from a row of the only store.

    Raises:
        QueryError: It is one of another row.
    """
    if col.source != 0:
        raise QueryError("this looks at more than one row")
    name = col.name
    if name == "id":
        return lambda row: row.id
    return lambda row: row.image[name]


def fulfilled(where: Expr) -> Callable[[StoredRow], bool]:
    """What says of a row of the only store whether it fulfils ``where``, a condition that is not a caller's.

    One for which it has no value, as a number in it does not fit, does not: it keeps nobody from the others.
    """
    value = compiled(where, ())

    def fulfils(row: StoredRow) -> bool:
        try:
            return bool(value(row))
        except QueryError:
            return False

    return fulfils


def compiled(expr: Expr, params: Sequence[Any], columns: ColumnGetters = of_stored_row) -> Getter:
    """``expr`` of a checked plan as a function of a row.

    Args:
        expr: The expression.
        params: The values of the query.
        columns: How its columns are taken from what it is a function of: a row of the only store, unless said otherwise.

    Raises:
        QueryError: It looks at more than one row.
    """
    match expr:
        case Lit(value=value):
            return lambda row: value
        case Param(index=index):
            value = params[index]
            return lambda row: value
        case Col():
            return columns(expr)
        case Call(fn="and", args=args):
            return _conjunction([compiled(arg, params, columns) for arg in args])
        case Call(fn=fn, args=args) if fn in COMPARE:
            return _comparison(COMPARE[fn], compiled(args[0], params, columns), compiled(args[1], params, columns))
        case Call(fn="in", args=(wanted, *among)) if among and all(isinstance(each, (Lit, Param)) for each in among):
            return _membership(compiled(wanted, params, columns), [value_of(each, params) for each in among])
        case Call(fn="if", args=args):
            return _choice(*[compiled(arg, params, columns) for arg in args])
        case Call(fn=fn, args=args):
            meaning, inner = MEANINGS[fn], [compiled(arg, params, columns) for arg in args]
            return lambda row: meaning([each(row) for each in inner])
        case Agg() | Exists() | Scalar():
            raise QueryError("this looks at more than one row")


def condition(where: Expr | None, params: Sequence[Any]) -> Getter:
    """``where`` as a function; None keeps every row."""
    return (lambda row: True) if where is None else compiled(where, params)


def order_rows(query: BoundQuery, rows: Sequence[StoredRow]) -> list[StoredRow]:
    """``rows`` in the order of ``query``: NULL first ascending, last descending."""
    result = list(rows)
    for order in reversed(query.plan.order):
        value = compiled(order.expr, query.params)
        result.sort(key=lambda row, value=value: sort_key(value(row)), reverse=order.descending)  # type: ignore[misc]
    return result


def _comparison(compare: Callable[[Any, Any], bool], left: Getter, right: Getter) -> Getter:
    def fits(row: StoredRow) -> bool | None:
        own, other = left(row), right(row)
        return None if own is None or other is None else compare(own, other)

    return fits


def _choice(when: Getter, then: Getter, otherwise: Getter) -> Getter:
    return lambda row: then(row) if when(row) else otherwise(row)  # what is not chosen may be an error


def _membership(wanted: Getter, among: Sequence[object]) -> Getter:
    """Whether a value is one of ``among``, at least one: there may be a thousand, so they are not gone through for a row."""
    present, otherwise = frozenset(among), None if None in among else False

    def fits(row: StoredRow) -> bool | None:
        own = wanted(row)
        return None if own is None else own in present or otherwise

    return fits


def _conjunction(conditions: Sequence[Getter]) -> Getter:
    def fits(row: StoredRow) -> bool | None:
        unknown = False
        for each in conditions:
            truth = each(row)
            if truth is None:
                unknown = True
            elif not truth:
                return False
        return None if unknown else True

    return fits
