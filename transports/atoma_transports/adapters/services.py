"""Services made from the table of methods: one over a channel, and one that passes every call on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

import msgspec

from atoma.contracts.execution import QueryRequest, QueryResult, Resolution, ResolveRequest, WriteRequest, WriteResult
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
from atoma.contracts.understood import Understood
from atoma.errors import PolicyNotAllowed
from atoma.ports import Announced, Channel, SyncService
from atoma.query.understood import check_edits_understood, check_understood
from atoma.query.walk import stores_of
from atoma.schema.agreement import Forms, check_agreement
from atoma.schema.schema import Schema
from atoma_transports.adapters.methods import (
    APPEAR,
    METHODS,
    NOTIFY,
    OPEN,
    PRESENCE,
    PULL,
    PUSH,
    QUERY,
    RESOLVE,
    SNAPSHOT,
    WRITE,
)
from atoma_transports.calls.methods import StreamMethod, UnaryMethod, check_methods

Q = TypeVar("Q")
R = TypeVar("R")
W = TypeVar("W", bound=msgspec.Struct)
V = TypeVar("V", bound=msgspec.Struct)


class ServiceMethods(ABC):
    """A :class:`atoma.ports.SyncService` that does one thing with every row of the table; a subclass says what."""

    @abstractmethod
    async def _ask(self, method: UnaryMethod[Q, R], request: Q) -> R:
        """The result of a call."""

    @abstractmethod
    def _listen(self, method: StreamMethod[W, V], request: W) -> AbstractAsyncContextManager[AsyncIterator[V]]:
        """The items of a stream."""

    async def open(self, request: OpenRequest) -> OpenReply:
        """See :class:`atoma.ports.SyncService`, as for the rest."""
        return await self._ask(OPEN, request)

    async def push(self, request: PushRequest) -> PushReply:
        """Send mutations."""
        return await self._ask(PUSH, request)

    async def pull(self, request: PullRequest) -> PullReply:
        """Fetch one page of a scope's log."""
        return await self._ask(PULL, request)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        """Fetch one page of a scope's rows."""
        return await self._ask(SNAPSHOT, request)

    def notify(self, request: NotifyRequest) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """Hints about new heads until the block is left."""
        return self._listen(NOTIFY, request)

    def presence(self, request: PresenceRequest) -> AbstractAsyncContextManager[AsyncIterator[PresenceChange]]:
        """Be in a scope, and be told who else is, until the block is left."""
        return self._listen(PRESENCE, request)

    async def appear(self, request: AppearRequest) -> AppearReply:
        """Say something else in a scope, or leave it."""
        return await self._ask(APPEAR, request)

    async def query(self, request: QueryRequest) -> QueryResult:
        """A direct query."""
        return await self._ask(QUERY, request)

    async def write(self, request: WriteRequest) -> WriteResult:
        """A direct write."""
        return await self._ask(WRITE, request)

    async def resolve(self, request: ResolveRequest) -> Resolution:
        """What became of a direct write."""
        return await self._ask(RESOLVE, request)


check_methods(ServiceMethods, METHODS)


class ServiceProxy(ServiceMethods):
    """The hub's services over any :class:`atoma.ports.Channel`; ``meta.source`` of results is ``"remote"``.

    Every call raises what the channel raises; cancelling it cancels the handler at the far end.

    Args:
        channel: The connection.
        schema: The stores on this side: the forms of their columns are compared with those of which the other side has told
            before rows go either way; None where nobody reads them.
    """

    def __init__(self, channel: Channel, schema: Schema | None = None) -> None:
        self._channel = channel
        self._forms: Forms = {} if schema is None else schema.forms
        stores = () if schema is None else schema.stores.values()
        self._wired = frozenset([store.name for store in stores if store.wired])
        self._announced = channel if isinstance(channel, Announced) else None  # once: a check of a protocol takes long

    async def _ask(self, method: UnaryMethod[Q, R], request: Q) -> R:
        return method.result(request, await self._channel.call(method.name, method.message(request)))

    async def query(self, request: QueryRequest) -> QueryResult:
        """A direct query.

        Raises:
            RemoteError: ``UNSUPPORTED``: the other side has said that it does not understand it; nothing was sent.
            SchemaMismatch: It reads a field of these stores differently; nothing was sent.
            PolicyNotAllowed: A field of a store travels encoded; nothing was sent.
        """
        self._check_readable(request, stores_of(request.query.plan))
        if self._announced is not None:
            understood = await self._announced.understood()
            if understood is not None:
                check_understood(request.query, understood)
                self._check_agreement(understood, stores_of(request.query.plan))
        return await super().query(request)

    async def write(self, request: WriteRequest) -> WriteResult:
        """A direct write.

        Raises:
            RemoteError: ``PROTO_UNSUPPORTED``: the other side would pass over an increment, or the like; nothing was sent.
            SchemaMismatch: It reads a field of these stores differently; nothing was sent.
            PolicyNotAllowed: A field of a store travels encoded; nothing was sent.
        """
        self._check_readable(request, (op.store for op in request.entries))
        edits = {edit.kind for op in request.entries for edit in op.edits}
        if self._announced is not None and (self._forms or edits):
            understood = await self._announced.understood()
            if understood is not None:
                check_edits_understood(edits, understood)
                self._check_agreement(understood, [op.store for op in request.entries])
        return await super().write(request)

    def _check_readable(self, request: QueryRequest | WriteRequest, stores: Iterable[str]) -> None:
        """A direct call names values as columns hold them, and nothing of such a store leaves this device like that."""
        found = next((store for store in stores if store in self._wired), None) if self._wired else None
        if found is not None:
            why = "one of its fields travels encoded (wire=…), and a hub cannot look into it: the store reaches the hub by sync alone"
            raise PolicyNotAllowed(request.context.policy, found, why)

    def _check_agreement(self, understood: Understood, stores: Iterable[str]) -> None:
        if self._forms and understood.forms:
            check_agreement(self._forms, understood.forms, dict.fromkeys(stores), packed=False)

    @asynccontextmanager
    async def _listen(self, method: StreamMethod[W, V], request: W) -> AsyncGenerator[AsyncIterator[V]]:
        async with self._channel.stream(method.name, request) as items:
            yield _Items(items, method)


class _Items(Generic[W, V]):
    """A stream's items, of the type that the table says."""

    def __init__(self, items: AsyncIterator[msgspec.Struct], method: StreamMethod[W, V]) -> None:
        self._items = items
        self._method = method

    def __aiter__(self) -> _Items[W, V]:
        return self

    async def __anext__(self) -> V:
        return self._method.item(await anext(self._items))


class PassingService(ServiceMethods):
    """A service that passes every call on, for those that do something else with a few of them.

    Args:
        service: Who answers.
    """

    def __init__(self, service: SyncService) -> None:
        self.service = service

    async def _ask(self, method: UnaryMethod[Q, R], request: Q) -> R:
        return await method.of(self.service)(request)

    def _listen(self, method: StreamMethod[W, V], request: W) -> AbstractAsyncContextManager[AsyncIterator[V]]:
        return method.of(self.service)(request)
