"""curl against a real hub: JSON in and out, errors, hints as they come."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.hub import StaticTokenVerifier, open_hub
from atoma.schema import Schema, StoreSpec
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.serving import open_server

CURL = shutil.which("curl") or ""
pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.skipif(not CURL, reason="needs the curl program")]
PATIENCE_S = 30
JSON = ["-H", "content-type: application/json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    lane: str = "todo"
    board: str = "main"
    size: int = 0


SCHEMA = Schema(StoreSpec("cards", Card, scope="board"))


@dataclass(frozen=True)
class Answer:
    status: int
    fields: dict[str, str]
    text: str

    @property
    def value(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Curl:
    """curl, with the address and the token of a hub."""

    address: str

    def command(self, path: str, *more: str, token: str = "a-secret") -> list[str]:
        who = ["-H", f"authorization: Bearer {token}"] if token else []
        return [CURL, "-sS", "--max-time", str(PATIENCE_S), *who, *more, f"http://{self.address}{path}"]

    async def __call__(self, path: str, *more: str, token: str = "a-secret") -> Answer:
        ran = await trio.run_process(self.command(path, "-i", *more, token=token), capture_stdout=True, check=False)
        assert ran.returncode == 0, ran
        *_, head, text = ran.stdout.decode().replace("HTTP/1.1 100 Continue\r\n\r\n", "").split("\r\n\r\n", 1)
        first, *lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.split()[1]), fields, text)

    async def post(self, method: str, body: object, *more: str, token: str = "a-secret") -> Answer:
        return await self(f"/v1/{method}", *JSON, "-d", json.dumps(body), *more, token=token)


@asynccontextmanager
async def open_curl(folder: Path) -> AsyncGenerator[Curl]:
    verifier = StaticTokenVerifier({"a-secret": "alice"})
    async with open_hub(SCHEMA, SQLiteHubStore(str(folder / "hub.db")), verifier=verifier) as hub:
        async with open_server(hub, "127.0.0.1:0") as address:
            with trio.fail_after(2 * PATIENCE_S):
                yield Curl(address)


def write(key: str, *titles: str, **more: object) -> dict[str, object]:
    ops = [
        {
            "index": index,
            "name": "insert",
            "store": "cards",
            "id": f"{key}-{index}",
            "scope": "main",
            "values": {"title": title, "lane": "todo", "board": "main", "size": 7, **more},
        }
        for index, title in enumerate(titles)
    ]
    return {"ops": ops, "idem": key, "options": {}}


def query(params: Sequence[object] = (), **more: object) -> dict[str, object]:
    plan = {"source": ["store", "cards"], "order": [[["col", 0, "id"]]], **more}
    return {"ops": [{"index": 0, "name": "query", "store": "cards", "query": {"plan": plan, "params": params}}]}


async def test_rows_are_written_and_read(tmp_path: Path) -> None:
    async with open_curl(tmp_path) as curl:
        for _ in range(2):  # the second time it is the same write
            written = await curl.post("write", write("k1", "tee", "Kaffee ☕"))
            assert (written.status, written.fields["content-type"]) == (200, "application/json")
            assert [result["id"] for result in written.value["results"]] == ["k1-0", "k1-1"]
        where = ["call", "eq", [["col", 0, "title"], ["param", 0, "text"]]]
        (result,) = (await curl.post("query", query(["Kaffee ☕"], where=where))).value["results"]
        (row,) = result["found"]["rows"]
        assert dict(zip(result["found"]["columns"], row[4:], strict=True))["title"] == "Kaffee ☕"
        assert row[0] == "k1-1"
        (result,) = (await curl.post("query", query(columns=[["count", ["agg", "count"]]], order=[]))).value["results"]
        assert result["tuples"] == [[2]]
        resolved = await curl.post("resolve", {"idem": "k1"})
        assert resolved.value["abandoned"] is False


async def test_large_bodies_are_announced_first(tmp_path: Path) -> None:
    async with open_curl(tmp_path) as curl:
        body = tmp_path / "body.json"
        body.write_text(json.dumps(write("big", "x" * 1_000_000)))
        answer = await curl("/v1/write", *JSON, "-H", "expect: 100-continue", "--data-binary", f"@{body}")
        assert (answer.status, answer.value["results"][0]["id"]) == (200, "big-0")
        body.write_text(json.dumps(write("huge", "x" * 6_000_000)))
        answer = await curl("/v1/write", *JSON, "-H", "expect: 100-continue", "--data-binary", f"@{body}")
        assert (answer.status, answer.value["error"]["code"]) == (413, "TOO_LARGE")
        answer = await curl("/v1/write", *JSON, "-H", "expect: 100-continue", "-d", f"@{body}", token="wrong")
        assert answer.status == 401


async def test_errors_say_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    async with open_curl(tmp_path) as curl:
        for answer, status, code in (
            (await curl.post("query", query(), token=""), 401, "UNAUTHENTICATED"),
            (await curl.post("query", query(), token="wrong"), 401, "UNAUTHENTICATED"),
            (await curl.post("query", query(where=["sql", "1 = 1"])), 400, "MALFORMED"),
            (await curl.post("query", query(order=[[["col", 0, "nowhere"]]])), 409, "QUERY"),
            (await curl.post("query", query(source=["store", "cards", True])), 409, "UNSUPPORTED"),
            (await curl.post("query", {"ops": []}), 400, "MALFORMED"),
            (await curl.post("nothing", {}), 404, "UNIMPLEMENTED"),
            (await curl("/v1/query"), 405, "UNIMPLEMENTED"),
            (await curl("/v1/query", "-d", "a=b"), 415, "MALFORMED"),
            (await curl.post("query", query(), "-H", "Origin: https://evil.example"), 403, "PERMISSION_DENIED"),
        ):
            assert (answer.status, answer.value["error"]["code"]) == (status, code)
            assert "Traceback" not in answer.text
            assert "SELECT" not in answer.text
            assert str(tmp_path) not in answer.text
        refused = (await curl.post("write", write("k2", "x", lane=5))).value["results"][0]
        assert refused["ok"] is False


async def test_hints_come_as_events_while_others_write(tmp_path: Path) -> None:
    async with open_curl(tmp_path) as curl, trio.open_nursery() as nursery:
        listen = curl.command("/v1/notify?scope=main", "-N")
        process = await trio.lowlevel.open_process(listen, stdout=subprocess.PIPE)
        assert process.stdout is not None
        seen = b""
        heads: list[int] = []
        try:
            async for data in process.stdout:
                seen += data
                *events, seen = seen.split(b"\n\n")
                for event in events:
                    if event.startswith(b"event: hint\n"):
                        hint = json.loads(event.partition(b"data: ")[2])
                        assert hint["scope"] == "main"
                        heads.append(int(hint["head"]))
                        if len(heads) < 4:
                            nursery.start_soon(curl.post, "write", write(f"k{len(heads)}", "x"))
                if len(heads) >= 4:
                    break
        finally:
            process.terminate()
            await process.wait()
        assert heads == sorted(heads)
        assert heads[-1] >= 3


async def test_bodies_are_compressed_both_ways(tmp_path: Path) -> None:
    async with open_curl(tmp_path) as curl:
        rows = [{"newDocumentState": {"id": f"c{number}", "title": "tea", "board": "main"}} for number in range(200)]
        body = tmp_path / "push.json.gz"
        body.write_bytes(gzip.compress(json.dumps({"rows": rows}).encode()))
        packed = ["-H", "content-encoding: gzip", "--data-binary", f"@{body}"]
        pushed = await curl("/v1/docs/cards/push?scope=main", *JSON, *packed)
        assert (pushed.status, pushed.value) == (200, {"conflicts": [], "refused": []})
        pulled = await curl("/v1/docs/cards/pull?scope=main", *JSON, "-d", '{"limit": 1000}', "--compressed")
        assert pulled.fields["content-encoding"] == "gzip"
        assert int(pulled.fields["content-length"]) < len(pulled.text) / 4
        assert len(pulled.value["documents"]) == 200
        body.write_bytes(gzip.compress(b" " * 50_000_000))
        bomb = await curl("/v1/docs/cards/push?scope=main", *JSON, *packed)
        assert (bomb.status, bomb.value["error"]["code"]) == (413, "TOO_LARGE")
