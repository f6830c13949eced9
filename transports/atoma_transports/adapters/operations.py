"""Requests to operations, results back to entries: mapping only, no state, no wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from atoma.contracts.execution import (
    ExecutionMeta,
    OperationContext,
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    restated,
    status_of,
)
from atoma.errors import ProtocolError
from atoma.query.plans import is_count
from atoma_transports.calls.methods import Translation
from atoma_transports.protocol import (
    OPS_MAX,
    OpsReply,
    QueryCall,
    RemoteOp,
    RemoteOpResult,
    ResolveCall,
    ResolveReply,
    WriteCall,
    image,
    operation,
    pack_rows,
    unpack_rows,
)
from atoma_transports.protocol.plans import decode_query, encode_query
from atoma_transports.protocol.tuples import pack_tuples, unpack_tuples


class OperationAdapter:
    """A mapping of neutral requests to the protocol's operations, and of the protocol's results to neutral ones.

    Results are matched by index *and* id, in whatever order they come.
    """

    def to_remote_ops(self, request: QueryRequest | WriteRequest) -> tuple[RemoteOp, ...]:
        """One operation for a query, one per entry for a write."""
        if isinstance(request, QueryRequest):
            return (RemoteOp(0, "query", request.store, query=encode_query(request.query)),)
        return tuple(RemoteOp(index, op=op) for index, op in enumerate(request.entries))

    @overload
    def from_remote_results(self, request: QueryRequest, results: Sequence[RemoteOpResult]) -> QueryResult: ...
    @overload
    def from_remote_results(self, request: WriteRequest, results: Sequence[RemoteOpResult]) -> WriteResult: ...

    def from_remote_results(
        self, request: QueryRequest | WriteRequest, results: Sequence[RemoteOpResult]
    ) -> QueryResult | WriteResult:
        """The neutral result, entries in the request's order and ``meta.source`` ``"remote"``.

        Raises:
            ProtocolError: A result is missing, came twice, or answers an entry that was not asked.
        """
        if isinstance(request, QueryRequest):
            return self._query_result(request, results)
        ordered = _in_order([entry.id for entry in request.entries], results)
        items = tuple(_item(result) for result in ordered)
        return WriteResult(status_of(items), items, _meta(request), (None,) * len(items))

    def from_remote_resolution(self, request: ResolveRequest, reply: ResolveReply) -> Resolution:
        """What became of the write; the order is that of its entries, whose ids only the writer knows.

        Raises:
            ProtocolError: The reply is both or neither of abandoned and answered, or leaves an entry out.
        """
        if reply.abandoned == bool(reply.results):
            raise ProtocolError("a write is either abandoned or has results")
        if reply.abandoned:
            return Resolution(request.idem, meta=_meta(request))
        ids = [result.id for result in sorted(reply.results, key=lambda result: result.index)]
        items = tuple(_item(result) for result in _in_order(ids, reply.results))
        meta = _meta(request)
        return Resolution(request.idem, WriteResult(status_of(items), items, meta, (None,) * len(items)), meta)

    def _query_result(self, request: QueryRequest, results: Sequence[RemoteOpResult]) -> QueryResult:
        (result,) = _in_order([""], results)
        if result.error is not None or not result.ok:
            raise ProtocolError("a query was answered with the result of a write")
        meta = _meta(request, result.cursor)
        if request.query.plan.whole_rows:
            return QueryResult(() if result.found is None else unpack_rows(result.found), (), meta)
        if result.tuples is None or (is_count(request.query.plan) and not _is_number(result.tuples)):
            raise ProtocolError("a query was answered with rows of another shape")
        return QueryResult((), unpack_tuples(request.query.plan, result.tuples, result.columns), meta)


def _is_number(tuples: tuple[tuple[object, ...], ...]) -> bool:
    return len(tuples) == 1 and len(tuples[0]) == 1 and type(tuples[0][0]) is int


def _meta(request: QueryRequest | WriteRequest | ResolveRequest, cursor: str = "") -> ExecutionMeta:
    context = request.context
    return ExecutionMeta(source="remote", trace_id=context.trace_id, cursor=cursor, policy=context.policy)


def _in_order(ids: Sequence[str], results: Sequence[RemoteOpResult]) -> list[RemoteOpResult]:
    """The result of each id, by its place."""
    places: list[RemoteOpResult | None] = [None] * len(ids)
    for result in results:
        if not 0 <= result.index < len(ids):
            raise ProtocolError(f"a result answers entry {result.index}; there are {len(ids)}")
        if ids[result.index] not in ("", result.id):  # without an id it is a query, or a row whose id the hub draws
            raise ProtocolError(f"the result at {result.index} is of another row than entry {result.index}")
        if places[result.index] is not None:
            raise ProtocolError(f"entry {result.index} was answered twice")
        places[result.index] = result
    ordered = [place for place in places if place is not None]
    if len(ordered) != len(ids):
        missing = [index for index, place in enumerate(places) if place is None]
        raise ProtocolError(f"entries {missing} were not answered")
    return ordered


def _item(result: RemoteOpResult) -> WriteItemResult:
    if result.ok == (result.error is not None):
        raise ProtocolError(f"the result at {result.index} is neither a success nor an error")
    row = None if result.row is None else image(result.row)
    return restated(result, WriteItemResult, row=row)


# ---------------------------------------------------------------------- the answering side


def query_request(call: QueryCall, deadline: float) -> QueryRequest:
    """The neutral request that ``call`` stands for.

    Raises:
        ProtocolError: It is not one query within the protocol's bounds.
    """
    if len(call.ops) != 1 or call.ops[0].name != "query" or not call.ops[0].query:
        raise ProtocolError("a query call holds exactly one query")
    query = decode_query(call.ops[0].query)
    if query.store != call.ops[0].store:
        raise ProtocolError("the operation names another store than its query")
    return QueryRequest(query, OperationContext(call.trace_id, deadline=deadline))


def write_request(call: WriteCall, deadline: float) -> WriteRequest:
    """The neutral request that ``call`` stands for, entries by their index.

    Raises:
        ProtocolError: An index is missing or comes twice, or an operation is none of a write.
    """
    if not 0 < len(call.ops) <= OPS_MAX:
        raise ProtocolError(f"a write call holds 1 to {OPS_MAX} operations")
    ordered = sorted(call.ops, key=lambda op: op.index)
    if [op.index for op in ordered] != list(range(len(ordered))):
        raise ProtocolError("the operations of a write call are numbered from 0 without gaps")
    entries = tuple(operation(op) for op in ordered)
    return WriteRequest(entries, call.options, OperationContext(call.trace_id, deadline=deadline), call.idem)


def write_reply(result: WriteResult) -> OpsReply:
    """The results of a write as they travel."""
    return OpsReply(_op_results(result))


def resolve_request(call: ResolveCall, deadline: float) -> ResolveRequest:
    """The neutral request that ``call`` stands for."""
    return ResolveRequest(call.idem, OperationContext(call.trace_id, deadline=deadline))


def resolve_reply(resolution: Resolution) -> ResolveReply:
    """What became of a write, as it travels."""
    if resolution.result is None:
        return ResolveReply(abandoned=True)
    return ResolveReply(abandoned=False, results=_op_results(resolution.result))


def _op_results(result: WriteResult) -> tuple[RemoteOpResult, ...]:
    return tuple(
        restated(item, RemoteOpResult, index=index, row=None if item.row is None else dict(item.row))
        for index, item in enumerate(result.items)
    )


def _query_reply(request: QueryRequest, result: QueryResult) -> OpsReply:
    if not request.query.plan.whole_rows:
        tuples, columns = pack_tuples(result.tuples)
        return OpsReply((RemoteOpResult(0, tuples=tuples, cursor=result.meta.cursor, columns=columns),))
    return OpsReply((RemoteOpResult(0, found=pack_rows(result.rows), cursor=result.meta.cursor),))


# ---------------------------------------------------------------------- both sides, as the table of methods takes them

_ADAPTER = OperationAdapter()

QUERIES: Translation[QueryRequest, QueryResult, QueryCall, OpsReply] = Translation(
    QueryCall,
    OpsReply,
    to_call=lambda request: QueryCall(_ADAPTER.to_remote_ops(request), request.context.trace_id),
    to_request=query_request,
    to_reply=_query_reply,
    to_result=lambda request, reply: _ADAPTER.from_remote_results(request, reply.results),
)
WRITES: Translation[WriteRequest, WriteResult, WriteCall, OpsReply] = Translation(
    WriteCall,
    OpsReply,
    to_call=lambda request: WriteCall(
        _ADAPTER.to_remote_ops(request), request.idem, request.options, request.context.trace_id
    ),
    to_request=write_request,
    to_reply=lambda request, result: write_reply(result),
    to_result=lambda request, reply: _ADAPTER.from_remote_results(request, reply.results),
)
RESOLUTIONS: Translation[ResolveRequest, Resolution, ResolveCall, ResolveReply] = Translation(
    ResolveCall,
    ResolveReply,
    to_call=lambda request: ResolveCall(request.idem, request.context.trace_id),
    to_request=resolve_request,
    to_reply=lambda request, resolution: resolve_reply(resolution),
    to_result=_ADAPTER.from_remote_resolution,
)
