"""Calls of the protocol over HTTP: two encodings, one meaning, and what is refused."""

from __future__ import annotations

import logging
import math

import pytest
import trio
import trio.testing

from atoma.contracts.codec import encode
from atoma.contracts.sync import PullReply, PullRequest
from atoma.contracts.values import ErrorInfo
from atoma.errors import ConflictError, RemoteError, StoreError
from atoma.ports import Principal
from atoma_transports.calls import ChannelLimits
from atoma_transports.http.envelope import Failure
from atoma_transports.protocol.json_mapping import encode_json
from tests.unit.transports.http.kit import JSON, MSGPACK, Hub, open_site, pull

pytestmark = pytest.mark.virtual_time
both = pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])


@both
async def test_a_call_is_answered_in_its_own_encoding(packed: bool) -> None:
    async with open_site() as site:
        client = site.connect()
        for scope in ("one", "zwei", "三"):
            answer = await client.call("pull", pull(scope), packed=packed)
            assert (answer.status, answer.fields["content-type"]) == (200, MSGPACK if packed else JSON)
            assert answer.fields["x-content-type-options"] == "nosniff"
            reply = answer.message(PullReply)
            assert (reply.scope, reply.head, reply.end.seq) == (scope, 7, 2)
        assert site.hub.checked == ["alice"]  # once for the connection
        assert site.hub.deadlines == [math.inf] * 3


async def test_curl_can_write_it() -> None:
    async with open_site() as site:
        body = b'{"scope":"main","cursor":{},"client_id":"Y2xpZW50","max_bytes":0}'
        answer = await site.connect().ask("POST", "/v1/pull", body, content_type="application/json; charset=utf-8")
        assert answer.json() == {
            "scope": "main",
            "start": {"epoch": "", "seq": "0", "hash": ""},
            "end": {"epoch": "ZQ", "seq": "2", "hash": ""},
            "stores": [],
            "more": False,
            "head": "7",
            "outcomes": [],
        }


@both
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (RemoteError("gone", remote_code="CURSOR_TOO_OLD"), 410, "CURSOR_TOO_OLD"),
        (RemoteError("no", remote_code="DENIED"), 409, "DENIED"),
        (RemoteError("never heard of", remote_code="SOMETHING_NEW"), 409, "SOMETHING_NEW"),
        (ConflictError("moved", store="cards", id="1"), 409, "CONFLICT"),
        (StoreError("/var/lib/hub.db: SELECT secret FROM t"), 0, ""),
        (RuntimeError("SELECT secret"), 500, "INTERNAL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_error_is_a_status_and_a_body(
    packed: bool, failure: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")
    async with open_site(Hub(failure=failure)) as site:
        client = site.connect()
        answer = await client.call("pull", pull(), packed=packed)
        if status:
            assert (answer.status, answer.code) == (status, code)
        assert answer.status >= 400
        for secret in (b"SELECT", b"/var", b"Traceback"):
            assert secret not in answer.body
        site.hub.failure = None
        assert (await client.call("pull", pull(), packed=packed)).status == 200  # on the same connection


async def test_when_to_come_again_is_said_in_seconds_as_well() -> None:
    failure = RemoteError("later", remote_code="OVERLOADED", remote_retryable=True, retry_after_s=1.2)
    async with open_site(Hub(failure=failure)) as site:
        answer = await site.connect().call("pull", pull(), packed=True)
        assert (answer.status, answer.fields["retry-after"]) == (503, "2")
        assert answer.message(Failure).error == ErrorInfo("OVERLOADED", "later", True, 1200)


@pytest.mark.parametrize(
    ("method", "path", "fields", "status", "code"),
    [
        ("POST", "/v1/nothing", {}, 404, "UNIMPLEMENTED"),
        ("POST", "/v1/", {}, 404, "UNIMPLEMENTED"),
        ("POST", "/v1/pull/", {}, 404, "UNIMPLEMENTED"),
        ("GET", "/v1/pull", {}, 405, "UNIMPLEMENTED"),
        ("HEAD", "/v1/notify", {}, 405, ""),
        ("GET", "/v1/batch", {}, 405, "UNIMPLEMENTED"),
        ("POST", "/v1/pull", {"content_type": "application/x-www-form-urlencoded"}, 415, "MALFORMED"),
        ("POST", "/v1/pull", {"content_type": "text/plain"}, 415, "MALFORMED"),
        ("POST", "/v1/pull", {"content_type": "multipart/form-data; boundary=x"}, 415, "MALFORMED"),
        ("POST", "/v1/pull", {"authorization": ""}, 401, "UNAUTHENTICATED"),
        ("POST", "/v1/pull", {"authorization": "Bearer mallory"}, 401, "UNAUTHENTICATED"),
        ("POST", "/v1/pull", {"authorization": "Basic YWxpY2U6"}, 401, "UNAUTHENTICATED"),
        ("POST", "/v1/pull?token=alice", {"authorization": ""}, 401, "UNAUTHENTICATED"),
        ("POST", "/v1/pull", {"origin": "https://evil.example"}, 403, "PERMISSION_DENIED"),
        ("POST", "/v1/pull", {"origin": "null"}, 403, "PERMISSION_DENIED"),
        ("POST", "/v1/pull", {"origin": "http://[evil"}, 403, "PERMISSION_DENIED"),
        ("POST", "/v1/pull", {"sec_fetch_site": "cross-site"}, 403, "PERMISSION_DENIED"),
        ("GET", "/v1/notify?scope=a", {"sec_fetch_site": "same-site"}, 403, "PERMISSION_DENIED"),
        ("GET", "/v1/notify?scope=a", {"origin": "https://evil.example"}, 403, "PERMISSION_DENIED"),
        ("GET", "/v1/notify", {}, 400, "MALFORMED"),
        ("GET", "/v1/notify?scope=a&token=alice", {}, 400, "MALFORMED"),
        ("POST", "/v1/pull", {"atoma_budget_ms": "-1"}, 400, "MALFORMED"),
        ("POST", "/v1/pull", {"atoma_budget_ms": "1e3"}, 400, "MALFORMED"),
        ("POST", "/v1/pull", {"atoma_budget_ms": "9" * 30}, 400, "MALFORMED"),
        ("POST", "/v1/pull", {"content_length": "9" * 18}, 413, "TOO_LARGE"),
        ("POST", "/v1/pull", {"origin": "http://localhost"}, 200, ""),
        ("POST", "/v1/pull", {"authorization": "bearer alice"}, 200, ""),
    ],
)
async def test_what_is_refused(method: str, path: str, fields: dict[str, str], status: int, code: str) -> None:
    async with open_site() as site:
        client = site.connect()
        body = encode_json(pull()) if method == "POST" else b""
        await client.send(method, path, body, **fields)
        got, headers = await client.head()
        assert got == status
        if method != "HEAD":
            text = await client.read(int(headers["content-length"]))
            assert code.encode() in text
        if status in (401, 405):
            assert headers["www-authenticate" if status == 401 else "allow"]
        if not code and status != 405:
            assert site.hub.asked == ["main"]
        else:
            assert site.hub.asked == []


@both
@pytest.mark.parametrize("noise", [b"", b"{", b"\xc1", b"[]", b'{"scope":1}', b"\x80", b'{"scope":"a","scope":"b"}'])
async def test_noise_in_a_body_is_malformed(packed: bool, noise: bytes) -> None:
    async with open_site() as site:
        client = site.connect()
        kind = MSGPACK if packed else JSON
        answer = await client.ask("POST", "/v1/pull", noise, content_type=kind)
        assert (answer.status, answer.code, answer.fields["content-type"]) == (400, "MALFORMED", kind)
        assert (await client.call("pull", pull(), packed=packed)).status == 200


async def test_nobody_unknown_sends_a_large_body() -> None:
    async with open_site() as site:
        client = site.connect()
        size = str(2 * 1024 * 1024)
        await client.send("POST", "/v1/pull", b"x" * 1000, authorization="Bearer mallory", content_length=size)
        assert (await client.answer()).status == 401
        assert await client.ended()
        client = site.connect()
        assert (await client.ask("POST", "/v1/pull", b"x" * 1000, authorization="Bearer mallory")).status == 401
        assert (await client.call("pull", pull())).status == 200  # what was small has been read
        client = site.connect()
        await client.send("POST", "/v1/pull", expect="100-continue", authorization="", content_length="1000")
        assert (await client.answer()).status == 401  # without asking for it


async def test_sizes_have_bounds_in_both_directions() -> None:
    async with open_site(limits=ChannelLimits(frame_bytes=100_000)) as site:
        client = site.connect()
        answer = await client.call("pull", pull("x" * 100_000), packed=True)
        assert (answer.status, answer.code) == (413, "TOO_LARGE")
        assert await client.ended()
        client = site.connect()
        await client.send("POST", "/v1/pull", content_length="", transfer_encoding="chunked")
        for _ in range(11):
            await client.stream.send_all(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert (await client.answer()).code == "TOO_LARGE"
        answer = await site.connect().call("pull", pull(size=100_000))
        assert (answer.status, answer.code) == (413, "TOO_LARGE")
        assert (await site.connect().call("pull", pull(size=70_000))).status == 200


async def test_a_budget_is_kept_by_the_servers_clock() -> None:
    async with open_site() as site:
        client = site.connect()
        began = trio.current_time()
        answer = await client.call("pull", pull("forever"), atoma_budget_ms="1500")
        assert (answer.status, answer.code) == (504, "TIMEOUT")
        assert trio.current_time() - began == pytest.approx(1.5)
        assert site.hub.deadlines == [pytest.approx(began + 1.5)]
        assert site.hub.active == 0
        assert (await client.call("pull", pull(), atoma_budget_ms="1000")).status == 200
        assert (await client.call("pull", pull("forever"), atoma_budget_ms="0")).code == "TIMEOUT"


@both
async def test_a_handler_ends_with_its_client(packed: bool) -> None:
    async with open_site() as site:
        client = site.connect()
        message = encode(pull("forever")) if packed else encode_json(pull("forever"))
        await client.send("POST", "/v1/pull", message, content_type=MSGPACK if packed else JSON)
        with trio.fail_after(1):
            while not site.hub.active:
                await trio.sleep(0.001)
        await client.stream.aclose()
        with trio.fail_after(0.1):
            while site.hub.active:
                await trio.sleep(0.001)
        with trio.fail_after(1):
            while site.open:
                await trio.sleep(0.01)
        assert (site.hub.active, site.open) == (0, 0)


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    async with open_site() as site:

        async def slowly(request: PullRequest) -> None:
            await trio.sleep(0.5)

        site.hub.on_pull = slowly
        client = site.connect()
        for scope in "abc":
            await client.send("POST", "/v1/pull", encode_json(pull(scope)))
        assert [(await client.answer()).message(PullReply).scope for _ in "abc"] == ["a", "b", "c"]
        for _ in range(20):  # one after the other with pauses, so that the one that watches comes and goes
            await trio.sleep(0.03)
            assert (await client.call("pull", pull("d"))).status == 200


async def test_every_token_counts_for_its_own_request() -> None:
    async with open_site() as site:
        site.hub.tokens["short"] = Principal("carol", expires_in_s=10)
        client = site.connect()
        for token, status in (("alice", 200), ("bob", 200), ("mallory", 401), ("alice", 200), ("short", 200)):
            assert (await client.call("pull", pull(), authorization=f"Bearer {token}")).status == status
        assert site.hub.checked == ["alice", "bob", "mallory", "short"]
        await trio.sleep(11)
        del site.hub.tokens["short"]
        assert (await client.call("pull", pull(), authorization="Bearer short")).code == "UNAUTHENTICATED"


async def test_a_server_that_ends_finishes_what_it_has_begun_and_refuses_the_rest() -> None:
    async with open_site() as site:
        go_on = trio.Event()

        async def until_told(request: PullRequest) -> None:
            await go_on.wait()

        site.hub.on_pull = until_told
        busy, idle, late = site.connect(), site.connect(), site.connect()
        for client in (idle, late):
            assert (await client.ask("GET", "/v1/pull")).status == 405
        await busy.send("POST", "/v1/pull", encode_json(pull("first")))
        await trio.sleep(0.1)
        site.drain.set()
        refused = await late.call("pull", pull("late"))
        assert (refused.status, refused.code, refused.fields["connection"]) == (503, "UNAVAILABLE", "close")
        assert await idle.ended()
        assert await late.ended()
        go_on.set()
        answer = await busy.answer()
        assert (answer.message(PullReply).scope, answer.fields["connection"]) == ("first", "close")
        assert await busy.ended()
        assert site.hub.asked == ["first"]


async def test_authenticating_takes_no_longer_than_it_may() -> None:
    class Slow(Hub):
        async def authenticate(self, token: str, peer: object) -> Principal:
            await trio.sleep_forever()
            raise AssertionError

    async with open_site(Slow(), ChannelLimits(handshake_s=3)) as site:
        answer = await site.connect().call("pull", pull())
        assert (answer.status, answer.code) == (504, "TIMEOUT")
        assert trio.current_time() >= 3


async def test_a_connection_that_breaks_in_a_body_is_no_failure_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    broken = trio.Event()

    async def breaks() -> None:
        if broken.is_set():
            raise trio.BrokenResourceError

    async with open_site() as site:
        client = site.connect(breaks)
        await client.send("POST", "/v1/pull", b"{", content_length="9")
        await trio.sleep(0.1)
        broken.set()
        await client.stream.send_all(b" ")
        await trio.sleep(0.1)
        assert site.open == 0
    assert not caplog.records
