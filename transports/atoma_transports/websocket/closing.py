"""Close codes: the protocol's error table, as WebSocket spells it."""

from __future__ import annotations

import trio

from atoma.contracts.values import ErrorInfo
from atoma_transports._channel.codes import CODES, error_of, refusal

NORMAL = 1000
TOO_BIG = 1009
POLITE = frozenset({1000, 1001, 1005})
REASON_BYTES_MAX = 120  # of 123 that a close frame can hold

_BY_NUMBER = {
    4401: "UNAUTHENTICATED",
    4403: "PERMISSION_DENIED",
    4426: "PROTO_UNSUPPORTED",
    4400: "MALFORMED",
    1002: "MALFORMED",
    1003: "MALFORMED",
    1007: "MALFORMED",
    1009: "TOO_LARGE",
    1011: "INTERNAL",
    1012: "UNAVAILABLE",
    1013: "OVERLOADED",
}
"""What a close code means when its text does not name one of ours: another program's, or a proxy's."""


def close_words(info: ErrorInfo) -> tuple[int, str]:
    """Close code and text for ``info``; the text names the code, of which several may share a number."""
    code = CODES.get(info.code)
    reason = f"{info.code}: {info.message}".encode()[:REASON_BYTES_MAX]
    return (code.websocket if code else 0) or NORMAL, reason.decode("utf-8", "ignore")


def close_error(number: int, reason: str) -> Exception:
    """What a goodbye with this code and text stands for: simply an end, or the error that it tells of."""
    if number in POLITE:
        return trio.EndOfChannel()
    name, _, message = reason.partition(": ")
    named = CODES.get(name)
    if named is None or named.websocket != number:
        name, message = _BY_NUMBER.get(number, ""), reason
    if not name:
        return trio.BrokenResourceError(f"the connection was closed with code {number}")
    return error_of(refusal(name, message or f"the connection was closed with code {number}"))
