"""The calling end of a connection."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ChannelBroken, ConnectFailed, Overloaded, ProtocolError, RemoteError
from atoma.ports.tasks import open_tasks
from atoma_transports._channel.codes import error_of
from atoma_transports._channel.frames import (
    SERVER_KINDS,
    Auth,
    Frame,
    FrameKind,
    Welcome,
    budget_now,
    decode_frame,
    encode_frame,
)
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.methods import Method, MethodTable
from atoma_transports._channel.outgoing import Outgoing, Ticket
from atoma_transports._channel.pipe import LOST, MessagePipe, close_pipe
from atoma_transports._channel.pulse import until_mute

logger = logging.getLogger("atoma.transports")

DEADLINE_MARGIN_S = 0.25  # both ends watch the deadline; within this margin the caller's own scope speaks


@dataclass(slots=True, eq=False)
class _Call:
    """One call in flight, or one stream."""

    id: int
    done: trio.Event = field(default_factory=trio.Event)
    ticket: Ticket | None = None
    answered: bool = False
    payload: bytes = b""
    refused: ErrorInfo | None = None
    items: trio.MemorySendChannel[bytes] | None = None


class FrameChannel:
    """A :class:`atoma.ports.Channel` over a message pipe. Made by :func:`open_channel`."""

    def __init__(self, pipe: MessagePipe, methods: MethodTable, welcome: Welcome, limits: ChannelLimits) -> None:
        self._pipe = pipe
        self._methods = methods
        self._limits = limits
        self._frame_bytes = min(limits.frame_bytes, welcome.frame_bytes)
        self._calls_max = min(limits.calls, welcome.calls)
        self._calls: dict[int, _Call] = {}
        self._last_id = 0
        self._out = Outgoing(limits.queue_bytes, limits.slow_s)
        self._heard = trio.current_time()
        self._failure: AtomaError | None = None
        self.window = limits.window
        """Items of a stream that may be under way."""
        self.principal = welcome.principal
        """Who the server says the client is."""

    @property
    def is_open(self) -> bool:
        """Whether calls can be made; False once the connection is lost."""
        return self._failure is None

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        """See :class:`atoma.ports.Channel`. Cancelling stops the handler at the far end."""
        spec = self._spec(method, streams=False)
        call = self._begin()
        try:
            await self._send_call(call, "call", method, message)
            await call.done.wait()
        finally:
            self._forget(call)
        if call.refused is not None:
            await self._raise(call.refused)
        if not call.answered:
            raise self._lost(call)
        return decode(call.payload, spec.reply)

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        """See :class:`atoma.ports.Channel`. Leaving the block stops the handler at the far end."""
        spec = self._spec(method, streams=True)
        call = self._begin()
        call.items, items = trio.open_memory_channel[bytes](self._limits.window)
        try:
            with items:
                await self._send_call(call, "stream", method, message, credit=self._limits.window)
                yield _Items(self, call, spec, items)
        finally:
            self._forget(call)

    def grant(self, call: _Call, amount: int) -> None:
        """Let the other side send ``amount`` more items of a stream."""
        if not call.done.is_set():
            self._tell(encode_frame("credit", call.id, credit=amount))

    async def check_end(self, call: _Call) -> None:
        """Raise what ended a stream, unless it simply ended."""
        if call.refused is not None:
            await self._raise(call.refused)
        if not call.answered:
            raise self._lost(call)

    def _spec(self, method: str, *, streams: bool) -> Method:
        spec = self._methods.get(method)
        if spec is None or spec.streams != streams:
            raise ProtocolError(f"the protocol has no {'stream' if streams else 'call'} {method!r}", maybe_sent=False)
        return spec

    def _begin(self) -> _Call:
        if self._failure is not None:
            raise self._lost(None)
        if len(self._calls) >= self._calls_max:
            raise Overloaded("the connection's table of calls in flight", self._calls_max)
        self._last_id += 1
        call = self._calls[self._last_id] = _Call(self._last_id)
        return call

    async def _send_call(
        self, call: _Call, kind: FrameKind, method: str, message: msgspec.Struct, credit: int = 0
    ) -> None:
        trace_id = getattr(message, "trace_id", "")
        data = encode_frame(
            kind,
            call.id,
            encode(message),
            method=method,
            budget_ms=budget_now(),
            trace_id=trace_id if isinstance(trace_id, str) else "",
            credit=credit,
        )
        if len(data) > self._frame_bytes:
            text = f"the request takes {len(data)} bytes; the limit is {self._frame_bytes}; nothing was sent"
            raise RemoteError(text, remote_code="TOO_LARGE")
        call.ticket = Ticket(data)
        try:
            await self._out.put(call.ticket)
        except trio.BrokenResourceError:
            raise self._lost(call) from None

    def _forget(self, call: _Call) -> None:
        """Free the call's place; a call that the other side may still be working on is cancelled there."""
        self._calls.pop(call.id, None)
        if call.items is not None:
            call.items.close()
        if call.done.is_set() or call.ticket is None or self._out.withdraw(call.ticket):
            return
        self._tell(encode_frame("cancel", call.id))

    def _tell(self, data: bytes) -> None:
        try:
            self._out.put_now(Ticket(data))
        except trio.BrokenResourceError:
            pass  # there is nobody left to tell

    async def _raise(self, info: ErrorInfo) -> None:
        if info.code == "TIMEOUT":
            deadline = trio.current_effective_deadline()
            if deadline - trio.current_time() <= DEADLINE_MARGIN_S:
                await trio.sleep_until(deadline)
        raise error_of(info)

    def _lost(self, call: _Call | None) -> AtomaError:
        """The error for ``call``, or for one that was never begun: a new one each time, as each has its own trace."""
        failure = self._failure or ChannelBroken("the connection is lost")
        sent = call is not None and call.ticket is not None and call.ticket.taken
        if isinstance(failure, ProtocolError):
            return ProtocolError(str(failure), maybe_sent=sent)
        outcome = "the outcome of the call is unknown" if sent else "the call was not sent"
        return ChannelBroken(f"{failure}; {outcome}", maybe_sent=sent)

    async def run(self) -> None:
        """Keep the connection going until it fails; never raises."""
        try:
            async with open_tasks() as nursery:
                for part in (self._read, self._write, self._watch):
                    nursery.start_soon(self._until_lost, part, nursery.cancel_scope)
        finally:
            self.fail(ChannelBroken("the connection is closed"))

    async def _until_lost(self, part: Callable[[], Awaitable[AtomaError]], rest: trio.CancelScope) -> None:
        try:
            failure = await part()
        except Exception:  # a pipe that raises what it should not is a lost connection to its user
            logger.exception("the pipe of a connection failed")
            failure = ChannelBroken("the transport failed; the log says how")
        self.fail(failure)
        rest.cancel()

    def fail(self, failure: AtomaError) -> None:
        """End every call in flight; the first failure is the one that is told."""
        if self._failure is None:
            self._failure = failure
        self._out.close()
        for call in self._calls.values():
            if call.items is not None:
                call.items.close()
            else:
                call.done.set()

    async def _read(self) -> AtomaError:
        try:
            while True:
                frame = decode_frame(await self._pipe.receive(), self._limits.frame_bytes)
                self._heard = trio.current_time()
                self._take(frame)
        except LOST:
            return ChannelBroken("the connection was lost")
        except AtomaError as error:
            return error

    async def _write(self) -> AtomaError:
        try:
            await self._out.run(self._pipe)
        except trio.TooSlowError:
            return ChannelBroken("the other side takes nothing any more")
        except LOST:
            return ChannelBroken("the connection was lost")
        raise AssertionError("unreachable: the writer ends with an error only")

    async def _watch(self) -> AtomaError:
        await until_mute(lambda: self._heard, lambda: self._tell(encode_frame("ping")), self._limits)
        return ChannelBroken("the other side does not answer any more")

    def _take(self, frame: Frame) -> None:
        """Give ``frame`` to whom it is for. Answers to calls that were given up are dropped."""
        if frame.kind not in SERVER_KINDS:
            raise ProtocolError(f"a server must not send {frame.kind!r} frames")
        if frame.kind == "ping":
            return self._tell(encode_frame("pong"))
        if frame.kind == "pong":
            return None
        if frame.id > self._last_id:
            raise ProtocolError("an answer to a call that was never made")
        if frame.kind == "error" and frame.id == 0:
            raise error_of(decode(frame.payload, ErrorInfo))
        call = self._calls.get(frame.id)
        if call is not None and not call.done.is_set():
            self._settle(call, frame)
        return None

    def _settle(self, call: _Call, frame: Frame) -> None:
        if frame.kind == "item":
            if call.items is None:
                raise ProtocolError("a stream's item in answer to a call")
            try:
                call.items.send_nowait(frame.payload)
            except trio.WouldBlock:
                raise ProtocolError("more items than there was credit for") from None
            except trio.BrokenResourceError:
                pass  # the reader is just leaving
            return
        if (frame.kind == "reply") != (call.items is None) and frame.kind != "error":
            raise ProtocolError(f"a {frame.kind!r} frame does not fit what was called")
        if frame.kind == "error":
            call.refused = decode(frame.payload, ErrorInfo)
        call.payload = frame.payload
        call.answered = True
        call.done.set()
        if call.items is not None:
            call.items.close()


class _Items:
    """Reads a stream. Not a generator, which could be left half-way and would then have to be collected."""

    def __init__(
        self, channel: FrameChannel, call: _Call, spec: Method, payloads: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        self._channel = channel
        self._call = call
        self._spec = spec
        self._payloads = payloads
        self._batch = max(1, channel.window // 2)
        self._taken = 0

    def __aiter__(self) -> _Items:
        return self

    async def __anext__(self) -> msgspec.Struct:
        try:
            payload = await self._payloads.receive()
        except trio.EndOfChannel:
            await self._channel.check_end(self._call)
            raise StopAsyncIteration from None
        self._taken += 1
        if self._taken >= self._batch:
            self._channel.grant(self._call, self._taken)
            self._taken = 0
        return decode(payload, self._spec.reply)


async def _shake_hands(pipe: MessagePipe, token: str, limits: ChannelLimits) -> Welcome:
    await pipe.send(encode_frame("auth", payload=encode(Auth(token))))
    frame = decode_frame(await pipe.receive(), limits.frame_bytes)
    if frame.kind == "error":
        raise error_of(decode(frame.payload, ErrorInfo))
    if frame.kind != "welcome":
        raise ProtocolError(f"expected 'welcome', got {frame.kind!r}; is this an Atoma hub?", maybe_sent=False)
    return decode(frame.payload, Welcome)


@asynccontextmanager
async def open_channel(
    pipe: MessagePipe, methods: MethodTable, *, token: str, limits: ChannelLimits
) -> AsyncGenerator[FrameChannel]:
    """Authenticate over ``pipe`` and carry calls over it inside the block; the pipe is closed at the end.

    Raises:
        AuthenticationError: The other side refused the token.
        ConnectFailed: The other side did not answer within ``limits.handshake_s``, or hung up.
        ProtocolError: The other side speaks something else.
    """
    try:
        try:
            with trio.fail_after(limits.handshake_s):
                welcome = await _shake_hands(pipe, token, limits)
        except trio.TooSlowError:
            raise ConnectFailed(f"the other side did not greet within {limits.handshake_s:g} s") from None
        except LOST:
            raise ConnectFailed("the other side hung up before it had greeted") from None
        except RemoteError as error:
            raise ConnectFailed(f"the other side does not take connections now ({error})") from None
        channel = FrameChannel(pipe, methods, welcome, limits)
        async with open_tasks() as nursery:
            nursery.start_soon(channel.run)
            try:
                yield channel
            finally:
                channel.fail(ChannelBroken("the connection is closed"))
                nursery.cancel_scope.cancel()
    finally:
        await close_pipe(pipe, limits.close_s)
