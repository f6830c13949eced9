"""The meaning of an error by the table of codes, for the code that has to act on it."""

from __future__ import annotations

from collections.abc import Mapping

from atoma.codes import VerdictKind, row
from atoma.contracts.values import ErrorInfo
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    CircuitOpen,
    RemoteError,
    TransportError,
    WriteUnknown,
    is_retryable,
)


def code_of(error: AtomaError) -> str:
    """Return the stable code of ``error``; the other side's own code if the error came from there."""
    return error.remote_code if isinstance(error, RemoteError) else error.code


def verdict_of(error: AtomaError) -> VerdictKind:
    """Return what ``error`` says about the write that it ended.

    A failed connection decides nothing: then it only matters whether the other side may have seen the request.
    """
    if isinstance(error, TransportError) and not isinstance(error, AuthenticationError):
        return "unknown" if error.maybe_sent else "undone"
    return row(code_of(error)).verdict


def retry_after_s(error: BaseException) -> float:
    """Return the seconds that the other side, or a breaker, asks to wait before the next attempt; 0 if it does not say."""
    if isinstance(error, WriteUnknown) and error.__cause__ is not None:
        return retry_after_s(error.__cause__)
    return error.retry_after_s if isinstance(error, RemoteError | CircuitOpen) else 0.0


def refusal(code: str, message: str, *, retry_after_ms: int = 0, info: Mapping[str, str] | None = None) -> ErrorInfo:
    """Return an error of the table as data; the table says whether to retry."""
    return ErrorInfo(code, message, row(code).retryable, retry_after_ms, dict(info or {}))


def info_from(error: BaseException) -> ErrorInfo:
    """Return ``error`` as data, for this device: a status, the outbox, the result of an item."""
    if not isinstance(error, AtomaError):
        return refusal("INTERNAL", f"{type(error).__name__}: {error}")
    code, message, facts = code_of(error), str(error), dict[str, str]()
    if isinstance(error, RemoteError):  # its text begins with the code, which stands beside the message here
        message, facts = message.removeprefix(f"{code}: "), dict(error.info)
    return ErrorInfo(code, message, is_retryable(error), int(retry_after_s(error) * 1000), facts)
