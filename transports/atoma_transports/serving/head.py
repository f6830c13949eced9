"""The first bytes of a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import trio

from atoma.errors import ProtocolError

HEAD_BYTES_MAX = 64 * 1024
HEAD_LINES_MAX = 101
"""The request line and a hundred fields; what looking at them takes goes by their number."""
RECEIVE_BYTES = 64 * 1024
HTTP2_START = b"PRI * HTTP/2.0\r\n\r\n"
HTTP2_PREFACE = HTTP2_START + b"SM\r\n\r\n"
HEAD_END = b"\r\n\r\n"
TLS_START = b"\x16\x03"
ONCE = frozenset(("authorization", "content-type", "host", "origin"))
"""Fields that decide who may do what: somebody on the way may have looked at another one than is looked at here."""


class HeadTooLarge(ProtocolError):
    """A request begins with more header fields than are looked at."""

    def __init__(self, text: str = f"a request has at most {HEAD_LINES_MAX - 1} header fields") -> None:
        super().__init__(text)


async def read_head(stream: trio.abc.Stream) -> bytes:
    """The first bytes: HTTP/1.1 header fields to their end, or the whole preface of HTTP/2, in however many pieces.

    Less when the peer stops sending, when it begins with TLS (it waits for an answer, not to be read on), or when nothing
    ends within :data:`HEAD_BYTES_MAX`; more when more has come.
    """
    head = bytearray()
    while not _complete(head):
        seen = len(head)
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            break
        head += data
        if head.find(HEAD_END, max(0, seen - len(HEAD_END))) >= 0 and not _may_be_http2(head):
            break
    return bytes(head)


def _complete(head: bytearray) -> bool:
    if head.startswith(TLS_START):
        return True
    return len(head) >= HEAD_BYTES_MAX or (len(head) >= len(HTTP2_PREFACE) and head.startswith(HTTP2_START))


def _may_be_http2(head: bytearray) -> bool:
    return len(head) < len(HTTP2_PREFACE) and HTTP2_PREFACE.startswith(head)


def check_head(head: bytes) -> None:
    """See that ``head``, which begins a connection, is no more than may be looked at.

    Raises:
        HeadTooLarge: It has no end within :data:`HEAD_BYTES_MAX`, or more than :data:`HEAD_LINES_MAX` lines.
    """
    end = head.find(HEAD_END)
    if end < 0 and len(head) >= HEAD_BYTES_MAX:
        raise HeadTooLarge(f"the header fields of a request have at most {HEAD_BYTES_MAX} bytes")
    if head.count(b"\n", 0, end if end >= 0 else len(head)) >= HEAD_LINES_MAX:
        raise HeadTooLarge


def head_target(head: bytes) -> tuple[str, str]:
    """Method and path of the request that ``head`` begins with; empty where there is none."""
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    return method, rest.partition(" ")[0].partition("?")[0]


def head_fields(head: bytes) -> list[tuple[str, str]]:
    """Header fields of the request that ``head`` begins with, as they came."""
    lines = head.partition(HEAD_END)[0].decode("latin-1").split("\r\n")[1:]
    return [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def fields_by_name(fields: Sequence[tuple[str, str]]) -> dict[str, str]:
    """``fields`` by their lower-case names; the values of one that comes several times, with commas between them.

    Raises:
        ProtocolError: One of :data:`ONCE` comes twice.
    """
    found = {name.lower(): value for name, value in fields}
    if len(found) == len(fields):
        return found
    found.clear()
    for given, value in fields:
        name = given.lower()
        if name not in found:
            found[name] = value
        elif name in ONCE:
            raise ProtocolError(f"the field {name} may come once")
        else:
            found[name] = f"{found[name]}, {value}"
    return found


def same_site(fields: Mapping[str, str]) -> bool:
    """Whether a request was made by a page of this site, or by no page at all."""
    origin = fields.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc == fields.get("host", "")
    except ValueError:
        return False
