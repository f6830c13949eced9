"""Whether a hub file is the one that ran last: its counter of commits against what stands beside it in the lock file.

Neither device nor inode numbers are used: a copy over the file keeps them, and containers change them without a restore.
Not found out this way are a loss shorter than the last second before the end of the backup, and file and lock file rolled
back together, as by a snapshot of the whole machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection

import apsw

from atoma.ports.environment import Environment
from atoma_stores.sqlite.ddl import check_layout, check_ours
from atoma_stores.sqlite.hub_lock import Beside, LockFile
from atoma_stores.sqlite.main_files import COMMITS_OF_HUB, MainFile, main_alone
from atoma_stores.sqlite.meta import read_meta

EVERY_S = 1.0
_log = logging.getLogger(__name__)


def refuse_others(path: str, vfs: str | None) -> None:
    """Refuse a file that says by itself that it is none of a hub, before a lock is made beside it, which would stay.

    One that cannot be read without its WAL may be anybody's: opening it tells.

    Raises:
        StoreCorrupt: It is another application's, or a device's.
    """
    with contextlib.suppress(apsw.Error), main_alone(path, vfs) as connection:
        check_ours(connection)
        if read_meta(connection, "layout") == "client":
            check_layout(connection, "hub")


class HubWitness:
    """A witness that keeps the lock file near what the hub file has come to.

    Args:
        path: The hub file; no connection may be open on it yet.
        lock: Its lock file.
        vfs: Name of a registered VFS, None for the system's.
        environment: Clock.

    Attributes:
        main: The main file alone.
    """

    def __init__(self, path: str, lock: LockFile, vfs: str | None, environment: Environment) -> None:
        self._path = path
        self._lock = lock
        self._environment = environment
        self._beside = lock.read()
        self.main = MainFile(
            path, COMMITS_OF_HUB, vfs, checkpointed=0 if self._beside is None else self._beside.checkpointed
        )
        self._epoch = b""
        self._commits = 0
        self._written_s = -EVERY_S

    def set_foreign_log_aside(self) -> None:
        """Keep a WAL from being replayed over a main file that was put in the place of its own; it is kept, renamed."""
        alone = self.main.alone()
        if alone is None or not self.main.is_before(alone):
            return
        mark = f".orphan-{self._environment.wall_ms()}"
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{os.path.realpath(self._path)}{suffix}", f"{os.path.realpath(self._path)}{suffix}{mark}")
        self.main.checkpointed = alone.count

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

    def write(self) -> None:
        """Write down what was noted and seen; nothing when nothing was noted."""
        if self._epoch:
            self._lock.write(Beside(self._epoch, self._commits, self.main.checkpointed))

    def close(self) -> None:
        """Write down what there is at the end; the file is closed."""
        self.main.look()
        self.write()
