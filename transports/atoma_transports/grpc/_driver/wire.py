"""One HTTP/2 connection as bytes in and out: h2, set up for gRPC and closed to floods."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, StreamReset
from h2.exceptions import (
    DenialOfServiceError,
    FrameTooLargeError,
    StreamClosedError,
    StreamIDTooLowError,
    TooManyStreamsError,
)
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.stream import StreamInputs
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from atoma_transports.calls.fairness import TINY_BYTES
from atoma_transports.grpc._driver.calls import FRAME_BYTES, WINDOW_BYTES_MIN, GrpcLimits
from atoma_transports.grpc._driver.compression import RememberingDecoder, RememberingEncoder

_OPEN_BEYOND_LIMIT = 256
"""Calls beyond the limit that get an answer of their own; h2 ends the connection of a peer that opens more at once."""

FRAMES_PER_TURN = 64
"""Frames after which others run; one or two milliseconds."""

HEADER_BYTES_PER_FRAME = 1024
"""So many bytes of headers take as long as a frame."""

_UPDATES_PER_CHATTER = 16
"""How much more often than useless frames those of `_MANY` may come."""


_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
_END_STREAM, _END_HEADERS = 1, 4
_MANY = (WindowUpdateFrame, RstStreamFrame, HeadersFrame)
"""Useful, or the late half of something useful: some peers answer each frame of a call that was cut off."""

_Taken = tuple[list[Frame], list[Event]]
_FRAME_HEAD = struct.Struct(">HBBBL")


def _frame_head(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    return _FRAME_HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id)


class _Turns(FrameBuffer):
    """Frames, a bounded number at a time.

    Attributes:
        left: How many may still be taken in this turn.
        on_frame: Called with the size of each, before it is looked at.
        block_bytes: Largest block of headers, in however many frames.
    """

    left = 0
    on_frame: Callable[[int], None] | None = None
    block_bytes = 0
    _block = 0

    def __next__(self) -> Frame:
        if self.left <= 0:
            raise StopIteration
        self.left -= 1
        return super().__next__()

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        assert f is not None
        if self.on_frame is not None:
            self.on_frame(f.body_len)
        if isinstance(f, HeadersFrame | ContinuationFrame):
            self._block = f.body_len + (self._block if self._headers_buffer else 0)
            if self._block > self.block_bytes:
                raise DenialOfServiceError(f"a block of headers of more than {self.block_bytes} bytes")
            self.left -= f.body_len // HEADER_BYTES_PER_FRAME
        return super()._update_header_buffer(f)


class Http2Wire(H2Connection):
    """HTTP/2 without input or output: ``receive_data`` takes bytes and returns events, ``data_to_send`` gives bytes.

    Windows are opened by whoever reads, with ``increment_flow_control_window``; nothing is acknowledged by itself.

    Attributes:
        now: Current time in seconds, set by the owner before ``receive_data``; floods are counted by it.
    """

    MAX_CLOSED_STREAMS = 8_192  # h2 remembers 65 536 ended calls, 6 MB on every connection that has lived a while

    def __init__(self, limits: GrpcLimits, *, client_side: bool, now: float) -> None:
        super().__init__(
            H2Configuration(
                client_side=client_side,
                header_encoding="latin-1",  # any byte is a character: a strange one does not end the connection
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_inbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._data_to_send: bytearray
        self._turns: Any = _Turns(server=not client_side)
        self.incoming_buffer = self._turns
        self._takes: dict[type[Frame], Callable[[Frame], _Taken]] = cast("Any", self)._frame_dispatch_table
        self.now = now
        self._second = now
        self._resets = 0
        self._chatter = 0
        self._updates = 0
        self._resets_max = limits.resets_per_s
        self._chatter_max = limits.chatter_per_s
        self._acknowledged = False  # the first settings were, which are not known here yet
        self._updates_max = limits.chatter_per_s * _UPDATES_PER_CHATTER
        self._open(limits, client_side)

    def _open(self, limits: GrpcLimits, client_side: bool) -> None:
        settings = {
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
            SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.metadata_bytes,
        }
        if client_side:
            settings[SettingCodes.ENABLE_PUSH] = 0
        else:
            settings[SettingCodes.MAX_CONCURRENT_STREAMS] = limits.calls
        self.local_settings = Settings(client=client_side, initial_values=settings)
        self.max_inbound_frame_size = FRAME_BYTES
        # Headers up to twice the limits cost only their call; beyond, they are not even unpacked.
        self.decoder = RememberingDecoder(2 * limits.metadata_bytes, 2 * limits.metadata_fields)
        self._turns.block_bytes = 2 * limits.metadata_bytes
        self.encoder = RememberingEncoder()
        self.initiate_connection()
        if not client_side:
            # The peer knows the limit; calls beyond it are refused one by one instead of with the connection.
            self.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = limits.calls + _OPEN_BEYOND_LIMIT
            self.local_settings.acknowledge()
        if limits.connection_window > WINDOW_BYTES_MIN:
            self.increment_flow_control_window(limits.connection_window - WINDOW_BYTES_MIN)

    def was_greeted(self, *, acknowledged: bool) -> None:
        """Note that the peer has been sent what this side says first, and whether its settings were ``acknowledged``."""
        self.clear_outbound_data_buffer()
        self._acknowledged = acknowledged

    def tell_frames(self, on_frame: Callable[[int], None]) -> None:
        """Call ``on_frame`` with the size of every frame that comes."""
        self._turns.on_frame = on_frame

    @property
    def closed(self) -> bool:
        """Whether a goodbye was sent: nothing else can be."""
        return self.state_machine.state is ConnectionState.CLOSED

    @property
    def pending(self) -> int:
        """Bytes that ``data_to_send`` would give."""
        return len(self._data_to_send)

    def closable(self, stream_id: int) -> bool:
        """Whether a reset of the stream would still be news to the peer."""
        stream = self.streams.get(stream_id)
        return stream is not None and not stream.closed

    # h2's own `send_headers` and `send_data` do the same and cost three times as much: for what may be in any HTTP/2
    # message, checked and copied once more. gRPC's headers are made here, and the sender has asked for its room.

    def write_headers(self, stream_id: int, headers: Sequence[tuple[str, str]], *, end_stream: bool = False) -> None:
        """Send the first or last headers of a call; on a client, the first ones begin it.

        Raises:
            TooManyStreamsError: The peer takes no more calls at once.
        """
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.open_outbound_streams >= self.remote_settings.max_concurrent_streams:
                raise TooManyStreamsError("the peer takes no more calls at once")
            stream = self._begin_new_stream(stream_id, AllowedStreamIDs(self.config.client_side))
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        stream.state_machine.process_input(StreamInputs.SEND_HEADERS)
        if end_stream:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        block = self.encoder.encode(headers)
        size = self.max_outbound_frame_size
        kind, flags = _HEADERS, _END_STREAM if end_stream else 0
        while len(block) > size:
            self._data_to_send += _frame_head(size, kind, flags, stream_id) + block[:size]
            block, kind, flags = block[size:], _CONTINUATION, 0
        self._data_to_send += _frame_head(len(block), kind, flags | _END_HEADERS, stream_id) + block

    def write_data(self, stream_id: int, data: memoryview, *, end_stream: bool) -> None:
        """Send bytes of a message: no more than the windows and a frame have room for."""
        stream = self.streams[stream_id]
        size = len(data)
        self.state_machine.process_input(ConnectionInputs.SEND_DATA)
        stream.state_machine.process_input(StreamInputs.SEND_DATA)
        if end_stream:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        self._data_to_send += _frame_head(size, _DATA, _END_STREAM if end_stream else 0, stream_id)
        self._data_to_send += data

    def receive_data(self, data: Any) -> list[Event]:
        """Take bytes; what they say.

        Raises:
            h2.exceptions.ProtocolError: They are not HTTP/2, or begin a frame that is larger than this side takes.
        """
        self._turns.left = FRAMES_PER_TURN
        events = super().receive_data(data)
        # h2 looks at the length of a frame when all of it is there: up to 16 MiB, whatever was agreed upon.
        waiting: bytearray = self._turns._data
        if len(waiting) >= _FRAME_HEAD.size and int.from_bytes(waiting[:3], "big") > self.max_inbound_frame_size:
            raise FrameTooLargeError("a frame is larger than was agreed upon")
        return events

    @property
    def more(self) -> bool:
        """Whether frames may be left of what was received: ``receive_data(b"")`` goes on with them."""
        left: int = self._turns.left
        return left <= 0

    def overrun(self) -> bool:
        """Note a call beyond the limit that the peer knows; whether there were too many of them in this second."""
        self._resets += 1
        return self._resets > self._resets_max

    def _receive_frame(self, frame: Frame) -> list[Event]:
        # h2's own describes every frame, all its bytes in hexadecimal, to a log that nobody keeps.
        frames: list[Frame]
        events: list[Event]
        try:
            frames, events = self._takes[type(frame)](frame)
        except StreamClosedError as error:
            if not self._stream_is_closed_by_reset(error.stream_id):
                raise
            frames, events = [], cast("list[Event]", cast("Any", error)._events)
            if events:  # this side has just thrown the call away
                frames = [RstStreamFrame(error.stream_id, error_code=error.error_code)]
        except StreamIDTooLowError as error:
            if not self._stream_is_closed_by_reset(error.stream_id):
                raise
            frames, events = [], []  # it was under way when the call was cut off
        self._prepare_for_sending(frames)
        self._judge(frame, events)
        return events

    def _judge(self, frame: Frame, events: list[Event]) -> None:
        """Count what costs this side work and the peer nothing."""
        kind = type(frame)
        if events and type(events[-1]) is StreamReset:
            self._resets += 1  # by the peer, or by this side for a mistake that the peer may make on purpose
        elif isinstance(frame, DataFrame):
            size = len(frame.data)
            if size >= TINY_BYTES or len(events) > 1:
                return
            if size:
                self._updates += 1
            else:
                self._chatter += 1
        elif kind is HeadersFrame and events:
            return
        elif kind in _MANY:
            self._updates += 1
        else:
            self._chatter += 1
        self._count()

    def _count(self) -> None:
        if self.now - self._second >= 1.0:
            self._second = self.now
            self._resets = self._chatter = self._updates = 0
        if self._resets > self._resets_max:
            raise DenialOfServiceError("too many calls were begun and thrown away")
        if self._chatter > self._chatter_max or self._updates > self._updates_max:
            raise DenialOfServiceError("too many frames without a use")

    def _handle_data_on_closed_stream(self, events: list[Event], exc: StreamClosedError, frame: DataFrame) -> _Taken:
        # What was under way when the call was cut off is not a reason to cut it off once more for every frame.
        frames, events = super()._handle_data_on_closed_stream(events, exc, frame)
        if not events:
            frames = [answer for answer in frames if not isinstance(answer, RstStreamFrame)]
        return frames, events

    def _receive_settings_frame(self, frame: SettingsFrame) -> _Taken:
        frames, events = super()._receive_settings_frame(frame)
        if self._acknowledged and frames:
            frames, self._acknowledged = [], False
        return frames, events

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> _Taken:
        # h2 takes GOAWAY for the end at once; calls that the peer goes on answering would be lost with it.
        event = ConnectionTerminated()
        event.error_code = _error_code(frame.error_code)
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]


def _error_code(code: int) -> ErrorCodes | int:
    try:
        return ErrorCodes(code)
    except ValueError:
        return code
