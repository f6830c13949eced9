"""Keeping remote answers in the local cache of stores that do not sync (on synced stores only pages do)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from atoma.contracts.execution import QueryRequest, QueryResult, WriteRequest, WriteResult
from atoma.contracts.values import StoredRow
from atoma.contracts.writeback import ConfirmedRow, Writeback
from atoma.errors import AtomaError, StoreError
from atoma.runtime.applying import ApplyFlow, Freshness, confirmed
from atoma.runtime.hooks import StoreHooks
from atoma.runtime.optimism import LayeredWrites

_log = logging.getLogger("atoma.runtime")


@dataclass(frozen=True, slots=True)
class CacheUpdate:
    """The result of keeping an answer in the local cache.

    Attributes:
        protected: Ids that were to go and stay, because of pending writes or because they are newer.
        versions: Version here of each answered row that is visible as it was answered.
    """

    protected: frozenset[str]
    versions: dict[str, int]


class WriteBack:
    """The writer of remote answers into the local cache; they can be asked for again, so they are worth no fsync.

    Args:
        apply: The way into the local database; None when there is none, and then nothing is kept.
        synced: Stores whose base only the sync lanes may change.

    Attributes:
        apply: See above.
        layered: Who waits for the answers of detached writes; set when the runtime is made.
        hooks: Changes what is kept; set when the runtime is made.
        freshness: Tells which answers are too old to be kept.
    """

    def __init__(self, apply: ApplyFlow | None, synced: frozenset[str]) -> None:
        self.apply = apply
        self.layered: LayeredWrites | None = None
        self.hooks: StoreHooks | None = None
        self.freshness = Freshness() if apply is None else apply.freshness
        self._synced = synced

    def caches(self, store: str) -> bool:
        """Whether remote answers about ``store`` are kept.

        Mixed ones never are: they hold rows of this device, with what nobody has confirmed.
        """
        return self.apply is not None and store not in self._synced

    async def keep_rows(
        self, store: str, rows: Sequence[StoredRow], gone: Sequence[StoredRow] = (), *, began: int
    ) -> CacheUpdate:
        """Keep ``rows``, as ``writeback`` of the store has them, and delete ``gone``.

        A row with pending writes gets the answer as its base and stays as the user sees it; what was settled after
        the read ``began`` is newer than its answer and stays. When this device cannot write, nothing is kept, and the
        log says why: the answer is true all the same.
        """
        if self.apply is None or not (rows or gone):
            return CacheUpdate(frozenset(), {})
        wanted = rows if self.hooks is None else self.hooks.kept(store, rows)
        if wanted is None:
            return CacheUpdate(frozenset(), {})
        kept = Writeback(
            rows=confirmed(store, wanted),
            missing=confirmed(store, gone),
            as_of=began,
            durability="normal",
            versions=True,
        )
        try:
            applied = await self.apply.apply_writeback(kept)
        except StoreError as error:
            _log.warning("an answer about store %r is not kept: %s", store, error)
            return CacheUpdate(frozenset(), {})
        return CacheUpdate(
            frozenset(id for _, id in applied.kept), {id: at for (_, id), at in applied.versions.items()}
        )

    async def versions_of(self, store: str, rows: Sequence[StoredRow]) -> dict[str, int]:
        """Version here of each of ``rows`` that is visible as it was answered; of none when this device cannot tell."""
        assert self.apply is not None
        try:
            return {id: at for (_, id), at in (await self.apply.versions_of(confirmed(store, rows))).items()}
        except StoreError as error:
            _log.warning("versions of an answer about store %r are not known here: %s", store, error)
            return {}

    async def keep_results(self, request: WriteRequest, result: WriteResult) -> None:
        """Keep the images of what was written in a remote ``result``."""
        if self.apply is None:
            return
        kept = [
            ConfirmedRow(entry.store, entry.id, item.row, item.version, entry.scope)
            for entry, item in zip(request.entries, result.items, strict=True)
            if item.ok and self.caches(entry.store) and (item.row is not None or entry.kind == "delete")
        ]
        if kept:
            await self.apply.apply_writeback(Writeback(rows=kept, durability="normal"))

    # what detached steps bring (the kernel's ``DetachedResults``)

    async def query_answered(self, request: QueryRequest, result: QueryResult) -> None:
        """Keep the rows of a refresh that ran behind an answer."""
        began = self.freshness.ended(request.context.trace_id)
        if result.meta.source == "remote" and request.query.plan.whole_rows and self.caches(request.store):
            await self.keep_rows(request.store, result.rows, began=began)

    async def write_settled(self, request: WriteRequest, result: WriteResult | None, error: AtomaError | None) -> None:
        """Hand the verdict on a write that ran behind an answer to the caller that waits for it.

        When nobody does, its caller was cancelled and what was written since on its rows may be newer: it is not kept.
        """
        if self.layered is not None:
            self.layered.answered(request, result, error)
        elif result is not None and result.meta.source == "remote":
            await self.keep_results(request, result)
