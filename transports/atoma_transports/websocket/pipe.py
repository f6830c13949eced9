"""A WebSocket connection as a message pipe, on wsproto."""

from __future__ import annotations

import math
import os
import struct
from collections import deque
from collections.abc import Callable

import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from atoma.codes import BY_WEBSOCKET, row
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports.calls.errors import error_of
from atoma_transports.calls.fairness import TURN_EVENTS, Share, TinyPieces
from atoma_transports.serving.head import linger
from atoma_transports.streams import CHUNK_BYTES, EAGER, send_in_chunks, unwrapped

RECEIVE_BYTES = 64 * 1024
LARGE_HEAD = struct.Struct(">BBQ")
WHOLE_MESSAGE, EIGHT_BYTES = 0x82, 127
"""A binary message in one frame, whose length has eight bytes (RFC 6455 §5.2)."""


class WebSocketPipe:
    """Binary messages over ``stream``; text messages are refused.

    Args:
        stream: What the opening handshake went over; closed with the pipe.
        side: Which end this is.
        first: Bytes that came right after the handshake.
        message_bytes: Largest message until :meth:`allow` says otherwise.
        share: What reading may take, on a server.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        side: ConnectionType,
        first: bytes,
        *,
        message_bytes: int,
        share: Share | None = None,
    ) -> None:
        self._stream = stream
        self._reads = unwrapped(stream)[2]
        self._socket = stream.socket if EAGER and isinstance(stream, trio.SocketStream) else None
        self._side = side
        self._protocol = Connection(side, trailing_data=first)
        self._fresh = bool(first)
        self._message_bytes = message_bytes
        self._share = share
        self._more = False  # events are left of what was read
        self._lock = trio.Lock()
        self._rest = memoryview(b"")
        self._pong = b""
        self._torn = False  # a frame may have been sent in part, so that nothing can follow it
        self._closed = False
        self._partial = bytearray()  # no list: a message in a million fragments takes no more room than its bytes
        self._messages: deque[bytes] = deque()
        self._end: Exception | None = None
        self._words: tuple[int, str] | None = None
        self._on_part: Callable[[], None] | None = None
        self.moved_at = trio.current_time()
        """See :class:`atoma_transports.frames.pipe.WatchedPipe`."""

    @property
    def unsent(self) -> bool:
        """See :class:`atoma_transports.frames.pipe.EagerPipe`."""
        return bool(self._rest)

    def watch(self, on_part: Callable[[], None]) -> None:
        """See :class:`atoma_transports.frames.pipe.WatchedPipe`."""
        self._on_part = on_part

    def allow(self, message_bytes: int) -> None:
        """See :class:`atoma_transports.frames.pipe.GuardedPipe`."""
        self._message_bytes = message_bytes

    def explain(self, reason: ErrorInfo) -> None:
        """See :class:`atoma_transports.frames.pipe.ExplainingPipe`."""
        if self._words is None:
            self._words = close_words(reason)

    def send_now(self, message: bytes) -> bool:
        """See :class:`atoma_transports.frames.pipe.EagerPipe`; a write to a socket that has room does not block."""
        if self._socket is None or self._lock.locked() or self._torn or len(message) > CHUNK_BYTES:
            return False
        data = self._framed(message)
        try:
            sent = os.write(self._socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._torn = True
            raise self._lost() from None
        if sent < len(data):
            self._rest = memoryview(data)[sent:]
        return True

    async def send(self, message: bytes) -> None:
        """See :class:`atoma_transports.frames.MessagePipe`."""
        async with self._lock:
            await self._write(*self._parts(message))
            await self._write_pong()

    async def flush(self) -> None:
        """See :class:`atoma_transports.frames.pipe.EagerPipe`."""
        async with self._lock:
            await self._write_rest()
            await self._write_pong()

    async def receive(self) -> bytes:
        """See :class:`atoma_transports.frames.MessagePipe`."""
        while not self._messages:
            if self._end is not None:
                await self._answer_goodbye()
                raise self._lost() if self._closed else self._end
            await self._read()
            if self._pong and not self._lock.locked() and not self._rest:
                async with self._lock:
                    await self._write_pong()
        message = self._messages.popleft()
        self._hold(-len(message))
        return message

    async def aclose(self) -> None:
        """See :class:`atoma_transports.frames.MessagePipe`."""
        if self._closed:
            return
        self._closed = True
        try:
            async with self._lock:
                await self._say_goodbye()
            await self._await_goodbye()
            await self._stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(self._stream)

    def _framed(self, message: bytes) -> bytes:
        self._check_open()
        return self._protocol.send(BytesMessage(data=message))

    def _check_open(self) -> None:
        if self._closed or self._protocol.state is not ConnectionState.OPEN:
            raise self._lost()

    def _parts(self, message: bytes) -> tuple[bytes, ...]:
        """What to send for ``message``; of a large one that a server sends no second copy is made, since it is not masked."""
        if self._side is ConnectionType.CLIENT or len(message) <= CHUNK_BYTES:
            return (self._framed(message),)
        self._check_open()
        return LARGE_HEAD.pack(WHOLE_MESSAGE, EIGHT_BYTES, len(message)), message

    async def _write(self, *parts: bytes) -> None:
        """Send, under the lock. Cancelled half-way, the connection is of no more use."""
        if self._torn:
            raise self._lost()
        self._torn = True
        try:
            for part in parts:
                await send_in_chunks(self._stream, part, self._moved)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lost() from None
        self._torn = False

    def _moved(self) -> None:
        self.moved_at = trio.current_time()
        if self._share is not None:
            self._share.moved()

    async def _write_rest(self) -> None:
        rest = bytes(self._rest)
        await self._write(rest)
        self._rest = memoryview(b"")

    async def _write_pong(self) -> None:
        while self._pong:
            pong, self._pong = self._pong, b""
            await self._write(pong)

    async def _read(self) -> None:
        """Take in some bytes; what they amount to is found in the fields."""
        if self._fresh:  # what came with the handshake
            self._fresh = False
            self._take_events()
            return
        if self._more:
            assert self._share is not None
            await self._share.turn()
            self._take_events()
            return
        if self._share is not None:
            if self._share.is_over():
                await self._share.turn()
            if self._partial and await self._share.read_on():
                self.moved_at = trio.current_time()
        try:
            data = await self._reads.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lost() from None
        if not data:
            self._end = self._lost()
            return
        self.moved_at = trio.current_time()
        if self._share is not None:
            self._share.came(len(data))
        self._protocol.receive_data(bytes(data))
        self._take_events()
        if self._partial and self._on_part is not None:
            self._on_part()

    def _take_events(self) -> None:
        """Sort what has been read, on a server a turn's worth of it."""
        if self._share is None:
            self._sort(None)
            return
        began = trio.current_time()
        try:
            self._sort(self._share)
        except TinyPieces as error:
            self._words = self._words or close_words(refusal("RATE_LIMITED", str(error)))
            self._end = error
        self._share.took(began)

    def _sort(self, share: Share | None) -> None:
        left = TURN_EVENTS
        self._more = False
        for event in self._protocol.events():
            if share is not None:
                if not isinstance(event, BytesMessage):
                    share.piece(0)
                elif event.message_finished and not self._partial:
                    share.unit(len(event.data))
                else:
                    share.piece(len(event.data))
                left -= 1
                if not left:
                    self._more = True
            if isinstance(event, BytesMessage):
                self._take_part(event)
            elif isinstance(event, Ping):
                if self._protocol.state is ConnectionState.OPEN:
                    self._pong = self._protocol.send(event.response())  # of several, the last one is answered
            elif isinstance(event, CloseConnection):
                self._take_close(event)
            elif isinstance(event, TextMessage):
                self._end = ProtocolError("text message where frames are binary")
            if self._end is not None or self._more:
                break

    def _take_part(self, event: BytesMessage) -> None:
        if len(self._partial) + len(event.data) > self._message_bytes:
            self._hold(-len(self._partial))
            self._partial.clear()
            self._words = self._words or (TOO_BIG, f"a message is larger than {self._message_bytes} bytes")
            self._end = ProtocolError("a message is larger than the limit")
        elif event.message_finished and not self._partial:
            self._hold(len(event.data))
            self._messages.append(bytes(event.data))
        else:
            self._hold(len(event.data))
            self._partial += event.data
            if event.message_finished:
                self._messages.append(bytes(self._partial))
                self._partial.clear()

    def _hold(self, size: int) -> None:
        if self._share is not None:
            self._share.hold(parts=size)

    def _take_close(self, event: CloseConnection) -> None:
        """The peer says goodbye, or does not speak WebSocket."""
        if self._protocol.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            self._end = close_error(event.code, event.reason or "")
        else:
            self._words = self._words or (int(event.code), "")
            self._end = ProtocolError(f"this is not WebSocket: {event.reason}")

    async def _say_goodbye(self) -> None:
        if self._torn or self._protocol.state not in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            return
        if self._rest:
            await self._write_rest()
        code, reason = self._words or (NORMAL, "")
        await self._write(self._protocol.send(CloseConnection(code=code, reason=reason or None)))

    async def _answer_goodbye(self) -> None:
        """Let the peer, which has closed the connection, go at once."""
        if self._protocol.state is ConnectionState.REMOTE_CLOSING and not self._closed and not self._lock.locked():
            async with self._lock:
                try:
                    await self._say_goodbye()
                except trio.BrokenResourceError:
                    pass  # it has gone already

    async def _await_goodbye(self) -> None:
        """Read on until the peer has said goodbye too; what it still sends is dropped.

        Nothing more is parsed of one who has broken the rules; what others send is read in turns, at the pace of their share.
        """
        if self._torn or self._protocol.state is not ConnectionState.LOCAL_CLOSING:
            return
        self._on_part = None
        while self._end is None:
            await self._read()
            self._messages.clear()
        if isinstance(self._end, ProtocolError):
            await linger(self._stream, math.inf)

    def _lost(self) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if self._closed:
            return trio.ClosedResourceError("this end is closed")
        return trio.BrokenResourceError("the connection was lost")


NORMAL = 1000
TOO_BIG = 1009
POLITE = frozenset({1000, 1001, 1005})
REASON_BYTES_MAX = 120  # of 123 that a close frame can hold


def close_words(info: ErrorInfo) -> tuple[int, str]:
    """Close code and text for ``info``; the text names the code, of which several may share a number."""
    reason = f"{info.code}: {info.message}".encode()[:REASON_BYTES_MAX]
    return row(info.code).websocket or NORMAL, reason.decode("utf-8", "ignore")


def close_error(number: int, reason: str) -> Exception:
    """What a goodbye with this code and text stands for: simply an end, or the error that it names."""
    if number in POLITE:
        return trio.EndOfChannel()
    name, _, message = reason.partition(": ")
    if row(name).websocket != number:
        name, message = BY_WEBSOCKET.get(number, ""), reason
    if not name:
        return trio.BrokenResourceError(f"the connection was closed with code {number}")
    return error_of(refusal(name, message or f"the connection was closed with code {number}"))
