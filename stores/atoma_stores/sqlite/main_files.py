"""Main files looked at alone, without their logs: whether what lies beside one as its log is its own.

SQLite replays a log over whatever main file it finds in front of it. So who puts an older copy in the place of a file whose
program was killed would get neither of the two. That is found out before anything of it is written.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Generator
from dataclasses import dataclass
from typing import cast

import apsw

from atoma.errors import AtomaError, ForeignLog
from atoma_stores.sqlite.encryption import HEADER_BYTES, FileKey, unlock

_MOVED = (
    "(SELECT value FROM _atoma_meta WHERE key='commit') + (SELECT seq FROM sqlite_sequence WHERE name='_atoma_process')"
)
MOVES_OF_DEVICE = f"SELECT {_MOVED}"
"""How often a device's file was committed to, or opened: it grows with each of both."""
COMMITS_OF_HUB = "SELECT commits FROM _atoma_hub_info"
NOTE_CHECKPOINTED = (
    "INSERT INTO _atoma_meta(key, value) VALUES('checkpointed', ?) "
    "ON CONFLICT(key) DO UPDATE SET value=max(value, excluded.value)"
)
"""Writes down what a device's main file alone has come to, so that its log says what it builds on."""

_WHOLE = f"SELECT COALESCE((SELECT value FROM _atoma_meta WHERE key='checkpointed'), 0), {_MOVED}"
_WRITE_VERSION, _ROLLBACK = 18, 1


@contextlib.contextmanager
def main_alone(path: str, vfs: str | None) -> Generator[apsw.Connection]:
    """A connection that reads the main file alone, its log left out, and touches nothing."""
    uri = f"file:{urllib.parse.quote(os.path.realpath(path))}?immutable=1"
    connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs=vfs)
    try:
        yield connection
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Alone:
    """A main file as it is without its log.

    Attributes:
        count: What it has come to, by its own counter.
        logless: Whether its header says that it has no log: it is as ``VACUUM INTO`` has made it. Whoever opens a file begins by
            changing that in the main file itself. So a log beside it is never its own, and would ruin it: the pages of a copy that
            ``VACUUM`` has made lie elsewhere.
    """

    count: int
    logless: bool


class MainFile:
    """A main file that is looked at alone.

    Args:
        path: The file.
        count: The query of its counter.
        vfs: Name of a registered VFS, None for the system's.
        key: What it is encrypted with, None for nothing.
        checkpointed: What it had come to at least.

    Attributes:
        path: The file, as SQLite names it.
        checkpointed: What the disk has of it at least.
    """

    def __init__(
        self, path: str, count: str, vfs: str | None, key: FileKey | None = None, *, checkpointed: int = 0
    ) -> None:
        self.path = os.path.realpath(path)
        self._count = count
        self._vfs = vfs
        self._key = key
        self.checkpointed = checkpointed

    def alone(self) -> Alone | None:
        """What it is by itself; None when it is none of ours, or cannot be read alone."""
        try:
            with main_alone(self.path, self._vfs) as connection:
                if self._key is not None:
                    unlock(connection, self._key)
                found: object = connection.execute(self._count).get
                _, header = connection.read("main", 0, 0, HEADER_BYTES)
        except (apsw.Error, AtomaError):
            return None
        return Alone(found, header[_WRITE_VERSION] == _ROLLBACK) if isinstance(found, int) else None

    def is_before(self, alone: Alone) -> bool:
        """Whether the file, as it is ``alone``, was put in the place of the one that the log beside it belongs to."""
        return alone.logless or alone.count < self.checkpointed

    def look(self) -> None:
        """See what the main file alone has by now; in any thread.

        The system shows what a checkpoint is still writing, and a power cut takes that back. If more were written down
        than the disk has, the file's own log would be taken for another's; so what is seen is synced before it is believed.
        """
        alone = self.alone()
        if alone is None or alone.count <= self.checkpointed:
            return
        with contextlib.suppress(apsw.Error):
            self._sync()
            self.checkpointed = alone.count

    def after_checkpoint(self, _connection: apsw.Connection) -> None:
        """:meth:`look`, as whoever takes checkpoints calls it."""
        self.look()

    def _sync(self) -> None:
        """Have the disk take it as it is.

        Raises:
            apsw.Error: It does not.
        """
        flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
        file = apsw.VFSFile(self._vfs or "", self.path, [flags, 0])
        try:
            file.xSync(apsw.SQLITE_SYNC_NORMAL)
        finally:
            file.xClose()


def device_file(path: str, vfs: str | None, key: FileKey | None) -> MainFile:
    """The main file of a device."""
    return MainFile(path, MOVES_OF_DEVICE, vfs, key)


def check_header(main: MainFile) -> None:
    """Refuse a device's file whose header knows of no log, and that has one beside it, before any connection reads the two together.

    Raises:
        ForeignLog: It has.
    """
    alone = main.alone() if _has_log(main.path) else None
    if alone is not None and alone.logless:
        raise _foreign(main.path)


def check_log(connection: apsw.Connection, main: MainFile) -> None:
    """Make sure that the log of a device's file, which ``connection`` reads with it, is its own; nothing is written.

    Afterwards ``main`` knows what it has come to. Other programs may have the file open. Nothing is known of a log that an earlier
    version has left, nor where the main file cannot be read alone, as after a crash within a checkpoint.

    Raises:
        ForeignLog: It is not.
    """
    path = main.path
    before = main.alone()
    if before is None:
        return
    if not _has_log(path):  # whoever closed it last has synced it
        main.checkpointed = before.count
        return
    try:
        main.checkpointed, moves = cast("tuple[int, int]", connection.execute(_WHOLE).fetchone())
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError):
        raise _foreign(path) from None  # the file alone can be read
    except apsw.Error:
        return
    after = main.alone()  # others may have taken a checkpoint meanwhile
    if before.count > moves or (after is not None and main.is_before(after)):
        raise _foreign(path)
    main.look()


def _has_log(path: str) -> bool:
    try:
        return os.path.getsize(f"{path}-wal") > 0
    except OSError:
        return False


def _foreign(path: str) -> ForeignLog:
    return ForeignLog(
        f"{path}: the log beside it, {path}-wal, belongs to another state of the file: a copy was put in its place after its program "
        f"was killed. Nothing was changed. To continue with the file as it is, move {path}-wal away and remove {path}-shm; to "
        "continue with what the program had written, put the file that belongs to the log back"
    )
