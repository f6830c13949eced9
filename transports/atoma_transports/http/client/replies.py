"""What a reply says: the message it brings, or why there is none."""

from __future__ import annotations

import email.utils

import msgspec

from atoma.codes import BY_HTTP
from atoma.contracts.codec import decode
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports.http.client.requests import Reply
from atoma_transports.http.envelope import JSON, MSGPACK, Failure

ERROR_BYTES_MAX = 64 * 1024
RETRY_AFTER_MAX_S = 24 * 3600


async def read_body(reply: Reply, size_max: int) -> bytes:
    """The whole body.

    Raises:
        ProtocolError: It is larger than ``size_max``.
    """
    parts: list[bytes] = []
    size = 0
    while data := await reply.receive():
        size += len(data)
        if size > size_max:
            raise ProtocolError(f"the reply is larger than {size_max} bytes")
        parts.append(data)
    return b"".join(parts)


def check_type(reply: Reply, wanted: str) -> None:
    """Refuse what a hub would not have sent: a page that a portal or a proxy puts in its place.

    Raises:
        ProtocolError: The content is of another type.
    """
    if _type(reply) != wanted:
        raise ProtocolError(
            f"the reply is {_type(reply) or 'of no type'}, expected {wanted}: is this the address of an Atoma hub?"
        )


async def refused(reply: Reply) -> ErrorInfo:
    """Why there is no reply proper; for a status other than 200.

    Raises:
        ProtocolError: Nothing that a hub or a proxy in front of it would say.
    """
    content = _type(reply)
    if content in (MSGPACK, JSON):
        body = await read_body(reply, ERROR_BYTES_MAX)
        try:
            return (decode(body, Failure) if content == MSGPACK else msgspec.json.decode(body, type=Failure)).error
        except (ProtocolError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # JSON of somebody else
    code = BY_HTTP.get(reply.status)
    if code is not None:
        text = f"something on the way answered with HTTP status {reply.status}"
        return refusal(code, text, retry_after_ms=_retry_after_ms(reply))
    location = reply.header("location")
    hint = f"; it points to {location}" if 300 <= reply.status < 400 and location else ""
    raise ProtocolError(f"HTTP status {reply.status}{hint}: is this the address of an Atoma hub?")


def _type(reply: Reply) -> str:
    return reply.header("content-type").partition(";")[0].strip().lower()


def _retry_after_ms(reply: Reply) -> int:
    """Seconds, or a date, which is read by the clock of whoever wrote it; 0 when it says nothing."""
    text = reply.header("retry-after").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), RETRY_AFTER_MAX_S) * 1000  # the first digits of a longer one are too many already
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(reply.header("date"))
        return round(min(max((until - now).total_seconds(), 0), RETRY_AFTER_MAX_S) * 1000)
    except (ValueError, TypeError):  # TypeError: one of the dates names no time zone
        return 0
