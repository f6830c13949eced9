"""The client's side: a channel for generated stubs on one connected stream."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from types import TracebackType
from typing import Any, TypeVar, cast

import trio
from grpclib.client import Channel
from grpclib.client import Stream as GrpclibCall
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.events import _DispatchChannelEvents  # pyright: ignore[reportPrivateUsage]
from grpclib.exceptions import GRPCError, ProtocolError
from grpclib.metadata import (
    USER_AGENT,
    Deadline,
    _MetadataLike,  # pyright: ignore[reportPrivateUsage]
    encode_metadata,
)
from h2.errors import ErrorCodes
from multidict import MultiDict

from atoma.ports.tasks import open_tasks
from atoma_transports.grpc._driver.calls import (
    CallFailed,
    CallReset,
    ClockDeadline,
    ConnectionLost,
    CutOff,
    GrpcLimits,
    length_prefixed,
    metadata_size,
    moment_of,
    streaming,
    write_timeout,
)
from atoma_transports.grpc._driver.compression import passing
from atoma_transports.grpc._driver.connection import Connection
from atoma_transports.grpc._driver.stream import CallStream, Headers

__all__ = ["CallFailed", "CallReset", "ClientCall", "ConnectionLost", "GrpcClient", "GrpcLimits", "open_grpc_channel"]

_UNREADABLE = (KeyError, ValueError)
"""What grpclib's readers of headers raise on missing or malformed ones."""

SendT = TypeVar("SendT")
ReceiveT = TypeVar("ReceiveT")


class ClientCall(GrpclibCall[SendT, ReceiveT]):
    """One call: used like grpclib's stream, as ``async with method.open() as call``.

    Leaving the block of a call whose answer is a stream before its end cuts the call off; so does an error or a
    cancellation in the block. A call with one answer is finished on leaving, and raises the status it ended with.

    Attributes:
        until: Deadline that is sent to the other side, on Trio's clock; None for that of the task that sends the request.
    """

    until: float | None = None

    _stream: CallStream
    _channel: GrpcClient  # pyright: ignore[reportIncompatibleVariableOverride]
    _deadline: ClockDeadline | None
    _wrapper: Any = nullcontext()  # grpclib's wakes a call up by cancelling it; here whoever waits is woken itself
    _end_seen = False
    _scope: trio.CancelScope | None = None

    async def __aenter__(self) -> ClientCall[SendT, ReceiveT]:
        if self._deadline is not None:
            self._scope = trio.CancelScope(deadline=self._deadline.moment)
            self._scope.__enter__()
        return self

    async def send_request(self, *, end: bool = False) -> None:
        """Begin the call; done by ``send_message`` when it was not done before."""
        if self._send_request_done:
            raise ProtocolError("the request was sent already")
        if end and not streaming(self._cardinality)[0]:
            raise ProtocolError("this request takes one message before its end")
        await trio.lowlevel.checkpoint_if_cancelled()  # what nobody waits for any more is not sent
        channel = self._channel
        headers: Headers = [
            (":method", "POST"),
            (":scheme", channel.scheme),
            (":path", self._method_name),
            (":authority", channel.authority),
            ("te", "trailers"),
            ("content-type", channel.content_type),
            ("user-agent", USER_AGENT),
        ]
        (metadata,) = await self._dispatch.send_request(
            self._metadata, method_name=self._method_name, deadline=self._deadline, content_type=channel.content_type
        )
        if metadata:
            headers.extend(encode_metadata(metadata))
        until = trio.current_effective_deadline() if self.until is None else self.until
        if until != math.inf:
            headers.append(passing("grpc-timeout", write_timeout(until - trio.current_time())))
        stream = CallStream(channel.connection)
        channel.check_metadata(headers)
        await stream.open(headers)
        self._stream = stream  # pyright: ignore[reportIncompatibleVariableOverride]
        self._release_stream = stream.release
        self.peer = channel.connection.get_peer()
        self._send_request_done = True
        if end:
            await stream.end()
            self._end_done = True

    async def send_message(self, message: SendT, *, end: bool = False) -> None:
        """Send a message; ``end`` says that it is the last one."""
        if not self._send_request_done:
            await self.send_request()
        if not streaming(self._cardinality)[0]:
            if self._send_message_done:
                raise ProtocolError("the message was sent already")
            end_stream = True
        else:
            end_stream = end
        if self._end_done:
            raise ProtocolError("the request has ended")
        (message,) = await self._dispatch.send_message(message)
        data = length_prefixed(self._codec.encode(message, self._send_type), self._channel.limits)
        await self._stream.send_data(data, end_stream)
        self._send_message_done = True
        if end:
            self._end_done = True

    async def recv_initial_metadata(self) -> None:
        """Wait until the other side begins to answer."""
        try:
            await super().recv_initial_metadata()
        except _UNREADABLE as error:
            raise GRPCError(Status.INTERNAL, f"the answer's headers cannot be read: {error!r}") from None

    async def recv_trailing_metadata(self) -> None:
        """Wait for the end of the answer: its status and metadata."""
        try:
            await super().recv_trailing_metadata()
        except _UNREADABLE as error:
            raise GRPCError(Status.INTERNAL, f"the answer's trailers cannot be read: {error!r}") from None

    async def recv_message(self) -> ReceiveT | None:
        """The next message of the answer; None at its end."""
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        try:
            data = await self._stream.receive()
        except CutOff:
            await self._prefer_status()
            raise
        if data is None:
            self._end_seen = True
            return None
        try:
            message = self._codec.decode(data, self._recv_type)
        except Exception as error:
            raise GRPCError(Status.INTERNAL, f"the answer cannot be decoded: {type(error).__name__}") from error
        self._messages_received += 1
        (message,) = await self._dispatch.recv_message(message)
        return cast("ReceiveT", message)

    async def cancel(self) -> None:
        """Cut the call off."""
        if not self._send_request_done:
            raise ProtocolError("the request was not sent yet")
        self._stream.reset_nowait(ErrorCodes.CANCEL)
        self._cancel_done = True

    def _raise_for_grpc_status(self, status: Status, message: str | None, details: Any) -> None:
        if status is not Status.OK:
            metadata = self.trailing_metadata
            raise CallFailed(status, message, details, {} if metadata is None else dict(metadata))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        failure: BaseException | None = exc_val
        try:
            if self._send_request_done:
                if exc_val is None:
                    await self._finish()
                elif isinstance(exc_val, (CallReset, ConnectionLost)):
                    await self._prefer_status()
        except BaseException as error:
            failure = error
            raise
        finally:
            self._leave(failure)

    def _leave(self, failure: BaseException | None) -> None:
        if self._send_request_done:
            self._stream.reset_nowait(ErrorCodes.CANCEL)
            self._stream.release()
        scope, self._scope = self._scope, None
        if scope is not None:
            traceback = None if failure is None else failure.__traceback__
            scope.__exit__(None if failure is None else type(failure), failure, traceback)
            if scope.cancelled_caught:
                raise TimeoutError("the call's deadline passed") from None

    async def _finish(self) -> None:
        """What the block left to do: the status of the answer."""
        if self._cancel_done:
            return
        if streaming(self._cardinality)[1] and not self._end_seen and not self._recv_trailing_metadata_done:
            return  # left early
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        if not self._recv_trailing_metadata_done:
            await self.recv_trailing_metadata()
        if self._end_seen and not self._messages_received and not streaming(self._cardinality)[1]:
            raise GRPCError(Status.INTERNAL, "the peer said OK without an answer")

    async def _prefer_status(self) -> None:
        """The status that the other side sent before it cut the call off says more than the cut."""
        if self._stream.headers is not None and not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        if self._stream.trailers is not None and not self._recv_trailing_metadata_done:
            await self.recv_trailing_metadata()


class GrpcClient(Channel):
    """The channel that generated stubs take: every call shares one connection.

    The deadline in effect where a call begins travels with it. Cancelling a call cuts it off at the other side.
    """

    def __init__(
        self, connection: Connection, *, authority: str, scheme: str, limits: GrpcLimits, codec: CodecBase
    ) -> None:
        # grpclib's channel connects by asyncio; of it, what stubs and calls use is here.
        self.connection = connection
        self.authority = authority
        self.scheme = scheme
        self.limits = limits
        subtype = codec.__content_subtype__
        self.content_type = "application/grpc" if subtype == "proto" else f"application/grpc+{subtype}"
        self._codec = codec
        self.__dispatch__ = _DispatchChannelEvents()

    @property
    def lost(self) -> bool:
        """Whether the connection is gone: every call on it fails with ``ConnectionLost``."""
        return self.connection.lost is not None

    @property
    def reason(self) -> str | None:
        """Why the connection is gone; None while it is there."""
        return self.connection.lost

    @property
    def going_away(self) -> bool:
        """Whether the other side takes no new calls; those in flight are answered still."""
        return self.connection.going_away or self.lost

    @property
    def calls(self) -> int:
        """Calls in flight."""
        return len(self.connection.streams)

    async def wait_lost(self) -> str:
        """Wait until the connection is gone; the reason."""
        await self.connection.wait_lost()
        return self.connection.lost or ""

    def close(self) -> None:
        """End the connection: calls in flight fail with ``ConnectionLost``."""
        self.connection.goodbye("the channel was closed")

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[SendT],
        reply_type: type[ReceiveT],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: _MetadataLike | None = None,
    ) -> ClientCall[SendT, ReceiveT]:
        """A call, not begun yet; stubs ask for it."""
        moments = [] if deadline is None else [moment_of(deadline)]
        if timeout is not None:
            moments.append(trio.current_time() + timeout)
        return ClientCall(
            self,
            name,
            cast("Any", MultiDict(metadata or ())),
            cardinality,
            request_type,
            reply_type,
            codec=self._codec,
            status_details_codec=None,
            dispatch=self.__dispatch__,
            deadline=ClockDeadline(min(moments)) if moments else None,
        )

    def check_metadata(self, headers: Headers) -> None:
        """Refuse what the other side would not take.

        Raises:
            GRPCError: ``RESOURCE_EXHAUSTED``: the metadata is too large.
        """
        allowed = self.connection.wire.remote_settings.max_header_list_size
        limit = self.limits.metadata_bytes if allowed is None else min(allowed, self.limits.metadata_bytes)
        size = metadata_size(headers)
        if size > limit:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{size} bytes of metadata; the limit is {limit}")


@asynccontextmanager
async def open_grpc_channel(
    stream: trio.abc.Stream,
    *,
    authority: str,
    scheme: str = "http",
    limits: GrpcLimits,
    codec: CodecBase | None = None,
) -> AsyncGenerator[GrpcClient]:
    """A channel on ``stream``, which it takes over: it is closed when the block is left.

    Args:
        stream: Connected; with TLS, the handshake's ALPN agreed on ``h2``.
        authority: Host and port that the server is asked for.
        scheme: ``https`` with TLS.
        limits: Limits of the connection.
        codec: How messages become bytes; Protocol Buffers unless given.

    Calls raise ``GRPCError``: ``CallFailed`` with the server's status and metadata, ``CallReset`` when it cut the call
    off, ``ConnectionLost`` when the connection is gone. Losing the connection does not cancel the block: calls fail,
    ``client.lost`` is true. On leaving, calls still in flight fail, and the peer is notified within ``limits.close_s``.
    """
    connection = Connection(stream, limits, client_side=True)
    client = GrpcClient(connection, authority=authority, scheme=scheme, limits=limits, codec=codec or ProtoCodec())
    async with open_tasks() as nursery:
        nursery.start_soon(connection.run)
        try:
            yield client
        finally:
            client.close()
