"""Copies of files: whole or not there at all, and on the disk before anybody relies on them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import logging
import os

import apsw

from atoma.errors import StoreError
from atoma.schema.spec import Schema
from atoma_stores.sqlite.connections import BUSY_MS, MEMORY, make_private, open_connection
from atoma_stores.sqlite.ddl import APPLICATION_ID
from atoma_stores.sqlite.meta import read_meta
from atoma_stores.sqlite.migrating import is_due

UNFINISHED = ".unfinished"
"""What a copy is called until it is whole; it may be deleted whenever nothing is copying."""
SIDE_FILES = ("-wal", "-shm", "-journal")

_log = logging.getLogger("atoma.sqlite")


def copy_before_steps(connection: apsw.Connection, schema: Schema, vfs: str | None) -> str | None:
    """Copy the file of ``connection`` if steps of ``schema`` are due in it; where the copy is, None when none are.

    The copy stands beside the file, with the version in its name: ``app.db.version-3``. One from an earlier attempt is
    replaced, as the file may have gone on since.

    Raises:
        StoreError: It cannot be written; nothing has been converted.
    """
    path = connection.filename
    since = read_meta(connection, "schema_version") if connection.pragma("application_id") == APPLICATION_ID else None
    if not path or path == MEMORY or not isinstance(since, int) or not is_due(schema, since):
        return None
    copy = f"{path}.version-{since}"
    unfinished = copy + UNFINISHED
    _log.info("%s: copying it to %s before it is brought to version %d", path, copy, schema.version)
    try:
        remove_file(unfinished)
        make_private(unfinished)
        source = open_connection(path, read_only=False, busy_ms=BUSY_MS, vfs=vfs)
        try:
            source.execute("VACUUM INTO ?", (unfinished,))
        finally:
            source.close()
        sync_file(unfinished)
        os.replace(unfinished, copy)
        sync_folder(copy)
    except OSError as error:
        raise StoreError(
            f"{copy}: the copy before a migration cannot be written ({error.strerror or error})"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            remove_file(unfinished)
    return copy


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
