"""Tables as values, from which a dialect makes its declarations and statements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoma.schema.kinds import SqlType

SqlColumns = Mapping[str, SqlType]
"""Columns by name, with SQLite's names for the types of their values."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        name: Its name.
        type: Type of its values, by SQLite's name.
        nullable: Whether it may be NULL.
        default: Its value in rows that specify none, as SQL; None for no default.
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
        name: Its name, without the prefix of a dialect.
        columns: Its columns.
        key: Its primary key.
        unique: A column whose values must differ as well, ``""`` for none.
        indexes: Its indexes: the end of each name, and its columns.
        drawn: Whether its key is a number that the database may draw, never the same one twice.
        single: Whether it has only one row.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    unique: str = ""
    indexes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    drawn: bool = False
    single: bool = False

    def of(self, *names: str) -> SqlColumns:
        """Return these columns; all columns if none are named."""
        types: dict[str, SqlType] = {column.name: column.type for column in self.columns}
        return {name: types[name] for name in names or types}


def text(*names: str) -> tuple[Column, ...]:
    """Return columns of text."""
    return tuple(Column(name, "TEXT") for name in names)


def integers(*names: str) -> tuple[Column, ...]:
    """Return columns of integers."""
    return tuple(Column(name, "INTEGER") for name in names)


def blobs(*names: str) -> tuple[Column, ...]:
    """Return columns of bytes."""
    return tuple(Column(name, "BLOB") for name in names)
