"""Several calls in one request."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest
import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.sync import PullReply, PullRequest
from atoma_transports.calls import ChannelLimits
from atoma_transports.http.envelope import BatchCall, BatchRequest, CallReply, Cancel, Done
from atoma_transports.protocol.json_mapping import to_json
from tests.unit.transports.http.kit import ITEMS, JSON, MSGPACK, Hub, open_site, pull, records

pytestmark = pytest.mark.virtual_time
ID = "0123456789abcdef0123456789abcdef"


def call(id: int, scope: str, **more: object) -> BatchCall:
    return msgspec.structs.replace(BatchCall(id, "pull", msgspec.Raw(encode(pull(scope)))), **more)


def batch(*calls: BatchCall, id: str = ID, version: int = 1) -> bytes:
    return encode(BatchRequest(version, id, calls))


def scope_of(reply: CallReply) -> str:
    """Scope that a reply is about, or the code of its error."""
    if reply.error is not None:
        return reply.error.code
    assert isinstance(reply.ok, msgspec.Raw)
    return decode(memoryview(reply.ok), PullReply).scope


def replies(body: bytes) -> dict[int, str]:
    *items, last = records(body)
    assert last == ("z", b"")
    found = [decode(payload, CallReply) for kind, payload in items if kind == "i"]
    return {reply.id: scope_of(reply) for reply in found}


async def test_replies_come_each_as_soon_as_it_is_there() -> None:
    async def by_name(request: PullRequest) -> None:
        await trio.sleep({"slow": 5.0, "fast": 1.0}[request.scope])

    async with open_site(Hub(on_pull=by_name)) as site:
        client = site.connect()
        await client.send("POST", "/v1/batch", batch(call(7, "slow"), call(8, "fast")), content_type=MSGPACK)
        status, fields = await client.head()
        assert (status, fields["content-type"]) == (200, ITEMS)
        began = trio.current_time()
        first = records(await client.chunk())
        assert trio.current_time() - began == pytest.approx(1, abs=0.1)
        assert scope_of(decode(first[0][1], CallReply)) == "fast"
        assert replies(b"".join([part async for part in client.chunks()])) == {7: "slow"}
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)
        assert (await client.call("pull", pull("fast"))).status == 200


async def test_the_same_in_json() -> None:
    async with open_site() as site:
        calls = [
            {"id": 1, "method": "pull", "message": to_json(pull("one"))},
            {"id": "2", "method": "pull", "message": to_json(pull("two")), "budget_ms": "1000"},
            {"id": 3, "method": "pull", "message": {"scope": 1}},
            {"id": 4, "method": "notify", "message": {"scopes": ["a"]}},
            {"id": 5, "method": "pull", "message": to_json(pull("forever")), "budget_ms": 200},
        ]
        body = msgspec.json.encode({"version": 1, "id": ID, "calls": calls})
        answer = await site.connect().ask("POST", "/v1/batch", body)
        assert (answer.status, answer.fields["content-type"]) == (200, JSON)
        value = cast("dict[str, object]", answer.json())
        assert value["version"] == "1"
        found = {str(reply["id"]): reply for reply in cast("list[dict[str, dict[str, object]]]", value["replies"])}
        assert list(found) == list("12345")
        assert [found[id]["ok"]["scope"] for id in "12"] == ["one", "two"]
        assert [found[id]["error"]["code"] for id in "345"] == ["MALFORMED", "UNIMPLEMENTED", "TIMEOUT"]


async def test_one_failing_harms_no_other() -> None:
    async with open_site(limits=ChannelLimits(calls=4)) as site:
        calls = [
            call(1, "good"),
            call(2, "forever", budget_ms=100),
            call(3, "odd", method="nothing"),
            call(4, "broken", message=msgspec.Raw(encode({"scope": 5}))),
            call(5, "too many"),
        ]
        answer = await site.connect().ask("POST", "/v1/batch", batch(*calls), content_type=MSGPACK)
        assert replies(answer.body) == {1: "good", 2: "TIMEOUT", 3: "UNIMPLEMENTED", 4: "MALFORMED", 5: "OVERLOADED"}


async def test_single_calls_can_be_cancelled_by_whoever_made_them() -> None:
    async with open_site() as site:
        client, other = site.connect(), site.connect()
        await client.send(
            "POST", "/v1/batch", batch(call(1, "forever"), call(2, "forever"), call(3, "quick")), content_type=MSGPACK
        )
        await client.head()
        assert scope_of(decode(records(await client.chunk())[0][1], CallReply)) == "quick"
        assert site.hub.active == 2
        for token, ids, left in (("bob", (1, 2), 2), ("alice", (1, 3, 99), 1)):
            wish = encode(Cancel(ID, ids))
            fields = {"content_type": MSGPACK, "authorization": f"Bearer {token}"}
            answer = await other.ask("POST", "/v1/cancel", wish, **fields)
            assert (answer.status, answer.body) == (200, encode(Done(token)))
            await trio.sleep(0.01)
            assert site.hub.active == left
        assert (await other.ask("POST", "/v1/cancel", b'{"batch":"unknown","calls":["1"]}')).json() == {
            "principal": "alice"
        }
        assert (await other.ask("POST", "/v1/cancel", b'{"batch":"%s","calls":["2"]}' % ID.encode())).json() == {
            "principal": "alice"
        }
        assert replies(b"".join([part async for part in client.chunks()])) == {1: "CANCELLED", 2: "CANCELLED"}


@pytest.mark.parametrize("packed", [True, False])
async def test_all_end_with_their_client(packed: bool) -> None:
    async with open_site() as site:
        client = site.connect()
        if packed:
            await client.send("POST", "/v1/batch", batch(call(1, "forever"), call(2, "forever")), content_type=MSGPACK)
        else:
            calls = [{"id": n, "method": "pull", "message": to_json(pull("forever"))} for n in (1, 2)]
            await client.send("POST", "/v1/batch", msgspec.json.encode({"version": 1, "id": ID, "calls": calls}))
        with trio.fail_after(1):
            while site.hub.active < 2:
                await trio.sleep(0.001)
        await client.stream.aclose()
        with trio.fail_after(0.2):
            while site.hub.active or site.open:
                await trio.sleep(0.001)
        again = await site.connect().ask("POST", "/v1/batch", batch(call(1, "x")), content_type=MSGPACK)
        assert replies(again.body) == {1: "x"}  # its id is free again


@pytest.mark.parametrize(
    "body",
    [
        batch(),
        batch(call(1, "a"), call(1, "b")),
        batch(call(-1, "a")),
        batch(call(1, "a", budget_ms=-2)),
        batch(call(1, "a", trace_id="x" * 1000)),
        batch(call(1, "a"), version=2),
        batch(call(1, "a"), id=""),
        batch(call(1, "a"), id="../" * 9),
        encode({"version": 1, "id": ID, "calls": [], "more": 1}),
        b"",
    ],
)
async def test_what_is_no_batch_is_refused(body: bytes) -> None:
    async with open_site() as site:
        client = site.connect()
        answer = await client.ask("POST", "/v1/batch", body, content_type=MSGPACK)
        assert (answer.status, answer.code) == (400, "MALFORMED")
        assert (await client.call("pull", pull())).status == 200
        assert site.hub.asked == ["main"]


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'{"version":1,"id":"0123456789","calls":{}}',
        b'{"version":1,"id":"0123456789","calls":[1]}',
        b'{"version":1,"id":"0123456789","calls":[{"id":1,"method":"pull"}]}',
        b'{"version":1,"id":"0123456789","calls":[{"id":1,"method":"pull","message":{},"more":1}]}',
        b'{"version":1,"id":"0123456789","calls":[{"id":1.5,"method":"pull","message":{}}]}',
    ],
)
async def test_what_is_no_batch_in_json_is_refused(body: bytes) -> None:
    async with open_site() as site:
        answer = await site.connect().ask("POST", "/v1/batch", body)
        assert (answer.status, answer.code) == (400, "MALFORMED")


async def test_an_id_is_used_once_at_a_time() -> None:
    async with open_site() as site:
        first, second = site.connect(), site.connect()
        await first.send("POST", "/v1/batch", batch(call(1, "forever")), content_type=MSGPACK)
        await first.head()
        answer = await second.ask("POST", "/v1/batch", batch(call(1, "a")), content_type=MSGPACK)
        assert (answer.status, answer.code) == (400, "MALFORMED")
        fields = {"content_type": MSGPACK, "authorization": "Bearer bob"}
        answer = await second.ask("POST", "/v1/batch", batch(call(1, "a")), **fields)
        assert replies(answer.body) == {1: "a"}
