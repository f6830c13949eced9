"""Aggregates: one value from many rows, for the columns, the order and the ``having`` of grouped queries."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar, overload

from atoma.contracts.checks import is_a
from atoma.contracts.query import Agg, Expr
from atoma.errors import QueryError
from atoma.schema.expressions import Condition, Expression, checked_condition
from atoma.schema.terms import Places, Term

V = TypeVar("V")
N = TypeVar("N", bound="float | Decimal | timedelta")
F = TypeVar("F", bound=float)


def count(of: Term | None = None, /, *, where: Condition | None = None, distinct: bool = False) -> Expression[int]:
    """Count the rows, or the rows that have a value in a column.

    Args:
        of: The column that must have a value.
        where: Only rows for which this is true count.
        distinct: Equal values count once.
    """
    return _aggregate("count", of, where, distinct=distinct)


@overload
def sum_(
    of: Expression[N | None], /, *, where: Condition | None = ..., distinct: bool = ...
) -> Expression[N | None]: ...
@overload
def sum_(of: Expression[N], /, *, where: Condition | None = ..., distinct: bool = ...) -> Expression[N | None]: ...
def sum_(of: Term, /, *, where: Condition | None = None, distinct: bool = False) -> Term:
    """The sum of integers, reals, decimals with a scale or durations; None over no values.

    A sum that does not fit into 64 bits raises ``QueryError`` when the query runs; a sum of reals is exact and
    rounded once.
    """
    return _aggregate("sum", of, where, distinct=distinct)


@overload
def avg(
    of: Expression[F | None], /, *, where: Condition | None = ..., distinct: bool = ...
) -> Expression[float | None]: ...
@overload
def avg(of: Expression[F], /, *, where: Condition | None = ..., distinct: bool = ...) -> Expression[float | None]: ...
def avg(of: Term, /, *, where: Condition | None = None, distinct: bool = False) -> Term:
    """The mean of integers or reals; None over no values."""
    return _aggregate("avg", of, where, distinct=distinct)


@overload
def min_(of: Expression[V | None], /, *, where: Condition | None = ...) -> Expression[V | None]: ...
@overload
def min_(of: Expression[V], /, *, where: Condition | None = ...) -> Expression[V | None]: ...
def min_(of: Term, /, *, where: Condition | None = None) -> Term:
    """The smallest value; None over no values."""
    return _aggregate("min", of, where)


@overload
def max_(of: Expression[V | None], /, *, where: Condition | None = ...) -> Expression[V | None]: ...
@overload
def max_(of: Expression[V], /, *, where: Condition | None = ...) -> Expression[V | None]: ...
def max_(of: Term, /, *, where: Condition | None = None) -> Term:
    """The greatest value; None over no values."""
    return _aggregate("max", of, where)


def _aggregate(fn: str, of: Term | None, where: Condition | None, *, distinct: bool = False) -> Expression[Any]:
    if of is not None and not is_a(of, Term):
        raise QueryError(f"{fn}() takes a column, for example {fn}(col('age')), not {of!r}")
    terms: list[Term] = [each for each in (of, where) if each is not None]
    if where is not None:
        checked_condition(where)
    if any(each.late or each.store != terms[0].store for each in terms):

        def build(places: Places, _: bool) -> Expr:
            arg = None if of is None else of.at(places)
            return Agg(fn, arg, None if where is None else where.at(places, kept=True), distinct)

        return Expression(build)
    arg = None if of is None else of.node
    return Expression(Agg(fn, arg, None if where is None else where.node, distinct), terms[0].store if terms else "")


__all__ = ["avg", "count", "max_", "min_", "sum_"]
