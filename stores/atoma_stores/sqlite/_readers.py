"""The reading side, and the checkpoints that keep the WAL short."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import apsw

from atoma_stores.sqlite._threads import Job, JobQueue, Worker
from atoma_stores.sqlite._writer import Body
from atoma_stores.sqlite.codes import translate
from atoma_stores.sqlite.paths import PROGRESS_STEPS

T = TypeVar("T")
Open = Callable[[], apsw.Connection]
OnCheckpoint = Callable[[apsw.Connection], None]

CHECKPOINT_PAGES = 1_000


def snapshot(connection: apsw.Connection, body: Callable[[apsw.Connection], T]) -> T:
    """Run ``body`` in one read transaction."""
    try:
        connection.execute("BEGIN")  # what stops it may come when it has begun already
        return body(connection)
    finally:
        end_snapshot(connection)


def end_snapshot(connection: apsw.Connection) -> None:
    """End the read transaction, if there is one.

    Whatever stops statements that take too long counts steps over all of them, so it may also hit the three steps of
    this one; it has to count anew before it can hit the next.
    """
    while connection.in_transaction:
        with contextlib.suppress(apsw.InterruptError):
            connection.execute("ROLLBACK")


def settle(job: Job[Body], run: Callable[[Job[Body]], object], path: str) -> None:
    """Give ``job`` what ``run`` makes of it, be it an error; SQLite's become ours, with ``path`` in the message."""
    try:
        job.succeed(run(job))
    except apsw.Error as error:
        failure = translate(error, path)
        failure.__cause__ = error
        job.fail(failure)
    except BaseException as error:
        job.fail(error)


class PoolReader:
    """A reader with a connection of its own, in a thread of its own.

    Args:
        connection: Its own from now on.
        path: For messages.
        readers: Where it is listed while it is open.
        clock: Trio's time, in any thread.
    """

    def __init__(
        self, connection: apsw.Connection, path: str, readers: list[PoolReader], clock: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._path = path
        self._readers = readers
        self._clock = clock
        self._deadline = math.inf
        self._lock = threading.Lock()
        self._running: Job[Body] | None = None
        connection.set_progress_handler(self._late, PROGRESS_STEPS)
        readers.append(self)

    @property
    def is_busy(self) -> bool:
        """Whether a read is running."""
        return self._running is not None

    @property
    def is_stuck(self) -> bool:
        """Whether a read is running that should have been stopped long ago, and was not."""
        running = self._running
        return running is not None and running.overdue_at < self._clock()

    def _late(self) -> bool:
        """Asked by SQLite while it works: the loop, which stops reads whose callers have gone, may be busy itself."""
        return self._deadline < math.inf and self._deadline < self._clock()

    def run(self, jobs: Sequence[Job[Body]]) -> None:
        """Run the reads, each in a snapshot of its own."""
        for job in jobs:
            began = self._clock()
            settle(job, self._run_one, self._path)
            job.seconds = self._clock() - began

    def interrupt(self, job: Job[Body] | None = None) -> None:
        """Stop the statement that ``job`` (None: whichever there is) is running, if it is; called in any thread."""
        with self._lock:
            if self._running is not None and job in (self._running, None):
                self._connection.interrupt()

    def _run_one(self, job: Job[Body]) -> object:
        def body(connection: apsw.Connection) -> object:
            try:
                self._running, self._deadline, job.interrupt = job, job.deadline, self.interrupt
                return job.body(connection)
            finally:
                with self._lock:  # from here on an interrupt would hit the end of the transaction, or the next read
                    self._running, self._deadline = None, math.inf

        return snapshot(self._connection, body)

    def tidy(self) -> None:
        """Nothing is left to do after a read."""

    def close(self) -> None:
        """Close the connection."""
        self._readers.remove(self)
        self._connection.close()


class Checkpointer:
    """A thread that copies the WAL back into the file, so that no commit ever waits for it.

    Args:
        open_connection: Opens its connection, in the thread.
        on_checkpoint: Called in the thread after each, with its connection.
        thread: See :class:`Worker`.

    Attributes:
        taken: Checkpoints taken.
    """

    def __init__(self, open_connection: Open, on_checkpoint: OnCheckpoint, *, thread: bool) -> None:
        self.taken = 0
        self._open = open_connection
        self._on_checkpoint = on_checkpoint
        self._queue: JobQueue[None] = JobQueue()
        self._worker = Worker("atoma-checkpoint", self._queue, lambda: self, thread=thread)
        self._connection: apsw.Connection | None = None
        self._busy = False
        self._next = CHECKPOINT_PAGES

    def wal_grew(self, pages: int) -> None:
        """Note how long the WAL is after a commit; called in the writer's thread."""
        if pages < CHECKPOINT_PAGES:
            self._next = CHECKPOINT_PAGES
        elif pages >= self._next and not self._busy:
            self._busy = True
            self._next = pages + CHECKPOINT_PAGES
            self._queue.put(Job(None))

    def run(self, jobs: Sequence[Job[None]]) -> None:
        """Take one checkpoint as far as it goes without making anybody wait."""
        try:
            if self._connection is None:
                self._connection = self._open()
            with contextlib.suppress(apsw.BusyError, apsw.LockedError):
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                self.taken += 1
                self._on_checkpoint(self._connection)
        finally:
            self._busy = False
        for job in jobs:
            job.succeed(None)

    def tidy(self) -> None:
        """Nothing is left to do after a checkpoint."""

    def close(self) -> None:
        """Close the connection; called in the thread."""
        if self._connection is not None:
            self._connection.close()

    async def stop(self) -> None:
        """End the thread."""
        self._queue.stop()
        await self._worker.join()
