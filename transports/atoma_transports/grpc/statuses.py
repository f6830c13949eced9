"""Errors of the protocol as gRPC says them: a status, a message, and the whole truth in a trailer."""

from __future__ import annotations

from collections.abc import Mapping

from grpclib.const import Status

from atoma.codes import BY_GRPC, row
from atoma.contracts.codec import decode, encode
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports._channel.codes import fitting

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
