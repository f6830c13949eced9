"""The flows: a read, a write and a question about a write, each through its port, and what its answer means here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from msgspec import structs
from msgspec.structs import replace

from atoma.contracts.checks import check_word, is_a
from atoma.contracts.execution import (
    Confirm,
    Durability,
    ExecutionMeta,
    Matches,
    OperationContext,
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteOptions,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.mutations import Op
from atoma.contracts.query import BoundQuery
from atoma.contracts.receipts import await_verdicts
from atoma.contracts.values import StoredRow
from atoma.errors import ConfigurationError, NotResolvable, PolicyNotAllowed, QueryError, WriteUnknown
from atoma.ports.execution import QueryPort, ResolvePort, WritePort
from atoma.query.compiled import order_rows
from atoma.runtime.optimism import LayeredWrites
from atoma.runtime.registry import PolicyNames
from atoma.runtime.results import aligned
from atoma.runtime.writeback import WriteBack
from atoma.schema.spec import CONFIRMS, DURABILITIES, Schema

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


class WriteFlow:
    """Draws the key of a unit before anything runs, and hands it to the commit flow.

    Args:
        commit: Carries units out.
        names: Chooses the policy.
        ids: Draws keys.
        traces: Draws trace ids.
        schema: Default ``confirm`` of the stores.
    """

    def __init__(
        self,
        commit: WriteCommitFlow,
        names: PolicyNames,
        ids: Callable[[], str],
        traces: Callable[[], str],
        schema: Schema,
    ) -> None:
        self._commit = commit
        self._names = names
        self._ids = ids
        self._traces = traces
        self.schema = schema

    async def write(
        self,
        entries: Sequence[Op],
        *,
        policy: str | None = None,
        confirm: Confirm | None = None,
        atomic: bool = False,
        durability: Durability | None = None,
        reads: tuple[tuple[str, str, int | None], ...] = (),
        matches: Matches | None = None,
    ) -> WriteResult:
        """Write one unit; refused items are in the result.

        Raises:
            UnknownPolicy: No such policy.
            PolicyNotAllowed: The stores of an atomic unit have different policies.
            ValidationError: No such ``confirm`` or ``durability``.
        """
        check_word("confirm", confirm, CONFIRMS)
        check_word("durability", durability, DURABILITIES)
        stores = {entry.store for entry in entries}
        policies = {self._names.resolve(store, policy) for store in stores}
        if len(policies) > 1:
            named = ", ".join(sorted(stores))
            raise PolicyNotAllowed("/".join(sorted(policies)), named, "one unit runs under one policy")
        context = OperationContext(self._traces(), policies.pop())
        options = WriteOptions(confirm or self._confirm(stores), atomic, durability, reads)
        return await self._commit.commit(WriteRequest(tuple(entries), options, context, self._ids(), matches))

    def _confirm(self, stores: set[str]) -> Confirm:
        """The stores' own; one strict store makes the unit strict."""
        return "strict" if any(self.schema.store(store).confirm == "strict" for store in stores) else "optimistic"


class WriteCommitFlow:
    """Carries units out over the write port.

    Args:
        port: Carries writes out.
        writeback: Keeps remote answers of unsynced stores.
        layered: Shows writes that another machine decides; None when there is no local database to show them in.
    """

    def __init__(self, port: WritePort, writeback: WriteBack, layered: LayeredWrites | None = None) -> None:
        self._port = port
        self._writeback = writeback
        self._layered = layered

    async def commit(self, request: WriteRequest) -> WriteResult:
        """Carry ``request`` out and return one result per entry, in entry order.

        With ``confirm="strict"`` it returns after the authority's verdict on every written item; items that the
        authority refused are refused in the result.

        Raises:
            ResultMismatch: The port broke its contract.
        """
        if self._layered is not None and self._layered.takes(request):
            return await self._layered.write(request)
        result = aligned(request, await self._port.execute_write(request))
        await self._writeback.keep_results(request, result)
        if request.options.confirm != "strict" or not result.receipts:
            return result
        items = await await_verdicts(result.items, result.receipts)
        return replace(result, status=status_of(items), items=items)


Recall: TypeAlias = Callable[[str], Awaitable[WriteResult | None]]
"""What became here of the unit with a key; see :meth:`atoma.ports.engine.LocalDatabase.recall`."""


class ResolveFlow:
    """Resolves the keys of writes.

    Args:
        port: Asks who decides.
        recall: Tells of the writes that lie or lay in this device's outbox; None without a local database.
        layered: Shows writes that are not decided; None without a local database.
        traces: Draws trace ids.
    """

    def __init__(
        self, port: ResolvePort, recall: Recall | None, layered: LayeredWrites | None, traces: Callable[[], str]
    ) -> None:
        self._port = port
        self._recall = recall
        self._layered = layered
        self._traces = traces

    async def resolve(self, write: WriteUnknown | str, policy: str | None = None) -> Resolution:
        """Ask what became of ``write``; see :meth:`atoma.Client.resolve`."""
        if not is_a(write, str) and not is_a(write, WriteUnknown):
            raise ConfigurationError(f"resolve() takes a WriteUnknown error or its key idem, not {write!r}")
        idem, nodes = (write, None) if isinstance(write, str) else (write.idem, write.nodes)
        queued = None if self._recall is None else await self._recall(idem)
        if queued is not None:  # it will be sent, or was: the hub knows it by its number, and nobody may abandon it
            return await self._judged(idem, queued)
        if nodes == ():
            raise NotResolvable(idem, "no node that it went to can tell; what this device decides, its handle tells")
        context = OperationContext(self._traces(), policy or "")
        found = await self._port.execute_resolve(ResolveRequest(idem, context, nodes or ()))
        if self._layered is not None:
            await self._layered.resolved(found)
        return found

    async def _judged(self, idem: str, queued: WriteResult) -> Resolution:
        """The hub's verdict on a write of the outbox, once it is there."""
        items = await await_verdicts(queued.items, queued.receipts)
        meta = ExecutionMeta(trace_id=self._traces())
        result = WriteResult(status_of(items), items, meta, (None,) * len(items))
        return Resolution(idem, result, meta)
