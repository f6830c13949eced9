"""Changing the key of a file by a copy that replaces it, so that a crash leaves the file with its old key or with its new one."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator

import apsw

from atoma.errors import StoreBusy, StoreError
from atoma_stores.sqlite.connections import BUSY_MS, open_connection, open_existing
from atoma_stores.sqlite.copies import whole_file
from atoma_stores.sqlite.ddl import check_layout
from atoma_stores.sqlite.encryption import HEADER_BYTES, FileKey, optional_key


def change_key(path: str | os.PathLike[str], *, old: bytes | str | None, new: bytes | str | None) -> None:
    """Encrypt the device's file ``path`` with another key.

    No program may have it open. If it is interrupted at any moment, even by force, the file is intact and has its old key or its
    new one; done again with the same two keys, it says whether it had completed. It needs room for a second file.

    Args:
        path: The file.
        old: The present key; None for a file that is not encrypted.
        new: The new key; None to remove the encryption.

    Raises:
        WrongKey: ``old`` is not the file's key.
        StoreBusy: A program has the file open.
        StoreError: It is not a device's file, or something cannot be read or written.
        ConfigurationError: There is no such file, or the installed apsw cannot encrypt.
    """
    had, gets = optional_key(old), optional_key(new)
    del old, new
    where = os.path.realpath(os.fspath(path))
    with contextlib.ExitStack() as after, _alone(where, had) as connection:
        inode = os.open(where, os.O_RDWR)
        after.callback(os.close, inode)  # after the connection: closing it earlier would take the lock away
        with whole_file(where, "the file with the new key cannot be written") as unfinished:
            shutil.copymode(where, unfinished)
            connection.execute("VACUUM INTO ?", (unfinished,))
            rekey_copy(unfinished, had, gets)
        _spoil(inode)


def rekey_copy(path: str, old: FileKey | None, new: FileKey | None) -> None:
    """Encrypt a copy that nobody else knows of with another key, in its place: a crash may ruin it."""
    if old is None and new is None:
        return
    connection = open_connection(path, read_only=False, busy_ms=BUSY_MS, vfs=None, key=old)
    try:
        connection.pragma("journal_mode", "off")  # a journal would show what the pages were like
        if not (connection.pragma("rekey", "") == "ok" if new is None else new.becomes(connection)):
            raise StoreError(f"{path}: the key cannot be changed")
    finally:
        connection.close()


@contextlib.contextmanager
def _alone(path: str, key: FileKey | None) -> Generator[apsw.Connection]:
    """A connection to a device's file that nobody else has open or can open; its log is in the file."""
    with open_existing(path, writing=True, key=key) as connection:
        check_layout(connection, "client")
        try:
            connection.pragma("locking_mode", "exclusive")
            mode: object = connection.pragma("journal_mode", "delete")  # it needs the file for itself
            connection.execute("BEGIN EXCLUSIVE; COMMIT")  # and keeps it
        except (apsw.BusyError, apsw.LockedError):
            mode = None
        if mode != "delete":
            raise StoreBusy(f"{path}: a program has the file open; end it first")
        yield connection


def _spoil(inode: int) -> None:
    """Make sure that who has been waiting for the replaced file reads nothing from it, and so does not write to what is gone."""
    if os.fstat(inode).st_nlink == 0:
        os.pwrite(inode, bytes(HEADER_BYTES), 0)
