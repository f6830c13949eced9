"""ReadFlow: one query through the query port, and what a remote answer means for the local cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

from msgspec import structs

from atoma.contracts.checks import check_word
from atoma.contracts.execution import OperationContext, QueryRequest, QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.ports.execution import QueryPort
from atoma.query.compiled import order_rows
from atoma.runtime.flows.writeback import WriteBack
from atoma.runtime.registry import PolicyNames

MergeMode: TypeAlias = Literal["replace", "upsert-only", "preserve-missing"]
"""What a complete remote answer does to cached rows that it does not contain.

``replace`` deletes them, ``upsert-only`` keeps them and leaves them out of the answer, ``preserve-missing`` keeps them
and adds them to the answer. None of them touches a row with pending writes, and ``replace`` answers with those too.
"""


class ReadFlow:
    """Turns a read of a store into a request and the answer into rows.

    Args:
        port: Carries queries out.
        names: Chooses the policy.
        traces: Draws trace ids.
        writeback: Keeps remote answers of unsynced stores.
    """

    def __init__(self, port: QueryPort, names: PolicyNames, traces: Callable[[], str], writeback: WriteBack) -> None:
        self._port = port
        self._names = names
        self._traces = traces
        self._writeback = writeback

    async def query(self, query: BoundQuery, policy: str | None) -> QueryResult:
        """Answer ``query``; errors of the port are the caller's.

        Rows of a remote answer are kept in the local cache, unless the store is synced.
        """
        store = query.store
        request = QueryRequest(query, OperationContext(self._traces(), self._names.resolve(store, policy)))
        writeback = self._writeback
        began = writeback.freshness.now
        result = await self._port.execute_query(request)
        self._answered(result, began)
        if query.plan.whole_rows and writeback.caches(store, result.meta.source):
            kept = await writeback.keep_rows(store, result.rows, began=began)
            return structs.replace(result, rows=_with_versions(result.rows, kept.versions))
        return await self._compared(store, result)

    async def get_all(self, query: BoundQuery, policy: str | None, merge: MergeMode) -> QueryResult:
        """Answer ``query`` whole, and merge a remote answer into the cache as ``merge`` says.

        The rows are in the order of ``query``, whichever side they are from. Where rows of this device stand among the
        authority's, ``meta.source`` is ``mixed`` and ``meta.path`` has the steps of both reads.

        Raises:
            QueryError: ``query`` asks for a part only.
            ValidationError: There is no such ``merge``.
        """
        plan, store = query.plan, query.store
        if (plan.limit, plan.offset, plan.seek) != (None, 0, None):
            raise QueryError("get_all() answers with every row; limit, offset and after are for query()")
        check_word("merge", merge, get_args(MergeMode))
        trace_id = self._traces()
        request = QueryRequest(query, OperationContext(trace_id, self._names.resolve(store, policy)))
        began = self._writeback.freshness.now
        result = await self._port.execute_query(request)
        self._answered(result, began)
        if not self._writeback.caches(store, result.meta.source):
            return await self._compared(store, result)
        local = await self._port.execute_query(QueryRequest(query, OperationContext(trace_id, "direct-local")))
        answered = {row.id for row in result.rows}
        missing = [row for row in local.rows if row.id not in answered]
        gone = missing if merge == "replace" else ()
        kept = await self._writeback.keep_rows(store, result.rows, gone, began=began)
        own = missing if merge == "preserve-missing" else [row for row in missing if row.id in kept.protected]
        meta = result.meta
        if own:
            meta = structs.replace(meta, source="mixed", path=(*meta.path, *local.meta.path))
        rows = order_rows(query, (*_with_versions(result.rows, kept.versions), *own))
        return QueryResult(tuple(rows), (), meta)

    async def _compared(self, store: str, result: QueryResult) -> QueryResult:
        """``result`` with this device's versions where rows of another machine are in it."""
        if result.meta.source == "local" or not result.rows or self._writeback.apply is None:
            return result
        versions = await self._writeback.versions_of(store, result.rows)
        return structs.replace(result, rows=_with_versions(result.rows, versions))

    def _answered(self, result: QueryResult, began: int) -> None:
        """Remember when the read began for as long as a part of it goes on behind the answer."""
        if any(step.outcome == "detached" for step in result.meta.path):
            self._writeback.freshness.goes_on(result.meta.trace_id, began)


def _with_versions(rows: tuple[StoredRow, ...], versions: Mapping[str, int]) -> tuple[StoredRow, ...]:
    """``rows`` with this device's versions; the authority's own, below 0, of a row that is not here as it was answered."""
    return tuple(structs.replace(row, version=versions.get(row.id, -row.seq)) for row in rows)
