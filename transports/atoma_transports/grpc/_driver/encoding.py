"""How gRPC writes what stands around the messages of a call: their prefixes, deadlines, and the cost of metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import cast

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline

from atoma_transports.grpc._driver.limits import GrpcLimits


def frame(data: bytes, limits: GrpcLimits) -> bytes:
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
    return sum(len(name) + len(value) + 32 for name, value in headers)


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
