"""Live queries and the hub in somebody's web application: a real server, real clients."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from atoma import Client, Plugin, Sync, open_client
from atoma.errors import AuthenticationError
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.remote import Remote
from atoma_transports.websocket import WebSocketTransport
from tests.scenarios.web.applications import CARDS, SCHEMA, Card
from tests.scenarios.web.conftest import Served, launch

Serve = Callable[..., Served]
pytestmark = pytest.mark.xdist_group("machine")


def ask(served: Served, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(served.address, timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def events(served: Served, path: str) -> Generator[Callable[[], dict[str, Any]]]:
    """Follow server-sent events; gives what reads the next batch."""
    connection = http.client.HTTPConnection(served.address, timeout=10)
    connection.request("GET", path, headers={"Accept": "text/event-stream"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream")

    def batch() -> dict[str, Any]:
        while True:
            line = answer.readline().decode()
            assert line, "the stream has ended"
            if line.startswith("data: "):
                found: dict[str, Any] = json.loads(line[6:])
                return found

    try:
        yield batch
    finally:
        answer.close()
        connection.close()


def plugins(served: Served, token: str = "a long token of ada") -> list[Plugin]:
    remote = Remote(WebSocketTransport(f"ws://{served.address}/sync", token=token))
    return [LocalExecution(SQLiteEngine(":memory:")), remote, Sync(stores=[CARDS])]


async def two_devices(served: Served) -> Card | None:
    """What one device writes, as the other one has it when both are idle."""
    with trio.fail_after(60):
        async with (
            open_client(SCHEMA, plugins=plugins(served)) as ada,
            open_client(SCHEMA, plugins=plugins(served)) as bob,
        ):
            handle = await ada.store(CARDS).insert(Card(id="tea", title="tea"))
            await handle.accepted()
            await bob.sync.wait_idle()
            return await bob.store(CARDS).get("tea")


@pytest.mark.parametrize("name", ["fastapi", "starlette", "django", "alone"])
def test_devices_sync_with_a_hub_that_is_mounted_beside_routes(serve: Serve, name: str, tmp_path: Path) -> None:
    served = serve(name)
    assert trio.run(two_devices, served) == Card(id="tea", title="tea")
    if name in ("starlette", "django"):
        assert ask(served, "GET", "/mine") == (200, b"mine")
    said = served.stop()
    assert "Traceback" not in said
    assert "Error" not in said
    if name != "django":  # without a lifespan nobody tells the hub of the end
        assert not (tmp_path / "hub.db-wal").exists(), "the hub's file was not closed"


@pytest.mark.parametrize("name", ["starlette", "django"])
def test_a_strange_token_is_refused_as_by_a_server_of_ours(serve: Serve, name: str) -> None:
    served = serve(name)

    async def once() -> None:
        async with open_client(SCHEMA, plugins=plugins(served, "a strange token")) as client:
            await client.sync.sync_once()

    with pytest.raises(AuthenticationError):
        trio.run(once)


def test_a_server_that_ends_lets_its_devices_go_on_later(serve: Serve) -> None:
    first = serve("starlette")

    async def main() -> str:
        async with open_client(SCHEMA, plugins=plugins(first)) as client:
            await settled(client)
            await trio.to_thread.run_sync(first.stop)
            await client.store(CARDS).insert(Card(id="later", title="later"))
            with trio.fail_after(60):
                while client.sync.status.state == "online":
                    await trio.sleep(0.05)
            return client.store(CARDS).spec.name

    async def settled(client: Client) -> None:
        with trio.fail_after(60):
            await client.sync.wait_idle()

    assert trio.run(main) == "cards"


def test_a_hub_that_lets_in_its_machine_is_not_mounted(tmp_path: Path) -> None:
    process = launch("loopback", tmp_path)
    try:
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode != 0
    assert "behind a web server that is everybody" in said


def test_a_live_query_as_events_and_as_socket(serve: Serve) -> None:
    served = serve("fastapi")
    with events(served, "/live") as batch, connect(f"ws://{served.address}/live") as socket:
        assert batch()["changes"] == [{"type": "reset", "rows": []}]
        assert json.loads(socket.recv(timeout=10))["changes"][0]["type"] == "reset"
        status, body = ask(served, "POST", "/cards/tea")
        card = json.loads(body)
        inserted = [{"type": "insert", "at": 0, "row": card}]
        assert (status, card["title"]) == (200, "tea")
        assert batch()["changes"] == inserted
        assert json.loads(socket.recv(timeout=10))["changes"] == inserted
    assert ask(served, "GET", "/live?secret") == (403, b"not for you")
    with events(served, "/live") as batch:
        assert batch()["changes"] == [{"type": "reset", "rows": [card]}]
        assert served.process.poll() is None


def test_a_page_of_another_site_is_refused(serve: Serve) -> None:
    served = serve("fastapi")
    for origin in ("https://evil.example", "https://[evil", "null"):
        assert ask(served, "GET", "/live", {"Origin": origin})[0] == 403
    for path in ("/live", "/sync"):
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            with connect(f"ws://{served.address}{path}", origin=Origin("https://evil.example")) as socket:
                socket.recv(timeout=10)


def test_text_is_no_message_for_a_hub(serve: Serve) -> None:
    served = serve("starlette")
    with connect(f"ws://{served.address}/sync") as socket:
        socket.send("hello")
        with pytest.raises(ConnectionClosed, match="binary"):
            socket.recv(timeout=10)


def test_a_server_that_stops_ends_open_streams_without_a_traceback(serve: Serve) -> None:
    """Nobody's page goes away; the server's patience ends, and it calls off what still answers."""
    served = serve("fastapi", patience_s=1)
    with events(served, "/live") as batch:
        assert batch()["changes"][0]["type"] == "reset"
        said = served.stop()
        with pytest.raises(AssertionError, match="the stream has ended"):
            batch()
    assert "Cancel 1 running task" in said
    assert "Traceback" not in said
