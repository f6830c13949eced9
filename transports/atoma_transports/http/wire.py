"""One HTTP/1.1 connection as the server sees it, on h11: requests in, answers out, and whether the client is there."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import lru_cache
from http import HTTPStatus
from typing import TypeAlias, TypeVar

import h11
import trio
from h11._receivebuffer import ReceiveBuffer

from atoma_transports.calls.fairness import TINY_BYTES, TURN_EVENTS, Share, TinyPieces
from atoma_transports.http.messages import HttpError
from atoma_transports.serving.head import HEAD_LINES_MAX, RECEIVE_BYTES, linger
from atoma_transports.serving.places import ConnectionSlot
from atoma_transports.streams import send_in_chunks, unwrapped

T = TypeVar("T")
Fields: TypeAlias = list[tuple[bytes, bytes]]

HEADER_BYTES_MAX = 64 * 1024
HEADER_S = 10.0
KEEP_ALIVE_S = 75.0
BODY_S = 30.0
SEND_S = 30.0
LINGER_S = 0.5
GRACE_S = 0.1
"""When the server ends, requests that are under way to it are still refused politely."""
WATCH_AFTER_S = 0.02
"""Work that takes longer is watched: when the client goes away meanwhile, it is cancelled."""
SLOW_BYTES_S = 16 * 1024
"""A client that sends or takes a large body at this rate or better is slow, not gone."""
HEADS_KEPT = 256
"""Heads of answers that need not be made again: of answers of the same kind and size."""
CLOSE = (b"connection", b"close")
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Gone(Exception):
    """The client has left, or what it sends cannot be continued with."""


class Late(Exception):
    """The caller's deadline has passed."""


class _Heads(ReceiveBuffer):
    """The bytes that have come, where header fields, and those behind a body, have a bounded number of lines."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """See ``h11``."""
        lines = super().maybe_extract_lines()
        if lines is not None and len(lines) > HEAD_LINES_MAX:
            raise h11.RemoteProtocolError("too many header fields", error_status_hint=431)
        return lines


class _Http(h11.Connection):
    """h11 on :class:`_Heads`."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)
        self._receive_buffer = _Heads()


class ServerWire:
    """Requests and answers on one stream, one after the other.

    What every request would pay for with a task or a cancel scope of its own is done by two tasks for the whole
    connection: :meth:`guard` waits for silence and for the end of the server, and ``_watch`` runs only while there is
    work, to see whether the client still waits for it. Both end the connection by cancelling ``nursery``.

    Attributes:
        also: Further header fields of the answer to the request in hand.
        takes_gzip: Whether that answer may be compressed.
    """

    def __init__(
        self, stream: trio.abc.Stream, nursery: trio.Nursery, drain: trio.Event, place: ConnectionSlot, share: Share
    ) -> None:
        ahead, self._below, self._stream = unwrapped(stream)
        self._nursery = nursery
        self._drain = drain
        self._place = place
        self.share = share
        self._http = _Http()
        if ahead:
            self._http.receive_data(ahead)
        self._idle_until = trio.current_time() + HEADER_S
        self._write_until = math.inf
        self._idle = True
        self._working = False
        self._watched = False
        self._requests = 0
        self.also: Fields = []
        self.takes_gzip = False
        self._listening: trio.CancelScope | None = None
        self._silent = trio.Event()
        self._head_only = False
        self._spoiled = False
        self._body = 0  # bytes of the body of the request in hand

    async def guard(self) -> None:
        """End the connection when the client is silent for too long between requests, or the server ends."""
        while True:
            now = trio.current_time()
            with trio.move_on_at(self._idle_until if self._idle_until > now else now + KEEP_ALIVE_S):
                await self._drain.wait()
            if self._drain.is_set():
                await trio.sleep(GRACE_S)
                break
            if self._idle and trio.current_time() >= self._idle_until:
                break
        if self._idle:
            self._nursery.cancel_scope.cancel()

    def next_cycle(self) -> bool:
        """Prepare for another request; False when there can be none."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if self._drain.is_set() and not self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        self._let_go()
        self._idle_until = trio.current_time() + KEEP_ALIVE_S
        return True

    async def head(self) -> h11.Request | None:
        """The next request line and headers; None when the client is done.

        Raises:
            Gone: The connection broke.
            h11.RemoteProtocolError: What came is not HTTP/1.1.
        """
        event: object = self._http.next_event() if any(self._http.trailing_data) else h11.NEED_DATA
        if event is h11.NEED_DATA:
            self._idle = True
            if self.share.is_over():
                await self.share.turn()
            self.share.rest(self._nursery.cancel_scope.cancel)
            event = await self._event()
            self.share.work()
        elif self._requests:
            await self.share.turn()  # requests sent ahead must not keep others waiting
        self._idle = False
        self.share.unit(0)
        if not isinstance(event, h11.Request):
            return None
        self._head_only = event.method == b"HEAD"
        self.also, self.takes_gzip = [], False
        self._requests += 1
        if not self._watched:
            self._watched = True
            self._nursery.start_soon(self._watch)
        return event

    async def skip_body(self, size_max: int) -> None:
        """Read the rest of a small body that nobody wants; leave a larger one, and the connection ends."""
        if self._spoiled or self._http.they_are_waiting_for_100_continue:
            return
        if self._http.their_state is h11.SEND_BODY:
            with trio.move_on_after(LINGER_S):
                try:
                    await self.body(size_max)
                except (HttpError, h11.RemoteProtocolError):
                    pass  # the connection ends with the answer

    async def _event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[], reason=REASONS[100])
                await self.write(self._http.send(go_on) or b"")
            try:
                data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise Gone from None
            self.share.came(len(data))
            self._http.receive_data(data)

    async def body(self, size_max: int) -> bytes:
        """The body of the request in hand.

        Raises:
            HttpError: It is larger than ``size_max`` (413), or takes too long to arrive (408).
            Gone: The client has left in the middle of it.
        """
        parts = bytearray()
        size = events = 0
        began = -1.0
        since = trio.current_time()
        while True:
            events += 1
            if events % TURN_EVENTS == 0:
                self.share.took(since)
                await self.share.turn()
                since = trio.current_time()
            event: object = self._http.next_event()
            if event is h11.NEED_DATA:
                self.share.took(since)
                if self.share.is_over():
                    await self.share.turn()
                began = trio.current_time() if began < 0 else began
                began += await self.share.read_on()
                with trio.CancelScope(deadline=began + BODY_S + size / SLOW_BYTES_S) as waiting:
                    event = await self._event()
                if waiting.cancelled_caught:
                    self._spoiled = True
                    raise HttpError(408, "the request took too long to arrive")
                since = trio.current_time()
            if isinstance(event, h11.Data):
                parts += event.data
                size += len(event.data)
                self._body = size
                self.share.hold(parts=len(event.data))
                if event.chunk_start:
                    self._check_piece(event)
                if size > size_max:
                    self._spoiled = True
                    raise HttpError(413, f"a body may have {size_max} bytes")
            elif isinstance(event, h11.EndOfMessage):
                self.share.took(since)
                self.share.hold(parts=-size, requests=size)
                return bytes(parts)
            else:
                raise Gone

    def _let_go(self) -> None:
        """Hold no more of the request in hand, which has been answered."""
        self.share.hold(parts=-self._body, requests=-self._body)
        self._body = 0

    def _check_piece(self, event: h11.Data) -> None:
        try:
            self.share.piece(len(event.data) if event.chunk_end else TINY_BYTES)
        except TinyPieces as error:
            self._spoiled = True
            raise HttpError(400, str(error)) from None

    async def attended(self, work: Callable[[], Awaitable[T]], deadline: float = math.inf) -> T:
        """What ``work`` returns; it is cancelled, with the connection, when the client goes away meanwhile.

        Raises:
            Late: ``deadline`` came first, and ``work`` was cancelled.
        """
        self._working = True
        try:
            if deadline == math.inf:
                return await work()
            with trio.CancelScope(deadline=deadline):
                return await work()
            raise Late
        finally:
            self._working = False
            if self._listening is not None:
                await self._stop_listening(self._listening)

    async def _stop_listening(self, listening: trio.CancelScope) -> None:
        listening.cancel()
        with trio.CancelScope(shield=True):  # it ends at once
            await self._silent.wait()

    async def _watch(self) -> None:
        """Look from time to time, as long as the connection is busy: cheaper than a task for every request."""
        while True:
            seen = self._requests
            await trio.sleep(WATCH_AFTER_S)
            if trio.current_time() > self._write_until:
                self._nursery.cancel_scope.cancel()
            elif self._working:
                await self._listen()
            elif self._idle and self._requests == seen:
                self._watched = False
                return

    async def _listen(self) -> None:
        """End the connection once the client hangs up; what it sends ahead is kept, up to a bound."""
        self._silent = trio.Event()
        ahead = 0
        try:
            with trio.CancelScope() as self._listening:
                while data := await self._receive():
                    ahead += len(data)
                    self.share.came(len(data))
                    self._http.receive_data(data)
                    if ahead >= HEADER_BYTES_MAX:
                        await trio.sleep_forever()
                self._nursery.cancel_scope.cancel()
        finally:
            self._listening = None
            self._silent.set()

    async def _receive(self) -> bytes:
        """What the client sends next, ``b""`` when it has hung up in whatever way."""
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def send(self, status: int, fields: Fields, body: bytes, *, last: bool = False) -> None:
        """Answer the request in hand, the ``last`` one; ``fields`` have lower-case names and include the body's length.

        Raises:
            Gone: The client has left.
        """
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        ends = last or self._drain.is_set()
        http = self._http
        data = http.send(_head(status, *fields, *self.also, *((CLOSE,) if ends else ()))) or b""
        if not self._head_only:
            data += http.send(h11.Data(data=body)) or b""
        await self.write(data + (http.send(h11.EndOfMessage()) or b""))

    def begin(self, status: int, fields: Fields) -> bytes:
        """The head of an answer whose body follows in parts."""
        return self._http.send(_head(status, *fields, *self.also)) or b""

    def part(self, data: bytes) -> bytes:
        """A part of the body, ready to be written."""
        return self._http.send(h11.Data(data=data)) or b""

    def end(self) -> bytes:
        """The end of the body, ready to be written."""
        return self._http.send(h11.EndOfMessage()) or b""

    async def write(self, data: bytes) -> None:
        """Write what :meth:`begin`, :meth:`part` and :meth:`end` gave; the connection ends if nobody takes it.

        Raises:
            Gone: The client has left.
        """
        self._write_until = trio.current_time() + SEND_S + len(data) / SLOW_BYTES_S
        self._place.spoken = True
        self.share.hold(answers=len(data))
        try:
            await send_in_chunks(self._stream, data, self.share.moved)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone from None
        finally:
            self.share.hold(answers=-len(data))
        self._write_until = math.inf

    def take_apart(self) -> tuple[bytes, trio.abc.Stream]:
        """What came after the request in hand, and the stream below, for somebody else; this wire is of no more use."""
        return self._http.trailing_data[0], self._below

    async def leave(self) -> None:
        """Let go of what the client is still sending, so that it sees the answer before the connection ends."""
        if self._http.their_state in (h11.SEND_BODY, h11.ERROR) and self._http.our_state is not h11.IDLE:
            await linger(self._stream, LINGER_S)


@lru_cache(HEADS_KEPT)
def _head(status: int, *fields: tuple[bytes, bytes]) -> h11.Response:
    return h11.Response(status_code=status, headers=list(fields), reason=REASONS.get(status, b""))
