"""Bodies that are compressed: one meaning with those that are not, within bounds, and without waiting for streams."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import replace

import pytest
import trio

from atoma.contracts.codec import encode
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.fairness import Share
from atoma_transports.http import gzip as ours
from atoma_transports.http.gzip import RATIO_MAX, takes_gzip
from atoma_transports.protocol.json_mapping import encode_json
from tests.unit.transports.http.kit import JSON, MSGPACK, Answer, Client, open_site, pull

pytestmark = pytest.mark.virtual_time


async def asked(client: Client, body: bytes, **fields: str) -> Answer:
    return await client.ask("POST", "/v1/pull", body, **fields)


@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
async def test_a_compressed_call_is_answered_like_any_other(packed: bool) -> None:
    async with open_site() as site:
        client, message = site.connect(), pull("main", 4000)
        body, kind = (encode(message), MSGPACK) if packed else (encode_json(message), JSON)
        plain = await asked(client, body, content_type=kind)
        assert "content-encoding" not in plain.fields and plain.fields["vary"] == "accept-encoding"
        both = await asked(
            client, gzip.compress(body), content_type=kind, content_encoding="gzip", accept_encoding="br, gzip;q=0.5"
        )
        assert both.fields["content-encoding"] == "gzip"
        assert len(both.body) < len(plain.body) / 4
        assert gzip.decompress(both.body) == plain.body
        assert (await asked(client, body, content_type=kind, content_encoding="identity")).body == plain.body


async def test_a_short_answer_is_sent_as_it_is() -> None:
    async with open_site() as site:
        answer = await asked(site.connect(), encode_json(pull()), accept_encoding="gzip")
        assert "content-encoding" not in answer.fields and "vary" not in answer.fields


@pytest.mark.parametrize(
    ("field", "takes"),
    [
        ("gzip", True),
        ("GZIP, deflate", True),
        ("br;q=1, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("x-gzip", False),
        ("", False),
    ],
)
def test_who_takes_gzip(field: str, takes: bool) -> None:
    assert takes_gzip(field) == takes


PADDED = json.dumps({"scope": "main", "cursor": {}, "client_id": "Y2xpZW50"})


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"not gzip", 400, "MALFORMED"),
        (b"", 400, "MALFORMED"),
        (gzip.compress(PADDED.encode())[:-9], 400, "MALFORMED"),
        (gzip.compress(PADDED.encode()) + b"more", 400, "MALFORMED"),
        (gzip.compress(PADDED.encode()) * 2, 400, "MALFORMED"),
        (gzip.compress(b"{"), 400, "MALFORMED"),
        (gzip.compress(PADDED.encode() + b" " * 100_000), 413, "TOO_LARGE"),  # alike, and more than a small body
        (gzip.compress(b" " * 10_000_000), 413, "TOO_LARGE"),
    ],
    ids=["nothing of it", "empty", "cut", "tail", "two", "no JSON", "ratio", "bomb"],
)
async def test_what_is_no_gzip_or_too_much_is_refused_and_the_connection_goes_on(
    body: bytes, status: int, code: str
) -> None:
    async with open_site() as site:
        client = site.connect()
        answer = await asked(client, body, content_encoding="gzip")
        assert (answer.status, answer.code) == (status, code)
        assert (await asked(client, encode_json(pull()))).status == 200


async def test_another_encoding_is_refused() -> None:
    async with open_site() as site:
        for encoding in ("br", "deflate", "gzip, gzip"):
            assert (await asked(site.connect(), b"{}", content_encoding=encoding)).status == 415


async def test_a_bomb_is_noticed_at_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a gigabyte, no more is inflated than the ratio allows for what was read of it."""
    made: list[int] = []
    real = zlib.decompressobj

    class Counted:
        def __init__(self, wbits: int) -> None:
            self._stream = real(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            part = self._stream.decompress(data, most)
            made.append(len(part))
            return part

        eof = property(lambda self: self._stream.eof)
        unconsumed_tail = property(lambda self: self._stream.unconsumed_tail)
        unused_data = property(lambda self: self._stream.unused_data)

    compress = zlib.compressobj(9, wbits=31)
    bomb = b"".join([compress.compress(bytes(2**20)) for _ in range(64)]) + compress.flush()
    monkeypatch.setattr(zlib, "decompressobj", Counted)
    async with open_site(limits=replace(ChannelLimits(), query_bytes=2**20)) as site:
        assert (await asked(site.connect(), bomb, content_encoding="gzip")).status == 413
    assert sum(made) <= 2 * ours.RATIO_FREE_BYTES + ours.STEP_BYTES


async def test_what_is_inflated_counts_as_if_it_had_come(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[int] = []
    before = Share.came

    def noted(share: Share, size: int) -> None:
        came.append(size)
        before(share, size)

    monkeypatch.setattr(Share, "came", noted)
    body = PADDED.encode() + bytes(" " * 60_000, "ascii")
    async with open_site() as site:
        assert (await asked(site.connect(), gzip.compress(body), content_encoding="gzip")).status == 200
    assert sum(came) >= len(body)


async def test_events_are_never_compressed() -> None:
    async with open_site() as site:
        client = site.connect()
        await client.send("GET", "/v1/notify?scope=main", accept_encoding="gzip")
        status, fields = await client.head()
        assert status == 200 and "content-encoding" not in fields
        with trio.fail_after(5):
            assert b"event: hint" in await client.read_until(b"data:")


async def test_rows_that_are_alike_pass() -> None:
    """What people send is far from the ratio of a bomb."""
    rows = [
        {"assumedMasterState": None, "newDocumentState": {"id": f"{number:032}", "title": "tea", "board": "main"}}
        for number in range(2000)
    ]
    body = json.dumps({"rows": rows}).encode()
    assert len(body) / len(gzip.compress(body)) < RATIO_MAX / 2
