"""A service that passes every call on: for those that do something else with a few of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from atoma.contracts.execution import QueryRequest, QueryResult, Resolution, ResolveRequest, WriteRequest, WriteResult
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
from atoma.ports import SyncService


class PassingService:
    """A :class:`atoma.ports.SyncService` that passes every call on.

    Args:
        service: Who answers.
    """

    def __init__(self, service: SyncService) -> None:
        self.service = service

    async def open(self, request: OpenRequest) -> OpenReply:
        """Pass it on, as all the others."""
        return await self.service.open(request)

    async def push(self, request: PushRequest) -> PushReply:
        """Pass it on."""
        return await self.service.push(request)

    async def pull(self, request: PullRequest) -> PullReply:
        """Pass it on."""
        return await self.service.pull(request)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        """Pass it on."""
        return await self.service.snapshot(request)

    def notify(self, request: NotifyRequest) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """Pass it on."""
        return self.service.notify(request)

    async def query(self, request: QueryRequest) -> QueryResult:
        """Pass it on."""
        return await self.service.query(request)

    async def write(self, request: WriteRequest) -> WriteResult:
        """Pass it on."""
        return await self.service.write(request)

    async def resolve(self, request: ResolveRequest) -> Resolution:
        """Pass it on."""
        return await self.service.resolve(request)
