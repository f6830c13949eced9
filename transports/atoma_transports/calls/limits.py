"""The bounds of connections."""

from __future__ import annotations

from dataclasses import dataclass, fields

from atoma.contracts.limits import QUERY_BYTES_MAX
from atoma.errors import ConfigurationError

FRAME_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024
"""One frame: a page of 4 MiB and its envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """Bounds of one connection, and how many there may be; the same type is used at both ends.

    Attributes:
        frame_bytes: Largest frame that is sent or taken.
        query_bytes: Largest request that a server takes of a call that writes nothing: a query and its envelope.
        write_bytes: Largest request that a server takes of a call that writes; as JSON it may be a third larger.
        first_frame_bytes: Largest frame before the peer has authenticated.
        calls: Calls and streams in flight.
        queue_bytes: Bytes that wait to be sent; further senders wait.
        window: Items of a stream that may be under way or unread.
        handshake_s: Seconds for connecting and authenticating when the caller set no earlier deadline.
        ping_s: Seconds of silence after which the peer is asked whether it is there.
        pong_s: Seconds it has to answer before the connection counts as lost.
        slow_s: Seconds that a peer may take nothing while something waits for it.
        close_s: Seconds for a polite goodbye before the connection is cut.
        expired_s: Seconds that a connection whose token has expired is kept, so that the client may send a new one.
        bytes_per_s: Bytes that a client on another machine may send in a second, in the long run; 0 for no limit. Each
            request, chunk, fragment and frame counts as 1 KiB at least.
        connections: Connections that one principal may have on a port of a server, whatever is spoken on them. One that
            is kept for further HTTP requests, and has waited for a second, gives way to a new one.

    Raises:
        ConfigurationError: A bound is not a number, negative, or zero where nothing could be sent.
    """

    frame_bytes: int = FRAME_BYTES_MAX
    query_bytes: int = QUERY_BYTES_MAX + 4 * 1024
    write_bytes: int = 1024 * 1024 + 64 * 1024
    first_frame_bytes: int = 64 * 1024
    calls: int = 256
    queue_bytes: int = 8 * 1024 * 1024
    window: int = 16
    handshake_s: float = 10.0
    ping_s: float = 15.0
    pong_s: float = 10.0
    slow_s: float = 30.0
    close_s: float = 0.5
    expired_s: float = 5.0
    bytes_per_s: int = 16 * 1024 * 1024
    connections: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            smallest = 1 if field.name in _COUNTS else 0
            if not isinstance(value, (int, float)) or not value >= smallest:
                raise ConfigurationError(
                    f"ChannelLimits({field.name}=…) is a number of at least {smallest}, not {value!r}"
                )


_COUNTS = frozenset(
    ("frame_bytes", "query_bytes", "write_bytes", "first_frame_bytes", "calls", "queue_bytes", "window", "connections")
)
