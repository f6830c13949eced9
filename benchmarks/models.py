"""The row that the local cases write: eight fields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import apsw

from atoma import Index, Schema, StoreSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    id: str
    title: str
    status: str
    priority: int
    weight: float
    user: str
    created_at: int
    notes: str


TODOS = StoreSpec("todos", Todo, indexes=[Index("status", "created_at"), Index("user", "created_at")])
SCHEMA = Schema(TODOS)
SEARCHED = StoreSpec("todos", Todo, indexes=TODOS.indexes, search=["title", "notes"])
INSERT = "INSERT INTO todos VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def todo(number: int) -> Todo:
    """The row with this number; the same every time."""
    return Todo(
        id=f"todo-{number:09}",
        title=f"Do the thing number {number}",
        status=("open", "started", "done")[number % 3],
        priority=number % 5,
        weight=number / 7,
        user=f"user-{number % 1000}",
        created_at=1_700_000_000 + number,
        notes="x" * 40,
    )


def values(item: Todo) -> tuple[str | int | float, ...]:
    """The row as a tuple in column order."""
    return (
        item.id, item.title, item.status, item.priority, item.weight, item.user, item.created_at, item.notes
    )  # fmt: skip


def raw_connection(path: Path, synchronous: str) -> apsw.Connection:
    """A plain apsw connection with the same columns and indexes, WAL, and this durability."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", synchronous)
    connection.pragma("wal_autocheckpoint", 0)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS todos(id TEXT PRIMARY KEY, title TEXT NOT NULL, status TEXT NOT NULL, priority INTEGER NOT NULL,"
        " weight REAL NOT NULL, user TEXT NOT NULL, created_at INTEGER NOT NULL, notes TEXT NOT NULL) STRICT"
    )
    connection.execute("CREATE INDEX IF NOT EXISTS a ON todos(status, created_at)")
    connection.execute("CREATE INDEX IF NOT EXISTS b ON todos(user, created_at)")
    return connection
