"""A token is in the one field that carries it, and nowhere else: no address, log, error, event, span, `repr` or file."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import StaticTokenVerifier, Sync, open_client, open_hub
from atoma.errors import AtomaError
from atoma.inspector import Inspected, Inspection, add_inspector
from atoma.plugins import Plugin
from atoma.ports import Transport
from atoma.schema import Schema, StoreSpec
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpHandler, HttpTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.scenarios.test_authorisation import open_tap
from tests.unit.hub.kit import Card

TOKEN, REVOKED = "canary4711-good-token", "canary4711-bad-token"
CANARY = "canary4711"
CARDS = StoreSpec("cards", Card, scope="board")
SCHEMA = Schema(CARDS)
SPELLINGS = [CANARY, *(base64.b64encode(b"." * lead + CANARY.encode())[4:-4].decode() for lead in range(3))]
MADE: dict[str, Any] = {
    "websocket": lambda address, token: WebSocketTransport(f"ws://{address}/sync", token=token),
    "grpc": lambda address, token: GrpcTransport(address, token=token),
    "http": lambda address, token: HttpTransport(f"http://{address}", token=token),
}


def leaks(text: str) -> list[str]:
    """Lines of ``text`` that show a token."""
    return [line for line in text.splitlines() if any(spelling in line for spelling in SPELLINGS)]


def chain(error: BaseException | None) -> Iterator[str]:
    """Everything that a traceback would print of an error."""
    while error is not None:
        yield from (str(error), repr(error), repr(vars(error)), *getattr(error, "__notes__", ()))
        error = error.__cause__ or error.__context__


@asynccontextmanager
async def refused(transport: Transport, said: list[str]) -> AsyncGenerator[None]:
    """A connection that is refused, and what is said of that."""
    with trio.fail_after(60), pytest.raises(AtomaError) as error:
        async with transport.connect():
            pass
    said.extend(chain(error.value))
    yield


@pytest.mark.parametrize("spoken", MADE)
async def test_a_token_is_shown_nowhere(spoken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A device syncs, is ended, is refused and comes back, while everything that can be looked at is.

    Spans and metrics are made of the events that are looked at here.
    """
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    requests = bytearray()
    eye, face = Inspection(), HttpHandler()
    verifier = StaticTokenVerifier({TOKEN: "ann"})
    async with open_hub(
        SCHEMA, SQLiteHubStore(tmp_path / "hub.db"), verifier=verifier, listener=lambda call: said.append(repr(call))
    ) as hub:
        async with open_server(hub, "127.0.0.1:0", pages=face) as address, open_tap(address, requests) as tapped:
            transport = MADE[spoken](tapped, TOKEN)
            remote = Remote(transport)
            plugins: list[Plugin] = [
                LocalExecution(SQLiteEngine(tmp_path / "a.db")),
                remote,
                eye,
                Sync([CARDS], ("main",)),
            ]
            async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
                client.listen(lambda event: said.append(repr(event)))
                add_inspector(face, [Inspected("main", "a client", client, eye)])
                handle = await client.store(CARDS).insert(Card(id="1", title="t", board="main"))
                with trio.fail_after(60):
                    await handle.observed()
                said += [repr(hub.sessions()), repr(list(hub.registry)), repr(hub), repr(verifier), repr(client)]
                said += [repr(transport), repr(remote), repr(client.sync.status), repr(client.topology())]
                await hub.end("ann")
                async with refused(MADE[spoken](tapped, REVOKED), said):
                    pass
                handle = await client.store(CARDS).insert(Card(id="2", title="t", board="main"))
                client.sync.poke()
                with trio.fail_after(60):
                    await handle.observed()
                said.append(repr(client.sync.status))
                for path in ("/inspector", "/api/inspector", "/api/inspector/rows?client=main&store=cards"):
                    said.append(await page(address, path))
    assert said
    assert leaks("\n".join(said)) == []
    assert leaks(caplog.text) == []
    assert leaks(requests.decode("latin-1")) == [], "what comes back does not repeat it"
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 2
    for file in files:
        assert leaks(file.read_bytes().decode("latin-1")) == [], file.name
        assert CANARY not in file.name


async def page(address: str, path: str) -> str:
    """What a browser on this machine is shown."""
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join([data async for data in stream]).decode("latin-1")
    assert answer.startswith("HTTP/1.1 200"), answer[:200]
    return answer


@pytest.mark.parametrize("spoken", MADE)
async def test_what_is_sent_has_it_in_its_field_and_not_in_an_address(spoken: str) -> None:
    sent = bytearray()

    async def take(stream: trio.SocketStream) -> None:
        with trio.move_on_after(1):
            async for data in stream:
                sent.extend(data)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, take, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with trio.move_on_after(0.5), suppress(AtomaError):
            async with MADE[spoken](f"127.0.0.1:{port}", TOKEN).connect():
                pass
        nursery.cancel_scope.cancel()
    text = sent.decode("latin-1")
    target = text.partition("\r\n")[0]
    assert target, "something was sent"
    assert leaks(target) == []
    for line in leaks(text) if spoken != "grpc" else ():  # which packs its fields
        assert line.lower().startswith("authorization: bearer "), line
