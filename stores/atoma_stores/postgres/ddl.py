"""Tables of a hub on PostgreSQL: creation, additive changes beside programs that run, and refusal of everything else.

The statements are found out from what is there, so opening a database that is as it should be changes nothing and locks
nobody out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import msgspec

from atoma.errors import MigrationError, SchemaError
from atoma.ports.environment import Environment
from atoma.ports.hub import HubIdentity
from atoma.schema.indexes import Index
from atoma.schema.kinds import SqlType
from atoma.schema.spec import Schema, StoreSpec
from atoma_stores.sql.defaults import constant_defaults
from atoma_stores.sql.dialect import HUB_SCHEMA, POSTGRESQL, STORES_SCHEMA
from atoma_stores.sql.hub.epochs import load_identity
from atoma_stores.sql.hub.tables import TABLES
from atoma_stores.sql.names import quote
from atoma_stores.sql.scripts import Execute, Script
from atoma_stores.sql.tables import Column, Table, integers, text

Spec: TypeAlias = StoreSpec[object]

NAME_BYTES = 63
"""Longer names are cut short by PostgreSQL, without a word."""
META = Table("meta", text("key", "value"), ("key",))
PUT_FACTS = POSTGRESQL.insert(POSTGRESQL.table(META.name), META.of(), "(key) DO UPDATE SET value=excluded.value")
"""Note what ``meta`` tells: keys and values."""
CHORE = Table("chore", (*text("name", "owner"), *integers("until_ms")), ("name",))
"""Who is at something that one process at a time should do, and until when it counts."""
SYSTEM = (
    Column("_ver", "INTEGER"), Column("_seq", "INTEGER", default="0"), Column("_other_seq", "INTEGER", nullable=True),
    Column("_scope", "TEXT"),
)  # fmt: skip
_TYPES: Mapping[str, SqlType] = {"text": "TEXT", "bigint": "INTEGER", "double precision": "REAL", "bytea": "BLOB"}
_STORAGE = {
    # the head of a scope and the row of a client move with every group: room for that on the page
    "scope": "fillfactor=40, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=500",
    "client": "fillfactor=70",
}
_FOUND = """SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, NULL), a.attnotnull::int
    FROM pg_class c JOIN pg_namespace n ON n.oid=c.relnamespace JOIN pg_attribute a ON a.attrelid=c.oid
    WHERE n.nspname=ANY($1::text[]) AND c.relkind IN ('r', 'i') AND a.attnum>0 AND NOT a.attisdropped"""


@dataclass(slots=True)
class _Found:
    """What a database has: the columns of its tables, by schema, and the names of everything."""

    columns: dict[tuple[str, str], dict[str, tuple[str, bool]]] = field(
        default_factory=dict[tuple[str, str], dict[str, tuple[str, bool]]]
    )

    def has(self, schema: str, name: str) -> bool:
        return (schema, name) in self.columns


def prepare(schema: Schema, environment: Environment) -> Script[HubIdentity]:
    """Bring the database to ``schema``; who the hub is, minted when there is none.

    Raises:
        MigrationError: It is newer than the code, or a change is not additive.
        SchemaError: The name of a field is too long.
    """
    (rows,) = yield [Execute(_FOUND, ([HUB_SCHEMA, STORES_SCHEMA],))]
    found = _Found()
    for space, name, column, of, fixed in cast("Sequence[tuple[str, str, str, str, int]]", rows):
        found.columns.setdefault((space, name), {})[column] = (of, not fixed)
    internals = list(_internals(found))
    if internals:
        yield internals
    # whoever asks first says who the hub is, and the others wait for that
    identity, _ = yield from load_identity(POSTGRESQL, environment)
    (kept,) = yield [Execute(POSTGRESQL.render("SELECT m.key, m.value FROM {meta} m FOR UPDATE"))]
    facts = dict(cast("Sequence[tuple[str, str]]", kept))
    version = int(facts.get("schema_version", "0"))
    if version > schema.version:
        raise MigrationError(
            f"the database has schema version {version}, the program declares {schema.version}; run the newer program"
        )
    behind = sorted(to for to in schema.steps if facts and to > version)
    if behind:
        raise MigrationError(
            f"the schema has steps to version {behind[0]}, and the database is at {version}: a hub on PostgreSQL takes additive "
            "changes only; add a field under a new name beside the old one, and copy the values"
        )
    steps = [step for store in schema.stores.values() for step in _store_steps(store, found, facts)]
    if steps:
        yield steps
    told = {"schema_version": str(schema.version)}
    for store in schema.stores.values():
        told |= {f"store:{store.name}": _scope_fact(store), columns_key(store.name): _told(store)}
    changed = [(key, value) for key, value in told.items() if facts.get(key) != value]
    if changed:
        yield [PUT_FACTS.of(changed)]
    return identity


def columns_key(store: str) -> str:
    """Where ``meta`` says which columns a store has."""
    return f"columns:{store}"


def read_columns(told: str) -> Mapping[str, str]:
    """The columns that ``meta`` tells, with the forms of their values."""
    return msgspec.json.decode(told, type=dict[str, str])


def _told(store: Spec) -> str:
    return msgspec.json.encode(store.forms).decode()


def _scope_fact(store: Spec) -> str:
    return f"field {store.scope_field}" if store.scope_field else f"fixed {store.fixed_scope}"


def _internals(found: _Found) -> Iterator[Execute]:
    for space in (HUB_SCHEMA, STORES_SCHEMA):
        if not any(schema == space for schema, _ in found.columns):
            yield Execute(f"CREATE SCHEMA IF NOT EXISTS {space}")
    for table in (META, CHORE, *TABLES):
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


def _store_steps(store: Spec, found: _Found, facts: Mapping[str, str]) -> Iterator[Execute]:
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
        _check_scope(store, facts.get(f"store:{store.name}"))
        _check_forms(store, facts.get(columns_key(store.name)))
        yield from _column_steps(store, there)
    for index in store.indexes:
        name = _index_name(store.name, index)
        if not found.has(STORES_SCHEMA, name):
            kind = "UNIQUE INDEX" if index.unique else "INDEX"
            if index.where is not None or len(index.fields) < len(index.keys):
                raise SchemaError(
                    f"store {store.name!r}: a hub on PostgreSQL keeps no index with where=, and none over expressions; "
                    "leave it out of the hub's schema, and what it holds unique to the devices"
                )
            order = [
                quote(name) + (" DESC" if key.descending else "")
                for name, key in zip(index.fields, index.keys, strict=True)
            ]
            keys = ", ".join(["_scope", *order])
            yield Execute(f"CREATE {kind} {quote(name)} ON {table}({keys})")


def _index_name(store: str, index: Index) -> str:
    fields = [name + ("__desc" if key.descending else "") for name, key in zip(index.fields, index.keys, strict=False)]
    name = f"_atoma_{'unique' if index.unique else 'index'}_{store}__{'__'.join(fields)}"
    if len(name.encode()) <= NAME_BYTES:
        return name
    return f"_atoma_{'unique' if index.unique else 'index'}_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _check_scope(store: Spec, was: str | None) -> None:
    if was is None:
        raise MigrationError(f"a table {store.name!r} that is not a store is in the way; rename it or the store")
    if was != _scope_fact(store):
        raise MigrationError(
            f"store {store.name!r}: the scope was declared as {was}, now as {_scope_fact(store)}; rows cannot change "
            "their scope: declare a new store and copy the rows into it"
        )


def _check_forms(store: Spec, told: str | None) -> None:
    was = read_columns(told or "{}")
    for name, of in store.fields.items():
        if name in was and was[name] != of.form:
            raise MigrationError(
                f"store {store.name!r}: field {name!r} holds {was[name]} in the database and is declared as {of.form}; "
                "add a field under a new name, copy the values, then drop the old one"
            )


def _column_steps(store: Spec, there: Mapping[str, tuple[str, bool]]) -> Iterator[Execute]:
    defaults, table = constant_defaults(store), POSTGRESQL.store(store.name)
    for name, of in store.fields.items():
        if name not in there:
            if not of.nullable and name not in defaults:
                raise MigrationError(
                    f"store {store.name!r}: the new field {name!r} has neither a constant default nor allows None; give it one"
                )
            default = None if name not in defaults else POSTGRESQL.spelling.literal(defaults[name])
            column = POSTGRESQL.column(Column(quote(name), of.sql_type, of.nullable, default))
            yield Execute(f"ALTER TABLE {table} ADD COLUMN {column}")
        elif (found := (_TYPES.get(there[name][0]), there[name][1])) != (of.sql_type, of.nullable and name != "id"):
            raise MigrationError(
                f"store {store.name!r}: field {name!r} is {there[name][0]}{'' if found[1] else ' NOT NULL'} in the database and "
                f"{of.type_name} in the code; add a field under a new name, copy the values, then drop the old one"
            )
    for name in there:
        if name not in store.fields and name not in {column.name for column in SYSTEM}:
            raise MigrationError(
                f"store {store.name!r}: the database has a column {name!r} that the code does not declare; declare it, or "
                f"give its values up with: ALTER TABLE {table} DROP COLUMN {quote(name)}"
            )
