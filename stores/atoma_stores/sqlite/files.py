"""Access to an Atoma file from outside its program, a device's or a hub's: queries, surveys, checks and copies while it is in use."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

import apsw

from atoma.contracts.mutations import MutationBody
from atoma.contracts.progress import Progress
from atoma.contracts.quarantine import Quarantined
from atoma.contracts.raw import SqlAnswer, SqlQuery
from atoma.contracts.values import Scalar
from atoma.errors import AtomaError, StoreCorrupt
from atoma.schema.bodies import decode_body
from atoma.schema.schema import Schema
from atoma_stores.sql.names import quote
from atoma_stores.sqlite import quarantine
from atoma_stores.sqlite._raw import raw_sql
from atoma_stores.sqlite._tables import StoreTable
from atoma_stores.sqlite.connections import open_existing, transaction
from atoma_stores.sqlite.copies import PROBLEMS_MAX, copy_to_new, damage_of
from atoma_stores.sqlite.ddl import Layout, check_layout, is_guarded
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.hub_files import look_whose_log
from atoma_stores.sqlite.hub_lock import sole_hub
from atoma_stores.sqlite.meta import read_meta
from atoma_stores.sqlite.stored_schema import stored_schema

LATEST_MAX = 10
"""Number of a hub's last writes in a survey."""


@dataclass(frozen=True, slots=True)
class HubWrite:
    """A transaction of a hub's log.

    Attributes:
        scope: Its scope.
        seq: Its sequence there.
        principal: Who wrote it.
        at_ms: Wall-clock time of the hub.
        rows: How many rows it changed.
    """

    scope: str
    seq: int
    principal: str
    at_ms: int
    rows: int


@dataclass(frozen=True, slots=True)
class FileSurvey:
    """A description of a file at one moment.

    Attributes:
        path: The path of the file.
        layout: Whether it is a device's or a hub's file.
        format: Version of the file's format.
        version: Version of its schema.
        bytes: Its size.
        wal_bytes: Size of the write-ahead log beside it.
        commit: Number of commits in a device's file; 0 for a hub's.
        programs: Number of programs that are registered as having a device's file open, some of which may have been killed; 0 for a hub's.
        rows: Number of rows of each store.
        synced: Stores of a device that replicate.
        heads: Sequence of every scope of a hub.
        clients: Number of device files that a hub knows.
        latest: The last writes of a hub's log, the newest first.
    """

    path: str
    layout: Layout
    format: int
    version: int
    bytes: int
    wal_bytes: int
    commit: int
    programs: int
    rows: Mapping[str, int]
    synced: Sequence[str]
    heads: Mapping[str, int]
    clients: int
    latest: Sequence[HubWrite]


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of a file.

    Attributes:
        layout: Whether it is a device's or a hub's file.
        bytes: Size of the copy.
    """

    layout: Layout
    bytes: int


def survey_file(path: str, key: FileKey | None = None) -> FileSurvey:
    """Return a description of the file ``path``, with its ``key``; it may be open elsewhere.

    Raises:
        StoreError: It is not an Atoma file, or cannot be read.
        ConfigurationError: There is no such file, or no store in it.
    """
    with _opened(path, key) as (connection, layout, schema), transaction(connection, "BEGIN", "ROLLBACK"):
        commit, format, version = (read_meta(connection, key) or 0 for key in ("commit", "format", "schema_version"))
        heads: list[tuple[str, int]] = []
        latest: list[HubWrite] = []
        if layout == "hub":
            found = connection.execute("SELECT scope, head FROM _atoma_hub_scope ORDER BY scope").fetchall()
            heads = cast("list[tuple[str, int]]", found)
            latest = _latest(connection, heads)
        return FileSurvey(
            path=path,
            layout=layout,
            format=cast("int", format),
            version=cast("int", version),
            bytes=os.path.getsize(path),
            wal_bytes=_size_of_log(path),
            commit=cast("int", commit),
            programs=_count(connection, "_atoma_process") if layout == "client" else 0,
            rows={name: _count(connection, name) for name in schema.stores},
            synced=[name for name in schema.stores if layout == "client" and is_guarded(connection, name)],
            heads=dict(heads),
            clients=_count(connection, "_atoma_hub_client") if layout == "hub" else 0,
            latest=latest,
        )


def query_file(
    path: str, text: str, params: Mapping[str, Scalar], *, at_most: int | None = None, key: FileKey | None = None
) -> SqlAnswer:
    """Return the rows of one statement that reads stores of the file ``path``; see ``Client.sql``.

    Args:
        path: A device's or a hub's file; it may be open elsewhere.
        text: The statement.
        params: Its values by name.
        at_most: Maximum number of rows to read; None reads all of them.
        key: The key of an encrypted file.

    Raises:
        QueryError: SQLite does not understand it, or it does anything but read stores.
        StoreError: It is not an Atoma file, or cannot be read.
    """
    with _opened(path, key) as (connection, _, schema), transaction(connection, "BEGIN", "ROLLBACK"):
        tables = {name: StoreTable(spec, synced=False) for name, spec in schema.stores.items()}
        return raw_sql(tables, SqlQuery.of(text, params), at_most=at_most)(connection)


def check_file(path: str, told: Progress, key: FileKey | None = None) -> Sequence[str]:
    """Check the whole file ``path`` and return what is wrong with it; nothing if it is intact.

    SQLite checks its pages, its indexes and its types; then every waiting write is decoded.

    Raises:
        StoreError: It is not an Atoma file, or cannot be read at all.
    """
    with _opened(path, key) as (connection, layout, schema), transaction(connection, "BEGIN", "ROLLBACK"):
        problems = damage_of(connection, lambda: told(0, 0))
        if layout == "client" and not problems:
            problems += _wrong_in_outbox(connection, schema)
        return problems


def back_up(path: str, target: str, told: Progress, key: FileKey | None = None) -> Backup:
    """Copy the file ``path`` to ``target``, which appears as a whole or not at all; programs may go on writing to the file.

    The copy is one consistent state of the file, is checked as a whole, and is on the disk when this returns.

    Args:
        path: A device's or a hub's file.
        target: The path of the copy; nothing may exist there.
        told: Called now and then with the number of bytes that were copied, and about the total.
        key: The key of an encrypted file; the copy has the same.

    Raises:
        ConfigurationError: There is no such file, or ``target`` exists.
        StoreCorrupt: It is damaged, or is not an Atoma file.
        StoreError: Something cannot be read or written.
    """
    layout = _layout_at(path, key)
    copy_to_new(path, target, told, key)
    return Backup(layout, os.path.getsize(target))


def read_quarantine(path: str, key: FileKey | None = None) -> tuple[Layout, Sequence[Quarantined]]:
    """Return the kind of the file ``path``, and what migrations of it could not convert; it may be open elsewhere.

    Raises:
        StoreError: It is not an Atoma file, or cannot be read.
    """
    with _opened(path, key) as (connection, layout, _):
        return layout, quarantine.read(connection)


def discard_quarantined(path: str, numbers: Collection[int], key: FileKey | None = None) -> int:
    """Discard entries of what migrations of the file ``path`` could not convert, and return how many there were.

    Raises:
        StoreBusy: It is a hub's file, and a hub has it open.
        StoreError: It is not an Atoma file, or cannot be written.
    """
    layout = _layout_at(path, key)
    with ExitStack() as stack:
        if layout == "hub":
            stack.enter_context(sole_hub(path))
        connection = stack.enter_context(open_existing(path, writing=True, key=key))
        stack.enter_context(transaction(connection, "BEGIN IMMEDIATE", "COMMIT"))
        return quarantine.forget(connection, numbers)


def sqlite_version() -> str:
    """Return the version of SQLite with which files are read."""
    return apsw.sqlite_lib_version()


def table_definitions(path: str, key: FileKey | None = None) -> Sequence[str]:
    """Return the statements that create the tables, indexes and views of an Atoma file.

    Raises:
        StoreError: It is not an Atoma file, or cannot be read.
    """
    with _opened(path, key) as (connection, _, _):
        rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name")
        return [str(row[0]) for row in rows]


def layout_of(connection: apsw.Connection) -> Layout:
    """Return whether it is a device's or a hub's file.

    Raises:
        StoreCorrupt: It is not an Atoma file.
        MigrationError: It is newer than this program.
    """
    described = connection.execute("SELECT 1 FROM sqlite_schema WHERE name='_atoma_meta'").get
    found = read_meta(connection, "layout") if described else None
    if found not in ("client", "hub"):
        raise StoreCorrupt(f"{connection.filename}: this is not a database of Atoma; choose another file")
    check_layout(connection, found)
    return found


# inside


def _layout_at(path: str, key: FileKey | None) -> Layout:
    look_whose_log(path)
    with open_existing(path, writing=False, key=key) as connection:
        return layout_of(connection)


@contextmanager
def _opened(path: str, key: FileKey | None) -> Generator[tuple[apsw.Connection, Layout, Schema]]:
    look_whose_log(path)
    with open_existing(path, writing=False, key=key) as connection:
        layout = layout_of(connection)
        yield connection, layout, stored_schema(connection, layout)


def _count(connection: apsw.Connection, table: str) -> int:
    return cast("int", connection.execute(f"SELECT count(*) FROM {quote(table)}").get)


def _latest(connection: apsw.Connection, heads: Sequence[tuple[str, int]]) -> list[HubWrite]:
    found: list[HubWrite] = []
    for scope, head in heads:
        rows = connection.execute(
            "SELECT scope, seq, principal, committed_ms, n FROM _atoma_hub_tx WHERE scope=? AND seq>? ORDER BY seq DESC",
            (scope, head - LATEST_MAX),
        )
        found += [HubWrite(*row) for row in rows]
    return sorted(found, key=lambda write: write.at_ms, reverse=True)[:LATEST_MAX]


def _size_of_log(path: str) -> int:
    try:
        return os.path.getsize(os.path.realpath(path) + "-wal")
    except OSError:
        return 0  # it comes and goes


def _wrong_in_outbox(connection: apsw.Connection, schema: Schema) -> list[str]:
    problems: list[str] = []
    for lsn, body in connection.execute("SELECT lsn, body FROM _atoma_pending ORDER BY lsn"):
        try:
            decoded: MutationBody = decode_body(body, schema)
        except AtomaError as error:
            problems.append(f"write {lsn} of the outbox cannot be read: {error}")
        else:
            problems += [f"write {lsn} of the outbox names the unknown store {op.store!r}" for op in decoded.ops if op.store not in schema.stores]  # fmt: skip
    return problems[:PROBLEMS_MAX]
