"""One connection at work: a reader, a writer, and somebody who notices when the other side is gone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import trio
from grpclib.protocol import Peer
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError

from atoma_transports.calls.fairness import Share
from atoma_transports.grpc._driver.arrivals import deliver
from atoma_transports.grpc._driver.calls import ConnectionLost, GrpcLimits
from atoma_transports.grpc._driver.stream import Accept, CallStream
from atoma_transports.grpc._driver.wire import Http2Wire

_READ_BYTES = 64 * 1024
_CONTROL_BYTES = 64 * 1024
"""Answers to control frames that may wait beside the data; the reader stops until a peer that piles up more takes some."""


class _TrioPeer(Peer):
    """Address and certificate of the other side, read from a Trio stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:  # grpclib's would want an asyncio transport
        self._stream = stream

    def addr(self) -> tuple[str, int] | None:
        """Its address; None where the stream has none."""
        stream: object = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream
        if not isinstance(stream, trio.SocketStream):
            return None
        try:
            return cast("tuple[str, int]", stream.socket.getpeername()[:2])
        except OSError:
            return None

    def cert(self) -> dict[str, Any] | None:
        """Its certificate; None without TLS or when it showed none."""
        stream: object = self._stream
        if isinstance(stream, trio.SSLStream):
            return cast("dict[str, Any] | None", cast("Any", stream).getpeercert())
        return None


class Connection:
    """The shared state of all calls on one stream.

    Attributes:
        wire: HTTP/2 as bytes.
        limits: Its bounds.
        streams: Calls by the id of their HTTP/2 stream.
        lost: Why nothing can be sent or received any more; None while it can.
        going_away: The other side announced that it takes no new calls.
        idle: Called whenever the last call has ended.
    """

    def __init__(
        self, stream: trio.abc.Stream, limits: GrpcLimits, *, client_side: bool, share: Share | None = None
    ) -> None:
        now = trio.current_time()
        self.wire = Http2Wire(limits, client_side=client_side, now=now)
        self.limits = limits
        self.streams: dict[int, CallStream] = {}
        self.lost: str | None = None
        self.going_away = False
        self.accept: Accept | None = None
        self.idle: Callable[[], None] | None = None
        self._stream = stream
        self._share = share
        if share is not None:
            self.wire.tell_frames(share.unit)
        self._heard = now
        self._unread = 0
        self._update_at = limits.connection_window // 2
        self._ending = False
        self._writing = trio.CancelScope()
        self._sending_since = math.inf
        self._writer: trio.lowlevel.Task | None = None
        self._room = trio.lowlevel.ParkingLot()
        self._over = trio.Event()
        self._hung_up = trio.Event()
        self._lingers = not client_side

    # ------------------------------------------------------------------ what calls use

    def wake(self) -> None:
        """Have what the wire holds sent."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            trio.lowlevel.reschedule(writer)

    def full(self) -> bool:
        """Whether a sender has to wait for room."""
        return self.wire.pending >= self.limits.queue_bytes

    async def room(self) -> None:
        """Wait until less than the bound waits to be sent, or the connection is lost."""
        while self.wire.pending >= self.limits.queue_bytes and self.lost is None:
            await self._room.park()

    def arrived(self, size: int) -> None:
        """``size`` bytes have come for some call."""
        if self._share is not None:
            self._share.hold(unread=size)

    def moved(self) -> None:
        """The peer has given room for a piece of an answer, which goes out."""
        if self._share is not None:
            self._share.moved()

    def consumed(self, size: int) -> None:
        """``size`` bytes of some call were read: let the peer send as many more."""
        if self._share is not None:
            self._share.hold(unread=-size)
        self._unread += size
        if self._unread >= self._update_at and self.lost is None:
            self.wire.increment_flow_control_window(self._unread)
            self._unread = 0
            self.wake()

    def release(self, stream: CallStream) -> None:
        """The call of ``stream`` has ended."""
        if self.streams.pop(stream.id, None) is not None and not self.streams:
            if self.idle is not None:
                self.idle()
            elif self.going_away:
                self.goodbye("the peer takes no more calls")

    def get_peer(self) -> Peer:
        """The other side, as grpclib shows it to handlers."""
        return _TrioPeer(self._stream)

    async def wait_lost(self) -> None:
        """Wait until nothing can be sent or received any more."""
        await self._over.wait()

    # ------------------------------------------------------------------ its life

    async def run(self) -> None:
        """Carry bytes until the connection ends; then every call has failed and the stream is closed.

        Raises nothing but cancellation.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._read)
        finally:
            self.lose("the connection was closed")
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.limits.close_s):
                await self._stream.aclose()

    def lose(self, reason: str) -> None:
        """Nothing goes out or comes in any more: every call fails, whoever waits wakes up."""
        if self.lost is not None:
            return
        self.lost = reason
        self._over.set()
        for stream in list(self.streams.values()):
            stream.fail(ConnectionLost(reason, maybe_sent=True))
        self._room.unpark_all()
        self._end()

    def _end(self) -> None:
        """Send what waits, then end; bounded by ``close_s``."""
        self._ending = True
        self._writing.deadline = trio.current_time() + self.limits.close_s
        self.wake()

    def goodbye(self, reason: str) -> None:
        """End politely: GOAWAY, then nothing more."""
        if self.lost is None and not self.wire.closed:
            self.wire.close_connection(last_stream_id=self.wire.highest_inbound_stream_id)
            self.lose(reason)

    async def _write(self, all_tasks: trio.CancelScope) -> None:
        with self._writing:
            try:
                await self._send()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._sending_since = math.inf
                with trio.move_on_after(self.limits.close_s):
                    await self._hung_up.wait()  # answers may have come before the end
                self.lose("the connection broke")
        all_tasks.cancel()

    async def _send(self) -> None:
        wire, stream = self.wire, self._stream
        while True:
            data = wire.data_to_send()
            if data:
                self._sending_since = trio.current_time()
                await stream.send_all(data)
                self._sending_since = math.inf
                if self._room:
                    self._room.unpark_all()
            elif not self._ending:
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            else:
                if self._lingers:  # closing on unread bytes would destroy what is under way to the peer
                    await self._hung_up.wait()
                return

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _read(self) -> None:
        stream = self._stream
        try:
            while True:
                data = await stream.receive_some(_READ_BYTES)
                if not data:
                    break
                if self.lost is None:
                    await self._take(data)
                    while self.wire.pending > self.limits.queue_bytes + _CONTROL_BYTES and self.lost is None:
                        await self._room.park()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._hung_up.set()
        self.lose("the peer closed the connection")

    async def _take(self, data: bytes | bytearray) -> None:
        """Take what came, in turns between which others run."""
        share = self._share
        if share is not None:
            if share.is_over():
                await share.turn()
            share.came(len(data))
        self._receive(data)
        while self.wire.more and self.lost is None:
            if share is not None:
                await share.turn()
            else:
                await trio.lowlevel.checkpoint()
            self._receive(b"")

    async def _watch(self) -> None:
        """Notice a peer that says nothing, and one that takes nothing."""
        ping_s, pong_s, slow_s = self.limits.ping_s, self.limits.pong_s, self.limits.slow_s
        asked, before = math.inf, 0.0  # when the peer was asked whether it is there, and its last sign before that
        while self.lost is None:
            now = trio.current_time()
            if self._heard != before:
                asked = math.inf
            if now >= self._sending_since + slow_s:
                self.lose(f"the peer took nothing for {slow_s} s")
                self._writing.cancel()
            elif now >= asked + pong_s:
                self.lose(f"the peer was silent for {ping_s + pong_s} s")
            elif asked == math.inf and now >= self._heard + ping_s:
                asked, before = now, self._heard
                self.wire.ping(b"areyouon")
                self.wake()
            answer_by = self._heard + ping_s if asked == math.inf else asked + pong_s
            await trio.sleep_until(min(answer_by, now + slow_s, self._sending_since + slow_s))

    # ------------------------------------------------------------------ what arrives

    def _receive(self, data: bytes | bytearray) -> None:
        self._heard = self.wire.now = trio.current_time()
        try:
            events = self.wire.receive_data(data)
        except DenialOfServiceError as error:
            self.lose(f"the peer asked for too much: {error}")
        except Exception as error:  # whatever a stranger's bytes do to the parser, only this connection ends
            if not self.wire.closed:
                self.wire.close_connection(ErrorCodes.PROTOCOL_ERROR)
            self.lose(f"the peer broke the protocol: {type(error).__name__}: {error}")
        else:
            deliver(self, events)
            if self.wire.pending:
                self.wake()
        if self._share is not None:
            self._share.took(self._heard)
