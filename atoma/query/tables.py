"""Queries as sources of other queries: derived tables, and what is joined."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from msgspec.structs import replace

from atoma.contracts.checks import is_a
from atoma.contracts.query import Col, JoinKind
from atoma.errors import QueryError
from atoma.query.arguments import check_soft
from atoma.query.parts import From, MakeRow, Parts
from atoma.schema.expressions import Condition, Expression, checked_condition
from atoma.schema.spec import Alias, StoreSpec

R_co = TypeVar("R_co", covariant=True)
N = TypeVar("N")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[R_co]):
    """The rows of a query as a source of another one; see :meth:`atoma.query.builder.Query.named`.

    Attributes:
        parts: The query.
        name: Its name.
    """

    parts: Parts
    name: str

    def col(self, pick: Callable[[R_co], V]) -> Expression[V]:
        """Return one of its columns, picked from a row: ``top.col(lambda row: row[0])``, ``top.col(lambda row: row.lane)``.

        Raises:
            QueryError: The picked value is not a column.
        """
        picked: object = pick(cast("R_co", _Row(self.parts, self.name)))
        if isinstance(picked, _Row):
            picked = picked[0]
        if not isinstance(picked, Expression):
            raise QueryError(f"pick a column of {self.name!r}, as in col(lambda row: row[0]), not {picked!r}")
        return cast("Expression[V]", picked)


class _Row:
    """A stand-in for a row of a derived table while a column is picked."""

    def __init__(self, parts: Parts, name: str) -> None:
        self._columns = len(parts.columns or ())
        self._named = _field_names(parts.make)
        self._name = name

    def __getitem__(self, at: int) -> Expression[object]:
        if not 0 <= at < self._columns:
            raise QueryError(f"{self._name!r} has {self._columns} columns, and none with the number {at}")
        return Expression(Col(0, f"c{at}"), self._name)

    def __getattr__(self, name: str) -> Expression[object]:
        if name not in self._named:
            raise QueryError(f"{self._name!r} has no column {name!r}; it has: {', '.join(self._named)}")
        return self[self._named.index(name)]


def _field_names(make: MakeRow | None) -> list[str]:
    """The names of what ``make`` is given, in order."""
    if make is None:
        return []
    try:
        return list(inspect.signature(make).parameters)
    except ValueError:
        return []


def joined_to(
    parts: Parts,
    source: StoreSpec[N] | Alias[N] | Table[N],
    on: Condition,
    kind: JoinKind,
    cross_scope: bool,
    include_deleted: bool,
) -> Parts:
    """``parts`` with one more source.

    Raises:
        QueryError: ``source`` is not a source, or ``on`` is not a condition.
    """
    checked_condition(on)
    if isinstance(source, Table):
        joined = From(source.name, None, source.parts, kind, on, cross_scope)
    elif is_a(source, StoreSpec) or is_a(source, Alias):
        spec = source.spec if isinstance(source, Alias) else source
        if include_deleted:
            check_soft(spec)
        joined = From(source.name, spec, None, kind, on, cross_scope, include_deleted=include_deleted)
    else:
        raise QueryError(f"a join takes a store, STORE.named(…) or query.named(…), not {source!r}")
    return replace(parts, sources=(*parts.sources, joined))
