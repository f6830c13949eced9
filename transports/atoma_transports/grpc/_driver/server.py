"""The server's side: one connection answered by handlers until it ends."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.events import _DispatchServerEvents  # pyright: ignore[reportPrivateUsage]
from grpclib.exceptions import GRPCError, ProtocolError
from grpclib.metadata import decode_metadata, encode_grpc_message, encode_metadata
from grpclib.server import Stream as GrpclibCall
from h2.errors import ErrorCodes

from atoma.ports.tasks import open_tasks, single_error
from atoma_transports.calls.fairness import Share
from atoma_transports.grpc._driver.calls import (
    ClockDeadline,
    GrpcLimits,
    length_prefixed,
    metadata_size,
    read_timeout,
    streaming,
)
from atoma_transports.grpc._driver.compression import passing
from atoma_transports.grpc._driver.connection import Connection
from atoma_transports.grpc._driver.greeting import Greeted
from atoma_transports.grpc._driver.stream import CallStream, Headers
from atoma_transports.serving.head import ONCE

__all__ = ["GrpcLimits", "ServerCall", "serve_grpc"]

logger = logging.getLogger("atoma.transports")

ReceiveT = TypeVar("ReceiveT")
SendT = TypeVar("SendT")


class GrpcMethod(NamedTuple):
    """grpclib's ``Handler``, with the types that it leaves out."""

    answer: Callable[[ServerCall[Any, Any]], Awaitable[None]]
    cardinality: Cardinality
    request_type: type[Any]
    reply_type: type[Any]


class UnhandledRequest(Exception):
    """A request that no handler sees.

    Attributes:
        http_status: 200 for what gRPC can say; another one for what is not gRPC.
        status: The gRPC status, if there is one.
        message: Why.
    """

    def __init__(self, http_status: int, status: Status | None, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.status = status
        self.message = message


class ServerCall(GrpclibCall[ReceiveT, SendT]):
    """The call that a handler gets: used like grpclib's stream.

    Attributes:
        path: Which method was called.
        trailing: Metadata that goes with the status, whatever it will be; names ending in ``-bin`` take ``bytes``.
        held: Bytes of its request that count as held until it ends; kept by whoever answers.
    """

    _stream: CallStream  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        stream: CallStream,
        path: str,
        method: GrpcMethod,
        server: _Serving,
        deadline: ClockDeadline | None,
        user_agent: str | None,
    ) -> None:
        super().__init__(
            stream,
            path,
            method.cardinality,
            method.request_type,
            method.reply_type,
            codec=server.codec,
            status_details_codec=None,
            dispatch=server.dispatch,
            deadline=deadline,
            user_agent=user_agent,
        )
        self.path = path
        self.trailing: dict[str, str | bytes] = {}
        self.held = 0
        self._limits = server.limits

    def take_at_most(self, message_bytes: int) -> None:
        """Refuse messages that are larger: for a call whose requests are small, whoever makes it."""
        self._stream.message_bytes = min(message_bytes, self._limits.message_bytes)

    async def recv_message(self) -> ReceiveT | None:
        """The next message of the request; None at its end.

        Raises:
            GRPCError: It is too large, compressed, cut off or cannot be decoded.
        """
        data = await self._stream.receive()
        if data is None:
            return None
        try:
            message = self._codec.decode(data, self._recv_type)
        except Exception as error:
            raise GRPCError(Status.INTERNAL, f"the request cannot be decoded: {type(error).__name__}") from error
        (message,) = await self._dispatch.recv_message(message)
        return cast("ReceiveT", message)

    async def send_message(self, message: SendT) -> None:
        """Send a message of the answer; waits as long as the caller takes nothing, ``slow_s`` at most."""
        if self._send_message_done and not streaming(self._cardinality)[1]:
            raise ProtocolError("the answer was sent already")
        (message,) = await self._dispatch.send_message(message)
        data = length_prefixed(self._codec.encode(message, self._send_type), self._limits)
        if not self._send_initial_metadata_done:
            await self.send_initial_metadata()
        await self._stream.send_data(data)
        self._send_message_done = True

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: Any = None,
        metadata: Any = None,
    ) -> None:
        """End the call with a status; a handler that returns or raises has it done for it."""
        if self._send_trailing_metadata_done:
            raise ProtocolError("the status was sent already")
        self.trailing.update(dict(metadata or ()))
        self.finish(status, status_message)

    def finish(self, status: Status, message: str | None) -> None:
        """End the call with a status, once."""
        if self._send_trailing_metadata_done or self._cancel_done:
            return
        if status is Status.OK and not self._send_message_done and not streaming(self._cardinality)[1]:
            logger.error("%s returned without an answer", self._method_name)
            status, message = Status.INTERNAL, "the server gave no answer"
        self._send_trailing_metadata_done = True
        headers: Headers = [] if self._send_initial_metadata_done else [_OK, ("content-type", self._content_type)]
        headers.append(("grpc-status", str(status.value)))
        if message is not None:
            headers.append(passing("grpc-message", encode_grpc_message(message)))
        if status is Status.UNIMPLEMENTED:
            headers.append(passing("grpc-accept-encoding", "identity"))
        if self.trailing:
            headers.extend(passing(name, value) for name, value in encode_metadata(self.trailing))
        self._stream.finish(headers)

    @property
    def finished(self) -> bool:
        """Whether the caller has its status."""
        return self._send_trailing_metadata_done or self._cancel_done


_OK = (":status", "200")


def _fields_of(headers: Headers) -> dict[str, str]:
    """``headers`` by name.

    Raises:
        Refused: One that may come once comes twice.
    """
    fields = dict(headers)
    if len(fields) < len(headers):
        seen: set[str] = set()
        for name, _ in headers:
            if name in seen and (name in ONCE or name.startswith(":")):
                raise UnhandledRequest(200, Status.INVALID_ARGUMENT, f"the field {name} may come once")
            seen.add(name)
    return fields


class _Serving:
    """The state that the calls of one connection share."""

    def __init__(
        self, connection: Connection, handlers: Mapping[str, Handler], codec: CodecBase, nursery: trio.Nursery
    ) -> None:
        self.connection = connection
        self._handlers = handlers
        self.codec = codec
        self.content_type = f"application/grpc+{codec.__content_subtype__}"
        self.dispatch = _DispatchServerEvents()
        self.limits = connection.limits
        self.draining = False
        self._nursery = nursery
        self._running = 0

    def accept(self, stream: CallStream, headers: Headers) -> None:
        """Answer a new call, or refuse it."""
        try:
            call, method = self._check(stream, _fields_of(headers), headers)
        except UnhandledRequest as refusal:
            self._refuse(stream, refusal)
            return
        self._running += 1
        self._nursery.start_soon(self._answer, call, method, stream)

    def _check(
        self, stream: CallStream, fields: dict[str, str], headers: Headers
    ) -> tuple[ServerCall[Any, Any], GrpcMethod]:
        if fields.get(":method") != "POST":
            raise UnhandledRequest(405, None, "")
        kind, _, subtype = fields.get("content-type", "").partition("+")
        if kind != "application/grpc" or (subtype or "proto") != self.codec.__content_subtype__:
            raise UnhandledRequest(415, Status.UNKNOWN, "not a content type that is answered here")
        if self.draining:
            raise UnhandledRequest(200, Status.UNAVAILABLE, "this connection takes no more calls")
        if self._running >= self.limits.calls:
            if self.connection.wire.overrun():
                self.connection.goodbye("the peer began too many calls at once")
            raise UnhandledRequest(200, Status.RESOURCE_EXHAUSTED, f"{self.limits.calls} calls are in flight already")
        most, fields_max = self.limits.metadata_bytes, self.limits.metadata_fields
        if len(headers) > fields_max or metadata_size(headers) > most:
            text = f"the limit is {most} bytes of metadata, in {fields_max} fields"
            raise UnhandledRequest(200, Status.RESOURCE_EXHAUSTED, text)
        path = fields.get(":path", "")
        try:
            method = GrpcMethod(*cast("tuple[Any, Any, Any, Any]", self._handlers[path]))
        except KeyError:
            raise UnhandledRequest(200, Status.UNIMPLEMENTED, "no such method") from None
        timeout = fields.get("grpc-timeout")
        try:
            deadline = None if timeout is None else ClockDeadline(trio.current_time() + read_timeout(timeout))
            metadata = decode_metadata(headers)
        except ValueError:
            raise UnhandledRequest(200, Status.INVALID_ARGUMENT, "the timeout or the metadata cannot be read") from None
        stream.scope = trio.CancelScope(deadline=math.inf if deadline is None else deadline.moment)
        call = ServerCall[Any, Any](stream, path, method, self, deadline, fields.get("user-agent"))
        call.metadata = metadata
        return call, method

    def _refuse(self, stream: CallStream, refusal: UnhandledRequest) -> None:
        headers: Headers = [(":status", str(refusal.http_status)), ("content-type", self.content_type)]
        if refusal.status is not None:
            headers.append(("grpc-status", str(refusal.status.value)))
            headers.append(("grpc-message", encode_grpc_message(refusal.message)))
        stream.finish(headers)
        stream.release()

    async def _answer(self, call: ServerCall[Any, Any], method: GrpcMethod, stream: CallStream) -> None:
        scope = stream.scope
        assert scope is not None
        try:
            with scope:
                if stream.failure is not None:
                    return  # given up before it began
                await self._handle(call, method)
            if scope.cancelled_caught and stream.failure is None:
                call.finish(Status.DEADLINE_EXCEEDED, "the call's deadline passed")
        finally:
            self._running -= 1
            stream.reset_nowait(ErrorCodes.CANCEL)
            stream.release()

    async def _handle(self, call: ServerCall[Any, Any], method: GrpcMethod) -> None:
        try:
            await method.answer(call)
        except (Exception, BaseExceptionGroup) as raised:
            error = single_error(raised)
            if isinstance(error, trio.Cancelled) or not isinstance(error, Exception):
                raise
            if isinstance(error, GRPCError):
                call.finish(error.status, error.message)
            else:
                logger.error("%s failed", call.path, exc_info=raised)
                call.finish(Status.INTERNAL, "the server failed to answer; its log says why")
        else:
            call.finish(Status.OK, None)

    async def drain(self, drain: trio.Event) -> None:
        """Wait for ``drain``, then for the calls in flight, then say goodbye."""
        await drain.wait()
        self.draining = True
        self.connection.idle = self._idle
        self._idle()

    def _idle(self) -> None:
        if not self._running:
            self.connection.goodbye("the server was shut down")


async def serve_grpc(
    stream: trio.abc.Stream,
    handlers: Mapping[str, Handler],
    *,
    limits: GrpcLimits,
    drain: trio.Event,
    codec: CodecBase | None = None,
    share: Share | None = None,
    greeted: Greeted | None = None,
) -> None:
    """Answer one connection until it ends; ``stream`` is closed then and no handler runs any more.

    Args:
        stream: A connection on which the peer begins with the preface of HTTP/2.
        handlers: What answers which path, as ``__mapping__`` of grpclib's generated classes gives it.
        limits: Limits of the connection.
        drain: Once set, calls in flight are finished, new ones refused with ``UNAVAILABLE``, then this returns.
        codec: How messages become bytes; Protocol Buffers unless given.
        share: What reading the connection may take of the loop; as much as it wants unless given.
        greeted: The peer was greeted already, with these ``limits``; ``stream`` begins with what it has sent.

    A handler is cancelled as soon as the caller gives up, its deadline passes or the connection is lost. It may raise
    ``GRPCError`` to answer with a status; any other error is logged and answered with ``INTERNAL``.

    Raises nothing but cancellation.
    """
    connection = Connection(stream, limits, client_side=False, share=share)
    if greeted is not None:
        connection.wire.was_greeted(acknowledged=greeted.acknowledged)
    async with open_tasks() as nursery:
        serving = _Serving(connection, handlers, codec or ProtoCodec(), nursery)
        connection.accept = serving.accept
        nursery.start_soon(serving.drain, drain)
        await connection.run()
        nursery.cancel_scope.cancel()
