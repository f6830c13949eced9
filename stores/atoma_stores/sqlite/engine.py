"""The local engine: a SQLite file (or memory) as the runtime, the kernel and the sync lanes see it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import TypeVar, cast

import apsw
import trio
from msgspec.structs import replace

from atoma.contracts.checks import is_a
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
from atoma.contracts.raw import Question, SqlAnswer, SqlOutline, SqlQuery
from atoma.contracts.receipts import WriteReceipt
from atoma.errors import ClosedError, ConfigurationError, StoreError
from atoma.ports.environment import Environment
from atoma.ports.execution import Staging
from atoma.ports.local import LocalTx
from atoma.ports.tasks import open_tasks
from atoma.schema.schema import Schema
from atoma.schema.spec import DURABILITIES
from atoma_stores.changes import CommitDelta, CommitListener
from atoma_stores.live.source import Snapshot, SnapshotMoved
from atoma_stores.sqlite._companions import BEAT_S, LOOK_ALONE_S, LOOK_S, QUIET_S, Companions
from atoma_stores.sqlite._history import History, prepare_history, trim_aside
from atoma_stores.sqlite._internals import CLIENT_ADDITIONS, CLIENT_TABLES
from atoma_stores.sqlite._others import Standing, made_by_others, standing
from atoma_stores.sqlite._outbox import OutboxLimits
from atoma_stores.sqlite._past import FileHistory
from atoma_stores.sqlite._queries import QueryReader, SharedReads, commit_number
from atoma_stores.sqlite._raw import followed_sql, outlined, raw_sql
from atoma_stores.sqlite._readers import OnCheckpoint
from atoma_stores.sqlite._receipts import LOCAL, Receipts
from atoma_stores.sqlite._recovery import roll_back_volatile
from atoma_stores.sqlite._rows import FileKnowledge
from atoma_stores.sqlite._snapshots import HeldSnapshot
from atoma_stores.sqlite._tables import StoreTable
from atoma_stores.sqlite._threads import uses_threads
from atoma_stores.sqlite._units import Committed, EngineTx, UnitAnswer, UnitRefused
from atoma_stores.sqlite.connections import MEMORY
from atoma_stores.sqlite.copies import copy_before_steps
from atoma_stores.sqlite.database import Database, open_database
from atoma_stores.sqlite.ddl import allow_writes, check_ours, prepare_file
from atoma_stores.sqlite.encryption import optional_key
from atoma_stores.sqlite.main_files import MainFile, check_header, check_log, device_file
from atoma_stores.sqlite.prebuilt import begin_with, own_identity

T = TypeVar("T")

BULK_ENTRIES = 32
LEAVING_S = 5.0
RECEIPTS_MAX = 1000  # receipts that are looked after at a time when another program writes the file too
_log = logging.getLogger("atoma.sqlite")


class SQLiteEngine:
    """A local database that is not open yet.

    Args:
        path: The file, or ``":memory:"``.
        durability: The durability of writes for which neither the call nor the store names one; None means ``full`` on synced stores,
            else ``normal``.
        outbox_limits: Limits of the outbox; a write that would exceed them fails as a whole.
        prebuilt: A file that was made with :func:`make_prebuilt`; the database begins as a copy of it if there is no file at
            ``path`` yet.
        key: The key of the file: 32 random bytes, or a passphrase. A new file is encrypted with it. Encryption
            needs the build ``apsw-sqlite3mc`` of apsw. None means a file that any tool can read.
        history: How much of its past the file keeps for ``client.history`` and ``client.undo``; None keeps nothing, and
            removes what it had.
        vfs: Name of a registered VFS; None for the system's.

    Raises:
        ConfigurationError: The path is empty, a parameter is not valid, or the
            installed apsw cannot encrypt.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability | None = None,
        outbox_limits: OutboxLimits | None = None,
        key: bytes | str | None = None,
        history: History | None = None,
        prebuilt: str | os.PathLike[str] | None = None,
        vfs: str | None = None,
    ) -> None:
        self.key = optional_key(key)
        del key  # no traceback of what fails from here on has it
        self.path = os.fspath(path)
        if not self.path:
            raise ConfigurationError('SQLiteEngine() needs the path of a file, or ":memory:"')
        if durability is not None and durability not in DURABILITIES:
            raise ConfigurationError(f"SQLiteEngine(): durability must be normal or full, not {durability!r}")
        if history is not None and not is_a(history, History):
            raise ConfigurationError(f"SQLiteEngine(): history must be History(days=…, mib=…) or None, not {history!r}")
        if self.key is not None and self.path == MEMORY:
            raise ConfigurationError("SQLiteEngine(): a database in memory is never on a disk, so it takes no key")
        self.durability: Durability | None = durability
        self.history = history
        self.prebuilt = None if prebuilt is None else os.fspath(prebuilt)
        if self.prebuilt is not None and (self.path == MEMORY or vfs is not None):
            where = "a database in memory" if self.path == MEMORY else f"a database on the VFS {vfs!r}"
            raise ConfigurationError(f"SQLiteEngine(): {where} begins empty; a pre-built file is copied to a file")
        self.outbox_limits = outbox_limits or OutboxLimits()
        self.vfs = vfs

    def __repr__(self) -> str:
        return f"SQLiteEngine({self.path!r})"

    @contextlib.asynccontextmanager
    async def open_database(
        self, schema: Schema, environment: Environment, synced: frozenset[str]
    ) -> AsyncGenerator[SQLiteLocalDatabase]:
        """Open (or create) the file for ``schema``; see ``LocalEngine.open_database``."""
        main = device_file(self.path, self.vfs, self.key)
        checked = self.path == MEMORY

        def prepare(connection: apsw.Connection) -> None:
            nonlocal checked
            if not checked:
                check_log(connection, main)
                checked = True
            check_ours(connection)
            allow_writes(connection)

        check_header(main)
        if self.prebuilt is not None:
            await self._begin_with(self.prebuilt, environment)
        async with open_database(
            self.path,
            environment=environment,
            prepare=prepare,
            vfs=self.vfs,
            on_checkpoint=self._after_checkpoint(main, environment),
            key=self.key,
        ) as database:
            opened = SQLiteLocalDatabase(database, self, schema, synced, main)
            await opened.prepare()
            async with open_tasks() as watching:
                try:
                    if database.path != MEMORY:
                        watching.start_soon(opened.watch)
                    yield opened
                finally:
                    opened.stop()
                    watching.cancel_scope.cancel()
                    await opened.leave()

    async def _begin_with(self, prebuilt: str, environment: Environment) -> None:
        """Copy the pre-built file, which may take as long as the disk needs."""
        if uses_threads(environment):
            await trio.to_thread.run_sync(begin_with, prebuilt, self.path, self.key)
        else:
            await trio.lowlevel.checkpoint()
            begin_with(prebuilt, self.path, self.key)

    def _after_checkpoint(self, main: MainFile, environment: Environment) -> OnCheckpoint:
        """What is done in the thread of the checkpoints: see what the main file has by now, and trim the history."""
        history = self.history

        def after(connection: apsw.Connection) -> None:
            main.look()
            if history is not None:
                trim_aside(connection, history, environment.wall_ms())

        return after


class _Snapshot:
    """A read transaction; see ``Snapshot``.

    Attributes:
        commit: The commit that is held.
    """

    def __init__(
        self, held: HeldSnapshot, commit: int, how: Callable[[Question], Callable[[apsw.Connection], QueryResult]]
    ) -> None:
        self.commit = commit
        self._held = held
        self._how = how

    async def answer(self, queries: Sequence[Question]) -> Sequence[QueryResult]:
        """See ``Snapshot.answer``."""
        bodies = [self._how(query) for query in queries]
        results = await self._held.read(lambda connection: [body(connection) for body in bodies])
        if any(result.meta.commit != self.commit for result in results):
            raise SnapshotMoved
        return results


class SQLiteLocalDatabase:
    """An open local database; made by :meth:`SQLiteEngine.open_database`.

    Commits are numbered densely: every committed unit that wrote anything to the file (rows, overlay or replication
    state) takes the next number, a unit that wrote nothing takes none.
    """

    def __init__(
        self, database: Database, engine: SQLiteEngine, schema: Schema, synced: frozenset[str], main: MainFile
    ) -> None:
        self.sqlite = database
        self.schema = schema
        self._engine = engine
        self._tables = {name: StoreTable(spec, name in synced) for name, spec in schema.stores.items()}
        self._reader = QueryReader(self._tables)
        self._searched = database.path != MEMORY and any(
            table.search is not None and not table.synced for table in self._tables.values()
        )
        self._full = frozenset(name for name in self._tables if self._default_durability(name) == "full")
        self._receipts = Receipts()
        self._known = FileKnowledge(main)
        database.before_commit(self._known.write, self._known.forget)
        self._standing = Standing()
        self._indexed = 0
        self._companions = Companions()
        self._others = False
        self._listeners: list[CommitListener] = []
        self._shared = SharedReads(database)
        self._synced = synced
        self._history = None if engine.history is None else FileHistory(database, schema, self._tables)

    @property
    def history(self) -> FileHistory | None:
        """The history of the file; None if it keeps none. See ``KeepsHistory``."""
        return self._history

    @property
    def _own_durability(self) -> Durability:
        """Of what no write asked for. The hub forgets what is reported as settled here: that is never risked."""
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
            prepare_history(connection, self._engine.history, environment.wall_ms())
            for table in self._tables.values():
                if table.search is not None:
                    table.search.prepare(connection)
            own_identity(connection, lambda: environment.random.getrandbits(128).to_bytes(16, "big"))
            self._companions.join(connection)
            self._known.note(connection)
            self._known.told = standing(connection)

        def recover(tx: LocalTx) -> None:
            assert isinstance(tx, EngineTx)
            roll_back_volatile(tx)

        vfs, key = self._engine.vfs, self._engine.key
        if self.schema.steps:
            await self.sqlite.read_in_pool(lambda connection: copy_before_steps(connection, self.schema, vfs, key))
        await self.sqlite.transact(body, durability="full", bulk=True)
        self._standing = self._known.told
        self._indexed = self._standing.raw
        await self.apply(recover)

    async def read(self, query: BoundQuery) -> QueryResult:
        """Answer ``query`` from the visible rows; see ``LocalDatabase.read``."""
        if self._searched and self._reader.searches(query):
            await self._index_others()
        point = self._reader.point(query)
        if point is not None:
            found = await self.sqlite.read(point, one_snapshot=True)
            if found is not None:
                return found
        return await self._shared.read(query, self._standing.commit, self._reader.answer(query))

    async def _index_others(self) -> None:
        """Bring the indexes of words to what other tools have left, if they have written since that was last done."""
        now = await self.sqlite.read(standing, one_snapshot=True)
        if now.raw != self._indexed:
            self._indexed = await self.sqlite.transact(self._catch_up, durability="normal", bulk=True)

    def _catch_up(self, connection: apsw.Connection) -> int:
        """Do it for the stores that other tools may write to; how many rows these have written by then."""
        known = self._known
        known.refresh(connection)
        for table in self._tables.values():
            if table.search is not None and not table.synced:
                table.search.catch_up(connection)
        known.left(connection, known.counters)  # or the commit of this one would pass for somebody else's
        return known.raw

    async def explain(self, query: BoundQuery) -> tuple[Access, ...]:
        """How ``query`` would be answered; see ``ExplainsQueries.explain``."""
        return await self.sqlite.read(self._reader.explained(query))

    async def sql(self, query: SqlQuery, *, at_most: int | None = None) -> SqlAnswer:
        """The rows of ``query``; see ``AnswersSql.sql``."""
        return await self.sqlite.read_in_pool(raw_sql(self._tables, query, at_most=at_most))

    async def outline(self, query: SqlQuery) -> SqlOutline:
        """What ``query`` would read; see ``AnswersSql.outline``."""
        return await self.sqlite.read(outlined(self._tables, query))

    @contextlib.asynccontextmanager
    async def open_snapshot(self) -> AsyncGenerator[Snapshot]:
        """Hold the latest commit for as long as the block runs; see ``LiveSource.open_snapshot``.

        Raises:
            StoreError: The engine failed.
        """
        async with self.sqlite.open_snapshot() as held:
            yield _Snapshot(held, await held.read(commit_number), self._answer)

    def _answer(self, question: Question) -> Callable[[apsw.Connection], QueryResult]:
        if isinstance(question, SqlQuery):
            return followed_sql(self._tables, question)
        return self._reader.answer(question)

    async def commit(self, request: WriteRequest, stages: Sequence[Staging]) -> WriteResult:
        """Run ``stages`` in one transaction and report item by item; see ``AtomicWriter.commit``."""
        durability = self.durability_of([entry.store for entry in request.entries], request.options.durability)
        bulk = len(request.entries) > BULK_ENTRIES

        def body(connection: apsw.Connection) -> Committed:
            tx, wrote = self._begin(connection)
            return tx.finish(tx.run_unit(request, stages), wrote)

        try:
            done = await self.sqlite.transact(body, durability=durability, on_commit=self._publish, bulk=bulk)
        except UnitRefused as refused:
            meta = ExecutionMeta(trace_id=request.context.trace_id)
            return WriteResult("rejected", refused.items, meta, (None,) * len(refused.items))
        answer = cast("UnitAnswer", done.value)
        meta = ExecutionMeta(trace_id=request.context.trace_id, commit=done.commit)
        idem = request.idem if any(answer.mutations) else ""
        return WriteResult(status_of(answer.items), answer.items, meta, self._receipts_of(answer), idem)

    def durability_of(self, stores: Collection[str], asked: Durability | None = None) -> Durability:
        """What a write on ``stores`` survives; see ``AtomicWriter.durability_of``."""
        if asked is not None:
            return asked
        return "normal" if self._full.isdisjoint(stores) else "full"

    def _tx(self, connection: apsw.Connection, known: FileKnowledge | None = None) -> EngineTx:
        wall_ms, limits, history = self.sqlite.environment.wall_ms, self._engine.outbox_limits, self._engine.history
        return EngineTx(connection, self.schema, self._tables, wall_ms, limits, known, history)

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
                result = WriteResult(status_of(answer.items), answer.items, receipts=receipts, recalled_by=idem)
                found.append(result)

        await self.sqlite.transact(body, durability="normal", on_commit=follow)
        return found[0] if found else None

    async def apply(
        self, body: Callable[[LocalTx], T], *, durability: Durability | None = None, short: bool = False
    ) -> T:
        """Run ``body`` in one write transaction of its own; see ``LocalDatabase.apply``."""

        def transaction(connection: apsw.Connection) -> Committed:
            tx, wrote = self._begin(connection)
            return tx.finish(body(tx), wrote)

        durability = durability or self._own_durability
        done = await self.sqlite.transact(transaction, durability=durability, on_commit=self._publish, bulk=not short)
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
        found, now = await self.sqlite.read(lambda connection: (body(self._tx(connection)), standing(connection)))
        self._stand(replace(self._standing, programs=now.programs))
        if self._others or now.commit > self._standing.commit:
            await self._hear_verdicts()
        return found

    async def _hear_verdicts(self) -> None:
        """Another program may have settled what somebody here waits for."""
        asked = self._receipts.waiting(RECEIPTS_MAX)
        if asked:
            whereabouts = await self.sqlite.read(lambda connection: self._tx(connection).whereabouts(asked))
            self._others = self._receipts.catch_up(asked, whereabouts)

    def subscribe_commits(self, listener: CommitListener) -> Callable[[], None]:
        """Call ``listener`` with the net change of every commit from now on, on the loop's thread, in commit order; returns the undo.

        The listener is called with a commit before the call that made it returns. It must not block; an error in it is logged
        and harms nobody.
        """
        self._listeners.append(listener)

        def undo() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return undo

    def _publish(self, done: Committed) -> None:
        if done.settlements:
            self._receipts.settle(done.settlements)
        if not done.commit:
            return
        # what others did may have been told with a commit that was undone: a listener then hears a gap
        self._others = self._others or done.commit > self._standing.commit + 1
        if done.others:
            self._tell(done.others)
        self._tell([CommitDelta(done.commit, done.changes, done.saved, replica=done.replica)])
        if done.commit == self._standing.commit:
            self._standing = done.standing

    def _tell(self, changes: Sequence[CommitDelta]) -> None:
        """Let the listeners hear ``changes``, apart from what they have heard."""
        for change in changes:
            if change.commit <= self._standing.commit:
                continue
            self._standing = replace(self._standing, commit=change.commit)
            for listener in tuple(self._listeners):
                try:
                    listener(change)
                except Exception:
                    _log.exception("a listener failed on commit %d", change.commit)

    async def hear_others(self) -> None:
        """Tell what other programs have committed until now; see ``LiveSource.hear_others``."""
        now = self.sqlite.peek(standing)
        since = self._standing
        if now is None:
            return  # a commit of this program is on its way: it brings what came before it
        if now.commit <= since.commit:
            self._stand(replace(since, programs=now.programs))
            return
        tables = self._tables
        found = await self.sqlite.read(lambda connection: made_by_others(connection, since, now, tables))
        if now.commit > self._standing.commit:
            self._others = True
            self._tell(found)
            self._stand(now)
            await self._hear_verdicts()

    def _stand(self, now: Standing) -> None:
        """Go by how far the file is; who joins or leaves is met with a beat at once."""
        if now.programs != self._standing.programs:
            self._companions.wake()
        self._standing = now

    @property
    def lead(self) -> Companions | None:
        """Who runs the sync lanes; see ``SharedFile``."""
        return None if self.sqlite.path == MEMORY else self._companions

    @property
    def program(self) -> int:
        """The number of this program; see ``SharedFile``."""
        return self._companions.id

    async def watch(self) -> None:
        """Notice what other programs do, until it is cancelled."""
        clock, lead = self.sqlite.environment.clock, self._companions
        beat_at = quiet_at = 0.0
        while not self.sqlite.closed:
            await self._sleep(quiet_at)
            raw = self._standing.raw
            try:
                await self.hear_others()
                if raw != self._standing.raw:
                    quiet_at = clock() + QUIET_S
                if lead.woken.is_set() or (self._standing.programs > 1 and clock() >= beat_at):
                    lead.woken = trio.Event()
                    beat_at = clock() + BEAT_S
                    await self._beat()
            except ClosedError:
                return
            except StoreError as error:
                _log.warning("%s: other programs were not heard: %s", self.sqlite.path, error)
                lead.fail(error)
                await trio.sleep(BEAT_S)
                lead.wake()  # the beat that was due, perhaps the first one, is due still

    async def _sleep(self, quiet_at: float) -> None:
        """Wait until it is time to look again, or a beat is due."""
        alone = self._standing.programs <= 1
        seconds = LOOK_ALONE_S if alone and self.sqlite.environment.clock() >= quiet_at else LOOK_S
        if alone and not self.sqlite.is_shared:
            seconds = math.inf  # who might come is in this very program, and virtual time would jump from look to look
        with trio.move_on_after(seconds):
            await self._companions.woken.wait()

    async def _beat(self) -> None:
        clock = self.sqlite.environment.clock
        began = clock()
        seen = await self.sqlite.transact(
            lambda connection: self._companions.beat(connection, began), durability="normal"
        )
        # not the time before: who was stopped in between has not watched the others
        self._companions.take(seen, clock())
        self._standing = replace(self._standing, programs=len(seen.beats))

    async def leave(self) -> None:
        """Let the other programs know that this one closes the file."""
        if self.sqlite.path == MEMORY:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVING_S), contextlib.suppress(StoreError):
            await self.sqlite.transact(self._companions.leave, durability="normal")

    @property
    def shared_reads(self) -> int:
        """How many reads were answered by what another one asked at the same time."""
        return self._shared.shared

    def stop(self) -> None:
        """Wake whoever waits for a verdict: nothing more will come from this database."""
        self._receipts.close(ClosedError(f"{self.sqlite.path}: the database was closed; the write stays in the outbox"))
