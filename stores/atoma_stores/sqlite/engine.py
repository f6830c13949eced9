"""The local engine: one SQLite file (or memory) as the runtime, the kernel and the sync lanes see it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import TypeVar, cast

import apsw

from atoma.contracts.codec import encode
from atoma.contracts.execution import (
    Durability,
    ExecutionMeta,
    QueryResult,
    Receipt,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.explanation import Access
from atoma.contracts.query import BoundQuery
from atoma.contracts.raw import SqlAnswer
from atoma.contracts.receipts import WriteReceipt
from atoma.contracts.replica import ClientIdentity
from atoma.contracts.values import Scalar
from atoma.errors import ClosedError, ConfigurationError
from atoma.ports.environment import Environment
from atoma.ports.execution import Staging
from atoma.ports.local import LocalTx
from atoma.schema.spec import DURABILITIES, Schema
from atoma_stores.changes import ChangeSet, CommitListener
from atoma_stores.live.source import Snapshot, SnapshotMoved
from atoma_stores.sqlite._internals import CLIENT_ADDITIONS, CLIENT_TABLES
from atoma_stores.sqlite._outbox import OutboxLimits
from atoma_stores.sqlite._queries import QueryReader, commit_number
from atoma_stores.sqlite._raw import raw_sql
from atoma_stores.sqlite._receipts import LOCAL, Receipts
from atoma_stores.sqlite._recovery import roll_back_volatile
from atoma_stores.sqlite._rows import Known
from atoma_stores.sqlite._shared import SharedReads
from atoma_stores.sqlite._snapshots import Held
from atoma_stores.sqlite._tables import StoreTable
from atoma_stores.sqlite._units import Committed, EngineTx, Refused, UnitAnswer
from atoma_stores.sqlite.connections import MEMORY
from atoma_stores.sqlite.copies import copy_before_steps
from atoma_stores.sqlite.database import Database, open_database
from atoma_stores.sqlite.ddl import allow_writes, check_ours, prepare_file
from atoma_stores.sqlite.meta import read_meta, write_meta

T = TypeVar("T")

BULK_ENTRIES = 32
RECEIPTS_MAX = 1000  # receipts that are looked after at a time when another program writes the file too
_log = logging.getLogger("atoma.sqlite")


class SQLiteEngine:
    """A local database that is not open yet.

    Args:
        path: The file, or ``":memory:"``.
        durability: Of writes for which neither the call nor the store names one; None means ``full`` on synced stores,
            else ``normal``.
        outbox_limits: Bounds of the outbox; a write that would pass them fails as a whole.
        vfs: Name of a registered VFS, None for the system's.

    Raises:
        ConfigurationError: The path is empty, or there is no such durability.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability | None = None,
        outbox_limits: OutboxLimits | None = None,
        vfs: str | None = None,
    ) -> None:
        self.path = os.fspath(path)
        if not self.path:
            raise ConfigurationError('SQLiteEngine() needs the path of a file, or ":memory:"')
        if durability is not None and durability not in DURABILITIES:
            raise ConfigurationError(f"SQLiteEngine(): durability must be normal or full, not {durability!r}")
        self.durability: Durability | None = durability
        self.outbox_limits = outbox_limits or OutboxLimits()
        self.vfs = vfs

    def __repr__(self) -> str:
        return f"SQLiteEngine({self.path!r})"

    @contextlib.asynccontextmanager
    async def open_database(
        self, schema: Schema, environment: Environment, synced: frozenset[str]
    ) -> AsyncGenerator[SQLiteLocalDatabase]:
        """Open (or create) the file for ``schema``; see ``LocalEngine.open_database``."""

        def prepare(connection: apsw.Connection) -> None:
            check_ours(connection)
            allow_writes(connection)

        async with open_database(self.path, environment=environment, prepare=prepare, vfs=self.vfs) as database:
            opened = SQLiteLocalDatabase(database, self, schema, synced)
            await opened.prepare()
            try:
                yield opened
            finally:
                opened.stop()


class _Snapshot:
    """See ``Snapshot``.

    Attributes:
        commit: The commit that is held.
    """

    def __init__(self, held: Held, commit: int, reader: QueryReader) -> None:
        self.commit = commit
        self._held = held
        self._reader = reader

    async def answer(self, queries: Sequence[BoundQuery]) -> Sequence[QueryResult]:
        """See ``Snapshot.answer``."""
        bodies = [self._reader.answer(query) for query in queries]
        results = await self._held.read(lambda connection: [body(connection) for body in bodies])
        if any(result.meta.commit != self.commit for result in results):
            raise SnapshotMoved
        return results


class SQLiteLocalDatabase:
    """An open local database; made by :meth:`SQLiteEngine.open_database`.

    Commits are numbered densely: every committed unit that wrote anything to the file (rows, overlay or replication
    state) takes the next number, a unit that wrote nothing takes none.
    """

    def __init__(self, database: Database, engine: SQLiteEngine, schema: Schema, synced: frozenset[str]) -> None:
        self.sqlite = database
        self.schema = schema
        self._engine = engine
        self._tables = {name: StoreTable(spec, name in synced) for name, spec in schema.stores.items()}
        self._reader = QueryReader(self._tables)
        self._durability = {name: self._default_durability(name) for name in self._tables}
        self._receipts = Receipts()
        self._known = Known()
        self._commit = 0
        self._others = False
        self._listeners: list[CommitListener] = []
        self._shared = SharedReads(database)
        self._synced = synced

    @property
    def _own_durability(self) -> Durability:
        """Of what no write asked for. The hub forgets what it is told to be settled here: that is never risked."""
        return "full" if self._synced else self._engine.durability or "normal"

    def _default_durability(self, store: str) -> Durability:
        table = self._tables[store]
        return table.spec.durability or self._engine.durability or ("full" if table.synced else "normal")

    @property
    def database(self) -> str:
        """Identity of the database: two nodes with the same one share its transactions."""
        path = self.sqlite.path
        return f"{MEMORY}{id(self.sqlite)}" if path == MEMORY else os.path.abspath(path)

    async def prepare(self) -> None:
        """Create tables, apply steps and additive changes, roll volatile writes back."""
        environment = self.sqlite.environment

        def body(connection: apsw.Connection) -> None:
            prepare_file(
                connection,
                self.schema,
                layout="client",
                synced=self._synced,
                internals=CLIENT_TABLES,
                additions=CLIENT_ADDITIONS,
            )
            for table in self._tables.values():
                if table.search is not None:
                    table.search.prepare(connection)
            if read_meta(connection, "identity") is None:
                client_id = environment.random.getrandbits(128).to_bytes(16, "big")
                write_meta(connection, "identity", encode(ClientIdentity(client_id, 1, 1, b"", 0, b"", "")))

        def recover(tx: LocalTx) -> None:
            assert isinstance(tx, EngineTx)
            roll_back_volatile(tx)

        vfs = self._engine.vfs
        if self.schema.steps:
            await self.sqlite.read_in_pool(lambda connection: copy_before_steps(connection, self.schema, vfs))
        await self.sqlite.transact(body, durability="full", bulk=True)
        await self.apply(recover)

    async def read(self, query: BoundQuery) -> QueryResult:
        """Answer ``query`` from the visible rows; see ``LocalDatabase.read``."""
        if self.sqlite.path != MEMORY and self._reader.searches(query):
            await self.sqlite.transact(self._catch_up, durability="normal", bulk=True)
        point = self._reader.point(query)
        if point is not None:
            found = await self.sqlite.read(point, one_statement=True)
            if found is not None:
                return found
        return await self._shared.read(query, self._commit, self._reader.answer(query))

    def _catch_up(self, connection: apsw.Connection) -> None:
        """Bring the indexes of words of stores that other tools may write to what these have left, if there were any."""
        self._known.refresh(connection)
        if self._known.foreign:
            for table in self._tables.values():
                if table.search is not None and not table.synced:
                    table.search.catch_up(connection)
            self._known.foreign = False

    async def explain(self, query: BoundQuery) -> tuple[Access, ...]:
        """How ``query`` would be answered; see ``ExplainsQueries.explain``."""
        return await self.sqlite.read(self._reader.explained(query))

    async def sql(self, text: str, params: Mapping[str, Scalar]) -> SqlAnswer:
        """The rows of ``text``; see ``AnswersSql.sql``."""
        return await self.sqlite.read_in_pool(raw_sql(self._tables, text, params))

    @contextlib.asynccontextmanager
    async def open_snapshot(self) -> AsyncGenerator[Snapshot]:
        """Hold the latest commit for as long as the block runs; see ``LiveSource.open_snapshot``.

        Raises:
            StoreError: The engine failed.
        """
        async with self.sqlite.open_snapshot() as held:
            yield _Snapshot(held, await held.read(commit_number), self._reader)

    async def commit(self, request: WriteRequest, stages: Sequence[Staging]) -> WriteResult:
        """Run ``stages`` in one transaction and report item by item; see ``AtomicWriter.commit``."""
        durability = self.durability_of([entry.store for entry in request.entries], request.options.durability)
        bulk = len(request.entries) > BULK_ENTRIES

        def body(connection: apsw.Connection) -> Committed:
            tx, wrote = self._begin(connection)
            return tx.finish(tx.run_unit(request, stages), wrote)

        try:
            done = await self.sqlite.transact(body, durability=durability, on_commit=self._publish, bulk=bulk)
        except Refused as refused:
            meta = ExecutionMeta(trace_id=request.context.trace_id)
            return WriteResult("rejected", refused.items, meta, (None,) * len(refused.items))
        answer = cast("UnitAnswer", done.value)
        meta = ExecutionMeta(trace_id=request.context.trace_id, commit=done.commit)
        return WriteResult(status_of(answer.items), answer.items, meta, self._receipts_of(answer))

    def durability_of(self, stores: Collection[str], asked: Durability | None = None) -> Durability:
        """What a write on ``stores`` survives; see ``AtomicWriter.durability_of``."""
        if asked is not None:
            return asked
        return "full" if any(self._durability.get(store) == "full" for store in stores) else "normal"

    def _tx(self, connection: apsw.Connection, known: Known | None = None) -> EngineTx:
        now_ms = self.sqlite.environment.wall_ms()
        return EngineTx(connection, self.schema, self._tables, now_ms, self._engine.outbox_limits, known)

    def _begin(self, connection: apsw.Connection) -> tuple[EngineTx, int]:
        return self._tx(connection, self._known), connection.total_changes()

    def _receipts_of(self, answer: UnitAnswer) -> tuple[Receipt | None, ...]:
        if not any(answer.mutations):
            return tuple([LOCAL if item.ok else None for item in answer.items])
        receipts: list[Receipt | None] = []
        for item, mutation in zip(answer.items, answer.mutations, strict=True):
            if not item.ok:
                receipts.append(None)
            elif mutation is None:
                receipts.append(LOCAL)
            elif not answer.repeat:
                receipts.append(self._receipts.issue(*mutation))
            else:
                receipts.append(self._receipt_again(answer, *mutation))
        return tuple(receipts)

    def _receipt_again(self, answer: UnitAnswer, lsn: int, mid: int) -> WriteReceipt:
        if lsn in answer.known:
            return self._receipts.reissue(answer.known[lsn])
        receipt = self._receipts.issue(lsn, mid)
        if receipt.state not in ("observed", "rejected"):
            self._receipts.gone(receipt, answer.rejected.get(lsn))
        return receipt

    async def recall(self, idem: str) -> WriteResult | None:
        """What became here of the unit with this key; see ``LocalDatabase.recall``."""
        found: list[WriteResult] = []

        def body(connection: apsw.Connection) -> Committed:
            tx, wrote = self._begin(connection)
            return tx.finish(tx.recall(idem), wrote)

        def follow(done: Committed) -> None:  # between the commits: none is missed that settles one of them
            answer = cast("UnitAnswer | None", done.value)
            if answer is not None:
                receipts = self._receipts_of(answer)
                found.append(WriteResult(status_of(answer.items), answer.items, receipts=receipts))

        await self.sqlite.transact(body, durability="normal", on_commit=follow)
        return found[0] if found else None

    async def apply(self, body: Callable[[LocalTx], T], *, durability: Durability | None = None) -> T:
        """Run ``body`` in one write transaction of its own; see ``LocalDatabase.apply``."""

        def transaction(connection: apsw.Connection) -> Committed:
            tx, wrote = self._begin(connection)
            return tx.finish(body(tx), wrote)

        durability = durability or self._own_durability
        done = await self.sqlite.transact(transaction, durability=durability, on_commit=self._publish, bulk=True)
        return cast("T", done.value)

    async def flush(self) -> None:
        """Return once the disk has everything that is committed now; see ``LocalDatabase.flush``."""
        await self.sqlite.flush()

    def show_in_flight(self, mids: Sequence[int], in_flight: bool) -> None:
        """Let receipts say ``sent`` while a push carries their mutations; see ``LocalDatabase``."""
        self._receipts.show_in_flight(mids, in_flight)

    async def inspect(self, body: Callable[[LocalTx], T]) -> T:
        """Run ``body``, which only reads, in one read transaction.

        It may be run again from the beginning when it takes long.
        """
        found, commit = await self.sqlite.read(
            lambda connection: (body(self._tx(connection)), commit_number(connection))
        )
        if self._others or commit > self._commit:  # another program may have settled what somebody here waits for
            asked = self._receipts.waiting(RECEIPTS_MAX)
            if asked:
                whereabouts = await self.sqlite.read(lambda connection: self._tx(connection).whereabouts(asked))
                self._others = self._receipts.catch_up(asked, whereabouts)
        return found

    def subscribe_commits(self, listener: CommitListener) -> Callable[[], None]:
        """Hear the net change of every commit from now on, on the loop's thread, in commit order; returns the undo.

        The listener hears a commit before the call that made it returns. It must not block; an error in it is logged
        and harms nobody.
        """
        self._listeners.append(listener)

        def undo() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return undo

    def _publish(self, done: Committed) -> None:
        self._receipts.settle(done.settlements)
        if not done.commit:
            return
        self._others = self._others or done.commit > self._commit + 1
        self._commit = max(self._commit, done.commit)
        change_set = ChangeSet(done.commit, done.changes)
        for listener in tuple(self._listeners):
            try:
                listener(change_set)
            except Exception:
                _log.exception("a listener failed on commit %d", done.commit)

    @property
    def shared_reads(self) -> int:
        """How many reads were answered by what another one asked at the same time."""
        return self._shared.shared

    def stop(self) -> None:
        """Wake whoever waits for a verdict: nothing more will be heard from this database."""
        self._receipts.close(ClosedError(f"{self.sqlite.path}: the database was closed; the write stays in the outbox"))
