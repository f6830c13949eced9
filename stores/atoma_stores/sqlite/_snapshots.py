"""Read transactions that stay open over several reads: everything that is read in one is one state of the file."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

import apsw

from atoma_stores.sqlite._readers import end_snapshot, settle
from atoma_stores.sqlite._threads import Job, JobQueue, Worker, wait_or_interrupt
from atoma_stores.sqlite._writer import Body
from atoma_stores.sqlite.codes import translate
from atoma_stores.sqlite.paths import Paths

T = TypeVar("T")


class HeldSnapshot(Protocol):
    """A state of the file that is held, or meant to be."""

    async def read(self, body: Callable[[apsw.Connection], T]) -> T:
        """Run ``body``, which only reads, in that state.

        It may be run again from the beginning when it takes long.

        Raises:
            QueryError: SQLite does not understand a statement.
            StoreError: The engine failed.
        """
        ...


class SnapshotReader:
    """A connection of its own that holds one read transaction at a time.

    What SQLite answers quickly is read on the loop's thread, the rest in a thread that is started when it is needed first.

    Args:
        connection: Its own from now on.
        path: For messages.
        paths: Where reads run.
        clock: Seconds.
        thread: See :class:`Worker`.
    """

    def __init__(
        self, connection: apsw.Connection, path: str, paths: Paths, clock: Callable[[], float], *, thread: bool
    ) -> None:
        self._connection = connection
        self._path = path
        self._paths = paths
        self._clock = clock
        self._thread = thread
        self._queue: JobQueue[Body] = JobQueue()
        self._worker: Worker[Body] | None = None
        self._on_loop = False
        self._deadline = 0.0
        connection.set_progress_handler(self._too_long, paths.steps)

    def begin(self) -> None:
        """Begin to hold the file as it is; the first statement decides which state that is."""
        try:
            self._connection.execute("BEGIN")
        except apsw.Error as error:
            raise translate(error, self._path) from error

    def end(self) -> None:
        """Let go of it."""
        end_snapshot(self._connection)

    async def read(self, body: Callable[[apsw.Connection], T]) -> T:
        """See :class:`HeldSnapshot`."""
        if self._paths.reads_on_loop(scan=False):
            self._on_loop, self._deadline = True, 0.0
            try:
                return body(self._connection)
            except apsw.InterruptError:
                pass  # it takes long: again, where it keeps nobody
            except apsw.Error as error:
                raise translate(error, self._path) from error
            finally:
                self._on_loop = False
        if self._worker is None:
            self._worker = Worker("atoma-snapshot", self._queue, lambda: self, thread=self._thread)
        job: Job[Body] = Job(body)
        return cast("T", await wait_or_interrupt(job, self._queue))

    def _too_long(self) -> bool:
        if not self._on_loop:
            return False
        now = self._clock()
        if not self._deadline:
            self._deadline = now + self._paths.patience_s
        return now > self._deadline

    # in its thread

    def run(self, jobs: Sequence[Job[Body]]) -> None:
        """Run the reads; see ``JobRunner.run``."""
        for job in jobs:
            job.interrupt = lambda _: self._connection.interrupt()
            settle(job, lambda each: each.body(self._connection), self._path)

    def tidy(self) -> None:
        """Nothing is left to do after a read."""

    def close(self) -> None:
        """Nothing is to be let go of by the thread."""

    async def stop(self) -> None:
        """End the thread and close the connection."""
        if self._worker is not None:
            self._queue.stop()
            await self._worker.join()
        self._connection.close()
