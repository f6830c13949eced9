"""The writing side: many units, one transaction, one COMMIT."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import apsw

from atoma.errors import AtomaError, StoreError
from atoma_stores.sqlite._threads import Job
from atoma_stores.sqlite.codes import leaves_doubt, translate, translate_commit
from atoma_stores.sqlite.connections import BUSY_MS, MEMORY

Body: TypeAlias = Callable[[apsw.Connection], object]
I = TypeVar("I")  # noqa: E741

WAL_PAGES_MAX = 4_096
WAL_PAGES_FACTOR = 4
CATCH_UP_MS = 1_000
SYNCHRONOUS_NORMAL, SYNCHRONOUS_FULL = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Joint(Generic[I]):
    """A body that is run at once with its neighbours of the same kind.

    Attributes:
        together: Does what all of the items are about; gives an item's error in its place, None for one that went well.
        item: What this body is about, and its result.
    """

    together: Callable[[apsw.Connection, Sequence[I]], Sequence[BaseException | None]]
    item: I

    def __call__(self, connection: apsw.Connection) -> I:
        """Alone."""
        (error,) = self.together(connection, [self.item])
        if error is not None:
            raise error
        return self.item


class Writer:
    """The one connection that writes; used by one thread at a time.

    Attributes:
        connection: The connection.
        lock: Held while the connection is in use.
        poison: Set once a COMMIT left it open what the file holds; every later call raises it.
        wal_pages: Pages in the WAL after the last commit.
        commits: Transactions committed.
        units: Units committed in them.
        largest_group: Most units in one transaction.
        before_commit: Called with the connection before each COMMIT, to write what the units have left to be written once.
    """

    def __init__(self, connection: apsw.Connection, path: str) -> None:
        self.connection = connection
        self.path = path
        self.lock = threading.Lock()
        self.poison: str | None = None
        self.wal_pages = 0
        self.commits = 0
        self.units = 0
        self.largest_group = 0
        self.before_commit: Body | None = None
        self._synchronous = -1
        # before it was opened somebody may have been killed, or may be at work, who did not wait for the disk
        self._unsynced = path != MEMORY
        self._others: object = None
        self._catch_up_at = WAL_PAGES_MAX

    def run(self, jobs: Sequence[Job[Body]], *, may_wait: bool = True) -> None:
        """Commit ``jobs`` in as few transactions as possible; every job has a result afterwards.

        Args:
            jobs: The units.
            may_wait: Whether to wait for another process that holds the file.

        Raises:
            apsw.BusyError: Another process holds the file and ``may_wait`` is False; nothing was begun.
        """
        waiting = list(jobs)
        while waiting:
            waiting = self._run_group(waiting, may_wait)

    def wal_grew(self, pages: int) -> None:
        """Note how long the WAL is after a commit."""
        self.wal_pages = pages
        if pages < WAL_PAGES_MAX:
            self._catch_up_at = WAL_PAGES_MAX

    @property
    def is_behind(self) -> bool:
        """Whether the WAL grew past its bound: without a pause between commits no other thread reaches its end."""
        return self.wal_pages >= self._catch_up_at

    def catch_up(self) -> None:
        """Copy the small rest that the checkpoint thread left, so that the next commit begins the WAL anew.

        While that thread is at it this is left for after the next commit; a WAL of several times its bound is waited
        for, because nothing else slows down whoever writes faster than the disk copies.
        """
        if not self.is_behind:
            return
        insist = self.wal_pages >= WAL_PAGES_FACTOR * WAL_PAGES_MAX
        try:
            if insist:
                self.connection.set_busy_timeout(CATCH_UP_MS)
            mode = apsw.SQLITE_CHECKPOINT_FULL if insist else apsw.SQLITE_CHECKPOINT_PASSIVE
            self.connection.wal_checkpoint(mode=mode)
        except (apsw.BusyError, apsw.LockedError):
            if not insist:
                return
        except apsw.Error:
            pass
        finally:
            self.connection.set_busy_timeout(0)
        self._catch_up_at = self.wal_pages + WAL_PAGES_MAX // 4  # a long reader may hold it up: do not ask every time

    def is_synced(self) -> bool:
        """Whether the disk is known to have every commit; False while another thread is writing."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            return not self._unsynced and self._others == self._commits_of_others()
        except apsw.Error:
            return False
        finally:
            self.lock.release()

    def refuse_poisoned(self) -> None:
        """Raise the error of a COMMIT that left the connection in doubt, if there was one."""
        if self.poison is not None:
            raise StoreError(self.poison)

    def _run_group(self, units: list[Job[Body]], may_wait: bool) -> list[Job[Body]]:
        """One transaction; returns the units that were not begun because it was rolled back under them."""
        try:
            self.refuse_poisoned()
            self._begin(units[0].full if len(units) == 1 else any(unit.full for unit in units), may_wait)
        except (apsw.Error, AtomaError) as error:
            if isinstance(error, apsw.BusyError) and not may_wait:
                raise
            for unit in units:
                unit.fail(translate(error, self.path) if isinstance(error, apsw.Error) else _copy(error))
            return []
        parts = [units] if len(units) == 1 else list(_parts(units))
        if len(parts) == 1:
            done = self._run_single(parts[0])
            rest: list[Job[Body]] = []
        else:
            done, rest = self._run_many(parts)
        if done:
            self._commit(done)
        elif self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        return rest

    def _begin(self, full: bool, may_wait: bool) -> None:
        wanted = SYNCHRONOUS_FULL if full else SYNCHRONOUS_NORMAL
        if wanted != self._synchronous:
            self.connection.pragma("synchronous", wanted)
            self._synchronous = wanted
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            if not may_wait:
                raise
            self.connection.set_busy_timeout(BUSY_MS)
            try:
                self.connection.execute("BEGIN IMMEDIATE")
            finally:
                self.connection.set_busy_timeout(0)

    def _run_single(self, part: list[Job[Body]]) -> list[Job[Body]]:
        try:
            self._run_part(part)
        except BaseException as error:
            for unit in part:
                unit.fail(self._typed(error))
        return [unit for unit in part if unit.error is None]

    def _run_many(self, parts: list[list[Job[Body]]]) -> tuple[list[Job[Body]], list[Job[Body]]]:
        connection = self.connection
        done: list[Job[Body]] = []
        for position, part in enumerate(parts):
            try:
                connection.execute("SAVEPOINT unit")
                self._run_part(part)
                connection.execute("RELEASE unit")
            except BaseException as error:
                for unit in part:
                    unit.fail(self._typed(error))
                if connection.in_transaction:
                    connection.execute("ROLLBACK TO unit")
                    connection.execute("RELEASE unit")
                    continue
                # SQLite gave the whole transaction up (full disk, I/O error): the units before lost their work too
                for earlier in done:
                    earlier.fail(self._typed(error))
                return [], [unit for later in parts[position + 1 :] for unit in later]
            done += [unit for unit in part if unit.error is None]
        return done, []

    def _run_part(self, part: list[Job[Body]]) -> None:
        """Give every unit its result, or raise what is an error of all of them."""
        if len(part) == 1:
            part[0].succeed(part[0].body(self.connection))
            return
        joint = [unit.body for unit in part if isinstance(unit.body, Joint)]
        errors = joint[0].together(self.connection, [body.item for body in joint])
        for unit, body, error in zip(part, joint, errors, strict=True):
            if error is None:
                unit.succeed(body.item)
            else:
                unit.fail(error)

    def _commit(self, done: list[Job[Body]]) -> None:
        full = self._synchronous == SYNCHRONOUS_FULL
        if not self._complete(done):
            return
        try:
            others = self._commits_of_others() if full else self._others
            if full and (self._unsynced or others != self._others):
                self._touch()
            self._unsynced = self._unsynced or not full  # from the COMMIT on everybody may see it
            self.connection.execute("COMMIT")
        except apsw.Error as error:
            if leaves_doubt(error):
                self.poison = str(translate_commit(error, self.path))
            for unit in done:
                unit.fail(translate_commit(error, self.path))
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            return
        if full:
            self._unsynced, self._others = False, others
        self.commits += 1
        self.units += len(done)
        self.largest_group = max(self.largest_group, len(done))

    def _complete(self, done: list[Job[Body]]) -> bool:
        """Write what the units have left to be written once; where that fails, none of them is committed."""
        if self.before_commit is None:
            return True
        try:
            self.before_commit(self.connection)
        except apsw.Error as error:
            for unit in done:
                unit.fail(translate(error, self.path))
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            return False
        return True

    def _commits_of_others(self) -> object:
        """A number that is another one once another connection has committed."""
        return self.connection.pragma("data_version")

    def _touch(self) -> None:
        """Write the first page as it is: SQLite syncs nothing at a COMMIT that writes nothing.

        A unit that finds everything as it should be promises what an earlier one wrote, which may not be on the disk.
        """
        version: object = self.connection.pragma("user_version")
        assert isinstance(version, int)
        self.connection.pragma("user_version", version)

    def _typed(self, error: BaseException) -> BaseException:
        return translate(error, self.path) if isinstance(error, apsw.Error) else error


def _parts(units: list[Job[Body]]) -> Iterator[list[Job[Body]]]:
    """``units`` in order: neighbours that are run at once, all others alone."""
    part: list[Job[Body]] = []
    for unit in units:
        if part and not _goes_with(part[-1].body, unit.body):
            yield part
            part = []
        part.append(unit)
    yield part


def _goes_with(body: Body, following: Body) -> bool:
    return isinstance(body, Joint) and isinstance(following, Joint) and body.together == following.together


def _copy(error: AtomaError) -> AtomaError:
    # one instance per waiting task, or their tracebacks would grow into one another
    return StoreError(str(error))


class WriterThread:
    """The writer as its thread runs it.

    Args:
        writer: Shared with the loop, which may commit on its own while the thread is idle.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def run(self, jobs: Sequence[Job[Body]]) -> None:
        """Commit ``jobs``."""
        with self._writer.lock:
            self._writer.run(jobs)

    def tidy(self) -> None:
        """Shorten a WAL that has grown past its bound, before anything else is committed in this thread."""
        if self._writer.is_behind:
            with self._writer.lock:
                self._writer.catch_up()

    def close(self) -> None:
        """Nothing: the database closes the connection, after the readers'."""
