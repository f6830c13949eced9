"""Dialects: what two databases write differently, and nothing else.

A text is a template: the dialect fills in tables, places for values and the few words that differ. What is written or looked
up is a list, of one or of many: SQLite runs a statement per row and takes keys as JSON, PostgreSQL takes an array per column.
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
"""Where PostgreSQL has the stores, which other programs may read, and the hub's own tables: their names cannot meet."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A query over a list of keys, each a row of what its text calls ``k``, at the position ``k.n``."""

    dialect: Dialect
    sql: str
    types: tuple[SqlType, ...]

    def of(self, keys: Sequence[Row], enough: Callable[[Row], bool] | None = None) -> Execute:
        """The query for these keys; ``enough`` as in :class:`~atoma_stores.sql.scripts.Execute`."""
        return Execute(self.sql, self.dialect.bind(self.types, keys), enough)


@dataclass(frozen=True, slots=True)
class Write:
    """A statement that writes a list of rows; ``store`` as in :class:`~atoma_stores.sql.scripts.Execute`."""

    sql: str
    store: str = ""

    def of(self, rows: Sequence[Row]) -> ExecuteMany:
        """The statement for these rows."""
        return ExecuteMany(self.sql, rows, self.store)


class _Names(dict[str, str]):
    """Names in a template; what nobody has named is a table of the hub's."""

    def __init__(self, dialect: Dialect, names: Mapping[str, str]) -> None:
        super().__init__(dialect.words)
        self.update({f"p{number}": dialect.place(number) for number in range(1, PLACES + 1)}, **names)
        self._dialect = dialect

    def __missing__(self, name: str) -> str:
        return self._dialect.table(name)


class Dialect(ABC):
    """The way a database wants its SQL.

    Attributes:
        system: Its name, as OpenTelemetry has it.
        words: What templates may name beside tables and places: ``least`` and ``greatest`` of several values, the ``join``
            that reads the list of keys first, the number for a client at position ``k.n`` (``fresh_number``), what keeps
            others from a row of ``c`` that is about to go and leaves out those that they have (``leaving``).
        counts_commits: Whether every write group moves the counter of commits; where several processes write they would
            wait for one another at that row.
        lateral: Whether a query behind FROM may look at what stands before it.
        spelling: How it writes the parts of a query.
    """

    system: ClassVar[str]
    words: ClassVar[Mapping[str, str]]
    counts_commits: ClassVar[bool]
    lateral: ClassVar[bool]
    spelling: ClassVar[Spelling]

    def render(self, template: str, **names: str) -> str:
        """``template`` with what stands in braces: tables of the hub's, words, places ``{p1}`` to ``{p9}``, ``names``."""
        return template.format_map(_Names(self, names))

    def lookup(self, columns: SqlColumns, template: str, **names: str) -> Lookup:
        """A query over a list of keys with these columns, which ``template`` names ``{keys}``."""
        return Lookup(self, self.render(template, keys=self.keys(columns), **names), tuple(columns.values()))

    @abstractmethod
    def table(self, name: str) -> str:
        """One of the hub's own tables."""

    @abstractmethod
    def store(self, name: str) -> str:
        """The table of a store."""

    @abstractmethod
    def place(self, number: int) -> str:
        """Where the value of that number goes, from 1 on."""

    @abstractmethod
    def keys(self, columns: SqlColumns) -> str:
        """A list of keys as the source ``k``."""

    @abstractmethod
    def key_places(self, columns: SqlColumns) -> int:
        """How many places :meth:`keys` takes, from 1 on: as many values :meth:`bind` makes."""

    @abstractmethod
    def bind(self, types: Sequence[SqlType], keys: Sequence[Row]) -> tuple[Value, ...]:
        """A list of keys as it is bound."""

    @abstractmethod
    def among(self, place: str) -> str:
        """What follows a text to say that it is one of a list, which :meth:`bind` has bound to that place."""

    @abstractmethod
    def insert(self, table: str, columns: SqlColumns, conflict: str = "", *, store: str = "") -> Write:
        """Insert rows; ``conflict`` is what follows ``ON CONFLICT``, where the row that is there is called ``old``."""

    @abstractmethod
    def update(self, table: str, key: SqlColumns, columns: SqlColumns) -> Write:
        """Set ``columns``, whose values follow those of ``key``, in the rows that have these keys."""

    @abstractmethod
    def delete(self, table: str, key: SqlColumns, *, store: str = "") -> Write:
        """Delete the rows that have these keys."""

    @abstractmethod
    def lock(self, table: Table, column: str, keys: Sequence[Scalar]) -> Sequence[Execute]:
        """Keep others who do the same from these rows until the transaction ends; nothing where one writes at a time.

        It is a statement of its own, before those that read: they see what whoever was waited for has committed.
        """

    @abstractmethod
    def lock_all(self, table: Table) -> Sequence[Execute]:
        """Wait for everybody who has locked a row of the table, or would have, and keep others from it meanwhile."""

    def create(self, table: Table) -> Sequence[str]:
        """Statements that create a table with its indexes where it is not there."""
        return [self.create_as(self.table(table.name), table), *self._indexes(table)]

    @abstractmethod
    def create_as(self, name: str, table: Table) -> str:
        """The statement that creates a table, without its indexes, under ``name`` where it is not there."""

    def column(self, column: Column) -> str:
        """A column as it is declared."""
        default = "" if column.default is None else f" DEFAULT {column.default}"
        return f"{column.name} {self._type(column.type)}{'' if column.nullable else ' NOT NULL'}{default}"

    @abstractmethod
    def _type(self, of: SqlType) -> str: ...

    def _indexes(self, table: Table) -> list[str]:
        # the name of an index has no schema before it
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
        "join": "CROSS JOIN",  # without statistics the planner may read the table and look for each row among the keys
        # while one transaction writes nobody else draws a number
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
        return 'text COLLATE "C"' if of == "TEXT" else self._types[of]  # the order of code points, as in SQLite

    def _lists(self, columns: SqlColumns) -> str:
        places = [f"{self.place(at)}::{self._types[of]}[]" for at, of in enumerate(columns.values(), 1)]
        return f"unnest({', '.join(places)})"

    def _rows(self, columns: SqlColumns) -> str:
        return f"{self._lists(columns)} AS k({', '.join(map(quote, columns))})"


def _packed(value: Value) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and math.isinf(value):  # of which msgspec makes null
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
"""SQLite, where a temporary view of an earlier state stands in the place of each store."""
POSTGRESQL: Dialect = _PostgreSQL()
