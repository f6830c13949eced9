"""Queries within queries: whether another query finds a row, how many, and its single value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from atoma.contracts.checks import is_a
from atoma.errors import QueryError
from atoma.query.builder import Query, Rows, plain, select
from atoma.query.parts import Parts
from atoma.query.within import More, children_of, count_in, exists_in, scalar_of
from atoma.schema.expressions import Condition, Expression
from atoma.schema.relations import Relation

M = TypeVar("M")
N = TypeVar("N")
R = TypeVar("R")


def exists(of: Query[R] | Relation[M, N], child: Callable[[Rows[N]], Rows[N]] | None = None, /) -> Condition:
    """Return whether another query finds a row, or a relation a child; it may read columns of the query around it.

    Args:
        of: A query, or a relation of the store that is read around it.
        child: Filters the children of a relation: ``exists(REMARKS_OF, lambda remarks: remarks.where(urgent))``.

    Raises:
        QueryError: The query has a limit, an offset, an include or a cursor, or ``of`` is something else.
    """
    return exists_in(*_of(of, child, "exists()"))


def count_of(of: Query[R] | Relation[M, N], child: Callable[[Rows[N]], Rows[N]] | None = None, /) -> Expression[int]:
    """Count the rows that another query finds, or the children of a relation; see :func:`exists`.

    Each count is made separately: two of them in one query do not multiply.
    """
    return count_in(*_of(of, child, "count_of()"))


def scalar(query: Query[R], /) -> Expression[R | None]:
    """Take the only column of the first row of another query; None if it finds no row.

    Raises:
        QueryError: The query has more than one column, or a cursor.
    """
    found: Expression[R | None] = scalar_of(plain(query, "scalar()"))
    return found


def _of(
    of: Query[R] | Relation[M, N], child: Callable[[Rows[N]], Rows[N]] | None, name: str
) -> tuple[Parts, More | None]:
    if isinstance(of, Query):
        if child is not None:
            raise QueryError(f"{name} of a query takes nothing else: use where()")
        return plain(of, name), None
    if not is_a(of, Relation):
        raise QueryError(f"{name} takes a query or a relation, not {of!r}")
    rows: Rows[N] = select(of.children[0][1])
    return children_of(of, plain(rows if child is None else child(rows), name))


__all__ = ["count_of", "exists", "scalar"]
