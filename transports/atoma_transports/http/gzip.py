"""gzip (RFC 1952) of bodies: what comes is inflated within bounds, and what goes is compressed where that is worth it.

Both in steps between which other tasks run. What was inflated counts like what was sent: nobody gets more by it than the line saves.
Streams are not compressed: an event must not wait for others.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator

from atoma_transports.calls.fairness import Share
from atoma_transports.calls.requests import in_turns
from atoma_transports.http.messages import HttpError

GZIP = "gzip"
STEP_BYTES = 64 * 1024
RATIO_MAX = 200
"""How many times longer than it came a body may be: rows that are alike come to fifty, a bomb to a thousand."""
RATIO_FREE_BYTES = 64 * 1024
"""What a body may have whatever its ratio."""
LEAST_BYTES = 1024
"""A shorter answer is one packet either way."""
LEVEL = 1
_WRAPPED = zlib.MAX_WBITS | 16


def takes_gzip(accepted: str) -> bool:
    """Whether the field ``accept-encoding`` asks for gzip, or for anything."""
    for part in accepted.lower().split(","):
        name, *more = [word.strip() for word in part.split(";")]
        if name in (GZIP, "*"):
            return not any(word.startswith("q=") and not word[2:].strip("0.") for word in more)
    return False


async def inflated(data: bytes, most: int, share: Share) -> bytes:
    """The body that ``data`` is compressed.

    Raises:
        HttpError: It has more than ``most`` bytes, or is longer by more than :data:`RATIO_MAX` (413); or it is no gzip, not all of
            it, or more than one (400).
    """
    body = await in_turns(_inflating(data, most), share)
    share.came(max(0, len(body) - len(data)))
    return body


def _inflating(data: bytes, most: int) -> Generator[None, None, bytes]:
    stream = zlib.decompressobj(_WRAPPED)
    body, rest = bytearray(), data
    while not stream.eof:
        try:
            part = stream.decompress(rest, STEP_BYTES)
        except zlib.error:
            raise HttpError(400, "the body is no gzip") from None
        if not part and not rest and not stream.eof:
            raise HttpError(400, "the body ends before its gzip does")
        rest = stream.unconsumed_tail
        body += part
        if len(body) > most:
            raise HttpError(413, f"a body may have {most} bytes, inflated as well")
        if len(body) > max(RATIO_FREE_BYTES, RATIO_MAX * (len(data) - len(rest))):
            raise HttpError(413, f"a body may be {RATIO_MAX} times as long as it comes: send it as it is")
        yield
    if stream.unused_data:
        raise HttpError(400, "something comes behind the gzip of the body")
    return bytes(body)


async def compressed(body: bytes, share: Share) -> bytes:
    """``body`` as gzip."""
    return await in_turns(_compressing(body), share)


def _compressing(body: bytes) -> Generator[None, None, bytes]:
    stream = zlib.compressobj(LEVEL, wbits=_WRAPPED)
    made = bytearray()
    for at in range(0, len(body), STEP_BYTES):
        made += stream.compress(body[at : at + STEP_BYTES])
        yield
    return bytes(made + stream.flush())
