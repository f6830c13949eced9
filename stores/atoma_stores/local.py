"""Local execution: the plugin, and the nodes that answer queries and carry out writes on this device."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from atoma.contracts.checks import is_a
from atoma.contracts.execution import Matches, QueryRequest, QueryResult, WriteItemResult, WriteRequest, WriteResult
from atoma.contracts.failures import info_from, refusal
from atoma.contracts.mutations import Effect, Op
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.errors import ConfigurationError, ConflictError, PluginError, ValidationError
from atoma.mutations import decide, moved_read, prepared, replay, scope_of, version_here
from atoma.plugins.context import PluginContext
from atoma.ports.completeness import CompletenessBoard
from atoma.ports.engine import LocalDatabase, LocalEngine
from atoma.ports.keys import COMPLETENESS, LIVE_QUERIES, LOCAL_DATABASE, PortKey
from atoma.ports.local import LocalTx
from atoma.schema.spec import StoreSpec
from atoma_stores.live.dispatch import open_live_queries
from atoma_stores.live.source import LiveSource

BULK_INSERTS = 16


class LocalQueryNode:
    """The node that answers queries from the visible rows.

    Args:
        database: The open local database.
        completeness: Says how complete its rows are; None if no other machine has any.
    """

    bound_by_deadline: Final = False
    """The engine goes by the caller's cancel scope itself."""

    def __init__(self, database: LocalDatabase, completeness: CompletenessBoard | None = None) -> None:
        self._database = database
        self._completeness = completeness

    async def query(self, request: QueryRequest) -> QueryResult:
        """Return the answer with its commit number; the kernel adds trace, path and policy.

        Raises:
            QueryError: The query does not fit the store.
            StoreError: The engine failed.
        """
        known = self._completeness
        if known is None or not known.limits:
            return await self._database.read(request.query)
        completeness = known.of(request.query)  # before the rows are read: what comes in between is more, not less
        result = await self._database.read(request.query)
        return replace(result, meta=replace(result.meta, completeness=completeness))


class LocalWriteNode:
    """The node that writes visible rows: a whole write by itself, or the first stage in an atomic segment.

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
        """Decide every entry against the present rows, write it, and report the result.

        A request whose rows the runtime keeps itself (``context.staged``) is reported as done without a write.
        """
        if request.context.staged:
            return
        moved = moved_read(request.options.reads, partial(version_here, tx))
        if moved is not None:
            for index, entry in enumerate(request.entries):
                tx.unit.report(index, WriteItemResult(entry.id, ok=False, error=moved))
            return
        if request.matches is not None and not _still_matches(tx, request.matches):
            other = refusal("CONFLICT", "other rows match the query by now; run it again", info={"matches": "moved"})
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
                    tx.unit.report(index, _write(tx, index, entries[index], request.idem))
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
    if spec.prepares_new:  # row by row, and one may be refused
        return False
    run = entries[start:end]
    ids, images = [op.id for op in run], [op.values for op in run]
    scopes = [op.scope or scope_of(op, spec) for op in run]
    versions = tx.rows.insert_many(spec.name, ids, scopes, images)
    if versions is None:
        return False
    made = zip(run, versions, strict=True)
    tx.unit.report_many(start, [WriteItemResult(op.id, True, True, version, op.values) for op, version in made])
    if tx.unit.effects_wanted or spec.hooks.after_save is not None:
        for index, op in enumerate(run, start):
            _record(tx, Effect(op, scope_of(op, spec), None, op.values, index), spec)
    return True


def _record(tx: LocalTx, effect: Effect, spec: StoreSpec[Any]) -> None:
    if tx.unit.effects_wanted:
        tx.unit.record(effect)
    if spec.hooks.after_save is not None:
        tx.unit.tell(effect)


def _write(tx: LocalTx, index: int, op: Op, idem: str) -> WriteItemResult:
    """Carry one operation out."""
    spec = tx.schema.stores.get(op.store) or tx.schema.store(op.store)  # which raises
    if op.kind == "create" and not spec.prepares_new:
        inserted = _insert(tx, index, op, spec)
        if inserted is not None:
            return inserted
    row = tx.rows.read(op.store, op.id)
    decided = decide(op, spec, row, index)
    effect = decided
    if spec.is_prepared and not isinstance(decided, ErrorInfo):
        effect = prepared(decided, spec, idem, tx.now_ms)
    if isinstance(effect, ErrorInfo):
        return _refused(op, effect, row)
    if effect.pre == effect.post:
        _put_under(tx, effect.op)
        version = 0 if row is None else row.version
        return WriteItemResult(op.id, ok=True, changed=False, version=version, row=effect.post)
    try:
        version = tx.rows.put(op.store, op.id, effect.scope, effect.post)
    except (ConflictError, ValidationError) as refused:
        return _refused(op, info_from(refused), row)
    return _written(tx, effect, spec, version)


def _insert(tx: LocalTx, index: int, op: Op, spec: StoreSpec[Any]) -> WriteItemResult | None:
    """Insert a row without looking for one first; None and no change when there is one, or the operation is refused."""
    effect = decide(op, spec, None, index)
    if isinstance(effect, ErrorInfo) or effect.post is None:
        return None
    try:
        version = tx.rows.insert(op.store, op.id, effect.scope, effect.post)
    except (ConflictError, ValidationError) as refused:
        return _refused(op, info_from(refused), None)
    return None if version is None else _written(tx, effect, spec, version)


def _written(tx: LocalTx, effect: Effect, spec: StoreSpec[Any], version: int) -> WriteItemResult:
    _put_under(tx, effect.op)
    _record(tx, effect, spec)
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

    It registers the nodes ``local-query`` and ``local-write``, and offers the local database, live queries, and the completeness of
    the rows.

    Args:
        engine: The engine that keeps the rows.

    Raises:
        ConfigurationError: ``engine`` is not an engine.
    """

    id = "local"

    def __init__(self, engine: LocalEngine) -> None:
        if not is_a(engine, LocalEngine):
            raise ConfigurationError(f"LocalExecution() needs an engine, SQLiteEngine('app.db'), not {engine!r}")
        self._engine = engine

    @property
    def provides(self) -> Sequence[PortKey[object]]:
        """The local database, its live queries, and the completeness of its rows."""
        return (LOCAL_DATABASE, LIVE_QUERIES, COMPLETENESS)  # type: ignore[return-value]

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
            known = CompletenessBoard(context.schema, context.synced_stores)
            clock = context.environment.clock
            async with open_live_queries(database, context.schema, completeness=known, clock=clock) as live:
                context.provide(LOCAL_DATABASE, database)
                context.provide(COMPLETENESS, known)
                context.provide(LIVE_QUERIES, live)
                context.register_node("local-query", LocalQueryNode(database, known))
                context.register_node("local-write", LocalWriteNode(database))
                yield
