"""A service of which a test writes only what it asks for, a host that answers pulls, and why a transport cannot connect."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atoma.contracts.execution import (
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.presence import AppearReply, AppearRequest, PresenceChange, PresenceRequest
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
from atoma.errors import ConnectFailed
from atoma.ports import Peer, Principal, SyncService, Transport


class Unasked:
    """Every call is one that the test did not expect."""

    async def open(self, request: OpenRequest) -> OpenReply:
        raise NotImplementedError

    async def push(self, request: PushRequest) -> PushReply:
        raise NotImplementedError

    async def pull(self, request: PullRequest) -> PullReply:
        raise NotImplementedError

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        raise NotImplementedError

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        raise NotImplementedError
        yield

    @asynccontextmanager
    async def presence(self, request: PresenceRequest) -> AsyncGenerator[AsyncIterator[PresenceChange]]:
        raise NotImplementedError
        yield

    async def appear(self, request: AppearRequest) -> AppearReply:
        raise NotImplementedError

    async def query(self, request: QueryRequest) -> QueryResult:
        raise NotImplementedError

    async def write(self, request: WriteRequest) -> WriteResult:
        raise NotImplementedError

    async def resolve(self, request: ResolveRequest) -> Resolution:
        raise NotImplementedError


class PullHost(Unasked):
    """Lets everybody in as one subject; answers pulls with as many letters as were asked for, after the scope."""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return Principal("alice")

    def service(self, principal: Principal) -> SyncService:
        return self

    async def pull(self, request: PullRequest) -> PullReply:
        return PullReply(request.scope + "x" * request.max_bytes, request.cursor, request.cursor, head=5)


async def failure(transport: Transport) -> str:
    """Why ``transport`` cannot connect."""
    with pytest.raises(ConnectFailed) as failed:
        async with transport.connect():
            raise AssertionError("connected")
    assert failed.value.maybe_sent is False
    return str(failed.value)
