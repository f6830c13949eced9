"""Streams over HTTP: events for browsers and curl, records for our own client."""

from __future__ import annotations

import logging

import msgspec
import pytest
import trio
import trio.testing

from atoma.contracts.codec import decode, encode
from atoma.contracts.sync import Hint, NotifyRequest
from atoma.contracts.values import ErrorInfo
from atoma.errors import RemoteError
from atoma.ports import Principal
from atoma_transports.calls import ChannelLimits
from atoma_transports.protocol.json_mapping import encode_json
from tests.unit.transports.http.kit import ITEMS, MSGPACK, Answer, Client, Hub, open_site, pull, records

pytestmark = pytest.mark.virtual_time
SCOPES = NotifyRequest(("main", "end"))


async def events(client: Client) -> list[tuple[str, object]]:
    """Every event of a body that ends, comments left out."""
    text = b"".join([part async for part in client.chunks()]).decode()
    found: list[tuple[str, object]] = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if lines:
            found.append((lines["event"], msgspec.json.decode(lines["data"])))
    return found


async def begin(client: Client, *, packed: bool, scopes: tuple[str, ...] = ("main",), **fields: str) -> None:
    if packed:
        await client.send("POST", "/v1/notify", encode(NotifyRequest(scopes)), content_type=MSGPACK, **fields)
    else:
        await client.send("GET", f"/v1/notify?scope={'&scope='.join(scopes)}", b"", **fields)
    status, got = await client.head()
    assert (status, got["content-type"]) == (200, ITEMS if packed else "text/event-stream")


async def the_end(client: Client, *, packed: bool) -> ErrorInfo | None:
    """How a stream ends, within a minute."""
    with trio.fail_after(60):
        return await read_the_end(client, packed=packed)


async def read_the_end(client: Client, *, packed: bool) -> ErrorInfo | None:
    if packed:
        kind, payload = records(b"".join([part async for part in client.chunks()]))[-1]
        assert kind in ("e", "z")
        return decode(payload, ErrorInfo) if kind == "e" else None
    name, value = (await events(client))[-1]
    assert name in ("error", "end")
    return msgspec.convert(value, ErrorInfo, strict=False) if name == "error" else None


both = pytest.mark.parametrize("packed", [False, True], ids=["events", "records"])


async def test_events_are_what_a_browser_reads() -> None:
    async with open_site(Hub(hints=3)) as site:
        client = site.connect()
        await client.send("GET", "/v1/notify?scope=main&scope=end")
        _, fields = await client.head()
        assert fields["content-type"] == "text/event-stream"
        assert fields["cache-control"] == "no-store"
        hints: list[tuple[str, object]] = [("hint", {"scope": "main", "head": str(n)}) for n in range(3)]
        assert await events(client) == [*hints, ("end", {})]
        assert await client.ended()


async def test_events_for_whoever_posts_json() -> None:
    async with open_site() as site:
        client = site.connect()
        await client.send("POST", "/v1/notify", encode_json(SCOPES))
        await client.head()
        assert await events(client) == [("hint", {"scope": "main", "head": "0"}), ("end", {})]


async def test_records_leave_the_connection_to_the_next_request() -> None:
    async with open_site(Hub(hints=40)) as site:
        client = site.connect()
        for _ in range(2):
            answer = await client.ask("POST", "/v1/notify", encode(SCOPES), content_type=MSGPACK)
            assert answer.fields["content-type"] == ITEMS
            found = records(answer.body)
            assert [kind for kind, _ in found] == ["i"] * 40 + ["z"]
            assert [decode(payload, Hint).head for _, payload in found[:-1]] == list(range(40))


@both
async def test_a_failure_is_told_at_the_end(packed: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")
    failures = {
        "SCOPE_REVOKED": RemoteError("no longer yours", remote_code="SCOPE_REVOKED"),
        "INTERNAL": RuntimeError("SELECT secret"),
    }
    for code, failure in failures.items():
        async with open_site(Hub(failure=failure)) as site:
            client = site.connect()
            await begin(client, packed=packed)
            told = await the_end(client, packed=packed)
            assert told is not None
            assert (told.code, "SELECT" in told.message) == (code, False)
            assert site.hub.active == 0


async def ask(client: Client, *, packed: bool, scopes: tuple[str, ...], **fields: str) -> Answer:
    if packed:
        return await client.ask("POST", "/v1/notify", encode(NotifyRequest(scopes)), content_type=MSGPACK, **fields)
    return await client.ask("GET", f"/v1/notify?scope={'&scope='.join(scopes)}", b"", **fields)


@both
async def test_what_may_not_be_listened_to_is_told_by_a_status(packed: bool) -> None:
    """An `EventSource` sees that it failed, and nobody takes an error for an event of a stream that began well."""
    async with open_site() as site:
        client = site.connect()
        answer = await ask(client, packed=packed, scopes=("main", "not-yours"))
        assert (answer.status, answer.code) == (403, "PERMISSION_DENIED")
        answer = await ask(client, packed=packed, scopes=("slow",), atoma_budget_ms="500")
        assert (answer.status, answer.code) == (504, "TIMEOUT")
        site.hub.tokens["short"] = Principal("carol", expires_in_s=3)
        answer = await ask(client, packed=packed, scopes=("slow",), authorization="Bearer short")
        assert (answer.status, answer.code) == (401, "AUTH_EXPIRED")
        assert (await client.call("pull", pull())).status == 200  # the connection is as good as before
        assert site.hub.active == 0


@both
async def test_who_leaves_while_a_stream_opens_is_not_waited_for(packed: bool) -> None:
    async with open_site() as site:
        client = site.connect()
        await client.send(
            "POST", "/v1/notify", encode(NotifyRequest(("slow",))), content_type=MSGPACK
        ) if packed else await client.send("GET", "/v1/notify?scope=slow")
        await trio.sleep(1)
        assert site.hub.active == 1
        await client.stream.aclose()
        await trio.sleep(1)
        assert (site.hub.active, site.open) == (0, 0)


@both
async def test_a_stream_ends_with_its_token_its_budget_or_the_server(packed: bool) -> None:
    async with open_site() as site:
        site.hub.tokens["short"] = Principal("carol", expires_in_s=30)
        client = site.connect()
        await begin(client, packed=packed, authorization="Bearer short")
        began = trio.current_time()
        told = await the_end(client, packed=packed)
        assert told is not None
        assert told.code == "AUTH_EXPIRED"
        assert trio.current_time() - began == pytest.approx(30, abs=0.1)
        client = site.connect()
        await begin(client, packed=packed, atoma_budget_ms="2000")
        told = await the_end(client, packed=packed)
        assert told is not None
        assert told.code == "TIMEOUT"
        client = site.connect()
        await begin(client, packed=packed)
        site.drain.set()
        told = await the_end(client, packed=packed)
        assert told is not None
        assert (told.code, told.retryable) == ("UNAVAILABLE", True)
        assert await client.ended()
        assert site.hub.active == 0


@both
async def test_a_quiet_stream_shows_that_it_is_there(packed: bool) -> None:
    async with open_site(limits=ChannelLimits(ping_s=5)) as site:
        client = site.connect()
        await begin(client, packed=packed)
        while b"main" not in await client.chunk():
            pass
        began = trio.current_time()
        for _ in range(3):
            assert await client.chunk() == (b"p\0\0\0\0" if packed else b": still here\n\n")
        assert trio.current_time() - began == pytest.approx(15, abs=1)


@both
async def test_a_feed_ends_with_its_client(packed: bool) -> None:
    async with open_site() as site:
        client = site.connect()
        await begin(client, packed=packed)
        await client.chunk()
        assert site.hub.active == 1
        await client.stream.aclose()
        with trio.fail_after(0.2):
            while site.hub.active or site.open:
                await trio.sleep(0.001)


async def test_records_go_out_together_when_the_client_is_behind() -> None:
    async with open_site(Hub(hints=1000)) as site:
        client = site.connect()
        await client.send("POST", "/v1/notify", encode(SCOPES), content_type=MSGPACK)
        await client.head()
        parts = [part async for part in client.chunks()]
        assert len(records(b"".join(parts))) == 1001
        assert len(parts) <= 1001


async def test_nobody_listens_without_a_token() -> None:
    async with open_site() as site:
        client = site.connect()
        answer = await client.ask("GET", "/v1/notify?scope=a", authorization="")
        assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
        assert (await client.ask("GET", "/v1/notify?scope=a", authorization="Bearer x")).status == 401
        assert site.hub.active == 0
