"""A boolean leaves as ``true`` or ``false`` in JSON, where its field is named, and comes in as that or as 0 and 1."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Any

import msgspec
import pytest
import trio

from atoma import Hub, Schema, StaticTokenVerifier, StoreSpec, open_hub
from atoma.contracts.codec import encode
from atoma.contracts.mutations import MutationBody, Op
from atoma.contracts.sync import Cursor, Mutation, OpenRequest, PullReply, PullRequest, PushRequest
from atoma_stores.sqlite import SQLiteHubStore
from atoma_transports.serving import open_server
from tests.unit.transports.http.kit import JSON, MSGPACK, Client


class Level(IntEnum):
    LOW = 0
    HIGH = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: str
    done: bool
    starred: bool | None = None
    level: Level = Level.LOW
    count: int = 1


SPEC = StoreSpec("tasks", Task)
SCHEMA = Schema(SPEC)
KEY = "01890a5d-ac96-774b-bcce-b302099a80{:02d}"


@asynccontextmanager
async def asking() -> AsyncGenerator[tuple[Client, Hub]]:
    verifier = StaticTokenVerifier({"alice": "alice"})
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=verifier) as hub:
        async with open_server(hub, "127.0.0.1:0") as address:
            with trio.fail_after(60):
                async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
                    yield Client(stream), hub


async def post(client: Client, method: str, message: object) -> Any:
    answer = await client.ask("POST", f"/v1/{method}", msgspec.json.encode(message))
    assert answer.status == 200, answer.body
    return answer.json()


def insert(number: int, **values: object) -> dict[str, object]:
    given = {"done": False, "starred": None, "level": 1, "count": 1, **values}
    op = {"index": 0, "name": "insert", "store": "tasks", "id": f"t{number}", "scope": "main", "values": given}
    return {"idem": KEY.format(number), "options": {}, "ops": [op]}


def query(value: object) -> dict[str, object]:
    where = ["call", "eq", [["col", 0, "done"], ["param", 0, "bool"]]]
    plan = {"source": ["store", "tasks"], "where": where, "order": [[["col", 0, "id"]]], "limit": 10}
    asked = {"plan": plan, "params": [value]}
    return {"ops": [{"index": 0, "name": "query", "store": "tasks", "query": asked}]}


def test_columns_of_booleans_are_known() -> None:
    assert SPEC.booleans == {"done", "starred"}
    image = {"done": 1, "starred": None, "level": 1, "count": 0}
    assert SPEC.with_booleans(image) == {"done": True, "starred": None, "level": 1, "count": 0}
    assert [type(value) for value in SPEC.with_booleans(image).values()] == [bool, type(None), int, int]


@pytest.mark.parametrize(("yes", "no"), [(True, False), (1, 0)])
async def test_both_come_in_and_booleans_leave(yes: object, no: object) -> None:
    row = {"done": True, "starred": None, "level": 1, "count": 1}
    async with asking() as (client, _):
        (told,) = (await post(client, "write", insert(1, done=yes)))["results"]
        assert repr(told["row"]) == repr(row)
        await post(client, "write", insert(2, done=no, starred=yes))
        for asked, found in ((True, "t1"), (1, "t1"), (False, "t2"), (0, "t2")):
            (result,) = (await post(client, "query", query(asked)))["results"]
            assert [values[0] for values in result["found"]["rows"]] == [found]
        (result,) = (await post(client, "query", query(no)))["results"]
        assert result["found"]["columns"] == ["done", "starred", "level", "count"]
        assert repr(result["found"]["rows"][0][4:]) == "[False, True, 1, 1]"
        resolved = await post(client, "resolve", {"idem": KEY.format(1)})
        assert repr(resolved["results"][0]["row"]) == repr(row)
        call = {"id": 1, "method": "query", "message": query(True)}
        (reply,) = (await post(client, "batch", {"version": 1, "id": "a-batch-1", "calls": [call]}))["replies"]
        assert repr(reply["ok"]["results"][0]["found"]["rows"][0][4:]) == "[True, None, 1, 1]"


async def test_a_page_is_for_programs_in_one_encoding_and_for_people_in_the_other() -> None:
    async with asking() as (client, hub):
        await post(client, "write", insert(1, done=True))
        request = PullRequest("main", Cursor(hub.identity.epoch), b"a client")
        pages = [await client.call("pull", request, packed=packed) for packed in (False, True)]
        assert [page.status for page in pages] == [200, 200], pages
        assert [page.fields["content-type"] for page in pages] == [JSON, MSGPACK]
        (named,) = msgspec.json.decode(pages[0].body)["stores"]
        (stored,) = pages[1].message(PullReply).stores
        place = 1 + stored.columns.index("done")
        assert named["columns"] == list(stored.columns)
        assert (repr(named["rows"][0][place]), repr(stored.rows[0][place])) == ("True", "1")


async def test_a_conflict_shows_the_other_row_with_booleans() -> None:
    spec = StoreSpec("tasks", Task, conflict="manual")
    verifier = StaticTokenVerifier({"alice": "alice"})
    async with open_hub(Schema(spec), SQLiteHubStore(":memory:"), verifier=verifier) as hub:
        async with open_server(hub, "127.0.0.1:0") as address:
            async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
                client = Client(stream)
                await post(client, "write", insert(1, done=True))
                op = Op("patch", "tasks", "t1", {"done": 0, "count": 5})
                body = encode(MutationBody(1, "an idem", "main", 0, 1, 0, (op,)))
                mutation = Mutation(1, body, sha256(body).digest())
                opened = OpenRequest(b"a client", 1, 1, b"", ("main",))
                assert (await client.call("open", opened)).status == 200
                answer = await client.call("push", PushRequest(b"a client", 1, (mutation,), b""))
                assert answer.status == 200, answer.body
                (outcome,) = msgspec.json.decode(answer.body)["outcomes"]
                assert outcome["status"] == "rejected"
                assert repr(outcome["conflicts"][0]["current"]["done"]) == "True"
