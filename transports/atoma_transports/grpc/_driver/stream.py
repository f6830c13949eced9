"""One call as its HTTP/2 stream: what grpclib's call objects stand on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import Stream as GrpclibStream
from h2.errors import ErrorCodes
from h2.exceptions import NoAvailableStreamIDError, TooManyStreamsError

from atoma_transports.grpc._driver.calls import FRAME_BYTES, ConnectionLost, CutOff, GrpcLimits, metadata_size
from atoma_transports.grpc._driver.wire import Http2Wire

Headers = list[tuple[str, str]]

_PREFIX = 5  # a flag for compression and four bytes of length before each message

_MESSAGES_PER_TURN = 64


class Accept(Protocol):
    """The way in which a server takes a new call; synchronous, it starts a task."""

    def __call__(self, stream: CallStream, headers: Headers, /) -> None: ...


class Carrier(Protocol):
    """The connection as its calls, and what arrives for them, see it; its class says what each part does."""

    wire: Http2Wire
    limits: GrpcLimits
    streams: dict[int, CallStream]
    lost: str | None
    going_away: bool
    accept: Accept | None
    idle: Callable[[], None] | None

    def wake(self) -> None: ...
    def full(self) -> bool: ...
    async def room(self) -> None: ...
    def arrived(self, size: int) -> None: ...
    def moved(self) -> None: ...
    def consumed(self, size: int) -> None: ...
    def release(self, stream: CallStream) -> None: ...
    def lose(self, reason: str) -> None: ...
    def goodbye(self, reason: str) -> None: ...


class CallStream(GrpclibStream):
    """The stream below one call; it waits and wakes by Trio.

    Of grpclib's own stream only the type is used: its state is asyncio's.

    Attributes:
        id: Number of the HTTP/2 stream; 0 until a client's request has been sent.
        headers: What the other side answered first; None until then.
        trailers: What it ended with; None until then.
        ended: It sends no more.
        failure: Why there is nothing more to wait for; None while there is.
        scope: What is cancelled when the other side gives the call up; None on a client.
        message_bytes: Largest message that is taken.
    """

    def __init__(self, connection: Carrier, stream_id: int = 0) -> None:
        self.connection: Any = connection  # grpclib asks it for the peer, and declares its own class
        self.id: int = stream_id
        self.headers: Headers | None = None
        self.trailers: Headers | None = None
        self.ended = False
        self.failure: GRPCError | None = None
        self.scope: trio.CancelScope | None = None
        self.message_bytes = connection.limits.message_bytes
        self._carrier = connection
        self._buffer = bytearray()
        self._unread = 0
        self._update_at = connection.limits.stream_window // 2
        self._arrivals: trio.lowlevel.ParkingLot | None = None
        self._window: trio.lowlevel.ParkingLot | None = None
        self._to_update = 0
        self._turns = 0
        if stream_id:
            connection.streams[stream_id] = self

    # ------------------------------------------------------------------ what arrives

    def take_headers(self, headers: Headers) -> None:
        """The first headers of the answer arrived."""
        self.headers = headers
        self._arrived()

    def take_data(self, data: bytes, size: int) -> None:
        """Bytes of messages arrived; ``size`` counts padding too."""
        self._buffer += data
        self._unread += len(data)
        self._carrier.arrived(size)
        if size != len(data):
            self._acknowledge(size - len(data))
        self._arrived()

    def take_trailers(self, headers: Headers) -> None:
        """The answer's last headers arrived."""
        self.trailers = headers
        self._arrived()

    def take_end(self) -> None:
        """The other side sends no more."""
        self.ended = True
        self._arrived()

    def fail(self, error: GRPCError) -> None:
        """Nothing more can happen: whoever waits gets ``error``, a handler is cancelled."""
        if self.failure is None:
            self.failure = error
            if self.scope is not None:
                self.scope.cancel()
            self._arrived()
            self.wake_sender()

    def wake_sender(self) -> None:
        """The other side may have given room."""
        if self._window:
            self._window.unpark_all()

    def _arrived(self) -> None:
        if self._arrivals:
            self._arrivals.unpark_all()

    async def _arrival(self) -> None:
        if self._arrivals is None:
            self._arrivals = trio.lowlevel.ParkingLot()
        await self._arrivals.park()

    # ------------------------------------------------------------------ receiving

    async def recv_headers(self) -> Headers:
        """The first headers of the answer."""
        while self.headers is None:
            if self.failure is not None:
                raise self.failure
            await self._arrival()
        return self.headers

    async def recv_trailers(self) -> Headers:
        """The headers that the answer ends with."""
        while self.trailers is None:
            if self.failure is not None:
                raise self.failure
            if self.ended:
                raise GRPCError(Status.INTERNAL, "the peer ended the call without a status")
            self._drop()
            await self._arrival()
        return self.trailers

    async def receive(self) -> bytes | None:
        """The next message, undecoded; None when the other side sends no more.

        Raises:
            GRPCError: The message is too large, compressed or cut off; or the call has failed.
        """
        await self._take_turns()
        buffer = self._buffer
        size = await self._prefix()
        if size < 0:
            return None
        total = size + _PREFIX
        while len(buffer) < total:
            await self._more()
        message = bytes(memoryview(buffer)[_PREFIX:total])
        del buffer[:total]
        self._acknowledge_read(len(buffer))
        return message

    async def _take_turns(self) -> None:
        """Let other tasks run now and then, however much there is to read or to send."""
        self._turns += 1
        if self._turns % _MESSAGES_PER_TURN == 0:
            await trio.lowlevel.checkpoint()

    async def _prefix(self) -> int:
        """Length of the next message; negative at the end."""
        buffer = self._buffer
        while len(buffer) < _PREFIX:
            if self.ended and not buffer:
                return -1
            await self._more()
        if buffer[0]:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not taken here")
        size = int.from_bytes(buffer[1:_PREFIX], "big")
        limit = self.message_bytes
        if size > limit:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes; the limit is {limit}")
        return size

    async def _more(self) -> None:
        if self.ended:
            raise CutOff
        if self.failure is not None:
            raise self.failure
        self._acknowledge_read(0)
        await self._arrival()

    def _acknowledge_read(self, kept: int) -> None:
        """All that arrived was read but its last ``kept`` bytes; the peer may send as much again."""
        read = self._unread - kept
        if read > 0:
            self._unread = kept
            self._acknowledge(read)

    def _acknowledge(self, size: int) -> None:
        carrier = self._carrier
        carrier.consumed(size)
        self._to_update += size
        if self._to_update >= self._update_at and not self.ended and self.closable:
            carrier.wire.increment_flow_control_window(self._to_update, self.id)
            self._to_update = 0
            carrier.wake()

    def _drop(self) -> None:
        """Forget unread messages; they no longer count as unread."""
        self._buffer.clear()
        self._acknowledge_read(0)

    # ------------------------------------------------------------------ sending

    async def open(self, headers: Headers) -> None:
        """Begin the call: give it its stream and send the request's headers."""
        carrier = self._carrier
        if carrier.full():
            await carrier.room()
        if carrier.lost is not None:
            raise ConnectionLost(carrier.lost, maybe_sent=False)
        if carrier.going_away:
            raise ConnectionLost("the peer takes no more calls", maybe_sent=False)
        wire = carrier.wire
        if len(carrier.streams) >= carrier.limits.calls:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{carrier.limits.calls} calls are in flight already")
        try:
            stream_id = wire.get_next_available_stream_id()
            wire.write_headers(stream_id, headers)
        except TooManyStreamsError:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "the peer takes no more calls at once") from None
        except NoAvailableStreamIDError:
            carrier.going_away = True
            raise ConnectionLost("this connection has carried all the calls it can", maybe_sent=False) from None
        self.id = stream_id  # pyright: ignore[reportIncompatibleVariableOverride]
        carrier.streams[stream_id] = self
        carrier.wake()

    async def send_headers(self, headers: Any, end_stream: bool = False) -> None:
        """Send headers or trailers."""
        carrier = self._carrier
        if carrier.full():
            await carrier.room()
        if self.failure is not None:
            raise self.failure
        self.send_headers_nowait(headers, end_stream=end_stream)

    def send_headers_nowait(self, headers: Headers, *, end_stream: bool) -> None:
        """Send headers or trailers now; nothing if the call is over."""
        carrier = self._carrier
        if self.failure is None and self.closable:
            carrier.wire.write_headers(self.id, headers, end_stream=end_stream)
            carrier.wake()

    def finish(self, headers: Headers) -> None:
        """Send the answer's last headers now; a request that is under way still is no longer wanted."""
        carrier = self._carrier
        if self.failure is None and self.closable:
            allowed = carrier.wire.remote_settings.max_header_list_size
            if allowed is not None and metadata_size(headers) > allowed:
                headers = [
                    *(field for field in headers if field[0] in (":status", "content-type")),
                    ("grpc-status", str(Status.RESOURCE_EXHAUSTED.value)),
                    ("grpc-message", f"the metadata of the answer exceeds the {allowed} bytes that the caller takes"),
                ]
            carrier.wire.write_headers(self.id, headers, end_stream=True)
            self.reset_nowait(ErrorCodes.NO_ERROR)
            carrier.wake()

    async def send_data(self, data: Any, end_stream: bool = False) -> None:
        """Send one length-prefixed message as fast as the other side takes it.

        Raises:
            GRPCError: It gave no room for ``slow_s`` seconds; or the call has failed.
        """
        await self._take_turns()
        carrier = self._carrier
        wire = carrier.wire
        rest = memoryview(data)
        while True:
            if carrier.full():
                await carrier.room()
            if self.failure is not None:
                raise self.failure
            if not self.closable:
                raise GRPCError(Status.INTERNAL, "a message after the end of the call")
            size = min(wire.local_flow_control_window(self.id), wire.max_outbound_frame_size, FRAME_BYTES, len(rest))
            if size <= 0 < len(rest):
                await self._window_opens()
                continue
            chunk, rest = rest[:size], rest[size:]
            last = not rest
            wire.write_data(self.id, chunk, end_stream=end_stream and last)
            carrier.moved()
            carrier.wake()
            if last:
                return

    async def _window_opens(self) -> None:
        if self._window is None:
            self._window = trio.lowlevel.ParkingLot()
        slow_s = self._carrier.limits.slow_s
        with trio.move_on_after(slow_s):
            await self._window.park()
            return
        raise GRPCError(Status.RESOURCE_EXHAUSTED, f"the peer gave no room to send for {slow_s} s")

    async def end(self) -> None:
        """Send no more."""
        if self.failure is not None:
            raise self.failure
        self._carrier.wire.end_stream(self.id)
        self._carrier.wake()

    async def reset(self, error_code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Cut the call off."""
        self.reset_nowait(error_code)

    def reset_nowait(self, error_code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Cut the call off now; nothing if it is over."""
        if self.closable:
            self._carrier.wire.reset_stream(self.id, error_code)
            self._carrier.wake()

    def release(self) -> None:
        """The call is over on this side too: what was not read no longer counts."""
        if self._unread:
            self._carrier.consumed(self._unread)
            self._unread = 0
        self._carrier.release(self)

    @property
    def closable(self) -> bool:
        """Whether either side may still send."""
        return self._carrier.lost is None and self._carrier.wire.closable(self.id)
