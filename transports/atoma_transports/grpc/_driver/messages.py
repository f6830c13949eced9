"""How gRPC frames one message in the stream of a call."""

from __future__ import annotations

from typing import cast

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

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
