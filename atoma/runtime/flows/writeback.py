"""Keeping remote answers in the local cache of stores that do not sync (on synced stores only pages do)."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.execution import QueryRequest, QueryResult, Source, WriteRequest, WriteResult
from atoma.contracts.values import StoredRow
from atoma.errors import AtomaError
from atoma.ports.execution import ApplyPort
from atoma.ports.local import LocalTx


class WriteBack:
    """Writes remote answers into the local cache.

    Args:
        apply: The way into the local database; None when there is none, and then nothing is kept.
        synced: Stores whose base only the sync lanes may change.
    """

    def __init__(self, apply: ApplyPort | None, synced: frozenset[str]) -> None:
        self._apply = apply
        self._synced = synced

    def caches(self, store: str, source: Source) -> bool:
        """Whether an answer from ``source`` is to be kept for ``store``."""
        return self._apply is not None and source != "local" and store not in self._synced

    async def keep_rows(self, store: str, rows: Sequence[StoredRow], gone: Sequence[StoredRow] = ()) -> frozenset[str]:
        """Keep ``rows`` and delete ``gone``; returns the ids among ``gone`` that pending writes protect."""
        if self._apply is None or not (rows or gone):
            return frozenset()

        def body(tx: LocalTx) -> frozenset[str]:
            for row in rows:
                tx.put_base(store, row.id, row.scope, row.image, row.seq)
            kept: set[str] = set()
            for row in gone:
                if tx.read_base(store, row.id).shadowed:
                    kept.add(row.id)
                else:
                    tx.put_base(store, row.id, row.scope, None, 0)
            return frozenset(kept)

        return await self._apply.apply_writeback(body, "writeback")

    async def keep_results(self, request: WriteRequest, result: WriteResult) -> None:
        """Keep the authority's images of what was written."""
        kept = [
            (entry, item)
            for entry, item in zip(request.entries, result.items, strict=True)
            if item.ok
            and self.caches(entry.store, result.meta.source)
            and (item.row is not None or entry.op == "delete")
        ]
        if self._apply is None or not kept:
            return

        def body(tx: LocalTx) -> None:
            for entry, item in kept:
                scope = entry.scope or tx.read_base(entry.store, entry.id).scope
                if not scope and item.row is not None:
                    scope = tx.schema.store(entry.store).scope_of(item.row)
                tx.put_base(entry.store, entry.id, scope, item.row, item.version)

        await self._apply.apply_writeback(body, "writeback")

    # what detached steps bring (the kernel's ``DetachedResults``)

    async def query_answered(self, request: QueryRequest, result: QueryResult) -> None:
        """Keep the rows of a refresh that ran behind an answer."""
        if self.caches(request.store, result.meta.source):
            await self.keep_rows(request.store, result.rows)

    async def write_settled(self, request: WriteRequest, result: WriteResult | None, error: AtomaError | None) -> None:
        """Keep what a write that ran behind an answer brought; its failure is told by the kernel's events."""
        del error
        if result is not None:
            await self.keep_results(request, result)
