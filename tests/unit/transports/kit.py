"""A service of which a test writes only what it asks for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

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

    async def query(self, request: QueryRequest) -> QueryResult:
        raise NotImplementedError

    async def write(self, request: WriteRequest) -> WriteResult:
        raise NotImplementedError

    async def resolve(self, request: ResolveRequest) -> Resolution:
        raise NotImplementedError
