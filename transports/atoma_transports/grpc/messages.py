"""What travels over gRPC beside the protocol's messages: the first call, bytes that are packed already, statuses."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from grpclib.const import Cardinality, Status

from atoma.codes import BY_GRPC, row
from atoma.contracts.codec import decode, encode
from atoma.contracts.failures import refusal
from atoma.contracts.understood import Understood
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports.adapters import METHODS
from atoma_transports.calls.errors import fitting
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.grpc._driver.calls import GrpcLimits
from atoma_transports.grpc.v1.sync_pb2 import DESCRIPTOR

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
    row = METHODS.get(method)
    return Cardinality.UNARY_UNARY if row is None or not row.streams else Cardinality.UNARY_STREAM


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


class HelloRequest(msgspec.Struct, frozen=True):
    """Asks; the token is in the call's metadata, as in every call."""


class HelloReply(msgspec.Struct, frozen=True):
    """Answers.

    Attributes:
        principal: Who the token belongs to.
        message_bytes: Largest message that the server takes or sends.
        calls: Calls and streams in flight that it takes on one connection.
        expires_in_ms: Milliseconds for which the token is still good; None for ever.
        queries: What the server understands of queries.
    """

    principal: str
    message_bytes: int
    calls: int
    expires_in_ms: int | None = None
    queries: Understood = Understood()


def _check_description() -> None:
    """See that ``sync.proto`` describes the methods of the table, and ``hello``, and nothing else.

    Raises:
        TypeError: It does not.
    """
    described = {
        (method.name, method.input_type.name, method.output_type.name, method.server_streaming)
        for method in DESCRIPTOR.services_by_name["Sync"].methods
    }
    rows = [(row.name, row.request, row.reply, row.streams) for row in METHODS.values()]
    rows.append(("hello", HelloRequest, HelloReply, False))
    wanted = {(name.capitalize(), asks.__name__, answers.__name__, streams) for name, asks, answers, streams in rows}
    if described != wanted:
        differ = ", ".join(sorted({name for name, *_ in described ^ wanted}))
        raise TypeError(f"sync.proto and the table of methods differ in {differ}")


_check_description()

TRAILER = "atoma-error-bin"
MESSAGE_LENGTH_MAX = 300


def status_of(info: ErrorInfo) -> Status:
    """The gRPC status of ``info``."""
    return Status(row(info.code).grpc)


def trailer_of(info: ErrorInfo) -> bytes:
    """``info`` for the trailer."""
    return encode(fitting(info))


def info_from(status: Status, message: str | None, metadata: Mapping[str, str | bytes]) -> ErrorInfo:
    """The error that came as a status with its trailers."""
    data = metadata.get(TRAILER)
    if isinstance(data, bytes):
        try:
            return decode(data, ErrorInfo)
        except ProtocolError:
            pass  # the status is still true
    return refusal(BY_GRPC.get(status.value, "INTERNAL"), message or f"status {status.name}")
