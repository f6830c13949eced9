"""What the planner assumes about the tables of a hub, whose keys and indexes all begin with the scope.

Without statistics SQLite takes a scope for ten rows, so that it reads a whole scope rather than enter an index by a second
column, for each row of a join. Nobody analyses the file of a hub, and what is true of it today need not be tomorrow, so it
is given once: scopes are large, and each further column of an index narrows down a hundredfold.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Iterator

import apsw

from atoma.schema.schema import Schema

ROWS, ROWS_OF_A_SCOPE, NARROWER = 1_000_000, 10_000, 100
STATISTICS = "sqlite_stat1"


def assume(connection: apsw.Connection, schema: Schema) -> None:
    """Inform the planner about the stores' tables, inside the caller's write transaction, where it is not informed yet."""
    wanted = set(_wanted(connection, schema))
    found = set(_told(connection, schema))
    if wanted == found:
        return
    if not _is_there(connection):
        limit = connection.pragma("analysis_limit")
        connection.pragma("analysis_limit", 1)
        connection.execute("ANALYZE")  # makes the table
        connection.pragma("analysis_limit", limit)
        connection.execute(f"DELETE FROM {STATISTICS}")
    for store in schema.stores:
        connection.execute(f"DELETE FROM {STATISTICS} WHERE tbl=?", (store,))
    connection.executemany(f"INSERT INTO {STATISTICS}(tbl, idx, stat) VALUES(?,?,?)", sorted(wanted))
    connection.execute("ANALYZE sqlite_schema")  # reads what was written


def _wanted(connection: apsw.Connection, schema: Schema) -> Iterator[tuple[str, str, str]]:
    for store in schema.stores:
        yield store, store, f"{ROWS} {ROWS_OF_A_SCOPE} 1"  # the primary key is called like the table
        for name, unique in connection.execute(
            "SELECT name, \"unique\" FROM pragma_index_list(?) WHERE origin='c'", (store,)
        ):
            columns = connection.execute("SELECT count(*) FROM pragma_index_info(?)", (name,)).get
            counts = [max(ROWS_OF_A_SCOPE // NARROWER**at, 2) for at in range(int(str(columns)))]
            if unique:
                counts[-1] = 1
            yield store, str(name), " ".join(map(str, (ROWS, *counts)))


def _told(connection: apsw.Connection, schema: Schema) -> Iterator[tuple[str, str, str]]:
    if _is_there(connection):
        for table, index, stat in connection.execute(f"SELECT tbl, idx, stat FROM {STATISTICS}"):
            if table in schema.stores:
                yield str(table), str(index), str(stat)


def _is_there(connection: apsw.Connection) -> bool:
    found: object = connection.execute("SELECT 1 FROM sqlite_schema WHERE name=?", (STATISTICS,)).get
    return found is not None
