"""Errors of the protocol as gRPC says them: a status, a message, and the whole truth in a trailer."""

from __future__ import annotations

from collections.abc import Mapping

from grpclib.const import Status

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports._channel.codes import CODES, fitting

TRAILER = "atoma-error-bin"
MESSAGE_LENGTH_MAX = 300

_BY_STATUS = {
    Status.CANCELLED: "UNAVAILABLE",  # cut off by somebody on the way
    Status.UNKNOWN: "INTERNAL",
    Status.INVALID_ARGUMENT: "INVALID",
    Status.DEADLINE_EXCEEDED: "TIMEOUT",
    Status.NOT_FOUND: "NOT_FOUND",
    Status.ALREADY_EXISTS: "ALREADY_EXISTS",
    Status.PERMISSION_DENIED: "PERMISSION_DENIED",
    Status.RESOURCE_EXHAUSTED: "OVERLOADED",
    Status.FAILED_PRECONDITION: "CONFLICT",
    Status.ABORTED: "CONFLICT",
    Status.OUT_OF_RANGE: "INVALID",
    Status.UNIMPLEMENTED: "UNIMPLEMENTED",
    Status.INTERNAL: "INTERNAL",
    Status.UNAVAILABLE: "UNAVAILABLE",
    Status.DATA_LOSS: "INTERNAL",
    Status.UNAUTHENTICATED: "UNAUTHENTICATED",
}
"""What a status means that came alone: from a server that is not ours, or from something in between."""


def status_of(info: ErrorInfo) -> Status:
    """The gRPC status of ``info``; a verdict on the request's content, raised as an error, is a failed precondition."""
    code = CODES.get(info.code)
    if code is None or code.grpc == 0:
        return Status.FAILED_PRECONDITION
    return Status(code.grpc)


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
    code = _BY_STATUS.get(status, "INTERNAL")
    return ErrorInfo(code, message or f"status {status.name}", CODES[code].retryable)
