"""The local database as the rest of Atoma sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar, runtime_checkable

from atoma.contracts.execution import Durability, QueryResult, WriteResult
from atoma.contracts.explanation import Access
from atoma.contracts.mutations import Effect
from atoma.contracts.query import BoundQuery
from atoma.contracts.raw import SqlAnswer, SqlOutline, SqlQuery
from atoma.contracts.replica import ReplicaDelta
from atoma.errors import StoreError
from atoma.ports.environment import Environment
from atoma.ports.execution import AtomicWriter
from atoma.ports.local import LocalTx
from atoma.schema.schema import Schema

T = TypeVar("T")


@runtime_checkable
class LocalDatabase(AtomicWriter, Protocol):
    """An open local database."""

    async def read(self, query: BoundQuery) -> QueryResult:
        """Answer ``query`` from the visible rows; ``meta.commit`` is the commit the answer is at.

        A query with a limit is answered with that many rows at most, and with ``meta.cursor`` when there are more.

        Raises:
            QueryError: It does not fit the schema.
            UnknownStore: It reads a store that is not declared.
            StoreError: The engine failed.
        """
        ...

    async def recall(self, idem: str) -> WriteResult | None:
        """What became here of the unit with the key ``idem``, with receipts that follow it on, as ``commit`` gives them.

        It is known of the last units that put something into the outbox, at least a thousand of them, over restarts.
        Items have no rows; their ids are ``""`` where a version that did not keep them wrote the unit.

        Returns:
            None when this file does not know the key.

        Raises:
            StoreError: The engine failed.
        """
        ...

    async def apply(
        self, body: Callable[[LocalTx], T], *, durability: Durability | None = None, short: bool = False
    ) -> T:
        """Run ``body`` in one write transaction of its own, on the engine's executor, and return what it returns.

        ``body`` is synchronous. If it raises, nothing is changed. Live queries see one diff after the commit.
        Cancellation is noticed before the transaction begins and after it has committed, never in between.

        One that is ``short`` touches few rows: it may be carried out where the caller is.
        """
        ...

    async def flush(self) -> None:
        """Return once everything that is committed now survives a power cut, whatever it was committed with.

        At once when it does. Nothing is reported to anybody else before: a hub acts on it and never learns that it was lost.

        Raises:
            StoreError: The engine failed; what is committed stays so.
        """
        ...

    def show_in_flight(self, mids: Sequence[int], in_flight: bool) -> None:
        """Let receipts of outbox mutations say ``sent`` while a push carries them, and ``queued`` again after it failed.

        Nothing is written: what was in flight when the process ended is queued.
        """
        ...

    async def inspect(self, body: Callable[[LocalTx], T]) -> T:
        """Run ``body``, which only reads, in one read transaction."""
        ...


@runtime_checkable
class ExplainsQueries(Protocol):
    """A local database that tells beforehand how it will answer."""

    async def explain(self, query: BoundQuery) -> Sequence[Access]:
        """How each source of ``query`` would be read; nothing is read.

        Raises:
            QueryError: It does not fit the schema.
            UnknownStore: It reads a store that is not declared.
            StoreError: The engine failed.
        """
        ...


@runtime_checkable
class AnswersSql(Protocol):
    """A local database that carries out SQL which only reads."""

    async def sql(self, query: SqlQuery, *, at_most: int | None = None) -> SqlAnswer:
        """The rows of the one statement of ``query``, in which stores are tables with their declared fields.

        Args:
            query: The statement.
            at_most: No more rows than that are read; None reads all of them.

        Raises:
            QueryError: SQLite does not understand it, it does something else than read stores, or a parameter is missing.
            StoreError: The engine failed.

        A caller that is cancelled has the statement interrupted.
        """
        ...

    async def outline(self, query: SqlQuery) -> SqlOutline:
        """What the statement of ``query`` would read, and how; it does not run.

        Raises:
            QueryError: As of :meth:`sql`.
            StoreError: The engine failed.
        """
        ...


class Lead(Protocol):
    """Which of the programs that have a file open runs its sync lanes: a lease, with a term that transactions are fenced with."""

    @property
    def term(self) -> int:
        """The number of this program's reign; 0 while it does not lead. Each reign has a higher one than all before."""
        ...

    @property
    def led(self) -> bool:
        """Whether another program led when this one looked last."""
        ...

    @property
    def fault(self) -> StoreError | None:
        """Why this program could not look, or lead, when it last tried; None once it could."""
        ...

    def want(self, wanted: bool) -> None:
        """Try to lead from now on, or let another program do it."""
        ...

    def stand_back(self) -> None:
        """Let another program lead, if there is one, until it is wanted again: this one does not get on."""
        ...

    def doubt(self) -> None:
        """Do not lead before the file was asked again: a transaction was refused for its term."""
        ...

    async def wait_change(self, term: int, fault: StoreError | None = None) -> None:
        """Wait until the number of this program's reign is not ``term``, or :attr:`fault` is not ``fault``; at once if so already."""
        ...


@runtime_checkable
class SharedFile(Protocol):
    """A local database that several programs may have open."""

    @property
    def lead(self) -> Lead | None:
        """Who runs the sync lanes; None where nobody else can have it open."""
        ...

    @property
    def program(self) -> int:
        """The number of this program among those that have the file open; no other program of the file ever has it."""
        ...


class Commit(Protocol):
    """A commit, as everybody may know it."""

    @property
    def commit(self) -> int:
        """Its number; numbers of a file have no gaps, so a missing one was another program's."""
        ...

    @property
    def changes(self) -> Mapping[str, object]:
        """Stores whose visible rows changed."""
        ...

    @property
    def saved(self) -> Sequence[Effect]:
        """What this program itself has written in stores whose ``after_save`` is to hear of it, in order."""
        ...

    @property
    def replica(self) -> ReplicaDelta | None:
        """What it has changed of the state of replication, None for nothing; of another program's commit that is not known."""
        ...

    @property
    def is_own(self) -> bool:
        """Whether this program made it."""
        ...


@runtime_checkable
class CommitFeed(Protocol):
    """A local database that tells its commits."""

    def subscribe_commits(self, listener: Callable[[Commit], None]) -> Callable[[], None]:
        """Call ``listener`` after every COMMIT, in order and before its caller goes on; returns the undo."""
        ...


@runtime_checkable
class LocalEngine(Protocol):
    """A local database that is not open yet."""

    def open_database(
        self, schema: Schema, environment: Environment, synced: frozenset[str]
    ) -> AbstractAsyncContextManager[LocalDatabase]:
        """Open (or create) the file for ``schema``; closing waits for running work and leaves no thread or lock.

        Args:
            schema: The declared stores; tables are created, additive changes are applied.
            environment: Clock, ids, executor.
            synced: Stores that replicate: writes that bypass the outbox are refused on them.

        Raises:
            MigrationError: The file is newer than the code, or a change is not additive.
            StoreCorrupt: The file is not a database, or not one of ours.
            StoreBusy: Somebody else holds it.
        """
        ...
