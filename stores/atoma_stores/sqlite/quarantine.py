"""What migrations could not convert and have put aside, in a device's or a hub's file: listed, and let go of."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import cast

import apsw

from atoma.contracts.quarantine import Quarantined
from atoma_stores.sql.dialect import SQLITE
from atoma_stores.sql.migrating import QUARANTINE
from atoma_stores.sqlite.meta import columns_of

TABLE = f"_atoma_{QUARANTINE.name}"
CREATE = SQLITE.create_as(TABLE, QUARANTINE)
"""Makes the table, as the first migration does that converts anything."""


def read(connection: apsw.Connection) -> Sequence[Quarantined]:
    """Everything that was put aside, oldest first."""
    if not _is_there(connection):
        return ()
    rows = connection.execute(f"SELECT {', '.join(QUARANTINE.of())} FROM {TABLE} ORDER BY n")
    entries = cast("Iterable[tuple[int, str, str, str, str, int, str]]", rows)
    return [
        Quarantined(number, store, id, what, reason, version, json.loads(kept))
        for number, store, id, what, reason, version, kept in entries
    ]


def forget(connection: apsw.Connection, numbers: Collection[int]) -> int:
    """Let go of entries, inside the caller's transaction; how many there were."""
    if not _is_there(connection):
        return 0
    gone = f"DELETE FROM {TABLE} WHERE n IN (SELECT value FROM json_each(?)) RETURNING n"
    return len(connection.execute(gone, (json.dumps(sorted(numbers)),)).fetchall())


def _is_there(connection: apsw.Connection) -> bool:
    return bool(columns_of(connection, TABLE))
