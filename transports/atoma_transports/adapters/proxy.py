"""The hub's services, called over a channel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from atoma.contracts.execution import (
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.sync import (
    Hint,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotReply,
    SnapshotRequest,
)
from atoma.errors import ProtocolError
from atoma.ports import Announced, Channel
from atoma.query.understood import check_understood
from atoma_transports.adapters.operations import OperationAdapter
from atoma_transports.protocol import OpsReply, QueryCall, ResolveCall, ResolveReply, WriteCall

T = TypeVar("T", bound=msgspec.Struct)


def _expect(reply: msgspec.Struct, kind: type[T]) -> T:
    if not isinstance(reply, kind):
        raise ProtocolError(f"expected {kind.__name__}, the channel gave {type(reply).__name__}")
    return reply


class _Hints:
    """A stream's items, as hints."""

    def __init__(self, items: AsyncIterator[msgspec.Struct]) -> None:
        self._items = items

    def __aiter__(self) -> _Hints:
        return self

    async def __anext__(self) -> Hint:
        return _expect(await anext(self._items), Hint)


class ServiceProxy:
    """:class:`atoma.ports.SyncService` over any :class:`atoma.ports.Channel`.

    Every call raises what the channel raises; cancelling it cancels the handler at the far end.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._operations = OperationAdapter()

    async def open(self, request: OpenRequest) -> OpenReply:
        """Begin a sync session."""
        return _expect(await self._channel.call("open", request), OpenReply)

    async def push(self, request: PushRequest) -> PushReply:
        """Send mutations."""
        return _expect(await self._channel.call("push", request), PushReply)

    async def pull(self, request: PullRequest) -> PullReply:
        """Fetch one page of a scope's log."""
        return _expect(await self._channel.call("pull", request), PullReply)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        """Fetch one page of a scope's rows."""
        return _expect(await self._channel.call("snapshot", request), SnapshotReply)

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        """Hints about new heads until the block is left."""
        async with self._channel.stream("notify", request) as items:
            yield _Hints(items)

    async def query(self, request: QueryRequest) -> QueryResult:
        """A direct query; ``meta.source`` of the result is ``"remote"``.

        Raises:
            RemoteError: ``UNSUPPORTED``: the other side has said that it does not understand it; nothing was sent.
        """
        if isinstance(self._channel, Announced):
            told = await self._channel.understood()
            if told is not None:
                check_understood(request.query, told)
        call = QueryCall(self._operations.to_remote_ops(request), request.context.trace_id)
        reply = _expect(await self._channel.call("query", call), OpsReply)
        return self._operations.from_remote_results(request, reply.results)

    async def write(self, request: WriteRequest) -> WriteResult:
        """A direct write; ``meta.source`` of the result is ``"remote"``."""
        ops = self._operations.to_remote_ops(request)
        call = WriteCall(ops, request.idem, request.options, request.context.trace_id)
        reply = _expect(await self._channel.call("write", call), OpsReply)
        return self._operations.from_remote_results(request, reply.results)

    async def resolve(self, request: ResolveRequest) -> Resolution:
        """What became of a direct write."""
        call = ResolveCall(request.idem, request.context.trace_id)
        reply = _expect(await self._channel.call("resolve", call), ResolveReply)
        return self._operations.from_remote_resolution(request, reply)
