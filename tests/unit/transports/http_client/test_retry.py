"""A retry above the transport really sends again: a server over HTTP that answers 503 first, and 200 then."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from atoma import Schema, StoreSpec, open_client
from atoma.contracts.codec import encode
from atoma.contracts.policy import Policy
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, RemoteError, WriteUnknown
from atoma.kernel import Backoff, node, retry
from atoma.plugins import Plugin, PluginContext
from atoma.ports import PortKey
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.http.client import HttpTransport
from atoma_transports.remote import Remote
from tests.unit.transports.http_client.h11_server import Asked, HangUp, ScriptedServer, is_probe, open_scripted, polite

REMOTE = node("remote-http")
ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""


NOTES = StoreSpec("notes", Note)


@dataclass
class Patient:
    """Registers the policy that tries again."""

    id: str = "patient"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        again = retry(REMOTE, ATTEMPTS, Backoff(initial_s=0.01, max_s=0.02))
        context.register_policy(Policy("patient", again, again))
        yield


@dataclass
class Flaky:
    """Refuses some requests, then answers."""

    refusals: list[Any] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def __call__(self, asked: Asked) -> None:
        if is_probe(asked):
            await polite(asked)
            return
        self.times.append(trio.current_time())
        if self.refusals:
            refusal = self.refusals.pop(0)
            if refusal is HangUp:
                raise HangUp
            await refusal(asked)
            return
        content: Any = asked.content
        results = [
            {"index": op["index"], "id": op.get("id", ""), "changed": True, "version": 1, "row": op.get("values")}
            for one in content["ops"]
            for op in [{**one.get("op", {}), "index": one["index"]}]
        ]
        if asked.path == "/v1/query":
            results = [{"index": 0, "found": {"columns": ["text"], "rows": [["a", 1, 1, "main", "hello"]]}}]
        await asked.answer(encode({"results": results}))


def unavailable(wait_ms: int = 0) -> Any:
    return lambda asked: asked.refuse(ErrorInfo("UNAVAILABLE", "starting up", True, wait_ms))


def page(status: int, **headers: str) -> Any:
    return lambda asked: asked.answer(b"<html>", status, "text/html", **headers)


@asynccontextmanager
async def client_of(server: ScriptedServer) -> AsyncGenerator[Any]:
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(":memory:")), Remote(HttpTransport(server.url)), Patient()]
    async with open_client(Schema(NOTES), plugins=plugins, policy="patient") as client:
        yield client.store(NOTES)


def keys(server: ScriptedServer) -> list[str]:
    contents: list[Any] = [asked.content for asked in server.asked if asked.path == "/v1/write"]
    return [content["idem"] for content in contents]


REFUSALS = {"503": unavailable(), "a page with 503": page(503), "a page with 502": page(502), "a lost reply": HangUp}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_a_write_that_met_a_503_is_sent_again_under_the_same_key(refusal: Any) -> None:
    flaky = Flaky([refusal])
    async with open_scripted(flaky) as server, client_of(server) as notes:
        handle = await notes.insert(Note(id="a", text="once"), confirm="strict")
        assert handle.value.id == "a"
        first, second = keys(server)
        assert first == second != ""
        bodies = [asked.body for asked in server.asked if asked.path == "/v1/write"]
        assert bodies[0] == bodies[1]


async def test_tries_are_counted_and_wait_as_long_as_the_server_asks() -> None:
    flaky = Flaky([unavailable(150), page(503, retry_after="1")])
    async with open_scripted(flaky) as server, client_of(server) as notes:
        found = await notes.query()
        assert [note.text for note in found] == ["hello"]
        assert [step.node for step in found.meta.path] == ["remote-http"] * 3
        waits = [later - earlier for earlier, later in zip(flaky.times, flaky.times[1:], strict=False)]
        assert (waits[0] >= 0.15, waits[1] >= 1.0) == (True, True)
        flaky.refusals = [unavailable()] * 10
        with pytest.raises(AtomaError):
            await notes.query()
        assert len(server.paths()) == 3 + ATTEMPTS


async def test_only_what_a_retry_can_help_is_tried_again() -> None:
    async with open_scripted(flaky := Flaky()) as server, client_of(server) as notes:
        flaky.refusals = [lambda asked: asked.refuse(ErrorInfo("QUERY", "no such field"), 400)] * 3
        with pytest.raises(RemoteError, match="no such field"):
            await notes.query()
        assert len(server.paths()) == 1
        flaky.refusals = [unavailable()] * 3
        with pytest.raises(WriteUnknown):
            await notes.insert(Note(id="b"), confirm="strict")
        assert len(set(keys(server))) == 1
        assert len(keys(server)) == ATTEMPTS
