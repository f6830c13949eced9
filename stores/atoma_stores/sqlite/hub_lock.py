"""One hub per file: an exclusive lock beside it, and in the lock file what the hub file has come to.

The operating system releases the lock when the process ends. What is written into it outlives a restore of the hub file,
which is how one is found out: the file then has fewer commits than stand beside it, or another epoch. It is written after
the commits that it reports, so a crash only makes it lag, which means nothing.
"""

from __future__ import annotations

import errno
import os
import sys
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from atoma.errors import DiskFull, StoreBusy, StoreError
from atoma_stores.sqlite.connections import OWNER_ONLY

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # flock belongs to the open file, not to the process: a second hub in this process is refused as well
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


SUFFIX = ".hub-lock"
_WORD = "atoma-hub"
_BYTES = 160


@dataclass(frozen=True, slots=True)
class Beside:
    """The files that stand beside a hub file.

    Attributes:
        epoch: Epoch of the file.
        commits: Commits that it had at least.
        checkpointed: Commits that the main file alone had at least, without its WAL.
    """

    epoch: bytes
    commits: int
    checkpointed: int


class LockFile:
    """The lock file of a hub file, held.

    Args:
        descriptor: The open file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> Beside | None:
        """What stands there; None when nothing does, or it is damaged."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        words = os.read(self._descriptor, _BYTES).decode("ascii", "replace").split()
        try:
            word, epoch, commits, checkpointed, check = words
            if word != _WORD or int(check) != _check(epoch, commits, checkpointed):
                return None
            return Beside(bytes.fromhex(epoch), int(commits), int(checkpointed))
        except ValueError:
            return None

    def forget(self) -> None:
        """Let nothing stand there, for good: whatever the hub file is by then, nothing is to be said of it.

        Raises:
            OSError: The disk refuses it.
        """
        os.ftruncate(self._descriptor, 0)
        os.fsync(self._descriptor)

    def write(self, beside: Beside) -> None:
        """Put ``beside`` there; it is not worth an fsync. A disk that refuses it only makes it lag."""
        words = (beside.epoch.hex(), str(beside.commits), str(beside.checkpointed))
        line = " ".join((_WORD, *words, str(_check(*words)))).ljust(_BYTES - 1) + "\n"
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, line.encode("ascii"))
        except OSError:
            return


def _check(*words: str) -> int:
    return zlib.crc32(" ".join(words).encode("ascii"))


@contextmanager
def sole_hub(path: str) -> Generator[LockFile]:
    """Hold the lock of the hub file ``path`` inside the block; the lock file stays.

    Raises:
        StoreBusy: Another hub holds it.
        StoreError: The lock file cannot be made.
    """
    lock_path = os.path.realpath(path) + SUFFIX
    try:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(lock_path, flags, OWNER_ONLY)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{path}: no space left for the lock file {lock_path}") from None
        raise StoreError(f"{path}: the lock file {lock_path} cannot be made: {error.strerror}") from None
    try:
        try:
            _lock(descriptor)
        except OSError:
            message = (
                f"{path}: another hub is running on this file; stop it first, or connect to it (lock: {lock_path})"
            )
            raise StoreBusy(message) from None
        yield LockFile(descriptor)
    finally:
        os.close(descriptor)  # releases the lock
