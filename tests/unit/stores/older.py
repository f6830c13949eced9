"""Files from before columns had forms, made of files of today."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from atoma.contracts.values import Scalar
from atoma.schema import Schema, StoreSpec
from atoma.schema.fields import Field
from atoma_stores.sql.names import quote
from atoma_stores.sqlite.ddl import FORMATS


def make_older(file: Path, schema: Schema) -> None:
    """Let ``file``, which nobody has open, be as the version before would have made it.

    Its columns hold packed values, as TEXT, and decimals as they were written; it says nothing of their forms. Log entries,
    shadows and staged rows are packed today, too, so that only their decimals change. Mutations stay.
    """
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("BEGIN")
        for store in schema.stores.values():
            if store.packs:
                _rebuild(database, store)
        for table, column in _IMAGES:
            _age_images(database, schema, table, column)
        layout = database.execute("SELECT value FROM _atoma_meta WHERE key='layout'").fetchone()[0]
        database.execute("UPDATE _atoma_meta SET value=? WHERE key='format'", (FORMATS[layout] - 1,))
        database.execute("DELETE FROM _atoma_meta WHERE key GLOB 'form:*'")
        database.execute("COMMIT")


_IMAGES = [
    ("_atoma_hub_change", "pre"),
    ("_atoma_hub_change", "post"),
    ("_atoma_hub_tombstone", "last"),
    ("_atoma_shadow", "image"),
    ("_atoma_pending_row", "pre"),
    ("_atoma_stage", "image"),
]
"""Where images lie, packed, beside the rows that people see."""


def _age_images(database: sqlite3.Connection, schema: Schema, table: str, column: str) -> None:
    if not database.execute("SELECT 1 FROM sqlite_schema WHERE name=?", (table,)).fetchall():
        return
    found = database.execute(f"SELECT DISTINCT store, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
    for store, data in found:
        fields = schema.stores[store].fields
        image: dict[str, Scalar] = msgspec.msgpack.decode(data)
        for name, value in image.items():
            if fields[name].type == "decimal":
                image[name] = _as_written(fields[name], value)
        database.execute(f"UPDATE {table} SET {column}=? WHERE {column}=?", (msgspec.msgpack.encode(image), data))


def _rebuild(database: sqlite3.Connection, store: StoreSpec[object]) -> None:
    table = quote(store.name)
    beside = database.execute(
        "SELECT type, sql FROM sqlite_schema WHERE tbl_name=? AND sql IS NOT NULL ORDER BY type", (store.name,)
    ).fetchall()
    found = database.execute(f"SELECT * FROM {table}")
    columns = [str(item[0]) for item in found.description]
    rows = [[_older(store.fields.get(name), value) for name, value in zip(columns, row, strict=True)] for row in found]
    (create,) = (str(sql) for kind, sql in beside if kind == "table")
    for field in store.fields.values():
        if field.packed is not None:
            create = create.replace(f"{quote(field.name)} {field.sql_type}", f"{quote(field.name)} TEXT")
    database.execute(f"DROP TABLE {table}")
    database.execute(create)
    database.executemany(f"INSERT INTO {table} VALUES({', '.join('?' * len(columns))})", rows)
    for kind, sql in beside:
        if kind != "table":
            database.execute(str(sql))


def _older(field: Field | None, value: Scalar) -> Scalar:
    if field is None or field.packed is None or value is None:
        return value
    return _as_written(field, field.packed.pack(value)) if field.type == "decimal" else field.packed.pack(value)


def _as_written(field: Field, packed: Scalar) -> Scalar:
    """A packed decimal with zeros at its end, as somebody may have written it."""
    assert field.packed is not None
    if not isinstance(packed, str):
        return packed
    text = packed.strip('"')
    longer = f"{text}0" if "." in text else f"{text}.0"
    return f'"{longer}"' if field.packed.json else longer
