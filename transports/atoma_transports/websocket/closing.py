"""Close codes: the table of codes, as WebSocket spells it."""

from __future__ import annotations

import trio

from atoma.codes import BY_WEBSOCKET, row
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma_transports._channel.codes import error_of

NORMAL = 1000
TOO_BIG = 1009
POLITE = frozenset({1000, 1001, 1005})
REASON_BYTES_MAX = 120  # of 123 that a close frame can hold


def close_words(info: ErrorInfo) -> tuple[int, str]:
    """Close code and text for ``info``; the text names the code, of which several may share a number."""
    reason = f"{info.code}: {info.message}".encode()[:REASON_BYTES_MAX]
    return row(info.code).websocket or NORMAL, reason.decode("utf-8", "ignore")


def close_error(number: int, reason: str) -> Exception:
    """What a goodbye with this code and text stands for: simply an end, or the error that it tells of."""
    if number in POLITE:
        return trio.EndOfChannel()
    name, _, message = reason.partition(": ")
    if row(name).websocket != number:
        name, message = BY_WEBSOCKET.get(number, ""), reason
    if not name:
        return trio.BrokenResourceError(f"the connection was closed with code {number}")
    return error_of(refusal(name, message or f"the connection was closed with code {number}"))
