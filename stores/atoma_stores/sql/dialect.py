"""Dialects: the parts of SQL that two databases write differently, and nothing else.

A text is a template, in which the dialect fills in tables, places for values and the few words that differ. Rows are always
written and looked up as a list: SQLite runs a statement per row and takes keys as JSON, PostgreSQL takes an array per column.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from atoma.contracts.values import Scalar
from atoma.schema.kinds import SqlType
from atoma_stores.sql import spelling
from atoma_stores.sql.literals import literal
from atoma_stores.sql.names import quote
from atoma_stores.sql.scripts import Execute, ExecuteMany, Row, Value
from atoma_stores.sql.spelling import Spelling
from atoma_stores.sql.tables import Column, SqlColumns, Table

PLACES = 9
STORES_SCHEMA, HUB_SCHEMA = "atoma", "atoma_hub"
"""PostgreSQL's schemas for the stores, which other programs may read, and for the hub's own tables: no names collide."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A query over a list of keys, each of which is a row of ``k`` in its text, with its position as ``k.n``."""

    dialect: Dialect
    sql: str
    types: tuple[SqlType, ...]

    def of(self, keys: Sequence[Row], enough: Callable[[Row], bool] | None = None) -> Execute:
        """Return the query for these keys; ``enough`` is as in :class:`~atoma_stores.sql.scripts.Execute`."""
        return Execute(self.sql, self.dialect.bind(self.types, keys), enough)


@dataclass(frozen=True, slots=True)
class Write:
    """A statement that writes a list of rows; ``store`` is as in :class:`~atoma_stores.sql.scripts.Execute`."""

    sql: str
    store: str = ""

    def of(self, rows: Sequence[Row]) -> ExecuteMany:
        """Return the statement for these rows."""
        return ExecuteMany(self.sql, rows, self.store)


class _Names(dict[str, str]):
    """The names in a template; any other name is one of the hub's tables."""

    def __init__(self, dialect: Dialect, names: Mapping[str, str]) -> None:
        super().__init__(dialect.words)
        self.update({f"p{number}": dialect.place(number) for number in range(1, PLACES + 1)}, **names)
        self._dialect = dialect

    def __missing__(self, name: str) -> str:
        return self._dialect.table(name)


class Dialect(ABC):
    """The SQL dialect of a database.

    Attributes:
        system: Its name, as OpenTelemetry has it.
        words: What templates may name besides tables and places: ``least`` and ``greatest`` of several values, the ``join``
            that reads the list of keys first, the number for a client at position ``k.n`` (``fresh_number``), what locks
            a row of ``c`` that is about to be deleted and skips those that others have locked (``leaving``).
        counts_commits: Whether every write group moves the counter of commits; if several processes write, they would
            wait for one another at that row.
        lateral: Whether a query after FROM may refer to the sources before it.
        spelling: Its spelling of the parts of a query.
    """

    system: ClassVar[str]
    words: ClassVar[Mapping[str, str]]
    counts_commits: ClassVar[bool]
    lateral: ClassVar[bool]
    spelling: ClassVar[Spelling]

    def render(self, template: str, **names: str) -> str:
        """Fill in the braces of ``template``: the hub's tables, words, places ``{p1}`` to ``{p9}``, and ``names``."""
        return template.format_map(_Names(self, names))

    def lookup(self, columns: SqlColumns, template: str, **names: str) -> Lookup:
        """Return a query over a list of keys with these columns; ``{keys}`` is the list in ``template``."""
        return Lookup(self, self.render(template, keys=self.keys(columns), **names), tuple(columns.values()))

    @abstractmethod
    def table(self, name: str) -> str:
        """Return the name of one of the hub's own tables."""

    @abstractmethod
    def store(self, name: str) -> str:
        """Return the name of a store's table."""

    @abstractmethod
    def place(self, number: int) -> str:
        """Return the placeholder of the value with that number, from 1 on."""

    @abstractmethod
    def keys(self, columns: SqlColumns) -> str:
        """Return a list of keys as the source ``k``."""

    @abstractmethod
    def key_places(self, columns: SqlColumns) -> int:
        """Return how many places :meth:`keys` takes, from 1 on; :meth:`bind` makes as many values."""

    @abstractmethod
    def bind(self, types: Sequence[SqlType], keys: Sequence[Row]) -> tuple[Value, ...]:
        """Return the values to bind for a list of keys."""

    @abstractmethod
    def among(self, place: str) -> str:
        """Return the condition, to follow a text, that it is in the list that :meth:`bind` has bound to that place."""

    @abstractmethod
    def insert(self, table: str, columns: SqlColumns, conflict: str = "", *, store: str = "") -> Write:
        """Return the statement to insert rows; ``conflict`` follows ``ON CONFLICT``, with the existing row as ``old``."""

    @abstractmethod
    def update(self, table: str, key: SqlColumns, columns: SqlColumns) -> Write:
        """Return the statement that sets ``columns`` in the rows with these keys; the values of ``key`` come first."""

    @abstractmethod
    def delete(self, table: str, key: SqlColumns, *, store: str = "") -> Write:
        """Return the statement to delete the rows with these keys."""

    @abstractmethod
    def lock(self, table: Table, column: str, keys: Sequence[Scalar]) -> Sequence[Execute]:
        """Return the statements that lock these rows until the transaction ends; none if only one writes at a time.

        The lock precedes the statements that read, which therefore see what its previous holder has committed.
        """

    @abstractmethod
    def lock_all(self, table: Table) -> Sequence[Execute]:
        """Return the statements that lock the table against everybody who has locked, or would lock, one of its rows."""

    def create(self, table: Table) -> Sequence[str]:
        """Return the statements that create a table with its indexes if it does not exist."""
        return [self.create_as(self.table(table.name), table), *self._indexes(table)]

    @abstractmethod
    def create_as(self, name: str, table: Table) -> str:
        """Return the statement that creates a table, without its indexes, as ``name`` if it does not exist."""

    def column(self, column: Column) -> str:
        """Return the declaration of a column."""
        default = "" if column.default is None else f" DEFAULT {column.default}"
        return f"{column.name} {self._type(column.type)}{'' if column.nullable else ' NOT NULL'}{default}"

    @abstractmethod
    def _type(self, of: SqlType) -> str: ...

    def _indexes(self, table: Table) -> list[str]:
        # the name of an index is not qualified by a schema
        return [
            f"CREATE INDEX IF NOT EXISTS _atoma_hub_{name} ON {self.table(table.name)}({', '.join(columns)})"
            for name, columns in table.indexes
        ]


class _SQLite(Dialect):
    system = "sqlite"
    counts_commits = True
    lateral = False
    spelling = spelling.SQLITE
    words: ClassVar[Mapping[str, str]] = {
        "least": "min",
        "greatest": "max",
        "join": "CROSS JOIN",  # without statistics the planner may scan the table and search each row among the keys
        # while one transaction writes, nobody else draws a number
        "fresh_number": "coalesce((SELECT seq FROM sqlite_sequence WHERE name='_atoma_hub_client'), 0)+k.n+1",
        "leaving": "",
    }

    def table(self, name: str) -> str:
        return f"_atoma_hub_{name}"

    def store(self, name: str) -> str:
        return f"main.{quote(name)}"

    def place(self, number: int) -> str:
        return f"?{number}"

    def keys(self, columns: SqlColumns) -> str:
        single = len(columns) == 1
        parts = [
            f"{_unpacked('value' if single else f'value->>{at}', of)} AS {name}"
            for at, (name, of) in enumerate(columns.items())
        ]
        return f"(SELECT key AS n, {', '.join(parts)} FROM json_each({self.place(1)})) AS k"

    def key_places(self, columns: SqlColumns) -> int:
        return 1

    def bind(self, types: Sequence[SqlType], keys: Sequence[Row]) -> tuple[Value, ...]:
        packed: Sequence[Sequence[object]] = keys
        if "BLOB" in types or "REAL" in types:
            packed = [list(map(_packed, key)) for key in keys]
        listed = [key[0] for key in packed] if len(types) == 1 else packed
        return (msgspec.json.encode(listed).decode(),)

    def among(self, place: str) -> str:
        return f"IN (SELECT value FROM json_each({place}))"

    def insert(self, table: str, columns: SqlColumns, conflict: str = "", *, store: str = "") -> Write:
        return Write(f"{_into(table, columns)} VALUES({', '.join('?' * len(columns))}){_on(conflict)}", store)

    def update(self, table: str, key: SqlColumns, columns: SqlColumns) -> Write:
        where, sets = _pairs(self, key, 1, " AND "), _pairs(self, columns, 1 + len(key), ", ")
        return Write(f"UPDATE {table} SET {sets} WHERE {where}")

    def delete(self, table: str, key: SqlColumns, *, store: str = "") -> Write:
        return Write(f"DELETE FROM {table} WHERE {_pairs(self, key, 1, ' AND ')}", store)

    def lock(self, table: Table, column: str, keys: Sequence[Scalar]) -> Sequence[Execute]:
        return ()

    def lock_all(self, table: Table) -> Sequence[Execute]:
        return ()

    def create_as(self, name: str, table: Table) -> str:
        rowid = table.drawn or table.single
        parts = [self.column(column) for column in table.columns]
        if rowid:
            checked = " CHECK(one=1)" if table.single else " AUTOINCREMENT"
            parts[0] = f"{table.key[0]} INTEGER PRIMARY KEY{checked}"
        else:
            parts.append(f"PRIMARY KEY({', '.join(table.key)})")
        if table.unique:
            parts.append(f"UNIQUE({table.unique})")
        kind = "STRICT" if rowid else "STRICT, WITHOUT ROWID"
        return f"CREATE TABLE IF NOT EXISTS {name}({', '.join(parts)}) {kind}"

    def _type(self, of: SqlType) -> str:
        return of


class _PostgreSQL(Dialect):
    system = "postgresql"
    counts_commits = False
    lateral = True
    spelling = spelling.POSTGRESQL
    words: ClassVar[Mapping[str, str]] = {
        "least": "least",
        "greatest": "greatest",
        "join": "JOIN",
        "fresh_number": f"nextval(pg_get_serial_sequence('{HUB_SCHEMA}.client', 'number'))",
        "leaving": "FOR UPDATE OF c SKIP LOCKED",
    }
    _types: ClassVar[Mapping[SqlType, str]] = {
        "TEXT": "text", "INTEGER": "bigint", "REAL": "float8", "BLOB": "bytea",
    }  # fmt: skip

    def table(self, name: str) -> str:
        return f"{HUB_SCHEMA}.{name}"

    def store(self, name: str) -> str:
        return f"{STORES_SCHEMA}.{quote(name)}"

    def place(self, number: int) -> str:
        return f"${number}"

    def keys(self, columns: SqlColumns) -> str:
        names = ", ".join(columns)
        return f"(SELECT {names}, o-1 AS n FROM {self._lists(columns)} WITH ORDINALITY AS u({names}, o)) AS k"

    def key_places(self, columns: SqlColumns) -> int:
        return len(columns)

    def bind(self, types: Sequence[SqlType], keys: Sequence[Row]) -> tuple[Value, ...]:
        return tuple([[key[at] for key in keys] for at in range(len(types))])

    def among(self, place: str) -> str:
        return f"= ANY({place}::text[])"

    def insert(self, table: str, columns: SqlColumns, conflict: str = "", *, store: str = "") -> Write:
        return Write(f"{_into(table, columns)} SELECT * FROM {self._lists(columns)}{_on(conflict)}", store)

    def update(self, table: str, key: SqlColumns, columns: SqlColumns) -> Write:
        sets = ", ".join(f"{quote(name)}=k.{quote(name)}" for name in columns)
        return Write(f"UPDATE {table} AS old SET {sets} FROM {self._rows({**key, **columns})} WHERE {_same(key)}")

    def delete(self, table: str, key: SqlColumns, *, store: str = "") -> Write:
        return Write(f"DELETE FROM {table} AS old USING {self._rows(key)} WHERE {_same(key)}", store)

    def lock(self, table: Table, column: str, keys: Sequence[Scalar]) -> Sequence[Execute]:
        if not keys:
            return ()
        among = f"{column}=ANY({self.place(1)}::{self._types[table.of(column)[column]]}[])"
        return [Execute(f"SELECT 1 FROM {self.table(table.name)} WHERE {among} ORDER BY {column} FOR UPDATE", (keys,))]

    def lock_all(self, table: Table) -> Sequence[Execute]:
        return [Execute(f"LOCK TABLE {self.table(table.name)} IN EXCLUSIVE MODE")]

    def create_as(self, name: str, table: Table) -> str:
        parts = [self.column(column) for column in table.columns]
        if table.drawn:
            parts[0] += " GENERATED BY DEFAULT AS IDENTITY"
        if table.single:
            parts[0] += " CHECK(one=1)"
        parts.append(f"PRIMARY KEY({', '.join(table.key)})")
        if table.unique:
            parts.append(f"UNIQUE({table.unique})")
        return f"CREATE TABLE IF NOT EXISTS {name}({', '.join(parts)})"

    def _type(self, of: SqlType) -> str:
        return 'text COLLATE "C"' if of == "TEXT" else self._types[of]  # orders by code points, as SQLite does

    def _lists(self, columns: SqlColumns) -> str:
        places = [f"{self.place(at)}::{self._types[of]}[]" for at, of in enumerate(columns.values(), 1)]
        return f"unnest({', '.join(places)})"

    def _rows(self, columns: SqlColumns) -> str:
        return f"{self._lists(columns)} AS k({', '.join(map(quote, columns))})"


def _packed(value: Value) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and math.isinf(value):  # msgspec would write null
        return msgspec.Raw(literal(value).encode())
    return value


def _unpacked(value: str, of: SqlType) -> str:
    return f"unhex({value})" if of == "BLOB" else value


def _into(table: str, columns: SqlColumns) -> str:
    return f"INSERT INTO {table} AS old({', '.join(map(quote, columns))})"


def _on(conflict: str) -> str:
    return f" ON CONFLICT{conflict}" if conflict else ""


def _pairs(dialect: Dialect, columns: SqlColumns, first: int, between: str) -> str:
    return between.join(f"{quote(name)}={dialect.place(first + at)}" for at, name in enumerate(columns))


def _same(key: SqlColumns) -> str:
    return " AND ".join(f"old.{quote(name)}=k.{quote(name)}" for name in key)


class _Past(_SQLite):
    def store(self, name: str) -> str:
        return f"temp.{quote(name)}"


SQLITE: Dialect = _SQLite()
PAST: Dialect = _Past()
"""SQLite with a temporary view of an earlier state in place of each store."""
POSTGRESQL: Dialect = _PostgreSQL()
