"""The first bytes of a connection, and the answer to one that nobody here can serve."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import trio

from atoma.errors import ProtocolError

HEAD_BYTES_MAX = 64 * 1024
HEAD_LINES_MAX = 101
"""The request line and a hundred fields; what looking at them takes goes by their number."""
RECEIVE_BYTES = 64 * 1024
LONG_HEAD_BYTES = 2048
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


PATIENT_FRAMES = frozenset((0x2, 0x4, 0x8))
"""Frames of HTTP/2 that ask for nothing: priorities, settings, windows."""
FRAME_HEAD_BYTES = 9


def asks_for_something(head: bytes) -> bool:
    """Whether what a connection begins with, which may be cut off anywhere, holds a request, or the begin of a long one.

    A peer of HTTP/2 says what it is like before it asks. Of TLS nothing more can be told than that it has begun.
    """
    if head.startswith(HTTP2_PREFACE):
        return quiet_frames(head, len(HTTP2_PREFACE))[1]
    if HTTP2_PREFACE.startswith(head):
        return False
    return HEAD_END in head or head.startswith(TLS_START) or len(head) >= LONG_HEAD_BYTES


def quiet_frames(data: bytes | bytearray, start: int) -> tuple[int, bool]:
    """Where the frames of ``data`` from ``start`` on end that are whole and ask for nothing, and whether another kind follows."""
    while len(data) >= start + FRAME_HEAD_BYTES:
        if data[start + 3] not in PATIENT_FRAMES:
            return start, True
        end = start + FRAME_HEAD_BYTES + int.from_bytes(data[start : start + 3], "big")
        if end > len(data):
            break
        start = end
    return start, False


def check_head(head: bytes) -> None:
    """See that ``head``, which begins a connection, is within the bounds of what is looked at.

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


SETTINGS = struct.pack(">HBBBL", 0, 0, 0x4, 0, 0)
GOAWAY = 0x7
HTTP_1_1_REQUIRED = 0xD
ENHANCE_YOUR_CALM = 0xB
LINGER_BYTES_MAX = 16 * 1024 * 1024


def http1_refusal(status: int, reason: str, text: str) -> bytes:
    """A whole HTTP/1.1 answer with one line of text, after which the connection ends."""
    body = f"{text}\n".encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def http2_goodbye(text: str = "", code: int = 0) -> bytes:
    """What HTTP/2 says last when no call was taken: GOAWAY with ``code`` and ``text``."""
    body = struct.pack(">LL", 0, code) + text.encode()
    length = len(body)
    return struct.pack(">HBBBL", length >> 8, length & 0xFF, GOAWAY, 0, 0) + body


def http2_refusal(text: str, code: int = HTTP_1_1_REQUIRED) -> bytes:
    """What HTTP/2 says before hanging up: settings, then a goodbye."""
    return SETTINGS + http2_goodbye(text, code)


def refusal_of(head: bytes) -> bytes:
    """What to answer to ``head`` when no handler speaks what it begins with."""
    if head.startswith(HTTP2_START):
        return http2_refusal("gRPC is not installed on this server")
    if head.partition(b"\r\n")[0].endswith((b" HTTP/1.1", b" HTTP/1.0")):
        return http1_refusal(501, "Not Implemented", "this server does not answer HTTP requests of this kind")
    return http1_refusal(400, "Bad Request", "no language that is spoken on this port begins like this")


def overload_of(head: bytes) -> bytes:
    """What to answer to ``head``, or to a client that has not sent all of it yet, when the place is needed for others."""
    text = "too many have come without a token: try again"
    if head.startswith(HTTP2_START):
        return http2_refusal(text, ENHANCE_YOUR_CALM)
    return http1_refusal(503, "Service Unavailable", text)


async def send_last(stream: trio.abc.Stream, data: bytes, seconds: float) -> None:
    """Send ``data`` as the last that this side has to say, within ``seconds``; then :func:`linger`."""
    with trio.move_on_after(seconds):
        try:
            await stream.send_all(data)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # it has hung up already
    await linger(stream, seconds)


async def linger(stream: trio.abc.Stream, seconds: float) -> None:
    """Let go of what the peer is still sending for at most ``seconds``.

    Closing a socket with unread bytes resets it, and the peer may then never see what was sent to it.
    """
    with trio.move_on_after(seconds):
        try:
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            left = LINGER_BYTES_MAX
            while left > 0 and (unread := await stream.receive_some(RECEIVE_BYTES)):
                left -= len(unread)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it has hung up already
