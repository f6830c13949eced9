"""Copies of files: whole or not there at all, and on the disk before anybody relies on them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Generator
from typing import cast

import apsw

from atoma.contracts.progress import Progress
from atoma.errors import ConfigurationError, StoreCorrupt, StoreError
from atoma.schema.schema import Schema
from atoma_stores.sql.migrating import is_due
from atoma_stores.sqlite.connections import BUSY_MS, MEMORY, make_private, open_connection, open_existing, watched
from atoma_stores.sqlite.ddl import APPLICATION_ID
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.meta import read_meta

UNFINISHED = ".unfinished"
"""What a copy is called until it is whole; it may be deleted whenever nothing is copying."""
PROBLEMS_MAX = 100
"""So many problems of a file are told at most."""
SIDE_FILES = ("-wal", "-shm", "-journal")

_log = logging.getLogger("atoma.sqlite")


def copy_before_steps(connection: apsw.Connection, schema: Schema, vfs: str | None, key: FileKey | None) -> str | None:
    """Copy the file of ``connection`` if steps of ``schema`` are due in it; where the copy is, None when none are.

    The copy stands beside the file, with the version in its name: ``app.db.version-3``. One from an earlier attempt is
    replaced, as the file may have gone on since. A copy of an encrypted file has the same key.

    Raises:
        StoreError: It cannot be written; nothing has been converted.
    """
    path = connection.filename
    since = read_meta(connection, "schema_version") if connection.pragma("application_id") == APPLICATION_ID else None
    if not path or path == MEMORY or not isinstance(since, int) or not is_due(schema, since):
        return None
    copy = f"{path}.version-{since}"
    _log.info("%s: copying it to %s before it is brought to version %d", path, copy, schema.version)
    with whole_file(copy, "the copy before a migration cannot be written") as unfinished:
        source = open_connection(path, read_only=False, busy_ms=BUSY_MS, vfs=vfs, key=key)
        try:
            source.execute("VACUUM INTO ?", (unfinished,))
        finally:
            source.close()
    return copy


@contextlib.contextmanager
def whole_file(
    target: str, failure: str, *, mark: str = UNFINISHED, put: Callable[[str, str], None] = os.replace
) -> Generator[str]:
    """Let the block write a file, which is at ``target`` as a whole and on the disk once it ends, or not at all.

    The block gets the name under which it writes; the file is there already, empty and for its owner only.

    Args:
        target: Where the file will be.
        failure: What is said when it cannot be written.
        mark: What its name has in addition until it is whole.
        put: Gives it its name.

    Raises:
        StoreError: It cannot be written.
    """
    unfinished = target + mark
    try:
        remove_file(unfinished)
        make_private(unfinished)
        yield unfinished
        sync_file(unfinished)
        put(unfinished, target)
        sync_folder(target)
    except OSError as error:
        raise StoreError(f"{target}: {failure} ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            remove_file(unfinished)


def copy_to_new(path: str, target: str, told: Progress, key: FileKey | None = None) -> None:
    """Copy the database ``path`` to ``target``, where nothing may be: as one state of it, checked, whole or not at all.

    The copy of an encrypted one has the same key.

    Raises:
        ConfigurationError: ``target`` exists.
        StoreCorrupt: The copy is damaged, as the file is then.
        StoreError: Something cannot be read or written.
    """
    if os.path.lexists(target):
        raise _taken(target)
    with whole_file(target, "the backup cannot be written", put=_put_new) as unfinished:
        copy_checked(path, unfinished, told, key)


def copy_checked(
    path: str, target: str, told: Progress, key: FileKey | None = None, *, leaves_log: bool = False
) -> None:
    """Copy the database ``path`` over the empty file ``target`` as one state of it, and read the copy through.

    With ``leaves_log`` the log of ``path`` is not folded into it.

    Raises:
        StoreCorrupt: The copy is damaged, as the file is then.
        StoreError: Something cannot be read or written.
    """
    # of a connection that only reads, SQLite makes no copy
    with open_existing(path, writing=True, key=key, leaves_log=leaves_log) as connection:
        pages = cast("int", connection.pragma("page_count")) - cast("int", connection.pragma("freelist_count"))
        size = pages * cast("int", connection.pragma("page_size"))
        with watched(connection, lambda: told(min(os.path.getsize(target), size), size)):
            connection.execute("VACUUM INTO ?", (target,))
    told(size, size)
    try:
        with open_existing(target, writing=False, key=key) as copy:
            verdict: object = copy.pragma("integrity_check")
    except StoreCorrupt as error:
        raise StoreCorrupt(f"{path}: the copy of it is damaged ({error})") from error
    if verdict != "ok":
        raise StoreCorrupt(f"{path}: the copy of it is damaged ({verdict}); use another backup")


def damage_of(connection: apsw.Connection, look: Callable[[], None]) -> list[str]:
    """What SQLite finds wrong with the pages, indexes and types of a file, which is read from beginning to end.

    Args:
        connection: A connection to it.
        look: Called every few milliseconds.
    """
    try:
        with watched(connection, look):
            found = connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})").fetchall()
    except apsw.CorruptError as error:
        return [str(error)]
    return [str(row[0]) for row in found if row[0] != "ok"]


def _put_new(unfinished: str, target: str) -> None:
    try:
        os.link(unfinished, target)  # unlike a rename it replaces nothing
    except FileExistsError:
        raise _taken(target) from None


def _taken(target: str) -> ConfigurationError:
    return ConfigurationError(f"{target} exists; a backup is never written over anything, name another file")


def sync_file(path: str) -> None:
    """Have the file ``path`` on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str) -> None:
    """Have the name of the file ``path`` on the disk."""
    if os.name == "nt":
        return
    descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: str) -> None:
    """Remove the file ``path`` and what SQLite has beside it."""
    for suffix in ("", *SIDE_FILES):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
