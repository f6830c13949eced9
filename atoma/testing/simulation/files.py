"""Database files as a checker sees them, on a connection of its own, and as a crash leaves them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from pathlib import Path
from typing import Any

from atoma_stores.sqlite.connections import open_connection

SIDE_FILES = ("-wal", "-shm")


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

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


class Wreck:
    """What lies on the disk at the moment of a crash: the file and its log, whatever is done to them afterwards.

    Closing a database tidies up: it finishes what is queued and takes a checkpoint. A crash does neither, so the files
    are set back to this once the crashed program is gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._main = path.read_bytes() if path.exists() else None
        wal = _beside(path, "-wal")
        self._wal = wal.read_bytes() if wal.exists() else None
        lock = _beside(path, ".hub-lock")
        self._lock = lock.read_bytes() if lock.exists() else None

    def restore(self) -> None:
        """Make the files what they were; no connection may be open."""
        for suffix in SIDE_FILES:
            _beside(self._path, suffix).unlink(missing_ok=True)
        if self._main is None:
            self._path.unlink(missing_ok=True)
            return
        self._path.write_bytes(self._main)
        if self._lock is not None:
            _beside(self._path, ".hub-lock").write_bytes(self._lock)
        if self._wal is not None:
            _beside(self._path, "-wal").write_bytes(self._wal)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
