"""The open database of a hub on PostgreSQL: writes through lanes, reads in snapshots, what others commit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import trio

from atoma.contracts.query import BoundQuery
from atoma.contracts.sync import DevicePolicy, Place
from atoma.errors import QueryError, StoreError
from atoma.ports.environment import Environment
from atoma.ports.hub import (
    ClientState,
    CompactReport,
    EndedEpoch,
    HubIdentity,
    Lineage,
    LogPage,
    Permission,
    Plan,
    RowKey,
    ScanPage,
    ScopeState,
    Step,
)
from atoma.ports.hub_queries import Fences, QueryPage, ReadAllowance
from atoma.ports.tasks import open_tasks
from atoma.query.plans import ids_of
from atoma.schema.spec import Schema
from atoma_stores.postgres.chores import leave, take
from atoma_stores.postgres.codes import OUT_OF_RANGE, ServerError
from atoma_stores.postgres.ddl import IDENTITY_BYTES
from atoma_stores.postgres.heads import Heads
from atoma_stores.postgres.lanes import AGAIN_S, Figures, Job, Lane, lane_of
from atoma_stores.postgres.pool import Pools, read, write
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.hub import epochs, reads, upkeep
from atoma_stores.sql.hub.groups import GroupQueries
from atoma_stores.sql.hub.rows import stores_of
from atoma_stores.sql.hub.state import Run
from atoma_stores.sql.scripts import Script
from atoma_stores.sql.spelling import UNSEARCHED

T = TypeVar("T")

LONG_READERS_MAX = 4
"""Queries and scans for others at a time: the rest is for pages of the log."""
READ_AGAIN_S = 10.0


class PostgreSQLHubDatabase:
    """An open database of a hub; made by :meth:`PostgreSQLHubStore.open_hub_database`."""

    def __init__(
        self, schema: Schema, environment: Environment, identity: HubIdentity, pools: Pools, *, writers: int
    ) -> None:
        self._environment, self._pools = environment, pools
        self._identity = identity
        stores = stores_of(POSTGRESQL, schema)
        self._reads = reads.ReadQueries(POSTGRESQL, schema, stores)
        self._long = trio.Semaphore(LONG_READERS_MAX)
        self._heads: Heads | None = None
        self.figures = Figures()
        known = {
            spec.name: {name: of.form for name, of in spec.fields.items() if name != "id"}
            for spec in schema.stores.values()
        }
        queries = GroupQueries(POSTGRESQL, stores)
        self._lanes = [
            Lane(
                pools.writing, queries, known, environment, pools.where, self._committed, self._lost_sight, self.figures
            )
            for _ in range(writers)
        ]

    @property
    def identity(self) -> HubIdentity:
        """Who the hub is."""
        return self._identity

    @property
    def unknown_functions(self) -> frozenset[str]:
        """What searches texts."""
        return UNSEARCHED

    async def run(
        self, steps: Sequence[Step], on_commit: Callable[[Sequence[Plan]], None] | None = None
    ) -> Sequence[Plan]:
        """Load, decide and carry out ``steps`` in a transaction, grouped with those of other callers."""
        job = Job(Run(steps, self._environment.wall_ms()), on_commit)
        await self._lanes[lane_of(job.run, len(self._lanes))].do(job)
        return job.run.plans

    @asynccontextmanager
    async def follow(
        self, listener: Callable[[Mapping[str, int]], None], watched: Callable[[], Sequence[str]]
    ) -> AsyncGenerator[None]:
        """Tell ``listener`` which heads other processes have committed, and them what this one has."""
        heads = Heads(self._pools.heads, self._pools.listen, listener, watched, self._environment)
        async with open_tasks() as nursery:
            self._heads = heads
            nursery.start_soon(heads.run)
            try:
                yield
            finally:
                self._heads = None
                nursery.cancel_scope.cancel()

    async def page(
        self,
        scope: str,
        start: int,
        *,
        max_bytes: int,
        max_changes: int,
        client_id: bytes,
        principal: str,
        outcomes_after: int,
    ) -> LogPage:
        """The log after ``start`` with the client's outcomes."""
        return await self._read(
            partial(
                reads.read_page,
                self._reads,
                scope,
                start,
                max_bytes=max_bytes,
                max_changes=max_changes,
                client=(client_id, principal),
                outcomes_after=outcomes_after,
            )
        )

    async def scan(
        self, scope: str, after: RowKey | None, *, max_bytes: int, max_rows: int, allowance: ReadAllowance
    ) -> ScanPage:
        """Rows after ``after``."""
        scan = partial(reads.read_scan, self._reads, scope, after, max_bytes=max_bytes, max_rows=max_rows)
        return await self._read_within(scan, allowance)

    async def scopes(self, names: Sequence[str] | None = None) -> Sequence[ScopeState]:
        """States of scopes."""
        return await self._read(partial(reads.read_scopes, self._reads, names))

    async def locate(self, store: str, ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Scopes that hold a row with each id."""
        return await self._read(partial(reads.read_located, self._reads, store, ids))

    async def lookup(self, query: BoundQuery, fences: Fences, *, max_bytes: int, max_rows: int) -> QueryPage | None:
        """Rows that are asked for by their ids; None for every other query."""
        if ids_of(query) is None:
            return None
        asked = partial(reads.read_query, self._reads, query, fences, max_bytes=max_bytes, max_rows=max_rows)
        return await self._read(asked)

    async def query(
        self,
        query: BoundQuery,
        fences: Fences,
        *,
        max_bytes: int,
        max_rows: int,
        allowance: ReadAllowance,
    ) -> QueryPage:
        """Rows within these fences only."""
        asked = partial(reads.read_query, self._reads, query, fences, max_bytes=max_bytes, max_rows=max_rows)
        return await self._read_within(asked, allowance)

    async def lineages(self, places: Sequence[Place]) -> Sequence[Lineage]:
        """The scope of each place beside it, all in one snapshot."""
        return await self._read(partial(reads.read_lineages, self._reads, places))

    async def compact(self, *, keep: int, keep_ms: int, clients_ms: int, force: bool = False) -> CompactReport:
        """Raise the floors, then delete below them in batches; nothing while another process is at it."""
        now_ms = self._environment.wall_ms()
        before_ms, seen_ms = now_ms - keep_ms, now_ms - clients_ms
        if not force:
            await self._read(partial(upkeep.check_clock, POSTGRESQL, now_ms, before_ms, seen_ms))
        owner = self._environment.random.randbytes(8).hex()
        if not await self._write(partial(take, "compact", owner)):
            return CompactReport()
        try:
            floors: dict[str, int] = {}
            scopes = [state.scope for state in await self.scopes()]
            for some in upkeep.parts(scopes):
                floors |= await self._write(partial(upkeep.raise_floors, POSTGRESQL, keep, before_ms, some))
            await self._write(partial(upkeep.raise_forgotten, POSTGRESQL, before_ms))
            removed: dict[str, int] = {}
            for chore in upkeep.chores(POSTGRESQL, floors, before_ms, seen_ms):
                while count := await self._write(chore.part):
                    removed[chore.what] = removed.get(chore.what, 0) + count
                    await self._write(partial(take, "compact", owner))  # still at it
        finally:
            with trio.move_on_after(AGAIN_S, shield=True):
                await self._write(partial(leave, "compact", owner))
        return CompactReport(**removed, floors=floors)

    async def renew_epoch(self, devices: DevicePolicy) -> HubIdentity:
        """Mint a new epoch."""
        epoch = self._environment.random.randbytes(IDENTITY_BYTES)
        ending = partial(epochs.end_epoch, POSTGRESQL, epoch, self._environment.wall_ms(), devices, deletes=True)
        await self._write(ending)
        self.note_epoch(epoch)
        return self._identity

    async def epochs(self) -> Sequence[EndedEpoch]:
        """Every epoch that has ended, oldest first."""
        return await self._read(partial(epochs.ended_epochs, POSTGRESQL))

    async def absent(self, epoch: bytes) -> Sequence[ClientState]:
        """Clients that have not opened a session since ``epoch`` ended."""
        return await self._read(partial(epochs.absent_clients, POSTGRESQL, epoch))

    async def permit(self, epoch: bytes, what: Permission) -> bool:
        """Allow ``what`` about what came behind the end of ``epoch``; False when no such epoch has ended."""
        return await self._write(partial(epochs.permit, POSTGRESQL, epoch, what))

    async def unfinished(self) -> Sequence[str]:
        """Nothing: no version has written one by half here."""
        return await self._read(partial(reads.read_unfinished, self._reads))

    async def traced(self) -> Sequence[tuple[str, bytes]]:
        """Scopes with the epochs of which devices have brought rows back."""
        return await self._read(partial(epochs.traced, POSTGRESQL))

    def note_epoch(self, epoch: bytes) -> None:
        """The epoch has ended, and this one begun."""
        self._identity = replace(self._identity, epoch=epoch)

    def write_lanes(self, nursery: trio.Nursery) -> None:
        """Begin to write what waits."""
        for lane in self._lanes:
            nursery.start_soon(lane.run)

    def close(self) -> None:
        """Take nothing more; what waits is written."""
        for lane in self._lanes:
            lane.close()

    def _committed(self, heads: Mapping[str, int]) -> None:
        if self._heads is not None:
            self._heads.committed(heads)

    def _lost_sight(self) -> None:
        if self._heads is not None:
            self._heads.look()

    async def _read_within(self, script: Callable[[], Script[T]], allowance: ReadAllowance) -> T:
        async with self._long:
            began = self._environment.clock()
            try:
                return await self._read(script, limit_ms=max(1, int(allowance.seconds * 1_000)))
            except StoreError as error:
                cause = error.__cause__
                if isinstance(cause, ServerError) and cause.meaning == "value":
                    raise refused(cause) from cause
                raise
            finally:
                allowance.spent(self._environment.clock() - began)

    async def _read(self, script: Callable[[], Script[T]], *, limit_ms: int = 0) -> T:
        async def attempt() -> T:
            async with self._pools.reading.connection() as connection:
                return await read(connection, script(), limit_ms=limit_ms)

        return await self._pools.persist(attempt, self._pools.reading, READ_AGAIN_S)

    async def _write(self, script: Callable[[], Script[T]]) -> T:
        async def attempt() -> T:
            async with self._pools.writing.connection() as connection:
                return await write(connection, script())

        return await self._pools.persist(attempt, self._pools.writing, AGAIN_S)


def refused(error: ServerError) -> QueryError:
    """What whoever asked is told of values that a query comes to."""
    if error.state == OUT_OF_RANGE:
        return QueryError("a number that the query comes to does not fit: whole numbers have 64 bits")
    return QueryError(f"the query cannot be answered: {error}")
