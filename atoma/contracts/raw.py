"""SQL that a program wrote itself: the statement, what SQLite says of it beforehand, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from atoma.contracts.execution import QueryResult
from atoma.contracts.explanation import Access
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import Scalar

RawReads: TypeAlias = Mapping[str, frozenset[str]]
"""The stores that a statement reads, with the fields of each, as SQLite reports them; none where rows are only counted."""


class SqlQuery(msgspec.Struct, frozen=True):
    """A statement with its values; made by :meth:`of`.

    Attributes:
        text: The statement.
        params: Its values by their names.
        kinds: The types of the values: 1, 1.0 and True are equal, and SQL tells them apart.
    """

    text: str
    params: tuple[tuple[str, Scalar], ...] = ()
    kinds: tuple[str, ...] = ()

    @staticmethod
    def of(text: str, params: Mapping[str, Scalar]) -> SqlQuery:
        """The statement ``text`` with ``params``."""
        named = tuple(sorted(params.items(), key=lambda each: each[0]))
        return SqlQuery(text, named, tuple([type(value).__name__ for _, value in named]))

    @property
    def store(self) -> str:
        """``""``: which stores it reads is for SQLite to say."""
        return ""

    def __str__(self) -> str:
        return self.text


Question: TypeAlias = BoundQuery | SqlQuery
"""A question to the database of a device."""


class SqlOutline(msgspec.Struct, frozen=True):
    """The description of a statement by SQLite before it runs.

    Attributes:
        query: The statement.
        columns: The names of the columns of its rows.
        reads: See :data:`RawReads`.
        sources: How it will read each source.
    """

    query: SqlQuery
    columns: tuple[str, ...]
    reads: RawReads
    sources: tuple[Access, ...]


class SqlAnswer(QueryResult, frozen=True):
    """The rows of a statement, as tuples.

    Attributes:
        columns: The names of their columns.
        reads: See :data:`RawReads`.
    """

    columns: tuple[str, ...] = ()
    reads: RawReads = {}  # noqa: RUF012 - a Struct copies it


__all__ = ["Question", "RawReads", "SqlAnswer", "SqlOutline", "SqlQuery"]
