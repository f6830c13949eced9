"""A SQLite file opened for one Trio program: group commit, snapshot reads, checkpoints, orderly closing.

Two topologies. ``file``: WAL, a writer thread, a reader on the loop's thread, a small pool of reader threads, a
checkpoint thread. ``inline``: one connection and no thread, for ``:memory:`` and under virtual time.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, TypeVar, cast

import apsw
import trio

from atoma.contracts.execution import Durability
from atoma.errors import ClosedError, DiskFull, Overloaded, StoreBusy
from atoma.ports.environment import Environment
from atoma_stores.sqlite._readers import CHECKPOINT_PAGES, Checkpointer, OnCheckpoint, PoolReader, snapshot
from atoma_stores.sqlite._snapshots import HeldSnapshot, SnapshotReader
from atoma_stores.sqlite._statistics import DatabaseStatistics
from atoma_stores.sqlite._threads import INTERRUPTED_S, Job, JobQueue, Worker, uses_threads, wait_for, wait_or_interrupt
from atoma_stores.sqlite._writer import Body, Writer, WriterThread
from atoma_stores.sqlite.codes import translate
from atoma_stores.sqlite.connections import BUSY_MS, MEMORY, Prepare, make_private, open_connection, use_wal
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.paths import PROGRESS_STEPS, Paths, current_paths

T = TypeVar("T")
Topology: TypeAlias = Literal["file", "inline"]

GROUP_MAX = 256
WAITING_MAX = 100_000
READERS_MAX = 4
STUCK_TIMES = 2
"""A read that has not ended in so many times the time that it had is stuck."""
LOOP_BUSY_MS = 20
CHECKPOINT_EVERY_CALLS = 32
CLOSING_S = 30.0
OPENING_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class _Settings:
    durability: Durability
    connect: Callable[..., apsw.Connection]
    inline: bool
    threads: bool
    paths: Paths
    on_checkpoint: OnCheckpoint


class Database:
    """An open file; made by :func:`open_database`.

    Attributes:
        path: The file, or ``":memory:"``.
        topology: ``file`` or ``inline``.
        environment: Clock, ids, executor.
    """

    def __init__(self, path: str, environment: Environment, settings: _Settings) -> None:
        self.path = path
        self.environment = environment
        self.topology: Topology = "inline" if settings.inline else "file"
        self._settings = settings
        paths = settings.paths
        self._reads_here = paths.reads_on_loop(scan=False)
        self._patience_s = paths.patience_s
        self._short_writes_here = paths.writes_on_loop(full=False, bulk=False)
        self._writes_here = paths.writes_on_loop(full=True, bulk=True)
        self._closed = False
        self._waiting = 0
        self._calls = 0
        self._inline_commits = 0
        self._catching_up = False
        self._moved_reads = 0
        self._read_deadline = 0.0
        self._write_queue: JobQueue[Body] = JobQueue()
        self._read_queue: JobQueue[Body] = JobQueue()
        self._readers: list[Worker[Body]] = []
        self._reading = 0
        self._pool: list[PoolReader] = []
        self._idle: list[SnapshotReader] = []
        self._places = trio.Semaphore(READERS_MAX - 1)
        self._time = trio.lowlevel.current_clock().current_time
        self._checkpointer: Checkpointer | None = None
        self._writer = Writer(self._open_writer(), path)
        self._reader = self._writer.connection
        self._writer.connection.set_wal_hook(self._wal_grew)
        if self.topology == "file":
            try:
                self._reader = self._open_loop_reader()
            except BaseException:
                self._writer.connection.close()
                raise
            threads = settings.threads
            self._checkpointer = Checkpointer(
                lambda: self._open(read_only=False, busy_ms=0), settings.on_checkpoint, thread=threads
            )
            self._write_thread = Worker(
                "atoma-writer",
                self._write_queue,
                lambda: WriterThread(self._writer),
                jobs_max=GROUP_MAX,
                thread=threads,
            )

    # what users of a database call

    async def transact(
        self,
        body: Callable[[apsw.Connection], T],
        *,
        durability: Durability | None = None,
        on_commit: Callable[[T], None] | None = None,
        bulk: bool = False,
    ) -> T:
        """Run ``body`` in a write transaction and return what it returns, once it is committed.

        Units of concurrent callers share a transaction, each in a savepoint of its own: a body that raises undoes its
        own work only. ``body`` is synchronous, may run in another thread, and does not begin or end transactions.

        Args:
            body: Gets the writing connection.
            durability: ``full`` is on the disk before this returns; None takes the database's default.
            on_commit: Called with the result on the loop's thread after COMMIT, in commit order, also when the caller
                was cancelled meanwhile.
            bulk: The body takes long: never run it on the loop's thread.

        Raises:
            StoreError: The engine failed and nothing of the unit was written (:class:`DiskFull`,
                :class:`StoreBusy`, :class:`StoreCorrupt`, :class:`ClosedError`).
            Overloaded: Too many writes wait.

        Cancellation is noticed before BEGIN; a caller cancelled later gets the result, and Trio raises at its next
        checkpoint.
        """
        self._check_open()
        full = (durability or self._settings.durability) == "full"
        job: Job[Body] = Job(body, full=full, on_done=cast("Callable[[object], None] | None", on_commit))
        if self.topology == "inline":
            await trio.lowlevel.checkpoint()
            self._check_open()
            self._writer.run([job])
            return cast("T", self._finish(job))
        await self._breathe()
        on_loop = self._writes_here if full or bulk else self._short_writes_here
        if on_loop and not self._waiting and self._commit_on_loop(job):
            return cast("T", self._finish(job))
        if self._waiting >= WAITING_MAX:
            raise Overloaded("the write queue", WAITING_MAX)
        self._waiting += 1
        try:
            return cast("T", await wait_for(job, self._write_queue))
        finally:
            self._waiting -= 1
            self._catching_up = False  # the queue is in order: what was asked for before this job is done

    def before_commit(self, body: Body, undone: Callable[[], None]) -> None:
        """Have ``body`` write, at the end of each transaction, what its units have left to be written once.

        Args:
            body: Writes it.
            undone: Called when a transaction is rolled back, with all that its units have left; by SQLite, within the rollback.
        """
        self._writer.before_commit = body
        self._writer.connection.set_rollback_hook(undone)

    async def flush(self) -> None:
        """Return once the disk has everything that is committed now; at once when it has.

        Raises:
            StoreError: The engine failed; what is committed stays so.

        Cancellation is noticed before anything is begun, and after it has ended.
        """
        self._check_open()
        if self.path == MEMORY or self._writer.is_synced():
            await trio.lowlevel.checkpoint()
        else:
            await self.transact(_nothing, durability="full", bulk=True)

    async def read(self, body: Callable[[apsw.Connection], T], *, one_snapshot: bool = False) -> T:
        """Run ``body``, which only reads, in one read transaction: everything it reads is one snapshot.

        A body of one statement is one snapshot by itself, and so are more where one begins first and ends last;
        ``one_snapshot`` says so and saves BEGIN and END.

        It runs on the loop's thread as long as SQLite answers within half a millisecond; what takes longer is run
        again from the beginning in the reader pool.

        A caller that is cancelled, or whose time is over, has the running statement interrupted: when this raises
        ``Cancelled`` the connection is idle. Where there is one connection and no thread (``inline``) nothing can
        cancel a statement while it runs; a deadline of the caller's ends it all the same.

        Raises:
            QueryError: SQLite does not understand the statement.
            StoreError: The engine failed.
        """
        await self._ready_to_read()
        if self.topology == "inline":
            return await self._read_inline(body, one_snapshot)
        found = self._read_on_loop(body, one_snapshot)
        return cast("T", await self._in_pool(Job(body))) if found is None else found[0]

    async def read_at_once(self, body: Callable[[apsw.Connection], T], *, one_snapshot: bool = False) -> T | None:
        """:meth:`read` as far as it goes on the loop's thread; None when that takes more than half a millisecond."""
        await self._ready_to_read()
        if self.topology == "inline":
            return await self._read_inline(body, one_snapshot)
        found = self._read_on_loop(body, one_snapshot)
        return None if found is None else found[0]

    async def read_within(
        self, body: Callable[[apsw.Connection], T], seconds: float, spent: Callable[[float], None]
    ) -> T:
        """:meth:`read_in_pool` for somebody who may ask for too much.

        It ends when its time is over, whatever the loop is doing, never takes the last thread of the pool, and is refused
        while half of the pool is stuck: in reads that did not end in twice the time that they had.

        Args:
            body: Only reads.
            seconds: How long it may run; the caller's deadline may end it earlier.
            spent: Gets the seconds that it took, also when it fails.

        Raises:
            Overloaded: Half of the pool is stuck.
            QueryError: SQLite does not understand the statement, or its time is over.
            StoreError: The engine failed.
        """
        if self.topology == "inline" or self._settings.paths.reads_on_loop(scan=True):
            await self._ready_to_read()
            began = self._time()
            try:
                return await self._read_inline(body, until=began + seconds)
            finally:
                spent(self._time() - began)
        async with self._places:
            if 2 * self._stuck >= READERS_MAX:
                raise Overloaded("the reader pool, in which reads do not end,", READERS_MAX)
            began = self._time()
            deadline = min(began + seconds, trio.current_effective_deadline())
            job: Job[Body] = Job(body, deadline=deadline, overdue_at=began + STUCK_TIMES * seconds)
            try:
                return cast("T", await self._in_pool(job))
            finally:
                spent(job.seconds if job.done else self._time() - began if job.taken else 0.0)

    def peek(self, body: Callable[[apsw.Connection], T]) -> T | None:
        """What ``body``, one short statement that reads, says of the file as the callers of :meth:`transact` know it.

        None while one of them waits for a commit, or when it takes long.

        Raises:
            StoreError: The engine failed.
        """
        if self._closed or self._waiting:
            return None
        self._writer.refuse_poisoned()
        self._read_deadline = 0.0
        try:
            return body(self._reader)
        except (apsw.InterruptError, apsw.BusyError):
            return None
        except apsw.Error as error:
            raise translate(error, self.path) from error

    async def read_in_pool(self, body: Callable[[apsw.Connection], T]) -> T:
        """:meth:`read` on a reader thread from the start: for scans and users' SQL."""
        self._check_open()
        self._writer.refuse_poisoned()
        if self.topology == "inline":
            await trio.lowlevel.checkpoint()
            self._check_open()
            return await self._read_inline(body)
        if self._settings.paths.reads_on_loop(scan=True):
            return await self.read(body)
        return cast("T", await self._in_pool(Job(body)))

    @contextlib.asynccontextmanager
    async def open_snapshot(self) -> AsyncGenerator[HeldSnapshot]:
        """Hold the file as it is for as long as the block runs, however many reads that takes.

        Where there is one connection (``inline``) every read is one transaction of its own: what is read in two of them is
        one state only if nobody wrote in between, which the reader has to look after.

        Raises:
            StoreError: The engine failed.
        """
        await self._ready_to_read()
        if self.topology == "inline":
            yield _Inline(self)
            return
        reader = self._idle.pop() if self._idle else self._open_snapshot_reader()
        try:
            reader.begin()
            yield reader
        finally:
            reader.end()
            self._idle.append(reader)

    async def _in_pool(self, job: Job[Body]) -> object:
        self._check_open()
        self._writer.refuse_poisoned()
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._reading >= WAITING_MAX:
            raise Overloaded("the read queue", WAITING_MAX)
        self._reading += 1
        threads = self._settings.threads
        most = READERS_MAX if threads else 1
        if self._reading + self._stuck > len(self._readers) and len(self._readers) < most:
            self._readers.append(Worker("atoma-reader", self._read_queue, self._open_pool_reader, thread=threads))
        try:
            return await wait_or_interrupt(job, self._read_queue)
        finally:
            self._reading -= 1

    @property
    def is_shared(self) -> bool:
        """Whether other programs can write to it while this one waits: not in memory, nor while virtual time jumps."""
        return self.path != MEMORY and self._settings.threads

    @property
    def closed(self) -> bool:
        """Whether calls are refused from now on."""
        return self._closed

    @property
    def statistics(self) -> DatabaseStatistics:
        """Counters since the database was opened."""
        writer = self._writer
        return DatabaseStatistics(
            commits=writer.commits,
            units=writer.units,
            largest_group=writer.largest_group,
            inline_commits=self._inline_commits,
            moved_reads=self._moved_reads,
            checkpoints=self._checkpointer.taken if self._checkpointer else 0,
            reading=sum(reader.is_busy for reader in self._pool),
            stuck=self._stuck,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.path}: the database is closed")

    async def _ready_to_read(self) -> None:
        self._check_open()
        await self._breathe()
        self._check_open()
        if self._writer.poison is not None:
            self._writer.refuse_poisoned()

    def _read_on_loop(self, body: Callable[[apsw.Connection], T], one_snapshot: bool) -> tuple[T] | None:
        """What ``body`` returns, None when it has to be asked in the pool."""
        if not self._reads_here:
            return None
        self._read_deadline = 0.0
        try:
            return (body(self._reader) if one_snapshot else snapshot(self._reader, body),)
        except (apsw.InterruptError, apsw.BusyError):
            self._moved_reads += 1
            return None
        except apsw.Error as error:
            raise translate(error, self.path) from error

    @property
    def _stuck(self) -> int:
        return sum(reader.is_stuck for reader in self._pool)

    async def _breathe(self) -> None:
        """A full checkpoint now and then: a tight loop of fast calls must not starve the other tasks."""
        self._calls += 1
        if self._calls % CHECKPOINT_EVERY_CALLS:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    def _commit_on_loop(self, job: Job[Body]) -> bool:
        """Commit on this thread if nobody is in the way; False when a thread has to do it."""
        writer = self._writer
        if self._catching_up or not writer.lock.acquire(blocking=False):
            return False
        try:
            writer.run([job], may_wait=False)
        except apsw.BusyError:
            return False
        finally:
            writer.lock.release()
        self._inline_commits += 1
        if writer.is_behind:
            self._catching_up = True  # and no more commits here until the thread has done it
            self._write_queue.put(Job(_nothing))
        return True

    def _finish(self, job: Job[Body]) -> object:
        value = job.unwrap()
        if job.on_done is not None:
            job.on_done(value)
        return value

    async def read_now(self, body: Callable[[apsw.Connection], T]) -> T:
        """:meth:`read` of an inline database, at which nobody else gets his turn."""
        self._check_open()
        self._writer.refuse_poisoned()
        return await self._read_inline(body)

    async def _read_inline(
        self, body: Callable[[apsw.Connection], T], one_snapshot: bool = False, until: float = math.inf
    ) -> T:
        """Read on the only connection; while it does so nothing else runs, so only a deadline can end it early."""
        connection, deadline = self._reader, min(until, trio.current_effective_deadline())
        if deadline != math.inf:
            connection.set_progress_handler(lambda: trio.current_time() > deadline, PROGRESS_STEPS)
        try:
            return body(connection) if one_snapshot else snapshot(connection, body)
        except apsw.InterruptError as error:
            await trio.lowlevel.checkpoint()  # the caller's time is over: this is where it is told
            raise translate(error, self.path) from error
        except apsw.Error as error:
            raise translate(error, self.path) from error
        finally:
            if deadline != math.inf:
                connection.set_progress_handler(None)

    def _open(self, *, read_only: bool, busy_ms: int) -> apsw.Connection:
        return self._settings.connect(read_only=read_only, busy_ms=busy_ms)

    def _open_writer(self) -> apsw.Connection:
        connection = self._open(read_only=False, busy_ms=LOOP_BUSY_MS)
        try:
            if self.path != MEMORY:
                use_wal(connection)
            connection.set_busy_timeout(0)  # who waits is decided per transaction
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_loop_reader(self) -> apsw.Connection:
        connection = self._open(read_only=True, busy_ms=LOOP_BUSY_MS)
        connection.set_progress_handler(self._reading_too_long, self._settings.paths.steps)
        return connection

    def _reading_too_long(self) -> bool:
        now = self.environment.clock()
        if not self._read_deadline:  # most reads end before they are asked even once
            self._read_deadline = now + self._patience_s
        return now > self._read_deadline

    def _open_snapshot_reader(self) -> SnapshotReader:
        settings = self._settings
        try:
            connection = self._open(read_only=True, busy_ms=LOOP_BUSY_MS)
        except apsw.Error as error:
            raise translate(error, self.path) from error
        return SnapshotReader(connection, self.path, settings.paths, self.environment.clock, thread=settings.threads)

    def _open_pool_reader(self) -> PoolReader:
        try:
            connection = self._open(read_only=True, busy_ms=BUSY_MS)
        except apsw.Error as error:
            raise translate(error, self.path) from error
        return PoolReader(connection, self.path, self._pool, self._time)

    def _wal_grew(self, connection: apsw.Connection, _name: str, pages: int) -> int:
        self._writer.wal_grew(pages)
        if self._checkpointer is not None:
            self._checkpointer.wal_grew(pages)
        elif pages >= CHECKPOINT_PAGES:
            with contextlib.suppress(apsw.Error):  # the commit is done; the next one tries again
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                self._settings.on_checkpoint(connection)
        return apsw.SQLITE_OK

    async def close(self) -> None:
        """Refuse new calls, finish what is queued, checkpoint, end every thread; see :func:`open_database`."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING_S + 2 * INTERRUPTED_S):
            if self.topology == "file":
                await self._stop_threads()
                self._reader.close()
            else:
                await trio.lowlevel.checkpoint()
            self._close_writer()

    async def _stop_threads(self) -> None:
        threads = [self._write_thread, *self._readers]
        self._write_queue.stop()
        for _ in self._readers:
            self._read_queue.stop()
        with trio.move_on_after(CLOSING_S) as patience:
            for thread in threads:
                await thread.join()
        if patience.cancelled_caught:
            self._writer.connection.interrupt()
            for reader in self._pool:
                reader.interrupt()
            with trio.move_on_after(INTERRUPTED_S) as patience:
                for thread in threads:
                    await thread.join()
        if self._checkpointer is not None:
            await self._checkpointer.stop()
        while self._idle:
            await self._idle.pop().stop()
        if patience.cancelled_caught:
            raise StoreBusy(f"{self.path}: work in a thread does not end; the file stays open until it does")

    def _close_writer(self) -> None:
        connection = self._writer.connection
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a disk that fails now would fail then
        if self._writer.poison is None and self.path != MEMORY:
            with contextlib.suppress(apsw.Error):  # another process may be reading: its last one will do it
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        connection.close()


class _Inline:
    """The only connection of a file, for somebody who reads several times."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, body: Callable[[apsw.Connection], T]) -> T:
        """See :class:`HeldSnapshot`."""
        return await self._database.read_now(body)


def _nothing(_connection: apsw.Connection) -> None:
    pass


@contextlib.asynccontextmanager
async def open_database(
    path: str,
    *,
    environment: Environment,
    durability: Durability = "full",
    prepare: Prepare | None = None,
    vfs: str | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    key: FileKey | None = None,
) -> AsyncGenerator[Database]:
    """Open (or create) a file; leaving the block finishes what runs and leaves no thread, lock or connection.

    Args:
        path: The file, or ``":memory:"``.
        environment: Its executor decides the topology; virtual time always means ``inline``.
        durability: Of transactions that do not name their own.
        prepare: Run on every connection before it is used (functions, hooks), in the thread that opens it.
        vfs: Name of a registered VFS, None for the system's.
        on_checkpoint: Called after each checkpoint while the file is open, in the thread that took it, with its connection.
        key: What the file is encrypted with, None for nothing.

    Raises:
        WrongKey: The file has another key, or none, or one that was not given.
        StoreCorrupt: The file is not a database.
        StoreBusy: Another process holds it.
        StoreError: It cannot be opened.

    Cancelling the block does not cut the closing short: queued work is finished (at most half a minute).
    """
    forced = current_paths()
    threads = uses_threads(environment)
    inline = path == MEMORY or (not threads and forced is None)
    connect = partial(open_connection, path, vfs=vfs, prepare=prepare, key=key)
    settings = _Settings(durability, connect, inline, threads, forced or Paths(), on_checkpoint or _nothing)
    if path != MEMORY and vfs is None:
        try:
            make_private(path)
        except OSError as error:
            raise DiskFull(f"{path}: no space left to make the file ({error.strerror})") from None
    deadline = environment.clock() + BUSY_MS / 1000
    database = None
    while database is None:
        try:
            database = Database(path, environment, settings)
        except apsw.BusyError as error:
            if environment.clock() >= deadline:
                raise translate(error, path) from error
            await trio.sleep(OPENING_RETRY_S)
        except apsw.Error as error:
            raise translate(error, path) from error
    try:
        yield database
    finally:
        await database.close()
