"""The open database of a hub on PostgreSQL: writes through lanes, reads in snapshots, and the commits of others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import trio

from atoma.contracts.query import BoundQuery
from atoma.errors import QueryError, StoreError
from atoma.ports.environment import Environment
from atoma.ports.hub import CompactReport, Decision, HubIdentity, WritePlan
from atoma.ports.hub_queries import Fences, QueryPage, ReadAllowance
from atoma.ports.intake import IntakeTurn
from atoma.ports.presence import Notices
from atoma.ports.tasks import open_tasks
from atoma.query.plans import ids_of
from atoma.schema.schema import Schema
from atoma_stores.postgres.chores import leave, take
from atoma_stores.postgres.codes import OUT_OF_RANGE, ServerError
from atoma_stores.postgres.heads import Heads
from atoma_stores.postgres.intake import PostgresIntakeTurn, forget
from atoma_stores.postgres.lanes import AGAIN_S, Figures, Job, WriterLane, lane_of
from atoma_stores.postgres.pool import Pools, read, write
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.hub.database import ScriptedHubDatabase
from atoma_stores.sql.hub.groups import GroupQueries
from atoma_stores.sql.hub.noting import noted_read
from atoma_stores.sql.hub.state import Run
from atoma_stores.sql.scripts import Script
from atoma_stores.sql.spelling import UNASKED

T = TypeVar("T")

LONG_READERS_MAX = 4
"""The number of queries and scans at a time; the other connections are kept for pages of the log."""
READ_AGAIN_S = 10.0


class PostgreSQLHubDatabase(ScriptedHubDatabase):
    """An open database of a hub; made by :meth:`PostgreSQLHubStore.open_hub_database`."""

    def __init__(
        self, schema: Schema, environment: Environment, identity: HubIdentity, pools: Pools, *, writers: int
    ) -> None:
        super().__init__(POSTGRESQL, schema, environment, identity)
        self._pools = pools
        self._long = trio.Semaphore(LONG_READERS_MAX)
        self._heads: Heads | None = None
        self.figures = Figures()
        queries = GroupQueries(POSTGRESQL, self._stores)
        lengthy = [store.name for store in schema.stores.values() if store.merging.texts or store.merging.customs]
        self._lanes = [
            WriterLane(
                pools.writing,
                queries,
                schema.forms,
                lengthy,
                environment,
                pools.where,
                self._committed,
                self._lost_sight,
                self.figures,
            )
            for _ in range(writers)
        ]

    @property
    def unknown_functions(self) -> frozenset[str]:
        """The functions that search texts, by words and by regular expressions."""
        return UNASKED

    async def run(
        self, decisions: Sequence[Decision], on_commit: Callable[[Sequence[WritePlan]], None] | None = None
    ) -> Sequence[WritePlan]:
        """Load, make and carry out ``decisions`` in one transaction, together with those of other callers."""
        job = Job(Run(decisions, self._environment.wall_ms()), on_commit)
        await self._lanes[lane_of(job.run, len(self._lanes))].do(job)
        return job.run.plans

    @asynccontextmanager
    async def follow(
        self, listener: Callable[[Mapping[str, int]], None], watched: Callable[[], Sequence[str]]
    ) -> AsyncGenerator[None]:
        """Notify ``listener`` of the heads that other processes commit, and these of the heads of this one."""
        heads = Heads(self._pools.heads, self._pools.listen, listener, watched, self._identity.key, self._environment)
        async with open_tasks() as nursery:
            self._heads = heads
            nursery.start_soon(heads.run)
            try:
                yield
            finally:
                self._heads = None
                nursery.cancel_scope.cancel()

    async def lookup(self, query: BoundQuery, fences: Fences, *, max_bytes: int, max_rows: int) -> QueryPage | None:
        """Return the rows of a query by ids; None for every other query."""
        if ids_of(query) is None:
            return None
        return await self._read(self._asked(query, fences, max_bytes, max_rows))

    async def _forget(
        self, keep: int, before_ms: int, seen_ms: int, between: Callable[[], Awaitable[object]] | None = None
    ) -> CompactReport:
        """Compact the log, or do nothing if another process is doing so."""
        owner = self._environment.random.randbytes(8).hex()
        at_it = partial(self._write, partial(take, "compact", owner))
        if not await at_it():
            return CompactReport()
        try:
            await self._write(partial(forget, before_ms))
            return await super()._forget(keep, before_ms, seen_ms, at_it)
        finally:
            with trio.move_on_after(AGAIN_S, shield=True):
                await self._write(partial(leave, "compact", owner))

    @asynccontextmanager
    async def open_intake(self) -> AsyncGenerator[IntakeTurn]:
        """Take turns at the writes that other programs have left; see :class:`atoma.ports.intake.TakesLeftWrites`."""
        turn = PostgresIntakeTurn(self._read, self._write, self._environment.random.randbytes(8).hex(), self._left)
        try:
            yield turn
        finally:
            with trio.move_on_after(AGAIN_S, shield=True):
                await turn.end()

    @asynccontextmanager
    async def open_notices(self, heard: Callable[[bytes], None]) -> AsyncGenerator[Notices]:
        """Exchange notices between processes by notifications; see :class:`atoma.ports.presence.CarriesNotices`."""
        heads = self._heads
        if heads is None:
            raise StoreError("nobody follows what other processes of the hub say")
        heads.heard = heard
        try:
            yield heads
        finally:
            heads.heard = lambda notice: None

    async def _left(self) -> None:
        if self._heads is None:
            await trio.sleep_forever()
        else:
            await self._heads.left()

    def write_lanes(self, nursery: trio.Nursery) -> None:
        """Start the lanes that write."""
        for lane in self._lanes:
            nursery.start_soon(lane.run)

    def close(self) -> None:
        """Accept nothing more; everything that is waiting is still written."""
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
        noted = noted_read(script, POSTGRESQL)

        async def attempt() -> T:
            async with self._pools.reading.connection() as connection:
                return await read(connection, noted(), limit_ms=limit_ms)

        return await self._pools.persist(attempt, self._pools.reading, READ_AGAIN_S)

    async def _write(self, script: Callable[[], Script[T]], *, bulk: bool = False) -> T:
        async def attempt() -> T:
            async with self._pools.writing.connection() as connection:
                return await write(connection, script())

        return await self._pools.persist(attempt, self._pools.writing, AGAIN_S)


def refused(error: ServerError) -> QueryError:
    """Return the error for the caller of a query whose values the server refuses."""
    if error.state == OUT_OF_RANGE:
        return QueryError("a number that the query comes to does not fit: whole numbers have 64 bits")
    return QueryError(f"the query cannot be answered: {error}")
