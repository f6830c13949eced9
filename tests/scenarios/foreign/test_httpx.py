"""A Python program with httpx against a real hub: one connection for many calls, rows by pages, guarded changes, events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.hub import StaticTokenVerifier, open_hub
from atoma.schema import Schema, StoreSpec
from atoma_stores.sqlite import SQLiteHubStore
from atoma_transports.serving import open_server

httpx = pytest.importorskip("httpx", reason="the test group has it")
pytestmark = pytest.mark.xdist_group("machine")
PATIENCE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    board: str = "main"


SCHEMA = Schema(StoreSpec("cards", Card, scope="board"))


@asynccontextmanager
async def open_session(folder: Path) -> AsyncGenerator[Any]:
    """A client of httpx with the address and the token of a hub."""
    verifier = StaticTokenVerifier({"a-secret": "alice"})
    async with open_hub(SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=verifier) as hub:
        async with open_server(hub, "127.0.0.1:0") as address:
            with trio.fail_after(PATIENCE_S):
                limits = httpx.Limits(max_connections=4)  # a hub grants sixteen, and a pool opens a hundred by itself
                async with httpx.AsyncClient(
                    base_url=f"http://{address}/v1",
                    headers={"authorization": "Bearer a-secret"},
                    timeout=PATIENCE_S,
                    limits=limits,
                ) as session:
                    yield session


async def call(session: Any, method: str, message: Mapping[str, object]) -> Any:
    answer = await session.post(f"/{method}", json=message)
    assert answer.status_code == 200, answer.text
    return answer.json()


def write(key: str, kind: str, id: str, title: str, **more: object) -> dict[str, object]:
    values = {"title": title, "board": "main"} if kind == "create" else {"title": title}
    op = {"kind": kind, "store": "cards", "id": id, "scope": "main", "values": values, **more}
    return {"idem": key, "options": {}, "ops": [{"index": 0, "op": op}]}


async def test_rows_are_written_at_once_and_pulled_page_by_page(tmp_path: Path) -> None:
    async with open_session(tmp_path) as session:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(call, session, "write", write(f"key-{number}", "create", f"c{number}", "tea" * 200))
        cursor: object = {}
        more, ids = True, list[str]()
        while more:
            asked = {"scope": "main", "cursor": cursor, "client_id": "bXktc2NyaXB0", "max_changes": 7}
            reply = await call(session, "pull", asked)
            cursor, more = reply["end"], reply["more"]
            ids += [row[1] for part in reply["stores"] for row in part["rows"]]
        assert sorted(ids) == sorted(f"c{number}" for number in range(40))
        whole = await session.post("/docs/cards/pull", params={"scope": "main"}, json={"limit": 100})
        assert whole.headers["content-encoding"] == "gzip", "it is asked for by itself"
        assert {row["id"] for row in whole.json()["documents"]} == set(ids)


async def test_a_change_of_what_somebody_else_has_changed_is_refused(tmp_path: Path) -> None:
    async with open_session(tmp_path) as session:
        (made,) = (await call(session, "write", write("key-1", "create", "c1", "tea")))["results"]
        guard = {"base_version": made["version"]}
        (first,) = (await call(session, "write", write("key-2", "patch", "c1", "milk", **guard)))["results"]
        (second,) = (await call(session, "write", write("key-3", "patch", "c1", "juice", **guard)))["results"]
        assert (first["row"]["title"], second["ok"], second["error"]["code"]) == ("milk", False, "CONFLICT")
        stranger = await session.post("/query", json={}, headers={"authorization": "Bearer guessed"})
        assert (stranger.status_code, stranger.json()["error"]["code"]) == (401, "UNAUTHENTICATED")


async def test_events_come_while_the_program_writes(tmp_path: Path) -> None:
    async with open_session(tmp_path) as session:
        heads = await trio.to_thread.run_sync(_listen, str(session.base_url))
        assert heads == [0, 1, 2, 3]
        plan = {"source": ["store", "cards"]}
        asked = {"ops": [{"index": 0, "name": "query", "store": "cards", "query": {"plan": plan}}]}
        (found,) = (await call(session, "query", asked))["results"]
        assert len(found["found"]["rows"]) == 3


def _listen(url: str) -> list[int]:
    """The heads that a program without a loop hears of, which writes a card at each."""
    heads: list[int] = []
    who = {"authorization": "Bearer a-secret"}
    with httpx.Client(base_url=url, headers=who, timeout=PATIENCE_S) as session:
        with session.stream("GET", "/notify", params={"scope": "main"}) as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            for line in events.iter_lines():
                if line.startswith("data:") and "head" in (said := json.loads(line.removeprefix("data:"))):
                    heads.append(int(said["head"]))
                    if heads[-1] == 3:
                        return heads
                    written = session.post("/write", json=write(f"key-{heads[-1]}", "create", f"c{heads[-1]}", "tea"))
                    assert written.status_code == 200, written.text
    return heads
