"""The answer to a connection that nobody here can serve."""

from __future__ import annotations

import struct

import trio

from atoma_transports.serving.head import HTTP2_START

SETTINGS = struct.pack(">HBBBL", 0, 0, 0x4, 0, 0)
GOAWAY = 0x7
HTTP_1_1_REQUIRED = 0xD
ENHANCE_YOUR_CALM = 0xB
RECEIVE_BYTES = 64 * 1024
LINGER_BYTES_MAX = 16 * 1024 * 1024


def http1_refusal(status: int, reason: str, text: str) -> bytes:
    """A whole HTTP/1.1 answer with one line of text, after which the connection ends."""
    body = f"{text}\n".encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def http2_refusal(text: str, code: int = HTTP_1_1_REQUIRED) -> bytes:
    """What HTTP/2 says before hanging up: settings, then GOAWAY with ``code`` and ``text``."""
    body = struct.pack(">LL", 0, code) + text.encode()
    length = len(body)
    return SETTINGS + struct.pack(">HBBBL", length >> 8, length & 0xFF, GOAWAY, 0, 0) + body


def refusal_of(head: bytes) -> bytes:
    """What to answer to ``head`` when no face speaks what it begins with."""
    if head.startswith(HTTP2_START):
        return http2_refusal("gRPC is not installed on this server")
    if head.partition(b"\r\n")[0].endswith((b" HTTP/1.1", b" HTTP/1.0")):
        return http1_refusal(501, "Not Implemented", "this server does not answer HTTP requests of this kind")
    return http1_refusal(400, "Bad Request", "this is no language that is spoken on this port")


def overload_of(head: bytes) -> bytes:
    """What to answer to ``head``, or to who has not sent all of it yet, when the place is needed for others."""
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

    Closing a socket with unread bytes resets it, and the peer may then never see what it was told.
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
