"""Calls of the protocol carried out on a :class:`atoma.ports.SyncService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import msgspec
import trio

from atoma.contracts.execution import (
    OperationContext,
    QueryRequest,
    Resolution,
    ResolveRequest,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.sync import NotifyRequest, OpenRequest, PullRequest, PushRequest, SnapshotRequest
from atoma.errors import ProtocolError
from atoma.ports import SyncService
from atoma_transports._channel.server import Served, ServedTable
from atoma_transports.protocol import (
    METHODS,
    OPS_MAX,
    OpsReply,
    QueryCall,
    RemoteOpResult,
    ResolveCall,
    ResolveReply,
    WriteCall,
    operation,
    pack_rows,
)
from atoma_transports.protocol.plans import decode_query

R = TypeVar("R", bound=msgspec.Struct)


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
        RemoteOpResult(
            index,
            item.id,
            item.ok,
            item.changed,
            item.version,
            None if item.row is None else dict(item.row),
            item.error,
        )
        for index, item in enumerate(result.items)
    )


async def _query(service: SyncService, call: QueryCall) -> OpsReply:
    request = query_request(call, trio.current_effective_deadline())
    result = await service.query(request)
    if not request.query.plan.whole_rows:
        return OpsReply((RemoteOpResult(0, tuples=result.tuples),))
    return OpsReply((RemoteOpResult(0, found=pack_rows(result.rows), cursor=result.meta.cursor),))


async def _write(service: SyncService, call: WriteCall) -> OpsReply:
    return write_reply(await service.write(write_request(call, trio.current_effective_deadline())))


async def _resolve(service: SyncService, call: ResolveCall) -> ResolveReply:
    return resolve_reply(await service.resolve(resolve_request(call, trio.current_effective_deadline())))


def _answer(
    kind: type[R],
    carry_out: Callable[[SyncService, R], Awaitable[msgspec.Struct]],
    *,
    reads: bool = False,
    carries_rows: bool = False,
) -> Served:
    async def answer(service: SyncService, request: msgspec.Struct) -> msgspec.Struct:
        assert isinstance(request, kind)
        return await carry_out(service, request)

    return Served(kind, answer=answer, reads=reads, carries_rows=carries_rows)


def _notify(
    service: SyncService, request: msgspec.Struct
) -> AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]:
    assert isinstance(request, NotifyRequest)
    return service.notify(request)


SERVED: ServedTable = {
    "open": _answer(OpenRequest, lambda service, request: service.open(request)),
    "push": _answer(PushRequest, lambda service, request: service.push(request), carries_rows=True),
    "pull": _answer(PullRequest, lambda service, request: service.pull(request), reads=True),
    "snapshot": _answer(SnapshotRequest, lambda service, request: service.snapshot(request), reads=True),
    "notify": Served(NotifyRequest, feed=_notify),
    "query": _answer(QueryCall, _query, reads=True),
    "write": _answer(WriteCall, _write, carries_rows=True),
    "resolve": _answer(ResolveCall, _resolve),
}
"""How every method of the protocol is answered."""

assert SERVED.keys() == METHODS.keys()
