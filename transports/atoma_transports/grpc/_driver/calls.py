"""What a gRPC call is on HTTP/2: its bounds, how it is written, and how it ends without an answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline
from h2.errors import ErrorCodes

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
        queue_bytes: Maximum number of bytes that wait to be sent; further senders wait.
        stream_window: Bytes of one call that may have arrived without being read.
        connection_window: Bytes of all calls that may have arrived without being read.
        ping_s: Seconds of silence after which the peer is sent a ping.
        pong_s: Seconds that the peer has to answer a ping before the connection counts as lost.
        slow_s: Seconds for which a peer may read nothing while data waits for it.
        close_s: Seconds for closing properly before the connection is cut.
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


def length_prefixed(data: bytes, limits: GrpcLimits) -> bytes:
    """``data`` with its prefix: not compressed, its length.

    Raises:
        GRPCError: ``RESOURCE_EXHAUSTED``: it is too large.
    """
    size = len(data)
    if size > limits.message_bytes:
        raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes; the limit is {limits.message_bytes}")
    return b"\x00" + size.to_bytes(4, "big") + data


def streaming(cardinality: Cardinality) -> tuple[bool, bool]:
    """Whether the request, and whether the answer, is any number of messages."""
    return cast("tuple[bool, bool]", cardinality)


def metadata_size(headers: Iterable[tuple[str, str]]) -> int:
    """Size of ``headers`` as HTTP/2 counts it: names, values, and 32 bytes for each field."""
    return sum([len(name) + len(value) + 32 for name, value in headers])  # a list: every call asks, three times


_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")


class ClockDeadline(Deadline):
    """A moment of Trio's clock; grpclib's own deadline reads the machine's."""

    def __init__(self, moment: float) -> None:
        super().__init__(_timestamp=moment)

    @property
    def moment(self) -> float:
        """When, by ``trio.current_time``."""
        return self._timestamp

    def time_remaining(self) -> float:
        """Seconds until then, never negative."""
        return max(0.0, self._timestamp - trio.current_time())


def moment_of(deadline: Deadline) -> float:
    """When ``deadline`` passes, by ``trio.current_time``."""
    return deadline.moment if isinstance(deadline, ClockDeadline) else trio.current_time() + deadline.time_remaining()


def write_timeout(seconds: float) -> str:
    """``seconds`` as ``grpc-timeout``, rounded up so that the caller is the first to give up."""
    if seconds < 10_000:
        return f"{math.ceil(max(0.0, seconds) * 1_000)}m"
    return f"{min(math.ceil(seconds), 99_999_999)}S"


def read_timeout(text: str) -> float:
    """The seconds that a ``grpc-timeout`` says.

    Raises:
        ValueError: It is none.
    """
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise ValueError(f"not a timeout: {text[:20]!r}")
    return int(match[1]) * _UNITS[match[2]]


class CallFailed(GRPCError):
    """The other side answered with a status.

    Attributes:
        metadata: The trailing metadata that came with it; names ending in ``-bin`` have ``bytes``.
    """

    def __init__(
        self, status: Status, message: str | None, details: object, metadata: Mapping[str, str | bytes]
    ) -> None:
        super().__init__(status, message, details)
        self.metadata = metadata


class CallReset(GRPCError):
    """The other side cut the call off without a status; the status says what that means in gRPC.

    Attributes:
        maybe_sent: False when it certainly did nothing with the call.
    """

    def __init__(self, code: int) -> None:
        super().__init__(_RESET_STATUS.get(code, Status.INTERNAL), f"the peer cut the call off ({_code_name(code)})")
        self.maybe_sent = code != ErrorCodes.REFUSED_STREAM


class CutOff(GRPCError):
    """The other side ended the call in the middle of a message; a status that came with it says why."""

    def __init__(self) -> None:
        super().__init__(Status.INTERNAL, "the peer ended the call in the middle of a message")


class ConnectionLost(GRPCError):
    """The connection ended with the call in flight, or before it began.

    Attributes:
        maybe_sent: False when the call certainly did not reach the other side.
    """

    def __init__(self, reason: str, *, maybe_sent: bool) -> None:
        super().__init__(Status.UNAVAILABLE, reason)
        self.maybe_sent = maybe_sent


_RESET_STATUS: dict[int, Status] = {
    ErrorCodes.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCodes.CANCEL: Status.CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}


def _code_name(code: int) -> str:
    return code.name if isinstance(code, ErrorCodes) else str(code)
