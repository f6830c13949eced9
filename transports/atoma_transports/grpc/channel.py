"""The calling end of a gRPC connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import TypeAlias

import msgspec
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.exceptions import ProtocolError as NotSent

from atoma.contracts.understood import Understood
from atoma.errors import AtomaError, AuthenticationError, ChannelBroken, ProtocolError
from atoma_transports.adapters import METHODS
from atoma_transports.calls.call import leave_to_scope
from atoma_transports.calls.errors import check_request, error_of
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.calls.methods import Method, find_method
from atoma_transports.calls.places import CallPlaces
from atoma_transports.dialing.credentials import Credentials
from atoma_transports.grpc._driver.client import CallFailed, CallReset, ClientCall, ConnectionLost, GrpcClient
from atoma_transports.grpc.convert import pack, unpack
from atoma_transports.grpc.messages import HelloReply, HelloRequest, Packed, cardinality_of, info_from, path_of

PackedClientCall: TypeAlias = ClientCall[Packed, Packed]


class GrpcChannel:
    """A :class:`atoma.ports.Channel` on a gRPC connection. Made by :class:`atoma_transports.grpc.GrpcTransport`.

    Args:
        client: The connection.
        credentials: The token that goes with every call.
        limits: This side's bounds.
    """

    def __init__(self, client: GrpcClient, credentials: Credentials, limits: ChannelLimits) -> None:
        self._client = client
        self._credentials = credentials
        self._message_bytes = limits.frame_bytes
        self._places = CallPlaces("the connection's table of calls in flight", limits.calls)
        self._understood: Understood | None = None

    @property
    def principal(self) -> str:
        """Who the server says the client is; empty when it does not say."""
        return self._credentials.subject

    @property
    def is_open(self) -> bool:
        """Whether calls can be made; False once the connection is lost, or the server takes no more calls."""
        return not self._client.going_away and not self._credentials.lost

    def agree(self, hello: HelloReply) -> None:
        """Keep to the server's bounds where they are the smaller ones."""
        self._credentials.subject = hello.principal
        self._message_bytes = min(self._message_bytes, hello.message_bytes)
        self._places.limit = min(self._places.limit, hello.calls)
        self._understood = hello.queries

    async def understood(self) -> Understood | None:
        """See :class:`atoma.ports.Announced`; None from a server that does not greet."""
        return self._understood

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        """See :class:`atoma.ports.Channel`. Cancelling stops the handler at the far end."""
        spec = find_method(METHODS, method, streams=False)
        data = self._packed(message)
        with self._place():
            return unpack(await self.ask(method, data), spec.reply)

    async def ask(self, method: str, data: bytes) -> bytes:
        """Make one call with bytes; when the token is refused, once more with a new one if there is any."""
        generation = self._credentials.generation
        try:
            return await self._ask_once(method, data)
        except AuthenticationError:  # nothing was done, so that even a write may be sent again
            if not await self.renew(generation):
                raise
        return await self._ask_once(method, data)

    async def whose(self, token: str) -> str:
        """Who the server says ``token`` belongs to; empty when it does not say."""
        try:
            return unpack(await self._ask_once("hello", pack(HelloRequest()), token), HelloReply).principal
        except ProtocolError:
            return ""

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        """See :class:`atoma.ports.Channel`. Leaving the block stops the handler at the far end.

        A stream whose token expires is opened again, once a token function has given another one.
        """
        spec = find_method(METHODS, method, streams=True)
        data = self._packed(message)
        with self._place():
            async with AsyncExitStack() as calls:
                items = _Items(self, method, data, spec, calls)
                await items.open()
                try:
                    yield items
                finally:
                    items.close()

    async def renew(self, generation: int) -> bool:
        """Whether there is another token than that of ``generation``."""
        return await self._credentials.renew(generation, self.whose)

    @property
    def generation(self) -> int:
        """Number of the present token."""
        return self._credentials.generation

    def begin(self, method: str, token: str | None = None) -> PackedClientCall:
        """A call that is not sent yet; with the present token, unless another is given."""
        token = self._credentials.current if token is None else token
        metadata = {"authorization": f"Bearer {token}"} if token else {}
        return self._client.request(path_of(method), cardinality_of(method), Packed, Packed, metadata=metadata)

    async def send(self, call: PackedClientCall, data: bytes) -> None:
        """Send the request of ``call``."""
        try:
            await call.send_request()
        except GRPCError as error:
            if not isinstance(error, ConnectionLost) and error.status is Status.RESOURCE_EXHAUSTED:
                raise self._places.full(str(error.message)) from None
            raise
        await call.send_message(Packed(data), end=True)

    async def _ask_once(self, method: str, data: bytes, token: str | None = None) -> bytes:
        try:
            async with self.begin(method, token) as call:
                await self.send(call, data)
                reply = await call.recv_message()
            if reply is None:
                raise ProtocolError("the other side ended a call without an answer")
            return reply.data
        except GRPCError as error:
            failure = error
        raise await reported(failure)

    def _packed(self, message: msgspec.Struct) -> bytes:
        data = pack(message)
        check_request(len(data), self._message_bytes)
        return data

    def _place(self) -> AbstractContextManager[None]:
        """A place among the calls and streams in flight."""
        self._credentials.check()
        if self._client.lost:
            raise ChannelBroken(f"{self._client.reason}; the call was not sent", maybe_sent=False)
        return self._places.take()


class _Items:
    """Reads a stream. Not a generator, which could be left half-way and would then have to be collected."""

    def __init__(self, channel: GrpcChannel, method: str, data: bytes, spec: Method, calls: AsyncExitStack) -> None:
        self._channel = channel
        self._method = method
        self._data = data
        self._spec = spec
        self._calls = calls
        self._call: PackedClientCall | None = None
        self._generation = 0
        self._until = trio.current_effective_deadline()  # of the stream, whatever that of a wait for an item is
        self._renewed = False
        self._closed = False
        self._failure: GRPCError | None = None

    async def open(self) -> None:
        """Send the request."""
        self._generation = self._channel.generation
        call = await self._calls.enter_async_context(_left_quietly(self._channel.begin(self._method)))
        call.until = self._until
        try:
            await self._channel.send(call, self._data)
        except GRPCError as error:
            failure = error
        else:
            self._call = call
            return
        raise await reported(failure)

    def close(self) -> None:
        """The block was left."""
        self._closed = True

    def __aiter__(self) -> _Items:
        return self

    async def __anext__(self) -> msgspec.Struct:
        while True:
            try:
                return unpack((await self._next()).data, self._spec.reply)
            except AuthenticationError:
                if self._renewed or not await self._channel.renew(self._generation):
                    raise
            await self._calls.aclose()
            await self.open()
            self._renewed, self._failure = True, None  # only now: who is cancelled before has lost nothing

    async def _next(self) -> Packed:
        if self._closed:
            raise trio.ClosedResourceError
        if self._call is not None:
            try:
                item = await self._call.recv_message()
                if item is None:
                    await self._call.recv_trailing_metadata()
            except trio.Cancelled:
                raise  # who stops waiting loses nothing, and may wait again
            except GRPCError as error:
                self._call, self._failure = None, error  # nothing comes after it
            except BaseException:
                self._call = None
                raise
            else:
                if item is not None:
                    self._renewed = False
                    return item
                self._call = None
        if self._failure is None:
            raise StopAsyncIteration
        raise await reported(self._failure)


@asynccontextmanager
async def _left_quietly(call: PackedClientCall) -> AsyncGenerator[PackedClientCall]:
    """``call``, whose end is not reported to a task that leaves it: one that reads to the end has seen it."""
    async with call:
        try:
            yield call
        finally:
            with suppress(NotSent):
                await call.cancel()


async def reported(error: GRPCError) -> AtomaError:
    """The error of ours for ``error``; a deadline that both ends see is reported by the caller's own scope."""
    if isinstance(error, CallFailed):
        info = info_from(error.status, error.message, error.metadata)
        await leave_to_scope(info)
        return error_of(info)
    if isinstance(error, ConnectionLost | CallReset):
        outcome = "the outcome of the call is unknown" if error.maybe_sent else "the call was not sent"
        return ChannelBroken(f"{error.message}; {outcome}", maybe_sent=error.maybe_sent)
    return ProtocolError(f"the call failed: {error.message}")
