"""Errors on the wire: code ↔ ``ErrorInfo`` ↔ typed error, by the one table of codes."""

from __future__ import annotations

import logging

from atoma.codes import row
from atoma.contracts.codec import encode
from atoma.contracts.failures import refusal, retry_after_s
from atoma.contracts.values import ErrorInfo, remote_error
from atoma.errors import (
    AtomaError,
    AuthenticationError,
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

MESSAGE_LENGTH_MAX = 2000
CUT_LENGTH = 500
ERROR_BYTES_MAX = 4096
"""Maximum size of an error as MessagePack, in bytes. Other gRPC clients accept 8 KiB of metadata, and binary metadata grows by
a third on the wire; an error is the same on every transport."""
WAIT_MS_MAX = 2**31 - 1


def info_of(error: AtomaError) -> ErrorInfo:
    """Return ``error`` as it is sent: never with a trace, SQL or a path, and never larger than any transport carries."""
    return fitting(_info_of(error))


def fitting(info: ErrorInfo) -> ErrorInfo:
    """Return ``info`` as every transport can carry it; if it is too long, its message is cut short, then its facts go."""
    facts = {_text(name): _text(fact) for name, fact in info.info.items()}
    wait_ms = min(max(info.retry_after_ms, 0), WAIT_MS_MAX)
    code, message = _text(info.code), _text(info.message)
    for length in (len(message), CUT_LENGTH):
        found = ErrorInfo(code, message[:length], info.retryable, wait_ms, facts)
        if len(encode(found)) <= ERROR_BYTES_MAX:
            return found
    return ErrorInfo(code[:CUT_LENGTH], message[:CUT_LENGTH], info.retryable, wait_ms)


def _text(text: str) -> str:
    """Return ``text`` with a mark in place of each half of a surrogate pair, which no message can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _wait_ms(seconds: float) -> int:
    """Return the milliseconds to wait as a number that can be sent, whatever the application gave."""
    return round(min(seconds * 1000, WAIT_MS_MAX)) if seconds > 0 else 0


def _info_of(error: AtomaError) -> ErrorInfo:
    message = str(error)[:MESSAGE_LENGTH_MAX]
    if isinstance(error, RemoteError):
        prefix = f"{error.remote_code}: "
        message = message.removeprefix(prefix)
        wait_ms = _wait_ms(retry_after_s(error))
        return ErrorInfo(error.remote_code, message, error.remote_retryable, wait_ms, error.info)
    retryable = is_retryable(error)
    if isinstance(error, AuthenticationError | ProtocolError):
        return ErrorInfo(error.code, message, retryable)
    if isinstance(error, StoreError | ConfigurationError | TransportError):
        # Their messages are about files and set-up: useful to the operator of the server, not to its peers.
        return ErrorInfo(error.code, "the server cannot answer this; its log says why", retryable)
    info: dict[str, str] = {}
    if isinstance(error, ConflictError | WriteRejected | ValidationError):
        info["store"] = error.store
    if isinstance(error, ValidationError):
        info["field"] = error.field
    if isinstance(error, ConflictError | WriteRejected):
        info["id"] = error.id
    if isinstance(error, ExecutionError) and not message:
        message = error.code
    return ErrorInfo(error.code, message, retryable, _wait_ms(retry_after_s(error)), info)


def error_of(info: ErrorInfo) -> AtomaError:
    """Return the error that a reply with ``info`` raises at the caller: the same type and code on every transport."""
    match row(info.code).category:
        case "auth":
            return (TokenExpired if info.code == TokenExpired.code else AuthenticationError)(info.message)
        case "protocol":
            return ProtocolError(f"the other side answered {info.code}: {info.message}")
        case _:
            return remote_error(info)


logger = logging.getLogger("atoma.transports")


def explain(error: Exception, method: str, trace_id: str) -> ErrorInfo:
    """Return ``error`` for the caller; an unexpected one is logged, and the caller only learns that there was one."""
    cause = single_error(error)
    if isinstance(cause, AtomaError):
        return info_of(cause)
    logger.error("%s failed (trace %s)", method, trace_id, exc_info=error)
    return refusal("INTERNAL", "the server failed to answer; its log says why")


def check_request(size: int, most: int) -> None:
    """Check that a request of ``size`` bytes can be sent.

    Raises:
        RemoteError: ``TOO_LARGE``: it has more than ``most`` bytes; nothing was sent.
    """
    if size > most:
        text = f"the request takes {size} bytes; the limit is {most}; nothing was sent"
        raise RemoteError(text, remote_code="TOO_LARGE")


LATE = refusal("TIMEOUT", "the caller's deadline has passed")
STOPPING = refusal("UNAVAILABLE", "the server is shutting down")
CUT_OFF = refusal("UNAVAILABLE", "the server ends this connection")
UNVERIFIED = refusal("TIMEOUT", "looking at the token took too long")
"""The errors that end or refuse a call in the same words on every transport; the last says nothing about the token."""


def large_answer(size: int, most: int) -> ErrorInfo:
    """Return the refusal of an answer that is larger than a message may be."""
    return refusal("TOO_LARGE", f"the answer takes {size} bytes; the limit is {most}: ask for less")


def large_item(size: int) -> ErrorInfo:
    """Return the error that ends a stream with an item that is larger than a message may be."""
    return refusal("TOO_LARGE", f"an item takes {size} bytes")


def memory_taken(most: int) -> ErrorInfo:
    """Return the error that ends a connection on which nothing moves while others of its principal wait for memory."""
    text = f"nothing moved here while others waited: all connections of a principal may hold {most} bytes"
    return refusal("SLOW_CONSUMER", text)


def slow_reader(seconds: float) -> ErrorInfo:
    """Return the error that ends a stream whose reader is too slow."""
    return refusal("SLOW_CONSUMER", f"nothing was read from the stream for {seconds:g} s")
