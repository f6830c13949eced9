"""The protocol's error table: code ↔ ``ErrorInfo`` ↔ typed error.

Every code has one meaning on every transport; HTTP status, gRPC status and WebSocket close code are other spellings.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, TypeAlias

from atoma.contracts.codec import encode
from atoma.contracts.values import ErrorInfo, remote_error
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    CircuitOpen,
    ConfigurationError,
    ConflictError,
    ExecutionError,
    ProtocolError,
    RemoteError,
    StoreError,
    TokenExpired,
    TransportError,
    ValidationError,
    WriteRejected,
    is_retryable,
)
from atoma.ports.tasks import single_error

Category: TypeAlias = Literal["session", "outcome", "transient", "resync"]
MESSAGE_LENGTH_MAX = 2000
CUT_LENGTH = 500
ERROR_BYTES_MAX = 4096
"""What an error may take as MessagePack. Other people's gRPC clients take 8 KiB of metadata, and binary metadata grows by
a third on the wire; an error is the same on every transport."""
WAIT_MS_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means and how other protocols spell it.

    Attributes:
        category: ``session`` fix it, then reconnect; ``outcome`` final for that request; ``transient`` try again;
            ``resync`` the cursor is of no more use.
        http: HTTP status.
        grpc: gRPC status number.
        websocket: WebSocket close code, 0 when the connection stays.
        retryable: Whether the same request may succeed later.
    """

    category: Category
    http: int
    grpc: int
    websocket: int = 0
    retryable: bool = False


CODES: dict[str, Code] = {
    "UNAUTHENTICATED": Code("session", 401, 16, 4401),
    "AUTH_EXPIRED": Code("session", 401, 16, 4401),
    "PERMISSION_DENIED": Code("session", 403, 7, 4403),
    "PROTO_UNSUPPORTED": Code("session", 426, 12, 4426),
    "FEATURE_REQUIRED": Code("session", 426, 12, 4426),
    "UNIMPLEMENTED": Code("session", 501, 12),
    "SCHEMA_TOO_OLD": Code("session", 409, 9),
    "SCHEMA_TOO_NEW": Code("session", 409, 9),
    "MALFORMED": Code("session", 400, 3, 4400),
    "TOO_DEEP": Code("session", 400, 3, 4400),
    "BAD_CHECKSUM": Code("session", 400, 3, 4400),
    "TOO_LARGE": Code("transient", 413, 8, 1009),
    "OUT_OF_ORDER": Code("transient", 409, 9, retryable=True),
    "HUB_BEHIND": Code("transient", 503, 14, retryable=True),
    "OVERLOADED": Code("transient", 503, 8, 1013, retryable=True),
    "SLOW_CONSUMER": Code("transient", 503, 8, 1013, retryable=True),
    "RATE_LIMITED": Code("transient", 429, 8, 1013, retryable=True),
    "UNAVAILABLE": Code("transient", 503, 14, 1012, retryable=True),
    "TIMEOUT": Code("transient", 504, 4, retryable=True),
    "BUSY": Code("transient", 503, 14, retryable=True),
    "INTERNAL": Code("transient", 500, 13, 1011, retryable=True),
    "BLOB_MISSING": Code("transient", 424, 9, retryable=True),
    "SCOPE_REVOKED": Code("resync", 403, 7),
    "CLIENT_FORKED": Code("resync", 409, 9),
    "CLIENT_EXPIRED": Code("resync", 410, 5),
    "CURSOR_TOO_OLD": Code("resync", 410, 11, retryable=True),
    "SNAPSHOT_EXPIRED": Code("resync", 410, 11, retryable=True),
    "CURSOR_AHEAD": Code("resync", 409, 10, retryable=True),
    "LINEAGE_MISMATCH": Code("resync", 409, 10, retryable=True),
    "EPOCH_CHANGED": Code("resync", 409, 10, retryable=True),
    "HANDLE_CHANGED": Code("resync", 409, 10, retryable=True),
    "CONFLICT": Code("outcome", 200, 0),
    "DENIED": Code("outcome", 200, 0),
    "INVALID": Code("outcome", 200, 0),
    "CONSTRAINT": Code("outcome", 200, 0),
    "NOT_FOUND": Code("outcome", 200, 0),
    "ALREADY_EXISTS": Code("outcome", 200, 0),
    "RESOLVER_FAILED": Code("outcome", 200, 0),
    "QUOTA": Code("outcome", 200, 0),
    "DEPENDENCY_REJECTED": Code("outcome", 200, 0),
    "ABANDONED": Code("outcome", 200, 0),
    "KEY_EXPIRED": Code("outcome", 200, 0),
}
"""Codes of the protocol. A code that is not here is treated as ``outcome`` and keeps its own ``retryable``."""

_PROTOCOL = frozenset(
    {"MALFORMED", "TOO_DEEP", "BAD_CHECKSUM", "UNIMPLEMENTED", "PROTO_UNSUPPORTED", "FEATURE_REQUIRED"}
)


def info_of(error: AtomaError) -> ErrorInfo:
    """``error`` as it goes over the wire: never with a trace, SQL or a path, and never more than any transport carries."""
    return fitting(_info_of(error))


def fitting(info: ErrorInfo) -> ErrorInfo:
    """``info`` as every transport can carry it; what is too long loses the end of its message, then its facts."""
    facts = {_text(name): _text(fact) for name, fact in info.info.items()}
    wait_ms = min(max(info.retry_after_ms, 0), WAIT_MS_MAX)
    code, message = _text(info.code), _text(info.message)
    for length in (len(message), CUT_LENGTH):
        found = ErrorInfo(code, message[:length], info.retryable, wait_ms, facts)
        if len(encode(found)) <= ERROR_BYTES_MAX:
            return found
    return ErrorInfo(code[:CUT_LENGTH], message[:CUT_LENGTH], info.retryable, wait_ms)


def _text(text: str) -> str:
    """``text`` with a mark in place of half a surrogate pair, which no message can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _wait_ms(seconds: float) -> int:
    """Milliseconds to wait: whatever an application gave, a number that can be sent."""
    return round(min(seconds * 1000, WAIT_MS_MAX)) if seconds > 0 else 0


def _info_of(error: AtomaError) -> ErrorInfo:
    message = str(error)[:MESSAGE_LENGTH_MAX]
    if isinstance(error, RemoteError):
        prefix = f"{error.remote_code}: "
        message = message.removeprefix(prefix)
        wait_ms = _wait_ms(error.retry_after_s)
        return ErrorInfo(error.remote_code, message, error.remote_retryable, wait_ms, error.info)
    retryable = is_retryable(error)
    if isinstance(error, AuthenticationError | ProtocolError):
        return ErrorInfo(error.code, message, retryable)
    if isinstance(error, StoreError | ConfigurationError | TransportError):
        # Their messages speak of files and set-up: of use to whoever runs the server, not to its peers.
        return ErrorInfo(error.code, "the server cannot answer this; its log says why", retryable)
    info: dict[str, str] = {}
    wait_ms = 0
    if isinstance(error, ConflictError | WriteRejected | ValidationError):
        info["store"] = error.store
    if isinstance(error, ValidationError):
        info["field"] = error.field
    if isinstance(error, ConflictError | WriteRejected):
        info["id"] = error.id
    if isinstance(error, CircuitOpen):
        wait_ms = _wait_ms(error.retry_after_s)
    if isinstance(error, ExecutionError) and not message:
        message = error.code
    return ErrorInfo(error.code, message, retryable, wait_ms, info)


def error_of(info: ErrorInfo) -> AtomaError:
    """The error that a reply with ``info`` raises at the caller: the same type and code on every transport."""
    if info.code == "AUTH_EXPIRED":
        return TokenExpired(info.message)
    if info.code == "UNAUTHENTICATED":
        return AuthenticationError(info.message)
    if info.code in _PROTOCOL:
        return ProtocolError(f"the other side answered {info.code}: {info.message}")
    return remote_error(info)


def refusal(code: str, message: str, *, retry_after_ms: int = 0, info: dict[str, str] | None = None) -> ErrorInfo:
    """An error of the table; whether to retry is what the table says."""
    return ErrorInfo(code, message, CODES[code].retryable, retry_after_ms, info or {})


logger = logging.getLogger("atoma.transports")


def explain(error: Exception, method: str, trace_id: str) -> ErrorInfo:
    """``error`` for the caller; one that nobody expected goes to the log, and the caller is told no more than that."""
    cause = single_error(error)
    if isinstance(cause, AtomaError):
        return info_of(cause)
    logger.error("%s failed (trace %s)", method, trace_id, exc_info=error)
    return refusal("INTERNAL", "the server failed to answer; its log says why")
