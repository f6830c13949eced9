"""Header fields have a bounded number and size, which is looked at before they are: what parsing takes goes by their number."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from hpack import Encoder, HPACKDecodingError, OversizedHeaderListError
from hyperframe.frame import ContinuationFrame, HeadersFrame
from hypothesis import given
from hypothesis import strategies as st

from atoma_transports.grpc._driver.compression import RememberingDecoder, check_fields
from atoma_transports.serving import open_server
from atoma_transports.serving.head import HEAD_BYTES_MAX, HEAD_LINES_MAX
from tests.unit.transports.handlers import (
    PREFACE,
    Wired,
    chunks,
    http_call,
    http_head,
    upgrade,
    ws_auth,
)
from tests.unit.transports.http.kit import Hub

CALM = (11).to_bytes(4, "big")


@asynccontextmanager
async def connected() -> AsyncGenerator[Wired]:
    """A connection to a server; it has to be over soon."""
    with trio.fail_after(60):
        async with open_server(Hub(), "127.0.0.1:0") as address:
            async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
                yield Wired(stream)


def given_fields(head: bytes) -> int:
    return head.count(b"\r\n") - 2


def padded(make: bytes, count: int) -> bytes:
    """The head with further fields, ``count`` in all."""
    more = b"".join(b"a%d:\r\n" % number for number in range(count - given_fields(make)))
    return make[:-2] + more + b"\r\n"


@pytest.mark.parametrize("first", [True, False], ids=["first", "kept"])
@pytest.mark.parametrize("count", [101, 14_000])
async def test_more_fields_than_may_be_are_431_on_a_new_connection_and_a_kept_one(first: bool, count: int) -> None:
    async with connected() as wired:
        if not first:
            await wired.send(http_call())
            await wired.until(b"main")
        await wired.send(padded(http_head(), count))
        assert b" 431 " in (await wired.rest()).partition(b"\r\n")[0]


async def test_as_many_as_may_be_are_taken() -> None:
    async with connected() as wired:
        head, end, body = http_call().partition(b"\r\n\r\n")
        await wired.send(padded(head + end, HEAD_LINES_MAX - 1) + body)
        assert b"200 OK" in await wired.until(b"main")


async def test_fields_behind_a_body_are_bounded_too() -> None:
    async with connected() as wired:
        trailers = b"".join(b"a%d:\r\n" % number for number in range(10_000))
        await wired.send(http_head() + chunks(b"x")[:-2] + trailers + b"\r\n")
        assert b" 431 " in (await wired.rest()).partition(b"\r\n")[0]


@pytest.mark.parametrize("make", [http_head(), upgrade()], ids=["http", "websocket"])
async def test_fields_that_do_not_end_are_431(make: bytes) -> None:
    async with connected() as wired:
        with contextlib.suppress(trio.BrokenResourceError):
            await wired.send(make[:-2] + b"a: " + b"x" * HEAD_BYTES_MAX)
        assert b" 431 " in (await wired.rest()).partition(b"\r\n")[0]


async def test_a_websocket_handshake_is_bounded_as_well() -> None:
    async with connected() as wired:
        await wired.send(padded(upgrade(), 101))
        assert b" 431 " in (await wired.rest()).partition(b"\r\n")[0]
    async with connected() as wired:
        await wired.send(padded(upgrade(), HEAD_LINES_MAX - 1) + ws_auth())
        await wired.until(b"welcome")


# ---------------------------------------------------------------------- HTTP/2


def block(parts: list[bytes]) -> bytes:
    """A block of headers in as many frames."""
    first = HeadersFrame(1, parts[0], flags=["END_HEADERS"] if len(parts) == 1 else [])
    rest = [ContinuationFrame(1, part) for part in parts[1:]]
    if rest:
        rest[-1].flags.add("END_HEADERS")
    return first.serialize() + b"".join(frame.serialize() for frame in rest)


FRAME = 16 * 1024
BOMBS: dict[str, list[bytes]] = {
    "indexed fields": [b"\x82" * 2_000],
    "literal fields": [b"\0\0\0" * 2_000],
    "sizes of the table": [b"\x20" * 2_000],
    "a number without an end": [b"\x00\x7f" + b"\xff" * 2_000],
    "4 MB of sizes": [b"\x20" * FRAME] * 60,
    "4 MB in one field": [b"\0\x01a\xff" + b"\x80\x80\x80\x01" + b"\x1f" * FRAME, *([b"\x1f" * FRAME] * 60)],
    "4 MB without an end": [b"\0\x01a\x7f\x80\x80\x80\x01", *([b"a" * FRAME] * 62)],
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_block_of_headers_that_would_take_long_ends_the_connection(name: str) -> None:
    async with connected() as wired:
        with contextlib.suppress(trio.BrokenResourceError):
            await wired.send(PREFACE, block(BOMBS[name]))
        said = await wired.rest()
        assert CALM in said or name == "a number without an end"
        assert b"\x07" in said, "it says goodbye"


fields = st.lists(st.tuples(st.text("abc-", min_size=1), st.text(max_size=300)), max_size=60)


@given(fields, st.booleans())
def test_every_field_is_counted_once(headers: list[tuple[str, str]], huffman: bool) -> None:
    """Against hpack's own encoder: exactly as many fields as there are pass."""
    encoded = Encoder().encode(headers, huffman)
    check_fields(encoded, len(headers))
    if headers:
        with pytest.raises(OversizedHeaderListError):
            check_fields(encoded, len(headers) - 1)


@given(st.binary(max_size=3_000))
def test_counting_ends_whatever_came(data: bytes) -> None:
    with contextlib.suppress(OversizedHeaderListError, HPACKDecodingError):
        check_fields(data, 100)


def test_a_small_block_is_not_counted_first() -> None:
    decoder = RememberingDecoder(100_000, 10)
    assert len(list(decoder.decode(b"\x82" * 20))) == 20
