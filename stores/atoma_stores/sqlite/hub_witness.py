"""Whether a hub file is the one that ran last: its counter of commits against what stands beside it in the lock file.

Neither device nor inode numbers are used: a copy over the file keeps them, and containers change them without a restore.
Not found out this way are a loss shorter than the last second before the end of the backup, and file and lock file rolled
back together, as by a snapshot of the whole machine.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import logging
import os
import urllib.parse
from collections.abc import Collection, Generator
from contextlib import contextmanager

import apsw

from atoma.ports.environment import Environment
from atoma_stores.sqlite.ddl import check_layout, check_ours
from atoma_stores.sqlite.hub_lock import Beside, LockFile
from atoma_stores.sqlite.meta import read_meta

EVERY_S = 1.0
WRITE_VERSION, ROLLBACK = 18, b"\x01"
"""Where the header of an SQLite file says how it is written, and what stands there without a WAL."""
_log = logging.getLogger(__name__)


@contextmanager
def _main_alone(path: str, vfs: str | None) -> Generator[apsw.Connection]:
    """A connection that reads the main file alone, its WAL left out, and touches nothing."""
    uri = f"file:{urllib.parse.quote(os.path.realpath(path))}?immutable=1"
    connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs=vfs)
    try:
        yield connection
    finally:
        connection.close()


def commits_of_main(path: str, vfs: str | None) -> int | None:
    """Commits in the main file alone, its WAL left out; None when it is none of ours, or cannot be read alone."""
    try:
        with _main_alone(path, vfs) as connection:
            found: object = connection.execute("SELECT commits FROM _atoma_hub_info").get
            return found if isinstance(found, int) else None
    except apsw.Error:
        return None


def refuse_others(path: str, vfs: str | None) -> None:
    """Refuse a file that says by itself that it is none of a hub, before a lock is made beside it, which would stay.

    One that cannot be read without its WAL may be anybody's: opening it tells.

    Raises:
        StoreCorrupt: It is another application's, or a device's.
    """
    with contextlib.suppress(apsw.Error), _main_alone(path, vfs) as connection:
        check_ours(connection)
        if read_meta(connection, "layout") == "client":
            check_layout(connection, "hub")


def _has_no_log(path: str) -> bool:
    """Whether the main file says that it is in no need of a WAL: it is as ``VACUUM INTO`` has made it.

    A hub begins by changing that in the main file itself. So a WAL beside such a file is never its own, and it would ruin it:
    the pages of a copy that ``VACUUM`` has made lie elsewhere.
    """
    try:
        with open(os.path.realpath(path), "rb") as file:
            file.seek(WRITE_VERSION)
            return file.read(1) == ROLLBACK
    except OSError:
        return False


def sync_main(path: str, vfs: str | None) -> None:
    """Have the disk take the main file as it is.

    Raises:
        apsw.Error: It does not.
    """
    flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
    file = apsw.VFSFile(vfs or "", os.path.realpath(path), [flags, 0])
    try:
        file.xSync(apsw.SQLITE_SYNC_NORMAL)
    finally:
        file.xClose()


class HubWitness:
    """A witness that keeps the lock file near what the hub file has come to.

    Args:
        path: The hub file; no connection may be open on it yet.
        lock: Its lock file.
        vfs: Name of a registered VFS, None for the system's.
        environment: Clock.
    """

    def __init__(self, path: str, lock: LockFile, vfs: str | None, environment: Environment) -> None:
        self._path = path
        self._lock = lock
        self._vfs = vfs
        self._environment = environment
        self._beside = lock.read()
        self._checkpointed = 0 if self._beside is None else self._beside.checkpointed
        self._epoch = b""
        self._commits = 0
        self._written_s = -EVERY_S

    def set_foreign_log_aside(self) -> None:
        """Keep a WAL from being replayed over a main file that was put in the place of its own; it is kept, renamed."""
        main = commits_of_main(self._path, self._vfs)
        if main is None or (main >= self._checkpointed and not _has_no_log(self._path)):
            return
        mark = f".orphan-{self._environment.wall_ms()}"
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{os.path.realpath(self._path)}{suffix}", f"{os.path.realpath(self._path)}{suffix}{mark}")
        self._checkpointed = main

    def is_another(self, epoch: bytes, ended: Collection[bytes], commits: int) -> bool:
        """Whether the file that was opened, with its WAL, is older than the one that ran last, or another.

        One that has ended the epoch that stands beside it is newer: it began the next one and had no time to say so.
        """
        if self._beside is None:
            if commits:
                _log.warning("%s: nothing stands beside it; call new_epoch() if the file was restored", self._path)
            return False
        return commits < self._beside.commits or (epoch != self._beside.epoch and self._beside.epoch not in ended)

    def note(self, epoch: bytes, commits: int) -> None:
        """The file has come to ``commits``; written down at most once a second."""
        self._epoch, self._commits = epoch, commits
        now = self._environment.clock()
        if now - self._written_s >= EVERY_S:
            self._written_s = now
            self.write()

    def begin_anew(self, epoch: bytes, commits: int) -> None:
        """Write down that the file, which is closed, begins ``epoch`` with ``commits``, whatever stood beside it."""
        self._epoch, self._commits = epoch, commits
        self.close()

    def after_checkpoint(self, _connection: apsw.Connection) -> None:
        """:meth:`look`, as whoever takes checkpoints calls it."""
        self.look()

    def look(self) -> None:
        """See what the main file alone has by now; called after a checkpoint, in any thread.

        The system shows what a checkpoint is still writing, and a power cut takes that back. If more were written down
        than the disk has, the file's own log would be taken for another's; so what is seen is synced before it is believed.
        """
        seen = commits_of_main(self._path, self._vfs)
        if seen is None or seen <= self._checkpointed:
            return
        with contextlib.suppress(apsw.Error):
            sync_main(self._path, self._vfs)
            self._checkpointed = seen

    def write(self) -> None:
        """Write down what was noted and seen; nothing when nothing was noted."""
        if self._epoch:
            self._lock.write(Beside(self._epoch, self._commits, self._checkpointed))

    def close(self) -> None:
        """Write down what there is at the end; the file is closed."""
        self.look()
        self.write()
