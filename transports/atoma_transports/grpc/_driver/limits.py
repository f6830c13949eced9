"""The bounds of one gRPC connection."""

from __future__ import annotations

from dataclasses import dataclass

MESSAGE_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024
"""One message: a page of 4 MiB and its envelope."""

WINDOW_BYTES_MIN = 65_535
"""What HTTP/2 grants before the settings have been exchanged; a smaller window could not be kept."""

FRAME_BYTES = 64 * 1024
"""Payload of one HTTP/2 frame, both ways; a peer may ask for less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcLimits:
    """Bounds of one connection; the same type is used at both ends.

    Attributes:
        message_bytes: Largest message that is sent or taken; refused by its length prefix, before it is buffered.
        metadata_bytes: Metadata of one call, each way, as HTTP/2 counts it (32 bytes per field on top).
        metadata_fields: Fields of the metadata of one call, each way.
        calls: Calls in flight; further ones are refused with ``RESOURCE_EXHAUSTED``.
        queue_bytes: Bytes that wait to be sent; further senders wait.
        stream_window: Bytes of one call that may have arrived without being read.
        connection_window: Bytes of all calls that may have arrived without being read.
        ping_s: Seconds of silence after which the peer is asked whether it is there.
        pong_s: Seconds it has to answer before the connection counts as lost.
        slow_s: Seconds that a peer may take nothing while something waits for it.
        close_s: Seconds for a polite goodbye before the connection is cut.
        resets_per_s: Calls that the peer may begin and throw away, per second.
        chatter_per_s: Frames that carry nothing (pings, settings, empty data, unknown ones), per second.
    """

    message_bytes: int = MESSAGE_BYTES_MAX
    metadata_bytes: int = 32 * 1024
    metadata_fields: int = 100
    calls: int = 256
    queue_bytes: int = 64 * 1024
    stream_window: int = 512 * 1024
    connection_window: int = 8 * 1024 * 1024
    ping_s: float = 15.0
    pong_s: float = 10.0
    slow_s: float = 30.0
    close_s: float = 0.5
    resets_per_s: int = 1_000
    chatter_per_s: int = 1_000

    def __post_init__(self) -> None:
        if min(self.stream_window, self.connection_window) < WINDOW_BYTES_MIN:
            raise ValueError(f"a window below {WINDOW_BYTES_MIN} bytes cannot be agreed upon before calls begin")
        if self.connection_window < self.stream_window:
            raise ValueError("the connection's window is smaller than that of one call")
