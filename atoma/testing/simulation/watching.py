"""Seams through which a run is watched: a hub store that tells its commits, a plugin that tells a client's."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from atoma.contracts.query import BoundQuery, Expr
from atoma.contracts.sync import DevicePolicy, Outcome, Place
from atoma.contracts.values import RowKey
from atoma.plugins import PluginContext
from atoma.ports import LOCAL_DATABASE, Environment, PortKey
from atoma.ports.hub import (
    ClientState,
    CompactReport,
    Decision,
    EndedEpoch,
    Facts,
    HubDatabase,
    HubIdentity,
    HubStore,
    Lineage,
    LogPage,
    Need,
    Permission,
    ScanPage,
    ScopeState,
    WritePlan,
)
from atoma.ports.hub_queries import Fences, QueryPage, ReadAllowance
from atoma.schema import Schema
from atoma.testing.simulation.history import History

Told = Callable[[], None]


@runtime_checkable
class TellsCommits(Protocol):
    """A local database that tells every commit as it happens."""

    def subscribe_commits(self, listener: Callable[[object], None]) -> Callable[[], None]:
        """Call ``listener`` after every COMMIT, before its caller goes on; returns the undo."""
        ...


class CommitWatch:
    """Plugin: calls back when the client is open, after each of its commits, and when it closes."""

    id = "commit-watch"
    provides: Sequence[PortKey[object]] = ()
    needs: Sequence[PortKey[object]] = (LOCAL_DATABASE,)  # type: ignore[assignment]  # PortKey is invariant

    def __init__(self, opened: Told, committed: Told, closed: Told) -> None:
        self._opened = opened
        self._committed = committed
        self._closed = closed

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        """Watch until the client closes."""
        database = context.require(LOCAL_DATABASE)
        assert isinstance(database, TellsCommits)
        self._opened()
        undo = database.subscribe_commits(lambda _changes: self._committed())
        try:
            yield
        finally:
            undo()
            self._closed()


@dataclass(frozen=True, slots=True)
class _Opening:
    """The first decision of a run, which also tells that the hub is about to decide."""

    decision: Decision
    begins: Told

    @property
    def need(self) -> Need:
        return self.decision.need

    def decide(self, facts: Facts) -> WritePlan:
        self.begins()
        return self.decision.decide(facts)


class WatchedHubStore:
    """A :class:`atoma.ports.hub.HubStore` that lets a history look at every commit."""

    def __init__(self, store: HubStore, history: History, committed: Told, opened: Told) -> None:
        self._store = store
        self._opened = opened
        self._history = history
        self._committed = committed

    @asynccontextmanager
    async def open_hub_database(self, schema: Schema, environment: Environment) -> AsyncGenerator[HubDatabase]:
        """Open the store, and the history on it."""
        async with self._store.open_hub_database(schema, environment) as database:
            self._opened()
            try:
                yield WatchedHubDatabase(database, self._history.decision_begins, self._committed, self._history.counts)
            finally:
                self._history.close()


class WatchedHubDatabase:
    """The open database; everything but the telling is passed on."""

    def __init__(self, database: HubDatabase, begins: Told, committed: Told, counts: Counter[str]) -> None:
        self._database = database
        self._counts = counts
        self._begins = begins
        self._committed = committed

    @property
    def identity(self) -> HubIdentity:
        """Who the hub is."""
        return self._database.identity

    @property
    def unknown_functions(self) -> frozenset[str]:
        """Pass it on."""
        return self._database.unknown_functions

    async def run(
        self, decisions: Sequence[Decision], on_commit: Callable[[Sequence[WritePlan]], None] | None = None
    ) -> Sequence[WritePlan]:
        """Pass it on, and tell when it has been committed."""

        def committed(plans: Sequence[WritePlan]) -> None:
            self._counts["duplicates"] += sum(isinstance(p.reply, Outcome) and p.reply.duplicate for p in plans)
            self._committed()
            if on_commit is not None:
                on_commit(plans)

        watched = [
            _Opening(decision, self._begins) if index == 0 else decision for index, decision in enumerate(decisions)
        ]
        return await self._database.run(watched, committed)

    def follow(
        self, listener: Callable[[Mapping[str, int]], None], watched: Callable[[], Sequence[str]]
    ) -> AbstractAsyncContextManager[None]:
        """Pass it on."""
        return self._database.follow(listener, watched)

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
        """Pass it on."""
        return await self._database.page(
            scope,
            start,
            max_bytes=max_bytes,
            max_changes=max_changes,
            client_id=client_id,
            principal=principal,
            outcomes_after=outcomes_after,
            before=before,
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
        """Pass it on."""
        return await self._database.scan(
            scope, after, max_bytes=max_bytes, max_rows=max_rows, allowance=allowance, conditions=conditions
        )

    async def scopes(self, names: Sequence[str] | None = None) -> Sequence[ScopeState]:
        """Pass it on."""
        return await self._database.scopes(names)

    async def locate(self, store: str, ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Pass it on."""
        return await self._database.locate(store, ids)

    async def lookup(self, query: BoundQuery, fences: Fences, *, max_bytes: int, max_rows: int) -> QueryPage | None:
        """Pass it on."""
        return await self._database.lookup(query, fences, max_bytes=max_bytes, max_rows=max_rows)

    async def query(
        self,
        query: BoundQuery,
        fences: Fences,
        *,
        max_bytes: int,
        max_rows: int,
        allowance: ReadAllowance,
    ) -> QueryPage:
        """Pass it on."""
        return await self._database.query(query, fences, max_bytes=max_bytes, max_rows=max_rows, allowance=allowance)

    async def lineages(self, places: Sequence[Place]) -> Sequence[Lineage]:
        """Pass it on."""
        return await self._database.lineages(places)

    async def compact(self, *, keep: int, keep_ms: int, clients_ms: int, force: bool = False) -> CompactReport:
        """Pass it on, and look at what is left."""
        report = await self._database.compact(keep=keep, keep_ms=keep_ms, clients_ms=clients_ms, force=force)
        self._committed()
        return report

    async def epochs(self) -> Sequence[EndedEpoch]:
        """Pass it on."""
        return await self._database.epochs()

    async def absent(self, epoch: bytes) -> Sequence[ClientState]:
        """Pass it on."""
        return await self._database.absent(epoch)

    async def permit(self, epoch: bytes, what: Permission) -> bool:
        """Pass it on."""
        return await self._database.permit(epoch, what)

    async def unfinished(self) -> Sequence[str]:
        """Pass it on."""
        return await self._database.unfinished()

    async def put_off(self) -> Sequence[bytes]:
        """Pass it on."""
        return await self._database.put_off()

    async def traced(self) -> Sequence[tuple[str, bytes]]:
        """Pass it on."""
        return await self._database.traced()

    async def renew_epoch(self, devices: DevicePolicy) -> HubIdentity:
        """Pass it on, and look at what it is now."""
        identity = await self._database.renew_epoch(devices)
        self._committed()
        return identity
