"""How a call ends without an answer of the other side."""

from __future__ import annotations

from collections.abc import Mapping

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.errors import ErrorCodes


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
