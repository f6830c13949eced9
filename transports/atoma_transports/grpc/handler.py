"""gRPC as one of the languages on a port."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, TypeVar

import msgspec
import trio
from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError

from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import AuthenticationError, ProtocolError, RemoteError
from atoma.ports import Peer
from atoma.ports.service import understood_by
from atoma.ports.sessions import Session
from atoma.ports.tasks import open_tasks
from atoma_transports.adapters import METHODS
from atoma_transports.calls.call import trace_of
from atoma_transports.calls.errors import CUT_OFF, error_of, explain, large_answer, slow_reader
from atoma_transports.calls.fairness import Share
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.calls.methods import AnswerCall, Method, OpenFeed
from atoma_transports.calls.requests import MESSAGEPACK, HeldAnswers, in_turns, size_max
from atoma_transports.grpc._driver.greeting import Greeted, greet
from atoma_transports.grpc._driver.server import GrpcLimits, ServerCall, serve_grpc
from atoma_transports.grpc.convert import pack, unpack, unpack_in_steps
from atoma_transports.grpc.counting import UNCOUNTED_BYTES
from atoma_transports.grpc.messages import (
    MESSAGE_LENGTH_MAX,
    SERVICE,
    TRAILER,
    HelloReply,
    HelloRequest,
    Packed,
    cardinality_of,
    grpc_limits,
    milliseconds,
    path_of,
    status_of,
    trailer_of,
)
from atoma_transports.grpc.standard import REFLECTING, HealthCalls, reflection_handlers
from atoma_transports.serving.admission import Admission, bearer_token
from atoma_transports.serving.handlers import Hosting
from atoma_transports.serving.head import HTTP2_START, fields_by_name, http2_goodbye, send_last
from atoma_transports.streams import PrefixedStream

METADATA_BYTES = 8 * 1024
"""What a caller may send of it, as with gRPC's own servers: unpacking takes a quarter of a millisecond for each KiB."""


class GrpcHandler:
    """The service ``atoma.sync.v1.Sync``, with the standard ones for health and reflection beside it.

    Every call of ``Sync`` brings its token. Health and reflection ask for none: anybody who reaches a
    server may know whether it is up, and reflection shows what is published anyway.
    """

    name = "grpc"

    def speaks(self, head: bytes) -> bool:
        """See :class:`atoma_transports.serving.handlers.ProtocolHandler`."""
        return head.startswith(HTTP2_START)

    async def serve(self, stream: trio.abc.Stream, hosting: Hosting) -> None:
        """See :class:`atoma_transports.serving.handlers.ProtocolHandler`."""
        hosting.place.spoken = True  # settings at once, and a goodbye at the end
        limits = driver_limits(hosting.limits)
        with hosting.share() as share:
            with hosting.place.until_goodbye() as until:
                greeted = await greet(stream, limits, partial(hosting.fairness.guest_turn, asks=False))
            if until.cancelled_caught:
                await send_last(stream, http2_goodbye(), limits.close_s)
            elif greeted is not None:
                hosting.place.speak()
                await _answer_calls(PrefixedStream(greeted.seen, stream), greeted, hosting, limits, share)


async def _answer_calls(
    stream: trio.abc.Stream, greeted: Greeted, hosting: Hosting, limits: GrpcLimits, share: Share
) -> None:
    """Answer the connection of a peer who asks for something, to its end."""
    leave = trio.Event()
    health = HealthCalls((SERVICE, *REFLECTING), hosting.drain, leave)
    sync = SyncCalls(replace(hosting, drain=leave), share)
    handlers = _Handlers(sync, {**health.handlers(), **reflection_handlers()})
    try:
        async with open_tasks() as nursery:
            nursery.start_soon(_show_out, hosting, leave)
            nursery.start_soon(sync.end_streams)
            await serve_grpc(stream, handlers, limits=limits, drain=leave, share=share, greeted=greeted)
            nursery.cancel_scope.cancel()
    finally:
        sync.close()


def driver_limits(limits: ChannelLimits) -> GrpcLimits:
    """The bounds of HTTP/2 on a server."""
    return replace(grpc_limits(limits), metadata_bytes=METADATA_BYTES, connection_window=window_of(limits))


def window_of(limits: ChannelLimits) -> int:
    """What may have arrived on a connection and not been read: on all of a principal's as much as they may hold."""
    usual = GrpcLimits()
    return min(usual.connection_window, max(usual.stream_window, limits.memory_bytes // limits.connections))


async def _show_out(hosting: Hosting, leave: trio.Event) -> None:
    """Have the connection say goodbye when the server ends, or before its place is taken away."""
    with hosting.place.until_goodbye():
        await hosting.drain.wait()
    leave.set()


PackedServerCall: TypeAlias = ServerCall[Packed, Packed]
S = TypeVar("S", bound=msgspec.Struct)

REFUSED_MAX = 32
"""Tokens in a row that are refused on one connection before it is ended: guessing costs a connection each time."""


@dataclass(slots=True, eq=False)
class _Stream:
    """One stream being answered."""

    scope: trio.CancelScope
    stop: ErrorInfo | None = None


HELLO = "hello"
NAMES: Mapping[str, str] = {path_of(name): name for name in (HELLO, *METHODS)}


class _Handlers(dict[str, Handler]):
    """The handlers of one connection by path; those of calls are made when they come first, since guests call nothing.

    Args:
        sync: Answers the calls.
        others: What answers the standard services.
    """

    def __init__(self, sync: SyncCalls, others: Mapping[str, Handler]) -> None:
        super().__init__(others)
        self._sync = sync

    def __missing__(self, path: str) -> Handler:
        handler = self[path] = self._sync.handler(NAMES[path])
        return handler


class SyncCalls:
    """The questions of one connection to its host.

    Args:
        hosting: The host, its bounds, and where the connection comes from.
        share: What the connection may take.
    """

    def __init__(self, hosting: Hosting, share: Share) -> None:
        self._hosting = hosting
        self._limits = hosting.limits
        self._admission = Admission(hosting.host, hosting.place, share, hosting.limits.handshake_s)
        self._share = share
        self._calls = 0
        self._held = HeldAnswers(hosting.limits.queue_bytes, share)
        self._refused = 0
        self._streams: set[_Stream] = set()

    def close(self) -> None:
        """The connection is over."""
        self._admission.close()

    def handler(self, name: str) -> Handler:
        """The handler of the method ``name``, or of ``hello``."""
        answer: Callable[[PackedServerCall], Awaitable[None]]
        if name == HELLO:
            answer = self._hello
        elif (method := METHODS[name]).feed is not None:
            answer = partial(self._feed, method, method.feed)
        else:
            assert method.answer is not None
            answer = partial(self._answer, method, method.answer)
        return Handler(partial(self._counted, answer), cardinality_of(name), Packed, Packed)

    async def _counted(self, answer: Callable[[PackedServerCall], Awaitable[None]], call: PackedServerCall) -> None:
        """Have ``call`` answered; without any, a proxy's connection is nobody's."""
        self._calls += 1
        try:
            await answer(call)
        finally:
            self._calls -= 1
            self._share.hold(requests=-call.held)
            if not self._calls and self._hosting.place.shared:
                self._share.leave()

    async def end_streams(self) -> None:
        """Once the connection ends, end every stream: nobody else would."""
        await self._hosting.drain.wait()
        for stream in self._streams:
            stream.stop = CUT_OFF
            stream.scope.cancel()

    async def _hello(self, call: PackedServerCall) -> None:
        try:
            admitted = await self._admit(call)
            await _received(call, HelloRequest, self._share, UNCOUNTED_BYTES)
            expires_in_ms = milliseconds(admitted.expires_at - trio.current_time())
            reply = HelloReply(
                admitted.principal.subject,
                self._limits.frame_bytes,
                self._limits.calls,
                expires_in_ms,
                understood_by(self._hosting.host),
            )
        except Exception as error:  # the verifier is the application's
            refuse(call, explain(error, "hello", ""))
        else:
            await _reply(call, pack(reply))

    async def _asked(self, method: Method, call: PackedServerCall) -> tuple[Session, msgspec.Struct]:
        """Who calls, and what they ask of ``method``."""
        admitted = await self._admit(call)
        most = size_max(method, self._limits, MESSAGEPACK)
        return admitted, await _received(call, method.request, self._share, most)

    async def _answer(self, method: Method, answer: AnswerCall, call: PackedServerCall) -> None:
        trace_id = ""
        try:
            admitted, request = await self._asked(method, call)
            trace_id = trace_of(request)
            make = partial(self._made, answer, admitted, request)
            with admitted.call():
                data = await self._held.take(make, reads=method.reads)
        except Exception as error:  # whatever a handler raises is answered, and logged when unexpected
            refuse(call, explain(error, method.name, trace_id))
        else:
            try:
                await _reply(call, data)
            finally:
                self._held.give(len(data))

    async def _made(self, answer: AnswerCall, admitted: Session, request: msgspec.Struct) -> bytes:
        return self._packed(await answer(admitted.service, request))

    async def _feed(self, method: Method, feed: OpenFeed, call: PackedServerCall) -> None:
        trace_id = ""
        try:
            admitted, request = await self._asked(method, call)
            trace_id = trace_of(request)
            stream = _Stream(trio.CancelScope())
            self._streams.add(stream)
            try:
                with admitted.stream(), stream.scope:
                    async with feed(admitted.service, request) as items:
                        await self._send_items(call, items)
            finally:
                self._streams.discard(stream)
            if stream.stop is not None:
                refuse(call, stream.stop)
        except Exception as error:  # as above
            refuse(call, explain(error, method.name, trace_id))

    async def _send_items(self, call: PackedServerCall, items: AsyncIterator[msgspec.Struct]) -> None:
        try:
            async for item in items:
                packed = Packed(self._packed(item))
                self._share.hold(answers=len(packed.data))
                try:
                    with trio.move_on_after(self._limits.slow_s) as patience:
                        await call.send_message(packed)
                finally:
                    self._share.hold(answers=-len(packed.data))
                if patience.cancelled_caught:
                    raise error_of(slow_reader(self._limits.slow_s))
        finally:
            if isinstance(items, AsyncGenerator):  # left half-way, it would wait for the garbage collector
                await items.aclose()

    async def _admit(self, call: PackedServerCall) -> Session:
        """Who calls.

        Raises:
            AuthenticationError: Nobody who may.
            RemoteError: They may, and send too much.
        """
        peer = self._peer_of(call)
        self._hosting.place.turn_to(peer.address)
        self._share.comes_from(peer)
        try:
            admitted = await self._admission.admit(token_of(call), peer)
        except AuthenticationError:
            self._refused += 1
            if self._refused >= REFUSED_MAX:
                self._hosting.place.dismiss()
            raise
        self._refused = 0
        return admitted

    def _peer_of(self, call: PackedServerCall) -> Peer:
        """Who calls: a proxy may pass the calls of many on over one connection."""
        metadata = () if call.metadata is None else call.metadata.items()
        fields = fields_by_name([(name, value) for name, value in metadata if isinstance(value, str)])
        return self._hosting.origins.of(self._hosting.peer, fields)

    def _packed(self, reply: msgspec.Struct) -> bytes:
        try:
            data = pack(reply)
        except ProtocolError as error:  # no fault of the caller's
            raise ValueError(str(error)) from error
        if len(data) > self._limits.frame_bytes:
            raise error_of(large_answer(len(data), self._limits.frame_bytes))
        return data


def token_of(call: PackedServerCall) -> str:
    """The bearer token of ``call``; empty for none.

    Raises:
        AuthenticationError: There is something else where it should be.
    """
    field = "" if call.metadata is None else call.metadata.get("authorization", "")
    return bearer_token(field if isinstance(field, str) else "-")


def refuse(call: PackedServerCall, info: ErrorInfo) -> None:
    """Answer ``call`` with an error, which a trailer holds in full."""
    call.trailing[TRAILER] = trailer_of(info)
    call.finish(status_of(info), info.message[:MESSAGE_LENGTH_MAX])


async def _reply(call: PackedServerCall, data: bytes) -> None:
    """Send the answer; of a caller who does not take it, nobody may think that nothing was done."""
    try:
        await call.send_message(Packed(data))
    except GRPCError as error:
        refuse(call, refusal("UNAVAILABLE", f"the answer could not be sent: {error.message}"))


async def _received(call: PackedServerCall, kind: type[S], share: Share, most: int) -> S:
    """The request of ``call``, which may have ``most`` bytes; a large one is read under the permit of ``share``.

    Raises:
        RemoteError: It is too large, or holds too much.
        ProtocolError: There is none, or it is malformed.
    """
    call.take_at_most(most)
    await share.take_request()
    try:
        message = await call.recv_message()
    except GRPCError as error:
        text = error.message or error.status.name
        if error.status is Status.RESOURCE_EXHAUSTED:
            raise RemoteError(text, remote_code="TOO_LARGE") from None
        raise ProtocolError(text) from None
    if message is None:
        raise ProtocolError("a call without a message")
    call.held = len(message.data)
    share.hold(requests=call.held)
    if len(message.data) <= UNCOUNTED_BYTES:
        request = unpack(message.data, kind)
    else:
        request = await in_turns(unpack_in_steps(message.data, kind), share)
    share.earned(len(message.data))
    return request
