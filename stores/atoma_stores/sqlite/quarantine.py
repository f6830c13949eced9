"""What migrations could not convert and have put aside, in a device's or a hub's file: listed, and let go of."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import cast

import apsw

from atoma.contracts.quarantine import Quarantined

QUARANTINE = (
    "CREATE TABLE IF NOT EXISTS _atoma_quarantine(n INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, id TEXT NOT NULL, "
    "what TEXT NOT NULL, reason TEXT NOT NULL, version INTEGER NOT NULL, kept TEXT NOT NULL) STRICT"
)
"""The table, which the first migration makes that converts anything."""


def read(connection: apsw.Connection) -> Sequence[Quarantined]:
    """Everything that was put aside, oldest first."""
    if not _is_there(connection):
        return ()
    rows = connection.execute("SELECT n, store, id, what, reason, version, kept FROM _atoma_quarantine ORDER BY n")
    entries = cast("Iterable[tuple[int, str, str, str, str, int, str]]", rows)
    return [
        Quarantined(number, store, id, what, reason, version, json.loads(kept))
        for number, store, id, what, reason, version, kept in entries
    ]


def forget(connection: apsw.Connection, numbers: Collection[int]) -> int:
    """Let go of entries, inside the caller's transaction; how many there were."""
    if not _is_there(connection):
        return 0
    gone = "DELETE FROM _atoma_quarantine WHERE n IN (SELECT value FROM json_each(?)) RETURNING n"
    return len(connection.execute(gone, (json.dumps(sorted(numbers)),)).fetchall())


def _is_there(connection: apsw.Connection) -> bool:
    return bool(connection.execute("SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE name='_atoma_quarantine')").get)
