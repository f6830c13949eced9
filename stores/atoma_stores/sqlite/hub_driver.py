"""The hub's scripts on a connection of SQLite's: one statement after the other, in the thread that has the connection."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

import apsw

from atoma_stores.sql.dialect import SQLITE
from atoma_stores.sql.hub.groups import GroupQueries, OneByOne, groups, write_group, write_one_by_one
from atoma_stores.sql.hub.noting import noted_group
from atoma_stores.sql.hub.state import Run
from atoma_stores.sql.hub.tables import TABLES
from atoma_stores.sql.scripts import Execute, ExecuteMany, Row, RowRefused, Script, run_in_order
from atoma_stores.sqlite.codes import is_unique_violation

T = TypeVar("T")

INTERNALS = tuple(statement for table in TABLES for statement in SQLITE.create(table))
ADDITIONS = tuple(
    (SQLITE.table(table.name), SQLITE.column(column)) for table in TABLES for column in table.columns if column.later
)
"""What older files lack."""


def drive(connection: apsw.Connection, script: Script[T]) -> T:
    """Run ``script`` inside the caller's transaction.

    Raises:
        apsw.Error: A statement failed; what was written before it is for the caller to take back.
    """

    def execute(statement: Execute | ExecuteMany) -> Sequence[Row]:
        if statement.store:
            return _write_store(connection, statement)
        return _execute(connection, statement)

    return run_in_order(script, execute)


def _execute(connection: apsw.Connection, statement: Execute | ExecuteMany) -> Sequence[Row]:
    if isinstance(statement, ExecuteMany):
        connection.executemany(statement.sql, statement.rows)
        return ()
    cursor = connection.execute(statement.sql, cast("tuple[str, ...]", statement.values))
    if statement.enough is None:
        return cast("list[Row]", cursor.fetchall())
    found: list[Row] = []
    for row in cast("Sequence[Row]", cursor):
        if statement.enough(row):
            cursor.close()
            break
        found.append(row)
    return found


def _write_store(connection: apsw.Connection, statement: Execute | ExecuteMany) -> Sequence[Row]:
    try:
        return _execute(connection, statement)
    except (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError) as error:
        unique = isinstance(error, apsw.ConstraintError) and is_unique_violation(error)
        raise RowRefused(statement.store, unique=unique) from None


class GroupWriter:
    """The work of the writing thread on the runs that wait.

    Args:
        queries: The statements of a group.
    """

    def __init__(self, queries: GroupQueries) -> None:
        self._queries = queries

    def write(self, connection: apsw.Connection, runs: Sequence[Run]) -> Sequence[Exception | None]:
        """Decide and write ``runs``, which are of one transaction; the errors of those that were dropped."""
        for group in groups(runs):
            commits = self._write_group(connection, group)
            for run in group:
                run.commits = commits
        return [run.error for run in runs]

    def _write_group(self, connection: apsw.Connection, group: Sequence[Run]) -> int:
        connection.execute("SAVEPOINT hub_group")
        try:
            commits = drive(connection, noted_group(write_group(self._queries, group), group, SQLITE))
        except OneByOne:
            connection.execute("ROLLBACK TO hub_group")
            commits = drive(connection, noted_group(write_one_by_one(self._queries, group), group, SQLITE))
        connection.execute("RELEASE hub_group")
        return commits
