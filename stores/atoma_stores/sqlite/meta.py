"""What a file says of itself: the facts in ``_atoma_meta``, and the columns of its tables."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import apsw

from atoma.contracts.values import Scalar

META = "CREATE TABLE IF NOT EXISTS _atoma_meta(key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID"


def read_meta(connection: apsw.Connection, key: str) -> object:
    """The value of ``key`` in ``_atoma_meta``, None when there is none."""
    return connection.execute("SELECT value FROM _atoma_meta WHERE key=?", (key,)).get


def write_meta(connection: apsw.Connection, key: str, value: Scalar) -> None:
    """Set ``key`` in ``_atoma_meta``."""
    connection.execute(
        "INSERT INTO _atoma_meta(key, value) VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
        (key, value),
    )


def columns_of(connection: apsw.Connection, table: str) -> dict[str, tuple[str, bool]]:
    """Type of each column of a table, and whether it may be NULL; nothing when there is no such table."""
    rows = connection.execute('SELECT name, type, "notnull" FROM pragma_table_info(?)', (table,))
    return {str(row[0]): (str(row[1]), not row[2]) for row in rows}
