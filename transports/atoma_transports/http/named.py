"""Rows as JSON shows them: a boolean column, which is stored as 0 or 1, is ``false`` or ``true``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from atoma.contracts.execution import (
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteItemResult,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.sync import (
    Outcome,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotReply,
    SnapshotRequest,
    StoreChanges,
)
from atoma.contracts.values import RowImage, as_image
from atoma.ports import DeclaresStores, SyncService
from atoma.schema import Schema
from atoma_transports.adapters import PassingService

KEYS = 1
"""Values of a row in a page that stand before its columns: the sequence."""


def with_booleans(service: SyncService, host: DeclaresStores | None) -> SyncService:
    """``service`` with booleans in its rows, where there is a ``host`` that says which columns they are."""
    return service if host is None else NamedRows(service, host.schema)


class NamedRows(PassingService):
    """``service``, whose answers are meant for readers who know the fields of ``schema`` by name.

    The answer to ``resolve`` does not say which stores its rows are of: they are recognised by their columns.
    """

    def __init__(self, service: SyncService, schema: Schema) -> None:
        super().__init__(service)
        self._schema = schema

    async def push(self, request: PushRequest) -> PushReply:
        """Conflicts show rows."""
        reply = await self.service.push(request)
        return structs.replace(reply, outcomes=tuple(map(self._outcome, reply.outcomes)))

    def _outcome(self, outcome: Outcome) -> Outcome:
        conflicts = tuple(
            conflict
            if conflict.current is None
            else structs.replace(conflict, current=self._shown(conflict.store, as_image(conflict.current)))
            for conflict in outcome.conflicts
        )
        return structs.replace(outcome, conflicts=conflicts)

    async def pull(self, request: PullRequest) -> PullReply:
        """Changes are rows."""
        reply = await self.service.pull(request)
        return structs.replace(reply, stores=tuple(map(self._page, reply.stores)))

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        """A snapshot is rows."""
        reply = await self.service.snapshot(request)
        return structs.replace(reply, stores=tuple(map(self._page, reply.stores)))

    async def query(self, request: QueryRequest) -> QueryResult:
        """Rows of one store."""
        result = await self.service.query(request)
        spec = self._schema.stores.get(request.store)
        if spec is None or not spec.booleans:
            return result
        return structs.replace(
            result, rows=tuple(structs.replace(row, image=spec.with_booleans(row.image)) for row in result.rows)
        )

    async def write(self, request: WriteRequest) -> WriteResult:
        """One row for each entry."""
        result = await self.service.write(request)
        stores = [entry.store for entry in request.entries]
        return structs.replace(result, items=self._items(stores, result.items))

    async def resolve(self, request: ResolveRequest) -> Resolution:
        """The rows of a write."""
        resolution = await self.service.resolve(request)
        if resolution.result is None:
            return resolution
        items = resolution.result.items
        stores = [self._store_of(item.row) for item in items]
        return structs.replace(resolution, result=structs.replace(resolution.result, items=self._items(stores, items)))

    def _items(self, stores: Sequence[str], items: Sequence[WriteItemResult]) -> tuple[WriteItemResult, ...]:
        both = zip(stores, items, strict=True)
        return tuple(structs.replace(item, row=self._shown(store, item.row)) for store, item in both)

    def _shown(self, store: str, row: RowImage | None) -> RowImage | None:
        spec = self._schema.stores.get(store)
        return row if row is None or spec is None else spec.with_booleans(row)

    def _page(self, changes: StoreChanges) -> StoreChanges:
        spec = self._schema.stores.get(changes.store)
        if spec is None or not spec.booleans:
            return changes
        places = [KEYS + at for at, name in enumerate(changes.columns) if name in spec.booleans]
        return structs.replace(changes, rows=tuple(_with_booleans(row, places) for row in changes.rows))

    def _store_of(self, row: Mapping[str, object] | None) -> str:
        columns = set(row or ())
        return next((name for name, spec in self._schema.stores.items() if set(spec.value_columns) == columns), "")


def _with_booleans(row: tuple[object, ...], places: Sequence[int]) -> tuple[object, ...]:
    shown = list(row)
    for place in places:
        if shown[place] is not None:
            shown[place] = bool(shown[place])
    return tuple(shown)
