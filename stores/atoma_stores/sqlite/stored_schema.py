"""The stores of a file as its own tables declare them: what a program needs that has not made the file.

Replication moves rows as they are stored, so this is enough to repair a file, to send what waits in it, and to decide at a
hub. It is not enough to read rows as an application means them: enumerations, documents and times are text in it, and the
constraints and the defaults of the models are not there.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import dataclasses
from typing import Any, cast

import apsw

from atoma.contracts.codec import decode
from atoma.contracts.values import HIDDEN
from atoma.errors import ConfigurationError, MigrationError, SchemaError
from atoma.query.indexes import checked_index
from atoma.schema.indexes import Index
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.names import SYSTEM_COLUMNS
from atoma_stores.sqlite import forms
from atoma_stores.sqlite.ddl import IndexFact, Layout, check_layout, indexes_key
from atoma_stores.sqlite.meta import read_meta

_SCOPE_FACTS = "SELECT substr(key, 7), value FROM _atoma_meta WHERE key GLOB 'store:*' ORDER BY key"
_INDEXES = "SELECT name, \"unique\" FROM pragma_index_list(?) WHERE name GLOB '_atoma_*' ORDER BY name"


def stored_schema(connection: apsw.Connection, layout: Layout) -> Schema:
    """A schema that fits the file: the same tables, columns and indexes; its models are made up.

    Raises:
        StoreCorrupt: The file is none of ours, or has the other layout.
        MigrationError: It is newer than this program.
        ConfigurationError: No store is declared in it.
    """
    version = check_layout(connection, layout)
    facts = cast("list[tuple[str, str]]", connection.execute(_SCOPE_FACTS).fetchall())
    if not facts:
        raise ConfigurationError(f"{connection.filename}: no store is declared in it")
    kept = {name: forms.read(read_meta(connection, forms.key_of(name))) or {} for name, _ in facts}
    schema = Schema(*(_spec_of(connection, name, fact, kept[name]) for name, fact in facts), version=version)
    schema.made_up, schema.forms = True, kept
    return schema


def _spec_of(connection: apsw.Connection, name: str, fact: str, kept: forms.Forms) -> StoreSpec[Any]:
    """The store ``name``, whose scope the file knows as ``fact``, and whose columns it keeps as ``kept``."""
    kind, _, scope = fact.partition(" ")
    columns = connection.execute('SELECT name, type, "notnull" FROM pragma_table_info(?)', (name,)).fetchall()
    fields: list[tuple[str, Any]] = [("id", str)]
    for column, sql_type, notnull in cast("list[tuple[str, str, int]]", columns):
        if column not in ("id", HIDDEN, *SYSTEM_COLUMNS):
            bare = forms.declared_type(sql_type, kept.get(column))
            if bare is None:
                raise MigrationError(f"store {name!r}: column {column!r} is of the unknown type {sql_type!r}")
            fields.append((column, bare if notnull else bare | None))
    model = dataclasses.make_dataclass(f"Stored_{name}", fields, frozen=True, kw_only=True)
    soft = any(column == HIDDEN for column, _, _ in columns)
    plain: StoreSpec[Any] = StoreSpec(name, model, scope=scope, soft_delete=soft)
    indexes = [index for index in _indexes(connection, name) if _fits(index, plain)]
    spec: StoreSpec[Any] = StoreSpec(name, model, scope=scope, indexes=indexes, soft_delete=soft)
    if (kind == "field") != (spec.scope_field is not None):
        raise MigrationError(f"store {name!r}: its scope {scope!r} is named like one of its columns")
    return spec


def _indexes(connection: apsw.Connection, store: str) -> list[Index]:
    """The indexes of ``store`` as it declared them; in a file that does not say, those over columns that it has."""
    told = read_meta(connection, indexes_key(store))
    if isinstance(told, bytes):
        return [Index.of(*each) for each in decode(told, list[IndexFact])]
    found: list[Index] = []
    for name, unique in cast("list[tuple[str, int]]", connection.execute(_INDEXES, (store,)).fetchall()):
        columns = [str(row[0]) for row in connection.execute("SELECT name FROM pragma_index_info(?)", (name,))]
        found.append(Index(*(column for column in columns if column not in SYSTEM_COLUMNS), unique=bool(unique)))
    return found


def _fits(index: Index, spec: StoreSpec[Any]) -> bool:
    """Whether ``index`` can be read here: one over parts of documents or days cannot, as these are texts in made-up models."""
    try:
        checked_index(index, spec)
    except SchemaError:
        return False
    return True
