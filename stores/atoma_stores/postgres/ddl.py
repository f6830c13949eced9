"""The tables of a hub on PostgreSQL: creation, additive changes while programs run, and refusal of what needs a step.

The statements are derived from the current state, so opening a database that is up to date changes nothing and locks
nobody out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec

from atoma.contracts.values import HIDDEN
from atoma.errors import MigrationError, SchemaError
from atoma.ports.environment import Environment
from atoma.ports.hub import HubIdentity
from atoma.query.indexes import indexes_of
from atoma.schema.hiding import GIVEN_UP
from atoma.schema.kinds import SqlType
from atoma.schema.schema import Schema
from atoma.schema.spec import AnyStore
from atoma_stores.postgres import intake_ddl
from atoma_stores.postgres.fence import STEPS, take_alone
from atoma_stores.postgres.migrating import migrate
from atoma_stores.postgres.views import (
    VIEWS_SCHEMA,
    columns_of_view,
    drop_view,
    read_view,
    tell_view,
    view_key,
    view_steps,
)
from atoma_stores.postgres.views import Column as ViewColumn
from atoma_stores.sql.defaults import check_new_field, constant_defaults
from atoma_stores.sql.dialect import HUB_SCHEMA, POSTGRESQL, STORES_SCHEMA
from atoma_stores.sql.hub.epochs import load_identity
from atoma_stores.sql.hub.migrating import CONVERTED, note_heads
from atoma_stores.sql.hub.tables import TABLES
from atoma_stores.sql.indexes import index_columns, index_name, index_where
from atoma_stores.sql.migrating import (
    QUARANTINE,
    ConversionProgress,
    MigrationReport,
    check_scope,
    is_due,
    log_progress,
    moved_scope,
    scope_fact,
)
from atoma_stores.sql.names import SYSTEM_COLUMNS, quote
from atoma_stores.sql.scripts import Execute, RowRefused, Script
from atoma_stores.sql.spelling import NAME_BYTES
from atoma_stores.sql.tables import Column, Table, integers, text

META = Table("meta", text("key", "value"), ("key",))
VERSION = "schema_version"
"""The key of the schema version in ``meta``."""
PUT_FACTS = POSTGRESQL.insert(POSTGRESQL.table(META.name), META.of(), "(key) DO UPDATE SET value=excluded.value")
"""Stores keys and values in ``meta``."""
CHORE = Table("chore", (*text("name", "owner"), *integers("until_ms")), ("name",))
"""The leases for work that one process at a time should do: the owner, and the time at which it expires."""
SYSTEM = (
    Column("_ver", "INTEGER"), Column("_seq", "INTEGER", default="0"), Column("_other_seq", "INTEGER", nullable=True),
    Column("_scope", "TEXT"),
)  # fmt: skip
_TYPES: Mapping[str, SqlType] = {"text": "TEXT", "bigint": "INTEGER", "double precision": "REAL", "bytea": "BLOB"}
_TAKE_TIME = Execute(
    "SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '60s', true)"
)
"""Removes the time limit for reading a whole table; a process that is stopped meanwhile lets go after a minute."""
_STORAGE = {
    # the head of a scope and the row of a client change with every group: leave room for that on the page
    "scope": "fillfactor=40, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=500",
    "client": "fillfactor=70",
}
_INDEXES = Execute(
    f"SELECT indexname::text, tablename::text FROM pg_indexes WHERE schemaname='{STORES_SCHEMA}' AND starts_with(indexname, '_atoma_')"
)
_IS_HUB = Execute(f"SELECT (to_regclass('{POSTGRESQL.table(META.name)}') IS NOT NULL)::int")
_VERSION = Execute(POSTGRESQL.render("SELECT m.value FROM {meta} m WHERE m.key={p1}"), (VERSION,))
_SCHEMAS = Execute("SELECT nspname::text FROM pg_namespace")
_VIEWS = Execute(f"SELECT viewname::text FROM pg_views WHERE schemaname='{VIEWS_SCHEMA}'")
_FOUND = """SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, NULL), a.attnotnull::int
    FROM pg_class c JOIN pg_namespace n ON n.oid=c.relnamespace JOIN pg_attribute a ON a.attrelid=c.oid
    WHERE n.nspname=ANY($1::text[]) AND c.relkind='r' AND a.attnum>0 AND NOT a.attisdropped"""


@dataclass(slots=True)
class _Found:
    """The structure of a database: the columns of its tables by schema, the stores of our indexes, our views, and all schemas."""

    columns: dict[tuple[str, str], dict[str, tuple[str, bool]]] = field(
        default_factory=dict[tuple[str, str], dict[str, tuple[str, bool]]]
    )
    indexes: dict[str, str] = field(default_factory=dict[str, str])
    views: frozenset[str] = frozenset()
    schemas: frozenset[str] = frozenset()

    def has(self, schema: str, name: str) -> bool:
        return (schema, name) in self.columns

    def stores(self, schema: Schema) -> dict[str, dict[str, tuple[SqlType, bool]]]:
        """Return the columns of the declared stores that have a table, with SQLite's names of their types."""
        return {
            name: {
                column: (_TYPES[of], nullable) for column, (of, nullable) in self.columns[STORES_SCHEMA, name].items()
            }
            for name in schema.stores
            if self.has(STORES_SCHEMA, name)
        }


@dataclass(frozen=True, slots=True)
class PreparedDatabase:
    """A database that is ready for use.

    Attributes:
        identity: The identity of the hub.
        report: The changes that were made.
    """

    identity: HubIdentity
    report: MigrationReport


def prepare(
    schema: Schema, environment: Environment, told: ConversionProgress = log_progress
) -> Script[PreparedDatabase]:
    """Adapt the database to ``schema``, by steps and additive changes; a new one gets all tables and an identity.

    Args:
        schema: The declared stores.
        environment: Clock and chance.
        told: Called with the progress of the steps.

    Raises:
        MigrationError: It is newer than the code, or a change needs a step.
        SchemaError: The name of a field is too long.
        NotAlone: Steps are due, and other programs have the stores open.
    """
    found = yield from _look()
    internals = list(_internals(found))
    if internals:
        yield internals
    # the first process determines the identity of the hub, and the others wait for that
    identity, _ = yield from load_identity(POSTGRESQL, environment)
    (kept,) = yield [Execute(POSTGRESQL.render("SELECT m.key, m.value FROM {meta} m FOR UPDATE"))]
    before = dict(cast("Sequence[tuple[str, str]]", kept))
    version = int(before.get(VERSION, "0"))
    if version > schema.version:
        raise MigrationError(
            f"the database has schema version {version}, the program declares {schema.version}; run the newer program"
        )
    if before.get(intake_ddl.DDL_KEY) != intake_ddl.DDL_FORM:
        yield [Execute(sql) for sql in intake_ddl.DDL]
    facts, report = before, MigrationReport(version or schema.version, schema.version)
    if version and is_due(schema, version):
        report = yield from _take_steps(schema, version, found, told)
        facts = yield from _facts_behind(schema, version, before)
        found = yield from _look()
    steps = [step for store in schema.stores.values() for step in _store_steps(store, found, facts)]
    if steps:
        try:
            yield [_TAKE_TIME, *steps]
        except RowRefused as refused:
            raise MigrationError(
                f"an index cannot be made: {refused}; change the rows with the version before, or declare the index without unique"
            ) from None
        if version:
            report.statements += [step.sql for step in steps]
    reached = max(int(before.get(STEPS, "0")), *schema.steps, 0)
    now = {**facts, VERSION: str(schema.version), STEPS: str(reached), intake_ddl.DDL_KEY: intake_ddl.DDL_FORM}
    for store in schema.stores.values():
        now |= {f"store:{store.name}": scope_fact(store), columns_key(store.name): _told(store)}
        shown = before.get(view_key(store.name), "[]") if store.name in found.views else "[]"
        now[view_key(store.name)] = yield from _make_view(store, read_view(shown))
    changed = [(key, value) for key, value in now.items() if before.get(key) != value]
    if changed:
        yield [PUT_FACTS.of(changed)]
    return PreparedDatabase(identity, report)


def held_version() -> Script[int]:
    """Return the schema version of the database; 0 if it holds no hub."""
    (there,) = yield [_IS_HUB]
    if not there[0][0]:
        return 0
    (rows,) = yield [_VERSION]
    return int(str(rows[0][0])) if rows else 0


def _take_steps(schema: Schema, version: int, found: _Found, told: ConversionProgress) -> Script[MigrationReport]:
    """Convert everything from ``version`` on while no other program is connected; drops the views of the stores concerned."""
    yield [_TAKE_TIME]
    yield from take_alone()
    gone = [drop_view(name) for name in schema.past(version)]
    if gone:
        yield gone
    return (yield from migrate(schema, version, found.stores(schema), told))


def _facts_behind(schema: Schema, version: int, before: Mapping[str, str]) -> Script[dict[str, str]]:
    """Return the contents of ``meta`` after the steps, with everything that they have changed."""
    facts = dict(before)
    for name, past in schema.past(version).items():
        facts[columns_key(name)] = _told(schema.stores[name])
        if moved_scope(past, before.get(f"store:{name}")):
            facts[f"store:{name}"] = scope_fact(schema.stores[name])
    if schema.past(version):
        facts[CONVERTED] = yield from note_heads(POSTGRESQL)
    return facts


def _make_view(store: AnyStore, before: list[ViewColumn]) -> Script[str]:
    """Create or change the view of a store, whose columns were ``before``, and return its entry in ``meta``."""
    columns = columns_of_view(store, before)
    if columns != before:
        yield list(view_steps(store, columns, before))
    return tell_view(columns)


def _look() -> Script[_Found]:
    """Return the structure of the database."""
    rows, indexes, views, schemas = yield [
        Execute(_FOUND, ([HUB_SCHEMA, STORES_SCHEMA],)),
        _INDEXES,
        _VIEWS,
        _SCHEMAS,
    ]
    found = _Found(views=frozenset(str(row[0]) for row in views), schemas=frozenset(str(row[0]) for row in schemas))
    found.indexes |= dict(cast("Sequence[tuple[str, str]]", indexes))
    for space, name, column, of, fixed in cast("Sequence[tuple[str, str, str, str, int]]", rows):
        found.columns.setdefault((space, name), {})[column] = (of, not fixed)
    return found


def columns_key(store: str) -> str:
    """Return the key in ``meta`` for the columns of a store."""
    return f"columns:{store}"


def read_columns(told: str) -> Mapping[str, str]:
    """Read the columns in an entry of ``meta``, with the forms of their values."""
    return msgspec.json.decode(told, type=dict[str, str])


def _told(store: AnyStore) -> str:
    return msgspec.json.encode(store.forms).decode()


def _internals(found: _Found) -> Iterator[Execute]:
    for space in (HUB_SCHEMA, STORES_SCHEMA, VIEWS_SCHEMA):
        if space not in found.schemas:
            yield Execute(f"CREATE SCHEMA IF NOT EXISTS {space}")
    for table in (META, CHORE, QUARANTINE, *TABLES):
        there = found.columns.get((HUB_SCHEMA, table.name))
        if there is None:
            created, *indexes = POSTGRESQL.create(table)
            storage = f" WITH ({_STORAGE[table.name]})" if table.name in _STORAGE else ""
            yield from [Execute(sql) for sql in (created + storage, *indexes)]
        else:
            for column in table.columns:
                if column.name not in there:
                    add = f"ADD COLUMN IF NOT EXISTS {POSTGRESQL.column(column)}"
                    yield Execute(f"ALTER TABLE {POSTGRESQL.table(table.name)} {add}")


def _store_steps(store: AnyStore, found: _Found, facts: Mapping[str, str]) -> Iterator[Execute]:
    for name in store.fields:
        if len(name.encode()) > NAME_BYTES:
            raise SchemaError(f"store {store.name!r}: PostgreSQL takes names of {NAME_BYTES} bytes; {name!r} is longer")
    table = POSTGRESQL.store(store.name)
    there = found.columns.get((STORES_SCHEMA, store.name))
    if there is None:
        columns = [POSTGRESQL.column(Column(quote(of.name), of.sql_type, of.nullable)) for of in store.fields.values()]
        columns += [POSTGRESQL.column(column) for column in SYSTEM]
        yield Execute(f"CREATE TABLE {table}({', '.join(columns)}, PRIMARY KEY(_scope, id)) WITH (fillfactor=85)")
    else:
        check_scope(store, facts.get(f"store:{store.name}"))
        _check_forms(store, facts.get(columns_key(store.name)))
        yield from _column_steps(store, there)
    wanted = dict(_indexes(store))
    there_now = {index for index, of in found.indexes.items() if of == store.name}
    for name in sorted(there_now - wanted.keys()):
        yield Execute(f"DROP INDEX {STORES_SCHEMA}.{quote(name)}")
    for name, sql in wanted.items():
        if name not in there_now:
            yield Execute(sql, store=store.name)


def _indexes(store: AnyStore) -> Iterator[tuple[str, str]]:
    """Return the indexes of a store by name; each of them begins with the scope."""
    of = POSTGRESQL.spelling
    for index in indexes_of(store):
        name = index_name(store, index, unique=index.unique, spelling=of)
        keys = ", ".join(["_scope", *index_columns(store, index, of)])
        kind = "UNIQUE INDEX" if index.unique else "INDEX"
        yield (
            name,
            f"CREATE {kind} {quote(name)} ON {POSTGRESQL.store(store.name)}({keys}){index_where(store, index, of)}",
        )


def _check_forms(store: AnyStore, told: str | None) -> None:
    was = read_columns(told or "{}")
    for name, of in store.fields.items():
        if name in was and was[name] != of.form:
            raise MigrationError(
                f"store {store.name!r}: field {name!r} holds {was[name]} in the database and is declared as {of.form}; say what "
                f'becomes of its values with a step: Convert("{store.name}.{name}", FUNCTION, was=TYPE_BEFORE)'
            )


def _column_steps(store: AnyStore, there: Mapping[str, tuple[str, bool]]) -> Iterator[Execute]:
    defaults, table = constant_defaults(store), POSTGRESQL.store(store.name)
    for name, of in store.fields.items():
        if name not in there:
            check_new_field(store, name, defaults)
            default = None if name not in defaults else POSTGRESQL.spelling.literal(defaults[name])
            column = POSTGRESQL.column(Column(quote(name), of.sql_type, of.nullable, default))
            yield Execute(f"ALTER TABLE {table} ADD COLUMN {column}")
        elif (found := (_TYPES.get(there[name][0]), there[name][1])) != (of.sql_type, of.nullable and name != "id"):
            raise MigrationError(
                f"store {store.name!r}: field {name!r} is {there[name][0]}{'' if found[1] else ' NOT NULL'} in the database and "
                f"{of.type_name} in the code; say what becomes of its values with a step: "
                f'Convert("{store.name}.{name}", FUNCTION, was=TYPE_BEFORE)'
            )
    for name in there:
        if name == HIDDEN and not store.soft_delete:
            raise MigrationError(
                f'store {store.name!r}: {GIVEN_UP}, and then say Drop("{store.name}.{name}") as a step'
            )
        if name not in store.fields and name not in SYSTEM_COLUMNS:
            raise MigrationError(
                f"store {store.name!r}: the database has a column {name!r} that the code does not declare; declare it, or say "
                f'what became of it by a step: Rename("{store.name}.{name}", "NEW NAME"), or Drop("{store.name}.{name}") to give '
                "its values up"
            )
