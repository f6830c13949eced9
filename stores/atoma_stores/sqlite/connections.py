"""How a connection is opened: one set of pragmas and limits for every one of them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeAlias, cast

import apsw

from atoma.contracts.limits import PATTERN_BYTES_MAX
from atoma.errors import ConfigurationError
from atoma_stores.sqlite.codes import translate
from atoma_stores.sqlite.encryption import FileKey, unlock
from atoma_stores.sqlite.functions import add_functions
from atoma_stores.sqlite.main_files import check_header, check_log, device_file

MEMORY = ":memory:"
BUSY_MS = 5_000
STATEMENTS_CACHED = 200
CACHE_KIB = 16 * 1024
OWNER_ONLY = 0o600

BREATH_STEPS = 50_000
"""After so many steps of SQLite's Python is heard, a few milliseconds."""

Prepare: TypeAlias = Callable[[apsw.Connection], None]
"""Run on every new connection: functions, hooks."""


def open_connection(
    path: str,
    *,
    read_only: bool,
    busy_ms: int,
    vfs: str | None,
    prepare: Prepare | None = None,
    key: FileKey | None = None,
) -> apsw.Connection:
    """A hardened connection to ``path``.

    Args:
        path: File, or ``":memory:"``.
        read_only: Refuse writes (the connection still takes part in WAL locking).
        busy_ms: How long a call may wait for another process, in milliseconds.
        vfs: Name of a registered VFS, None for the system's.
        prepare: Run on the connection before anybody else has it; None runs nothing.
        key: What the file is encrypted with, None for nothing.

    Raises:
        apsw.Error: The file cannot be opened or is not a database.
        WrongKey: It is not encrypted, or has another key.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(path, flags=flags, vfs=vfs, statementcachesize=STATEMENTS_CACHED)
    try:
        # what is refused stays as it is, and its log beside it
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(busy_ms)
        if key is not None:
            unlock(connection, key)
        connection.limit(apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES_MAX)  # for GLOB as well
        add_functions(connection)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        connection.pragma("temp_store", 2)
        if prepare is not None:
            prepare(connection)
        connection.pragma("cache_size", -CACHE_KIB)  # this reads the schema
        if read_only:
            connection.pragma("query_only", 1)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def making_views(connection: apsw.Connection) -> Generator[None]:
    """Let ``connection``, which may be for reading only, make temporary views and tables; they end with its transaction."""
    only: object = connection.pragma("query_only")
    connection.pragma("query_only", 0)
    try:
        yield
    finally:
        connection.pragma("query_only", cast("int", only))


@contextmanager
def open_existing(
    path: str, *, writing: bool, key: FileKey | None = None, leaves_log: bool = False
) -> Generator[apsw.Connection]:
    """A connection to a file that is there, whether or not a program has it open; it can do what plain SQL can.

    Python is heard while a statement runs, so Ctrl-C ends it. If nobody else has the file open, its log ends up within it when the
    connection is closed; with ``leaves_log`` both stay as they are.

    Raises:
        ConfigurationError: There is no such file.
        WrongKey: It is encrypted with another key, or with none and one was given.
        ForeignLog: It is a device's, and the log beside it is not its own.
        StoreError: It cannot be opened, or what is done with it in the block fails.
    """
    if not os.path.isfile(path):
        raise ConfigurationError(f"{path}: there is no such file")
    try:
        main = device_file(path, None, key)
        check_header(main)
        own = partial(check_log, main=main)
        connection = open_connection(path, read_only=not writing, busy_ms=BUSY_MS, vfs=None, prepare=own, key=key)
        try:
            if leaves_log:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            with watched(connection, lambda: None):
                yield connection
        finally:
            connection.close()
    except apsw.Error as error:
        raise translate(error, path) from error


@contextmanager
def transaction(
    connection: apsw.Connection, begin: Literal["BEGIN", "BEGIN IMMEDIATE"], end: Literal["COMMIT", "ROLLBACK"]
) -> Generator[None]:
    """Let everything in the block be one transaction, which is taken back where the block fails."""
    connection.execute(begin)
    try:
        yield
        connection.execute(end)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def watched(connection: apsw.Connection, look: Callable[[], None]) -> Generator[None]:
    """Call ``look`` every few milliseconds while a statement of the block runs; what it raises ends the statement."""

    def breathe() -> bool:
        look()
        return False

    connection.set_progress_handler(breathe, BREATH_STEPS, id=breathe)
    try:
        yield
    finally:
        connection.set_progress_handler(None, id=breathe)


def make_private(path: str) -> None:
    """Make the file ``path``, for its owner only, when there is none; SQLite gives ``-wal`` and ``-shm`` the same mode.

    A file that is there keeps the mode that somebody gave it.

    Raises:
        OSError: There is no space for it. SQLite reports what else may be wrong with the path when it opens it.
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
        apsw.Error: The file is not a database, or another process does not let go of it.
    """
    mode: object = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise apsw.CantOpenError(f"journal mode is {mode!r}: this file system or VFS has no WAL")
    connection.wal_autocheckpoint(0)
