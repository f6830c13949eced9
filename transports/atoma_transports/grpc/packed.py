"""Messages that are bytes already, in the form that grpclib's codec takes."""

from __future__ import annotations

import math

from grpclib.const import Cardinality

from atoma_transports._channel.limits import ChannelLimits
from atoma_transports.grpc._driver.limits import GrpcLimits
from atoma_transports.grpc.v1.sync_pb2 import DESCRIPTOR
from atoma_transports.protocol import METHODS

SERVICE: str = DESCRIPTOR.services_by_name["Sync"].full_name


class Packed:
    """A message whose bytes are made, and taken apart, by :mod:`atoma_transports.grpc.convert`.

    So its size is known before it is sent, and what is malformed is answered by us.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    @classmethod
    def FromString(cls, data: bytes) -> Packed:  # noqa: N802 - protobuf's name
        """A message that came."""
        return cls(data)

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Its bytes."""
        return self.data


def path_of(method: str) -> str:
    """The path under which ``method`` of the protocol, or ``hello``, is called."""
    return f"/{SERVICE}/{method.capitalize()}"


def cardinality_of(method: str) -> Cardinality:
    """Whether ``method`` answers with one message or with a stream."""
    spec = METHODS.get(method)
    return Cardinality.UNARY_UNARY if spec is None or not spec.streams else Cardinality.UNARY_STREAM


def grpc_limits(limits: ChannelLimits) -> GrpcLimits:
    """The bounds of a gRPC connection that ``limits`` stand for."""
    return GrpcLimits(
        message_bytes=limits.frame_bytes,
        calls=limits.calls,
        ping_s=limits.ping_s,
        pong_s=limits.pong_s,
        slow_s=limits.slow_s,
        close_s=limits.close_s,
    )


def milliseconds(seconds: float) -> int | None:
    """``seconds`` in whole milliseconds; None for ever."""
    return None if math.isinf(seconds) else max(0, round(seconds * 1000))
