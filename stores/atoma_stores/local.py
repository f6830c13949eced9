"""Local execution: the plugin, and the nodes that answer queries and carry writes out on this device."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from atoma.contracts.checks import is_a
from atoma.contracts.execution import Matches, QueryRequest, QueryResult, WriteItemResult, WriteRequest, WriteResult
from atoma.contracts.failures import info_from, refusal
from atoma.contracts.mutations import Effect, Op
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.errors import ConfigurationError, ConflictError, PluginError, ValidationError
from atoma.mutations import decide, moved_read, replay, scope_of, version_here
from atoma.plugins.context import PluginContext
from atoma.ports.engine import LocalDatabase, LocalEngine
from atoma.ports.keys import LIVE_QUERIES, LOCAL_DATABASE, PortKey
from atoma.ports.local import LocalTx
from atoma_stores.live.dispatch import open_live_queries
from atoma_stores.live.source import LiveSource

BULK_INSERTS = 16


class LocalQueryNode:
    """Answers queries from the visible rows.

    Args:
        database: The open local database.
    """

    def __init__(self, database: LocalDatabase) -> None:
        self._database = database

    async def query(self, request: QueryRequest) -> QueryResult:
        """The answer, with the commit number it is at; trace, path and policy are for the kernel to add.

        Raises:
            QueryError: The query does not fit the store.
            StoreError: The engine failed.
        """
        return await self._database.read(request.query)


class LocalWriteNode:
    """Writes visible rows; alone it is a whole write, in an atomic segment the first stage of one.

    Args:
        database: The open local database.
    """

    def __init__(self, database: LocalDatabase) -> None:
        self._database = database

    @property
    def database(self) -> str:
        """Identity of the database it stages into."""
        return self._database.database

    async def write(self, request: WriteRequest) -> WriteResult:
        """Write the unit on this device and nowhere else.

        Raises:
            StoreError: The engine failed; nothing was written.
        """
        return await self._database.commit(request, [self])

    def stage(self, tx: LocalTx, request: WriteRequest) -> None:
        """Decide every entry against the rows as they are now, write it, and report what became of it.

        A request whose rows the runtime keeps itself (``context.staged``) is left alone and reported as done.
        """
        if request.context.staged:
            return
        moved = moved_read(request.options.reads, partial(version_here, tx))
        if moved is not None:
            for index, entry in enumerate(request.entries):
                tx.unit.report(index, WriteItemResult(entry.id, ok=False, error=moved))
            return
        if request.matches is not None and not _still_matches(tx, request.matches):
            other = refusal("CONFLICT", "other rows match the query by now; ask it again", info={"matches": "moved"})
            for index, entry in enumerate(request.entries):
                tx.unit.report(index, WriteItemResult(entry.id, ok=False, error=other))
            return
        start = 0
        entries = request.entries
        while start < len(entries):
            end = _end_of_inserts(entries, start)
            if end - start < BULK_INSERTS or not _insert_many(tx, entries, start, end):
                end = max(end, start + 1)
                for index in range(start, end):
                    tx.unit.report(index, _write(tx, index, entries[index]))
            start = end


def _still_matches(tx: LocalTx, matches: Matches) -> bool:
    return sorted(tx.rows.matching(matches.query)) == sorted(matches.ids)


def _end_of_inserts(entries: Sequence[Op], start: int) -> int:
    """Where a run of inserts into one store ends."""
    store = entries[start].store
    end = start
    while end < len(entries) and entries[end].kind == "create" and entries[end].store == store:
        end += 1
    return end


def _insert_many(tx: LocalTx, entries: Sequence[Op], start: int, end: int) -> bool:
    spec = tx.schema.store(entries[start].store)
    run = entries[start:end]
    rows = ((op.id, scope_of(op, spec), op.values) for op in run)
    versions = tx.rows.insert_many(spec.name, rows)
    if versions is None:
        return False
    for index, (op, version) in enumerate(zip(run, versions, strict=True), start):
        tx.unit.report(index, WriteItemResult(op.id, True, True, version, op.values))
    if tx.unit.effects_wanted:
        for index, op in enumerate(run, start):
            tx.unit.record(Effect(op, scope_of(op, spec), None, op.values, index))
    return True


def _write(tx: LocalTx, index: int, op: Op) -> WriteItemResult:
    """Carry one operation out."""
    if op.kind == "create":
        inserted = _insert(tx, index, op)
        if inserted is not None:
            return inserted
    row = tx.rows.read(op.store, op.id)
    effect = decide(op, tx.schema.store(op.store), row, index)
    if isinstance(effect, ErrorInfo):
        return _refused(op, effect, row)
    if effect.pre == effect.post:
        _put_under(tx, op)
        version = 0 if row is None else row.version
        return WriteItemResult(op.id, ok=True, changed=False, version=version, row=effect.post)
    try:
        version = tx.rows.put(op.store, op.id, effect.scope, effect.post)
    except (ConflictError, ValidationError) as refused:
        return _refused(op, info_from(refused), row)
    return _written(tx, effect, version)


def _insert(tx: LocalTx, index: int, op: Op) -> WriteItemResult | None:
    """Insert a row without looking for one first; None and no change when there is one, or the operation is refused."""
    effect = decide(op, tx.schema.store(op.store), None, index)
    if isinstance(effect, ErrorInfo) or effect.post is None:
        return None
    try:
        version = tx.rows.insert(op.store, op.id, effect.scope, effect.post)
    except (ConflictError, ValidationError) as refused:
        return _refused(op, info_from(refused), None)
    return None if version is None else _written(tx, effect, version)


def _written(tx: LocalTx, effect: Effect, version: int) -> WriteItemResult:
    _put_under(tx, effect.op)
    if tx.unit.effects_wanted:
        tx.unit.record(effect)
    return WriteItemResult(effect.op.id, ok=True, changed=True, version=version, row=effect.post)


def _put_under(tx: LocalTx, op: Op) -> None:
    """Do to the confirmed image what was done to the visible row, where all that lies on it may be taken back.

    What another machine has not decided yet may be; this write is this device's own and stays.
    """
    base = tx.base.shadow_of(op.store, op.id)
    if base is not None and not tx.outbox.last_mid(op.store, op.id) and tx.outbox.on_row(op.store, op.id):
        tx.base.put(op.store, op.id, base.scope, replay(op, base.image), base.seq)


def _refused(op: Op, error: ErrorInfo, row: StoredRow | None) -> WriteItemResult:
    """The result of a refused operation; it carries the row as it is now, so that the caller can merge."""
    if row is None:
        return WriteItemResult(op.id, ok=False, error=error)
    return WriteItemResult(op.id, ok=False, version=row.version, row=row.image, error=error)


class LocalExecution:
    """The plugin that keeps an application's rows on this device.

    Registers the nodes ``local-query`` and ``local-write``; offers the local database and live queries.

    Args:
        engine: Where the rows are kept.

    Raises:
        ConfigurationError: What was passed is no engine.
    """

    id = "local"

    def __init__(self, engine: LocalEngine) -> None:
        if not is_a(engine, LocalEngine):
            raise ConfigurationError(f"LocalExecution() takes an engine, SQLiteEngine('app.db'), not {engine!r}")
        self._engine = engine

    @property
    def provides(self) -> Sequence[PortKey[object]]:
        """The local database and its live queries."""
        return (LOCAL_DATABASE, LIVE_QUERIES)  # type: ignore[return-value]

    @property
    def needs(self) -> Sequence[PortKey[object]]:
        """Nothing."""
        return ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        """Open the engine for the life of the client.

        Raises:
            StoreError: The file cannot be opened for this schema.
        """
        opening = self._engine.open_database(context.schema, context.environment, context.synced_stores)
        async with opening as database:
            if not isinstance(database, LiveSource):
                raise PluginError(f"{self._engine!r} does not tell its commits, so live queries cannot follow it")
            async with open_live_queries(database, context.schema, clock=context.environment.clock) as live:
                context.provide(LOCAL_DATABASE, database)
                context.provide(LIVE_QUERIES, live)
                context.register_node("local-query", LocalQueryNode(database))
                context.register_node("local-write", LocalWriteNode(database))
                yield
