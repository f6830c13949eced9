"""A WebSocket client that is not ours, the ``websockets`` package, with frames made by hand as the documentation says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from atoma import Schema, StaticTokenVerifier, StoreSpec, open_hub
from atoma.contracts.sync import PullReply, PullRequest
from atoma.ports import Peer, Principal, SyncService, seeded_environment
from atoma_stores.sqlite import SQLiteHubStore
from atoma_transports.calls import ChannelLimits
from atoma_transports.serving import open_server
from tests.unit.transports.kit import Unasked

pytestmark = pytest.mark.xdist_group("machine")

WAIT_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    lane: str = "todo"


SCHEMA = Schema(StoreSpec("cards", Card))
TOKENS = {"secret": "ada"}


class Frames:
    """Frames as anybody would write them: msgpack arrays in binary messages, and nothing of ours."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def say(self, kind: str, id: int = 0, payload: object = None, **fields: Any) -> None:
        body = b"" if payload is None else msgspec.msgpack.encode(payload)
        parts = (fields.get("method", ""), fields.get("budget_ms", -1), fields.get("trace_id", ""))
        self.socket.send(msgspec.msgpack.encode([1, kind, id, *parts, fields.get("credit", 0), body]))

    def heard(self) -> tuple[str, int, Any]:
        """Kind, id and payload of the next frame that is not a ping."""
        while True:
            message = self.socket.recv(timeout=WAIT_S)
            assert isinstance(message, bytes)
            _, kind, id, *_, body = msgspec.msgpack.decode(message)
            if kind != "ping":
                return kind, id, msgspec.msgpack.decode(body) if body else None
            self.say("pong")

    def come_in(self, token: str = "secret") -> Any:
        self.say("auth", payload={"token": token})
        kind, id, welcome = self.heard()
        assert (kind, id) == ("welcome", 0), welcome
        return welcome

    def asked(self, id: int, method: str, payload: object, **fields: Any) -> Any:
        self.say("call", id, payload, method=method, **fields)
        kind, answered, reply = self.heard()
        assert (kind, answered) == ("reply", id), reply
        return reply

    def farewell(self) -> tuple[int, str]:
        """Close code and text of the server."""
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                self.socket.recv(timeout=WAIT_S)
        received = closed.value.rcvd
        assert received is not None
        return received.code, received.reason


@asynccontextmanager
async def served(limits: ChannelLimits | None = None) -> AsyncGenerator[str]:
    hub = open_hub(
        SCHEMA,
        SQLiteHubStore(":memory:"),
        verifier=StaticTokenVerifier(TOKENS),
        environment=seeded_environment(1),
    )
    async with hub as host, open_server(host, "127.0.0.1:0", limits=limits) as address:
        yield f"ws://{address}/sync"


def write(idem: str, id: str, title: str) -> dict[str, object]:
    values = {"title": title, "lane": "todo"}
    return {
        "ops": [{"index": 0, "name": "insert", "store": "cards", "id": id, "scope": "main", "values": values}],
        "idem": idem,
        "options": {},
    }


PLAN = {"source": ["store", "cards"], "order": [[["col", 0, "id"]]]}
ASKED = msgspec.msgpack.encode([1, PLAN, []])
QUERY = {"ops": [{"index": 0, "name": "query", "store": "cards", "query": ASKED}]}


async def test_a_client_of_another_library_writes_asks_and_listens() -> None:
    def talk(url: str) -> None:
        with connect(url, subprotocols=["atoma.v1"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "atoma.v1"
            frames = Frames(socket)
            welcome = frames.come_in()
            assert (welcome["principal"], welcome["expires_in"]) == ("ada", None)
            frames.say("stream", 1, {"scopes": ["main"]}, method="notify", credit=8)
            assert frames.heard() == ("item", 1, {"scope": "main", "head": 0})
            frames.say("call", 2, write("key-1", "a", "grüße ☃"), method="write")
            both = sorted(frames.heard()[:2] for _ in range(2))
            assert both == [("item", 1), ("reply", 2)]
            frames.say("cancel", 1)
            reply = frames.asked(3, "write", write("key-1", "a", "grüße ☃"))
            assert reply["results"][0]["id"] == "a"
            frames.asked(4, "write", write("key-2", "b", "x" * 100_000))  # and no hint about it any more
            found = frames.asked(5, "query", QUERY)["results"][0]["found"]
            title = 4 + found["columns"].index("title")
            assert [(row[0], row[title]) for row in found["rows"]] == [("a", "grüße ☃"), ("b", "x" * 100_000)]
            frames.say("auth", 6, {"token": "secret"})
            assert frames.heard()[:2] == ("welcome", 6)
            assert socket.ping().wait(WAIT_S)

    async with served() as url:
        await trio.to_thread.run_sync(talk, url)


async def test_a_client_that_offers_no_subprotocol_is_as_welcome() -> None:
    def talk(url: str) -> None:
        with connect(url) as socket:
            assert socket.subprotocol is None
            assert Frames(socket).come_in()["calls"] > 0

    async with served() as url:
        await trio.to_thread.run_sync(talk, url)


async def test_refusals_and_their_close_codes() -> None:
    def talk(url: str) -> None:
        with connect(url) as socket:
            frames = Frames(socket)
            frames.say("auth", payload={"token": "guess"})
            kind, id, info = frames.heard()
            assert (kind, id, info["code"]) == ("error", 0, "UNAUTHENTICATED")
            code, reason = frames.farewell()
            assert code == 4401
            assert reason.startswith("UNAUTHENTICATED: ")
        with connect(url) as socket:
            frames = Frames(socket)
            frames.come_in()
            frames.say("call", 1, {"nonsense": True}, method="query")
            assert frames.heard()[2]["code"] == "MALFORMED"
            frames.say("call", 2, {}, method="made-up")
            assert frames.heard()[2]["code"] == "UNIMPLEMENTED"
            socket.send("a text message")
            assert frames.farewell()[0] == 4400
        with connect(url) as socket:
            socket.send(bytes(200_000))  # too much from a stranger
            assert Frames(socket).farewell()[0] == 1009

    async with served() as url:
        await trio.to_thread.run_sync(talk, url)


class Slow(Unasked):
    """A host that begins to answer."""

    def __init__(self) -> None:
        self.active = 0
        self.cancelled = trio.Event()

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return Principal("ada")

    def service(self, principal: Principal) -> SyncService:
        return self

    async def pull(self, request: PullRequest) -> PullReply:
        self.active += 1
        try:
            await trio.sleep_forever()
            raise AssertionError("for ever is over")
        finally:
            self.active -= 1
            self.cancelled.set()


PULL = {"scope": "main", "cursor": [], "client_id": b"c"}


async def test_its_cancel_and_its_deadline_reach_the_handler() -> None:
    host = Slow()

    def talk(url: str) -> None:
        with connect(url) as socket:
            frames = Frames(socket)
            frames.come_in()
            frames.say("call", 1, PULL, method="pull", budget_ms=50)
            kind, id, info = frames.heard()
            assert (kind, id, info["code"]) == ("error", 1, "TIMEOUT")
            trio.from_thread.run_sync(setattr, host, "cancelled", trio.Event())
            frames.say("call", 2, PULL, method="pull")
            frames.say("cancel", 2)
            trio.from_thread.run(host.cancelled.wait)
            frames.say("ping")
            assert frames.heard()[0] == "pong"  # and nothing about the call that was given up
        assert host.active == 0

    async with open_server(host, "127.0.0.1:0") as address:
        with trio.fail_after(2 * WAIT_S):
            await trio.to_thread.run_sync(talk, f"ws://{address}/sync", abandon_on_cancel=True)


async def test_a_server_that_stops_says_so() -> None:
    def wait_for_the_end(url: str) -> tuple[int, str]:
        with connect(url) as socket:
            frames = Frames(socket)
            frames.come_in()
            trio.from_thread.run_sync(stop.set)
            return frames.farewell()

    stop = trio.Event()
    ends: list[tuple[int, str]] = []
    async with trio.open_nursery() as nursery:

        async def run(url: str) -> None:
            ends.append(await trio.to_thread.run_sync(wait_for_the_end, url))

        async with served() as url:
            nursery.start_soon(run, url)
            await stop.wait()
    assert ends == [(1012, "UNAVAILABLE: the server is shutting down")]
