"""Hashes of database files, read from outside with Python's own ``sqlite3``: the files are plain SQLite."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from atoma.schema import Schema


def content_hash(path: Path, schema: Schema) -> str:
    """SHA-256 over every row of every store, in id order, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with closing(_open(path)) as connection:
        for store in sorted(schema.stores.values(), key=lambda spec: spec.name):
            columns = ", ".join(f'"{name}"' for name in store.columns)
            digest.update(store.name.encode())
            for row in connection.execute(f'SELECT {columns} FROM "{store.name}" ORDER BY id'):
                digest.update(repr(row).encode())
    return digest.hexdigest()


def count_rows(path: Path, query: str, values: Sequence[str] = ()) -> int:
    """The single number that ``query`` answers."""
    with closing(_open(path)) as connection:
        row = connection.execute(query, values).fetchone()
        return int(row[0])


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
