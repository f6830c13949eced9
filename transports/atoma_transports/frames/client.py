"""The calling end of a connection."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import msgspec
import trio

from atoma.codes import row
from atoma.contracts.codec import decode, encode
from atoma.contracts.understood import Understood
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, AuthenticationError, ChannelBroken, Overloaded, ProtocolError, RemoteError
from atoma.ports.tasks import open_tasks
from atoma_transports.adapters import METHODS
from atoma_transports.calls.call import budget_now, check_subject, leave_to_scope, trace_of
from atoma_transports.calls.errors import check_request, error_of, info_of
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.calls.methods import find_method
from atoma_transports.frames.envelope import (
    SERVER_KINDS,
    Auth,
    Frame,
    FrameKind,
    Welcome,
    decode_frame,
    encode_frame,
    read_welcome,
)
from atoma_transports.frames.outgoing import Outgoing, Ticket
from atoma_transports.frames.pipe import LOST, MessagePipe, Pulse, explain_close, until_mute

logger = logging.getLogger("atoma.transports")


@dataclass(slots=True, eq=False)
class _Call:
    """One call in flight, one stream, or one token that is being renewed.

    Attributes:
        id: Its id, assigned by this end.
        expected: The kind of frame that ends it successfully.
        items: The channel on which the items of a stream are passed on.
    """

    id: int
    expected: FrameKind
    done: trio.Event = field(default_factory=trio.Event)
    ticket: Ticket | None = None
    answered: bool = False
    payload: bytes = b""
    refused: ErrorInfo | None = None
    items: trio.MemorySendChannel[bytes] | None = None


class FrameChannel:
    """A :class:`atoma.ports.Channel` over a message pipe; made by ``handshake.open_channel``."""

    def __init__(self, pipe: MessagePipe, welcome: Welcome, limits: ChannelLimits) -> None:
        self._pipe = pipe
        self._limits = limits
        self._frame_bytes = min(limits.frame_bytes, welcome.frame_bytes)
        self._calls_max = min(limits.calls, welcome.calls)
        self._calls: dict[int, _Call] = {}
        self._last_id = 0
        self._out = Outgoing(pipe, limits.queue_bytes, limits.slow_s)
        self._pulse = Pulse(pipe, lambda: self._send_soon(encode_frame("pong")), limits)
        self._failure: AtomaError | None = None
        self._understood = welcome.queries
        self.principal = welcome.principal
        """The subject that the server takes the client for."""

    @property
    def is_open(self) -> bool:
        """Whether calls can be made; False once the connection is lost."""
        return self._failure is None

    async def understood(self) -> Understood:
        """See :class:`atoma.ports.Announced`; the server has announced it already, so nothing is sent."""
        return self._understood

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        """See :class:`atoma.ports.Channel`. Cancelling stops the handler at the far end."""
        spec = find_method(METHODS, method, streams=False)
        call = self._begin("reply")
        await self._answer_to(call, partial(self._send_call, call, "call", method, message))
        return decode(call.payload, spec.reply)

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        """See :class:`atoma.ports.Channel`. Leaving the block stops the handler at the far end."""
        spec = find_method(METHODS, method, streams=True)
        call = self._begin("end")
        window = self._limits.window
        call.items, payloads = trio.open_memory_channel[bytes](window)
        try:
            with payloads:
                await self._send_call(call, "stream", method, message, credit=window)
                yield Items(payloads, spec.reply, partial(self._grant, call), partial(self._check_end, call), window)
        finally:
            self._forget(call)

    async def renew(self, token: str) -> Welcome:
        """Continue with another token of the same subject.

        Raises:
            AuthenticationError: The server refuses it; the old one stays valid.
            RemoteError: It belongs to another subject; the connection ends.
            ChannelBroken: The connection was lost.
        """
        call = self._begin("welcome")
        data = encode_frame("auth", call.id, encode(Auth(token)))
        await self._answer_to(call, partial(self._send, call, data))
        welcome = read_welcome(call.payload)
        try:
            check_subject(self.principal, welcome.principal)
        except RemoteError as error:
            self.fail(error)
            raise
        return welcome

    async def _answer_to(self, call: _Call, send: Callable[[], Awaitable[None]]) -> None:
        """Send, wait for the server's answer, and raise its error if it refuses."""
        try:
            await send()
            await call.done.wait()
        finally:
            self._forget(call)
        await self._check_end(call)

    async def _check_end(self, call: _Call) -> None:
        """Raise the error that ended a call or a stream, if there was one."""
        if call.refused is not None:
            await leave_to_scope(call.refused)
            raise error_of(call.refused)
        if not call.answered:
            raise self._lost(call)

    def _grant(self, call: _Call, amount: int) -> None:
        """Let the other side send ``amount`` more items of a stream."""
        if not call.done.is_set():
            self._send_soon(encode_frame("credit", call.id, credit=amount))

    def _begin(self, expected: FrameKind) -> _Call:
        if self._failure is not None:
            raise self._lost(None)
        if len(self._calls) >= self._calls_max and expected != "welcome":  # a new token is not a call
            raise Overloaded("the connection's table of calls in flight", self._calls_max)
        self._last_id += 1
        call = self._calls[self._last_id] = _Call(self._last_id, expected)
        return call

    async def _send_call(
        self, call: _Call, kind: FrameKind, method: str, message: msgspec.Struct, credit: int = 0
    ) -> None:
        budget_ms = budget_now()
        if budget_ms == 0:  # a caller with no time left sends nothing; else the wait for the answer is the checkpoint
            await trio.lowlevel.checkpoint()
        data = encode_frame(
            kind,
            call.id,
            encode(message),
            method=method,
            budget_ms=budget_ms,
            trace_id=trace_of(message),
            credit=credit,
        )
        await self._send(call, data)

    async def _send(self, call: _Call, data: bytes) -> None:
        check_request(len(data), self._frame_bytes)
        call.ticket = Ticket(data)
        try:
            await self._out.put(call.ticket)
        except trio.BrokenResourceError:
            raise self._lost(call) from None

    def _forget(self, call: _Call) -> None:
        """Free the call's place, and cancel it at the server if it may still be running there."""
        self._calls.pop(call.id, None)
        if call.items is not None:
            call.items.close()
        if call.done.is_set() or call.ticket is None or self._out.withdraw(call.ticket):
            return
        if call.expected != "welcome":
            self._send_soon(encode_frame("cancel", call.id))

    def _send_soon(self, data: bytes) -> None:
        try:
            self._out.put_now(Ticket(data))
        except trio.BrokenResourceError:
            pass  # nobody is left to receive it

    def _lost(self, call: _Call | None) -> AtomaError:
        """Return the error for ``call``, or for one that never began: a new instance each time, as each has its own trace."""
        failure = self._failure or ChannelBroken("the connection is lost")
        sent = call is not None and call.ticket is not None and call.ticket.taken
        if isinstance(failure, ProtocolError):
            return ProtocolError(str(failure), maybe_sent=sent)
        if not sent and _is_final(failure):
            return error_of(info_of(failure))
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
        except Exception:  # to its user, a pipe that raises something undocumented is a lost connection
            logger.exception("the pipe of a connection failed")
            failure = ChannelBroken("the transport failed; the log says how")
        self.fail(failure)
        rest.cancel()

    def fail(self, failure: AtomaError) -> None:
        """End every call in flight; only the first failure is reported."""
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
                self._pulse.frame_at = trio.current_time()
                self._take(frame)
        except LOST:
            return ChannelBroken("the connection was lost")
        except ProtocolError as error:
            explain_close(self._pipe, info_of(error))
            return error
        except AtomaError as error:
            return error

    async def _write(self) -> AtomaError:
        try:
            await self._out.run()
        except trio.TooSlowError:
            return ChannelBroken("the other side no longer reads")
        except LOST:
            return ChannelBroken("the connection was lost")
        raise AssertionError("unreachable: the writer ends with an error only")

    async def _watch(self) -> AtomaError:
        await until_mute(self._pulse, lambda: self._send_soon(encode_frame("ping")), self._limits)
        return ChannelBroken("the other side no longer answers")

    def _take(self, frame: Frame) -> None:
        """Pass ``frame`` on to its recipient; answers to calls that were given up are dropped."""
        if frame.kind not in SERVER_KINDS:
            raise ProtocolError(f"a server must not send {frame.kind!r} frames")
        if frame.kind == "ping":
            return self._send_soon(encode_frame("pong"))
        if frame.kind == "pong":
            return None
        if frame.id > self._last_id:
            raise ProtocolError("the other side answered a call that was never made")
        if frame.kind == "error" and frame.id == 0:
            raise error_of(decode(frame.payload, ErrorInfo))
        call = self._calls.get(frame.id)
        if call is not None and not call.done.is_set():
            self._settle(call, frame)
        return None

    def _settle(self, call: _Call, frame: Frame) -> None:
        if frame.kind == "item":
            if call.items is None:
                raise ProtocolError("the other side answered a call with an item of a stream")
            try:
                call.items.send_nowait(frame.payload)
            except trio.WouldBlock:
                raise ProtocolError("the other side sent more items than it had credit for") from None
            except trio.BrokenResourceError:
                pass  # the reader is leaving right now
            return
        if frame.kind == "error":
            call.refused = decode(frame.payload, ErrorInfo)
        elif frame.kind != call.expected:
            raise ProtocolError(f"a {frame.kind!r} frame does not fit the call")
        call.payload = frame.payload
        call.answered = True
        call.done.set()
        if call.items is not None:
            call.items.close()


class Items:
    """The items of a stream; not a generator, as one that is left half-way would wait for the garbage collector."""

    def __init__(
        self,
        payloads: trio.MemoryReceiveChannel[bytes],
        kind: type[msgspec.Struct],
        grant: Callable[[int], None],
        check_end: Callable[[], Awaitable[None]],
        window: int,
    ) -> None:
        self._payloads = payloads
        self._kind = kind
        self._grant = grant
        self._check_end = check_end
        self._batch = max(1, window // 2)
        self._taken = 0

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> msgspec.Struct:
        try:
            payload = await self._payloads.receive()
        except trio.EndOfChannel:
            await self._check_end()
            raise StopAsyncIteration from None
        self._taken += 1
        if self._taken >= self._batch:
            self._grant(self._taken)
            self._taken = 0
        return decode(payload, self._kind)


def _is_final(failure: AtomaError) -> bool:
    """Whether connecting again would fail in the same way, so that this failure is the reason worth reporting."""
    if isinstance(failure, RemoteError):
        return row(failure.remote_code).category in ("auth", "agreement", "protocol")
    return isinstance(failure, AuthenticationError)
