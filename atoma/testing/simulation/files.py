"""Database files as a checker sees them, on a connection of its own, and as a crash leaves them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from atoma_stores.sqlite._internals import CLIENT_ADDITIONS
from atoma_stores.sqlite.connections import open_connection

SIDE_FILES = ("-wal", "-shm")
LOCK = ".hub-lock"


class RawFile:
    """A database file, read with plain SQL.

    Args:
        path: The file; it has to exist.
    """

    def __init__(self, path: Path) -> None:
        self._connection = open_connection(
            str(path), read_only=True, busy_ms=0, vfs=None, prepare=lambda _connection: None
        )

    def begin(self) -> None:
        """Begin a snapshot: what is read until :meth:`end` is one state."""
        self._connection.execute("BEGIN")

    def end(self) -> None:
        """End the snapshot."""
        self._connection.execute("END")

    def rows(self, sql: str, *values: str | int | bytes) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self._connection.execute(sql, values).fetchall()

    def image(self) -> bytes:
        """The whole database as one file."""
        return self._connection.serialize("main")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


@dataclass(frozen=True, slots=True)
class FileCopy:
    """A database file as it lay on the disk at some moment, with what lay beside it.

    Closing a database tidies up: it finishes what is queued and takes a checkpoint. A crash does neither, so a file that
    was crashed is set back to a copy of that moment once the program is gone. A backup, a snapshot of a device and a clone
    are copies as well, put back later or elsewhere.

    Attributes:
        main: The file, None when there was none.
        log: Its write-ahead log, None when there was none.
        beside: The lock file of a hub, which tells how far the file had come; None when there was none.
    """

    main: bytes | None
    log: bytes | None
    beside: bytes | None

    @classmethod
    def take(cls, path: Path) -> FileCopy:
        """What lies at ``path`` now; no transaction may be under way."""
        return cls(*(_read(file) for file in (path, _beside(path, "-wal"), _beside(path, LOCK))))

    def put(self, path: Path, *, lock: Literal["own", "kept", "none"] = "own") -> None:
        """Make the files at ``path`` what they were; no connection may be open.

        Args:
            path: The database file.
            lock: What becomes of a hub's lock file. ``own``: it is what it was, as after a crash. ``kept``: it stays as
                it is, so that the hub finds out that its file is an older one. ``none``: it is gone, so that the hub cannot
                find out, and its operator has to say so.
        """
        for suffix in SIDE_FILES:
            _beside(path, suffix).unlink(missing_ok=True)
        _write(path, self.main)
        if self.main is not None:
            _write(_beside(path, "-wal"), self.log)
        if lock != "kept":
            _write(_beside(path, LOCK), self.beside if lock == "own" else None)


def backup(path: Path) -> FileCopy:
    """A backup of a database that is in use: one file that holds it as it is now, its log included."""
    source = RawFile(path)
    try:
        return FileCopy(source.image(), None, None)
    finally:
        source.close()


def downgrade(path: Path) -> None:
    """Make of a closed file of a device one of an earlier version: it has no proof of what it has seen, and no trail."""
    connection = open_connection(str(path), read_only=False, busy_ms=0, vfs=None, prepare=lambda _connection: None)
    try:
        for table, column in CLIENT_ADDITIONS:
            name = column.split()[0]
            if connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name=?", (table, name)).fetchall():
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
    finally:
        connection.close()


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
