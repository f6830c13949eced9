"""The limits of connections."""

from __future__ import annotations

from dataclasses import dataclass, fields

from atoma.contracts.limits import QUERY_BYTES_MAX
from atoma.errors import ConfigurationError

FRAME_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024
"""Maximum size of a frame, in bytes: a page of 4 MiB and its envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """The limits of a connection, and the number of connections; both ends use this type.

    Attributes:
        frame_bytes: Maximum size of a frame that is sent or received.
        query_bytes: Maximum size of a request that writes nothing: a query and its envelope.
        write_bytes: Maximum size of a request that writes; as JSON it may be a third larger.
        first_frame_bytes: Maximum size of a frame before the peer has authenticated.
        calls: Maximum number of calls and streams in flight.
        queue_bytes: Maximum number of bytes that wait to be sent; further senders wait.
        window: Maximum number of items of a stream that are in flight or unread.
        handshake_s: Seconds for connecting and authenticating when the caller set no earlier deadline.
        ping_s: Seconds of silence after which the peer is sent a ping.
        pong_s: Seconds that the peer has to answer a ping before the connection counts as lost.
        slow_s: Seconds for which a peer may read nothing while data waits for it.
        close_s: Seconds for closing properly before the connection is cut.
        expired_s: Seconds for which a connection is kept after its token has expired, so that the client can send a new one.
        bytes_per_s: Bytes that a client on another machine may send per second, in the long run; 0 for no limit. Each
            request, chunk, fragment and frame counts as at least 1 KiB.
        memory_bytes: Bytes that the requests and answers of one principal may take on a port of a server, over all its connections.
            Beyond that they are read and answered one after the other, and a connection that for five
            seconds takes nothing of its answers, or sends nothing more of a request, gives way to the others.
        connections: Connections that one principal may have on a port of a server, over all protocols. One that
            is kept for further HTTP requests, and has been idle for a second, gives way to a new one.

    Raises:
        ConfigurationError: A limit is not a number, is negative, or is zero so that nothing could be sent.
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
    memory_bytes: int = 32 * 1024 * 1024
    connections: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            smallest = 1 if field.name in _COUNTS else 0
            if not isinstance(value, (int, float)) or not value >= smallest:
                raise ConfigurationError(
                    f"ChannelLimits({field.name}=…) must be a number of at least {smallest}, not {value!r}"
                )


_COUNTS = frozenset(
    (
        "frame_bytes",
        "query_bytes",
        "write_bytes",
        "first_frame_bytes",
        "calls",
        "queue_bytes",
        "window",
        "memory_bytes",
        "connections",
    )
)
