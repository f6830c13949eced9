"""Calls and streams of the protocol over HTTP."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Protocol

import msgspec
import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.understood import Understood
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, AuthenticationError, ChannelBroken, TransportError
from atoma.ports.tasks import open_tasks
from atoma_transports.adapters import METHODS
from atoma_transports.calls.call import budget_now, leave_to_scope, trace_of
from atoma_transports.calls.errors import check_request, error_of
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.calls.methods import Method, find_method
from atoma_transports.calls.places import CallPlaces
from atoma_transports.dialing.credentials import Credentials
from atoma_transports.http.client.engine import BatchEngine
from atoma_transports.http.client.messages import (
    RecordReader,
    RecordsEnded,
    Reply,
    Request,
    Requests,
    check_type,
    new_probe,
    read_probe,
    refused,
)
from atoma_transports.http.envelope import ITEMS, PREFIX

STREAMS_MAX = 32
"""Streams of one channel; each of them holds a connection."""
UNDERSTOOD_S = 60.0
"""So long a server is taken to understand what it said."""


class WatchedRequests(Requests, Protocol):
    """A sender of requests that knows whether sending works."""

    @property
    def reachable(self) -> bool:
        """Whether the server answered when it was last asked."""
        ...

    def doubt(self) -> None:
        """Ask whether the server is there before the next request is sent."""
        ...


class HttpChannel:
    """A :class:`atoma.ports.Channel` whose calls travel in requests of their own, or joined by the batch engine.

    A connection that is lost fails the calls on it; the channel goes on over new ones.
    """

    def __init__(
        self,
        requests: WatchedRequests,
        engine: BatchEngine,
        credentials: Credentials,
        limits: ChannelLimits,
        understood: Understood,
    ) -> None:
        self._requests = requests
        self._understood = understood
        self._asked = trio.current_time()
        self._engine = engine
        self._credentials = credentials
        self._limits = limits
        self._places = CallPlaces("the channel's table of calls in flight", limits.calls)
        self._streams = CallPlaces("the channel's table of streams", STREAMS_MAX)
        self._closed = False

    @property
    def is_open(self) -> bool:
        """False once the channel is closed, and while the server cannot be reached."""
        return not self._closed and not self._credentials.lost and self._requests.reachable

    async def understood(self) -> Understood:
        """See :class:`atoma.ports.Announced`; asked again once a minute, as nothing says that another server is there.

        And once a call was refused as ``UNSUPPORTED``: then it is another one.
        """
        if trio.current_time() - self._asked >= UNDERSTOOD_S:
            with suppress(TransportError):  # what is wrong is for the call to find out, which knows whether it was sent
                async with self._requests.post(new_probe()) as reply:
                    found = await read_probe(reply)
                if not isinstance(found, ErrorInfo):
                    self._understood, self._asked = found.queries, trio.current_time()
        return self._understood

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        """See :class:`atoma.ports.Channel`. Cancelling stops the handler at the far end."""
        spec = find_method(METHODS, method, streams=False)
        body = self._encoded(message)
        trace_id = trace_of(message)
        with self._place():
            generation = self._credentials.generation
            answer = await self._engine.call(method, body, trace_id)
            if await self.renewed(answer, generation):
                answer = await self._engine.call(method, body, trace_id)
        if isinstance(answer, ErrorInfo):
            if answer.code == "UNSUPPORTED":
                self._asked = -math.inf
            return await _raise(answer)
        return decode(answer, spec.reply)

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        """See :class:`atoma.ports.Channel`. Leaving the block closes the stream's connection.

        A stream whose token expires is opened again, once a token function has given another one.
        """
        spec = find_method(METHODS, method, streams=True)
        body = self._encoded(message)
        with self._streams.take(), self._place():
            async with AsyncExitStack() as connection, open_tasks() as tasks:
                items = _Items(self, method, body, trace_of(message), spec)
                await items.open(connection)
                tasks.start_soon(items.read, connection)
                try:
                    yield items
                finally:
                    items.close()
                    tasks.cancel_scope.cancel()

    def close(self) -> None:
        """Refuse further calls and streams."""
        self._closed = True

    @property
    def size_max(self) -> int:
        """Largest message in bytes."""
        return self._limits.frame_bytes

    @property
    def generation(self) -> int:
        """Number of the present token."""
        return self._credentials.generation

    async def opened(self, method: str, body: bytes, trace_id: str, connection: AsyncExitStack) -> Reply | ErrorInfo:
        """The reply whose body is a stream's items, or why there is none; ``connection`` closes it."""
        request = Request(PREFIX + method, body, budget_now(), trace_id)
        reply = await connection.enter_async_context(self._requests.post(request))
        if reply.status != 200:
            return await refused(reply)
        check_type(reply, ITEMS)
        return reply

    def doubt(self) -> None:
        """The server is about to go: ask whether it is there before the next request."""
        self._requests.doubt()

    async def renewed(self, answer: bytes | ErrorInfo, generation: int) -> bool:
        """Whether the token was refused and there is another one now; then nothing was done of the call."""
        if not isinstance(answer, ErrorInfo) or not isinstance(error_of(answer), AuthenticationError):
            return False
        return await self._credentials.renew(generation, self._whose)

    async def _whose(self, token: str) -> str:
        async with self._requests.post(new_probe(token)) as reply:
            found = await read_probe(reply)
        if isinstance(found, ErrorInfo):
            raise error_of(found)
        return found.principal

    def _encoded(self, message: msgspec.Struct) -> bytes:
        body = encode(message)
        check_request(len(body), self._limits.frame_bytes)
        return body

    def _place(self) -> AbstractContextManager[None]:
        """A place among the calls and streams in flight."""
        self._credentials.check()
        if self._closed:
            raise ChannelBroken("the connection is closed; the call was not sent", maybe_sent=False)
        return self._places.take()


class _Items:
    """Reads a stream, one record ahead of the caller. Not a generator, which could be left half-way.

    The library drops a connection when a read is cancelled; here a task reads, so that a caller that stops waiting for an item
    may wait again and has missed nothing.
    """

    def __init__(self, channel: HttpChannel, method: str, body: bytes, trace_id: str, spec: Method) -> None:
        self._channel = channel
        self._method = method
        self._body = body
        self._trace_id = trace_id
        self._spec = spec
        self._generation = 0
        self._source: Reply | ErrorInfo | None = None
        self._failure: ErrorInfo | AtomaError | None = None
        self._found, self._taken = trio.open_memory_channel[bytes | ErrorInfo | AtomaError](0)

    async def open(self, connection: AsyncExitStack) -> None:
        """Send the request; a refusal is raised for the reader."""
        self._generation = self._channel.generation
        self._source = await self._channel.opened(self._method, self._body, self._trace_id, connection)

    def close(self) -> None:
        """The block was left."""
        self._taken.close()

    def __aiter__(self) -> _Items:
        return self

    async def read(self, connection: AsyncExitStack) -> None:
        """Read to the end, or to what went wrong, as fast as items are taken."""
        with self._found, suppress(trio.BrokenResourceError):  # the block is being left
            failure: ErrorInfo | AtomaError | None
            try:
                failure = await self._read_on(connection)
            except AtomaError as error:
                failure = error
            if failure is not None:
                await self._found.send(failure)

    async def _read_on(self, connection: AsyncExitStack) -> ErrorInfo | None:
        """Read, and open the stream again with the next token when this one has expired; what it was refused with."""
        renewed = False
        while True:
            if isinstance(self._source, ErrorInfo):
                ended = self._source
            else:
                assert self._source is not None
                records = RecordReader(self._source, self._channel.size_max)
                try:
                    while (payload := await records.next()) is not None:
                        await self._found.send(payload)
                        renewed = False
                    await records.finish()
                    return None
                except RecordsEnded as error:
                    ended = error.info
            if ended.code == "UNAVAILABLE":  # so says a server that is about to go
                self._channel.doubt()
            if renewed or not await self._channel.renewed(ended, self._generation):
                return ended
            renewed = True
            await connection.aclose()
            await self.open(connection)

    async def __anext__(self) -> msgspec.Struct:
        if self._failure is None:
            try:
                found = await self._taken.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            if isinstance(found, bytes):
                return decode(found, self._spec.reply)
            self._failure = found
        if isinstance(self._failure, ErrorInfo):
            return await _raise(self._failure)
        raise self._failure


async def _raise(info: ErrorInfo) -> msgspec.Struct:
    """Raise what ``info`` says; a deadline that both ends see is reported by the caller's own scope."""
    await leave_to_scope(info)
    raise error_of(info)
