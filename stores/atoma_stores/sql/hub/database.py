"""The part of an open database of a hub that is scripts: every read, and upkeep. How a script is run, each database says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from atoma.contracts.query import BoundQuery, Expr
from atoma.contracts.sync import DevicePolicy, Place
from atoma.contracts.values import RowKey
from atoma.ports.environment import Environment
from atoma.ports.hub import (
    ClientState,
    CompactReport,
    EndedEpoch,
    HubIdentity,
    Lineage,
    LogPage,
    Permission,
    ScanPage,
    ScopeState,
)
from atoma.ports.hub_queries import Fences, QueryPage, ReadAllowance
from atoma.schema.schema import Schema
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.hub import epochs, reads, upkeep
from atoma_stores.sql.hub.rows import stores_of
from atoma_stores.sql.scripts import Script

T = TypeVar("T")


class ScriptedHubDatabase(ABC):
    """The part of a hub's database that works by scripts; see :class:`atoma.ports.hub.HubDatabase`.

    Args:
        dialect: The database's.
        schema: The hub's stores.
        environment: Clock and chance.
        identity: Who the hub is.
    """

    def __init__(self, dialect: Dialect, schema: Schema, environment: Environment, identity: HubIdentity) -> None:
        self._dialect, self._environment, self._identity = dialect, environment, identity
        self._stores = stores_of(dialect, schema)
        self._reads = reads.ReadQueries(dialect, schema, self._stores)

    @abstractmethod
    async def _read(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that only reads, in one snapshot; it may be begun again."""

    @abstractmethod
    async def _read_within(self, script: Callable[[], Script[T]], allowance: ReadAllowance) -> T:
        """:meth:`_read` for somebody who may ask for too much."""

    @abstractmethod
    async def _write(self, script: Callable[[], Script[T]], *, bulk: bool = False) -> T:
        """Run a script in a transaction of its own, which survives a power cut; ``bulk`` says that it takes long."""

    @property
    def identity(self) -> HubIdentity:
        """Who the hub is."""
        return self._identity

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
        before: Collection[str] = (),
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
                before=before,
            )
        )

    async def scan(
        self,
        scope: str,
        after: RowKey | None,
        *,
        max_bytes: int,
        max_rows: int,
        allowance: ReadAllowance,
        conditions: Mapping[str, Expr] | None = None,
    ) -> ScanPage:
        """Rows after ``after``."""
        fenced = conditions or {}
        scan = partial(
            reads.read_scan, self._reads, scope, after, max_bytes=max_bytes, max_rows=max_rows, conditions=fenced
        )
        return await self._read_within(scan, allowance)

    async def scopes(self, names: Sequence[str] | None = None) -> Sequence[ScopeState]:
        """States of scopes."""
        return await self._read(partial(reads.read_scopes, self._reads, names))

    async def locate(self, store: str, ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Scopes that hold a row with each id."""
        return await self._read(partial(reads.read_located, self._reads, store, ids))

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
        return await self._read_within(self._asked(query, fences, max_bytes, max_rows), allowance)

    def _asked(
        self, query: BoundQuery, fences: Fences, max_bytes: int, max_rows: int
    ) -> Callable[[], Script[QueryPage]]:
        return partial(reads.read_query, self._reads, query, fences, max_bytes=max_bytes, max_rows=max_rows)

    async def lineages(self, places: Sequence[Place]) -> Sequence[Lineage]:
        """The scope of each place beside it, all in one snapshot."""
        return await self._read(partial(reads.read_lineages, self._reads, places))

    async def compact(self, *, keep: int, keep_ms: int, clients_ms: int, force: bool = False) -> CompactReport:
        """Raise the floors, then delete below them in batches."""
        now_ms = self._environment.wall_ms()
        before_ms, seen_ms = now_ms - keep_ms, now_ms - clients_ms
        if not force:
            await self._read(partial(upkeep.check_clock, self._dialect, now_ms, before_ms, seen_ms))
        return await self._forget(keep, before_ms, seen_ms)

    async def _forget(
        self, keep: int, before_ms: int, seen_ms: int, between: Callable[[], Awaitable[object]] | None = None
    ) -> CompactReport:
        """Do what :meth:`compact` is for; ``between`` is called after each batch."""
        floors: dict[str, int] = {}
        scopes = [state.scope for state in await self.scopes()]
        for some in upkeep.parts(scopes):
            floors |= await self._write(partial(upkeep.raise_floors, self._dialect, keep, before_ms, some))
        await self._write(partial(upkeep.raise_forgotten, self._dialect, before_ms))
        removed: dict[str, int] = {}
        for chore in upkeep.chores(self._dialect, floors, before_ms, seen_ms):
            while count := await self._write(chore.part, bulk=True):
                removed[chore.what] = removed.get(chore.what, 0) + count
                if between is not None:
                    await between()
        return CompactReport(**removed, floors=floors)

    async def renew_epoch(self, devices: DevicePolicy) -> HubIdentity:
        """Mint a new epoch."""
        await self._end_epoch(devices)
        return self._identity

    async def _end_epoch(self, devices: DevicePolicy) -> int:
        """Let the epoch end and another one begin; the counter of commits."""
        epoch = epochs.mint_epoch(self._environment)
        commits = await self._write(
            partial(epochs.end_epoch, self._dialect, epoch, self._environment.wall_ms(), devices, deletes=True)
        )
        self.note_epoch(epoch)
        return commits

    def note_epoch(self, epoch: bytes) -> None:
        """The epoch has ended, and this one begun."""
        self._identity = replace(self._identity, epoch=epoch)

    async def epochs(self) -> Sequence[EndedEpoch]:
        """Every epoch that has ended, oldest first."""
        return await self._read(partial(epochs.ended_epochs, self._dialect))

    async def absent(self, epoch: bytes) -> Sequence[ClientState]:
        """Clients that have not opened a session since ``epoch`` ended."""
        return await self._read(partial(epochs.absent_clients, self._dialect, epoch))

    async def permit(self, epoch: bytes, what: Permission) -> bool:
        """Allow ``what`` about what came behind the end of ``epoch``; False when no such epoch has ended."""
        return await self._write(partial(epochs.permit, self._dialect, epoch, what))

    async def unfinished(self) -> Sequence[str]:
        """Scopes whose log goes beyond their head."""
        return await self._read(partial(reads.read_unfinished, self._reads))

    async def put_off(self) -> Sequence[bytes]:
        """Ended epochs whose deletions are allowed and were not carried out yet."""
        return await self._read(partial(epochs.put_off, self._dialect))

    async def traced(self) -> Sequence[tuple[str, bytes]]:
        """Scopes with the epochs of which devices have brought rows back."""
        return await self._read(partial(epochs.traced, self._dialect))
