"""How a connection is opened: one set of pragmas and limits for every one of them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeAlias

import apsw

from atoma.contracts.limits import PATTERN_BYTES_MAX
from atoma.errors import ConfigurationError
from atoma_stores.sqlite.codes import translate
from atoma_stores.sqlite.functions import add_functions

MEMORY = ":memory:"
BUSY_MS = 5_000
STATEMENTS_CACHED = 200
CACHE_KIB = 16 * 1024
OWNER_ONLY = 0o600

Prepare: TypeAlias = Callable[[apsw.Connection], None]
"""Run on every new connection: functions, hooks."""


def open_connection(
    path: str, *, read_only: bool, busy_ms: int, vfs: str | None, prepare: Prepare | None = None
) -> apsw.Connection:
    """A hardened connection to ``path``.

    Args:
        path: File, or ``":memory:"``.
        read_only: Refuse writes (the connection still takes part in WAL locking).
        busy_ms: How long a call may wait for another process, in milliseconds.
        vfs: Name of a registered VFS, None for the system's.
        prepare: Run on the connection before anybody else has it; None runs nothing.

    Raises:
        apsw.Error: The file cannot be opened or is no database.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(path, flags=flags, vfs=vfs, statementcachesize=STATEMENTS_CACHED)
    try:
        connection.set_busy_timeout(busy_ms)
        connection.limit(apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES_MAX)  # for GLOB as well
        add_functions(connection)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        connection.pragma("temp_store", 2)
        connection.pragma("cache_size", -CACHE_KIB)
        if prepare is not None:
            prepare(connection)
        if read_only:
            connection.pragma("query_only", 1)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def open_existing(path: str, *, writing: bool) -> Generator[apsw.Connection]:
    """A connection to a file that is there, whether or not a program has it open; it can do what plain SQL can.

    Raises:
        ConfigurationError: There is no such file.
        StoreError: It cannot be opened, or what is done with it in the block fails.
    """
    if not os.path.isfile(path):
        raise ConfigurationError(f"{path}: there is no such file")
    try:
        connection = open_connection(path, read_only=not writing, busy_ms=BUSY_MS, vfs=None)
        try:
            yield connection
        finally:
            connection.close()
    except apsw.Error as error:
        raise translate(error, path) from error


def make_private(path: str) -> None:
    """Make the file ``path``, for its owner only, when there is none; SQLite gives ``-wal`` and ``-shm`` the same mode.

    A file that is there keeps the mode that somebody gave it.

    Raises:
        OSError: There is no space for it. What else may be wrong with the path, SQLite tells when it opens it.
    """
    try:
        # O_EXCL: closing a file that SQLite has open would take this process's locks on it away
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), OWNER_ONLY))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise


def use_wal(connection: apsw.Connection) -> None:
    """Switch the file to WAL, and leave checkpoints to whoever opened it.

    Raises:
        apsw.Error: The file is no database, or another process does not let go of it.
    """
    mode: object = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise apsw.CantOpenError(f"journal mode is {mode!r}: this file system or VFS has no WAL")
    connection.wal_autocheckpoint(0)
