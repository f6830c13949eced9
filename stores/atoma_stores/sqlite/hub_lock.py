"""One hub per file: an exclusive lock beside it, which the operating system releases when the process ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

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


@contextmanager
def sole_hub(path: str) -> Generator[None]:
    """Hold the lock of the hub file ``path`` inside the block; the empty lock file stays, which is harmless.

    Raises:
        StoreBusy: Another hub holds it.
        StoreError: The lock file cannot be made.
    """
    lock_path = os.path.realpath(path) + SUFFIX
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), OWNER_ONLY)
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
        yield
    finally:
        os.close(descriptor)  # releases the lock
