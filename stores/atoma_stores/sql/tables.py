"""Tables as values: what a dialect makes its own declarations and statements of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoma.schema.kinds import SqlType

SqlColumns = Mapping[str, SqlType]
"""Columns by name, with the types of their values by SQLite's words."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        name: Its name.
        type: Type of its values, by SQLite's word.
        nullable: Whether it may be NULL.
        default: Its value in rows that do not say, as SQL; None for none.
        later: Whether files of earlier versions lack it; then it is nullable or has a default.
    """

    name: str
    type: SqlType
    nullable: bool = False
    default: str | None = None
    later: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: Its name, without what a dialect puts before it.
        columns: Its columns.
        key: Its primary key.
        unique: A column whose values must differ as well, ``""`` for none.
        indexes: Its indexes: what their names end with, and their columns.
        drawn: Whether its key is a number that the database may draw, never the same one twice.
        single: Whether it has one row only.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    unique: str = ""
    indexes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    drawn: bool = False
    single: bool = False

    def of(self, *names: str) -> SqlColumns:
        """These columns, all of them for none."""
        types: dict[str, SqlType] = {column.name: column.type for column in self.columns}
        return {name: types[name] for name in names or types}


def text(*names: str) -> tuple[Column, ...]:
    """Columns of text."""
    return tuple(Column(name, "TEXT") for name in names)


def integers(*names: str) -> tuple[Column, ...]:
    """Columns of integers."""
    return tuple(Column(name, "INTEGER") for name in names)


def blobs(*names: str) -> tuple[Column, ...]:
    """Columns of bytes."""
    return tuple(Column(name, "BLOB") for name in names)
