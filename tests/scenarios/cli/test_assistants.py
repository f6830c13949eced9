"""``atoma mcp``: what an assistant asks in the protocol's words is answered, and nothing that it says writes, or ends the program."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from atoma.cli.assistants import LINE_MAX, serve
from tests.scenarios.cli.kit import atoma, titles, write


def said(file: Path, *messages: str | dict[str, Any]) -> list[dict[str, Any]]:
    """The answers to some messages; text is sent as it is."""
    lines: list[str] = []
    for each in messages:
        lines.append(each if isinstance(each, str) else json.dumps({"jsonrpc": "2.0", **each}))
    written = io.BytesIO()
    serve(str(file), io.BytesIO("".join(line + "\n" for line in lines).encode()), written)
    return [json.loads(line) for line in written.getvalue().splitlines()]


def called(file: Path, tool: str, **arguments: object) -> dict[str, Any]:
    (answer,) = said(file, {"id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
    result: dict[str, Any] = answer.get("result") or answer["error"]
    return result


async def test_an_assistant_learns_what_a_file_is_and_asks_it_as_a_program_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    await write(file, "", range(1, 4))
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": "2", "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "describe"}},
        {
            "id": 4,
            "method": "tools/call",
            "params": {
                "name": "query",
                "arguments": {"sql": "SELECT id FROM tasks WHERE id > :i", "params": {"i": "1"}},
            },
        },
    ]
    lines = "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages)
    ended = subprocess.run(
        [sys.executable, "-m", "atoma", "mcp", str(file)],
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, listed, described, asked = map(json.loads, ended.stdout.splitlines())
    assert (first["id"], first["result"]["serverInfo"]["name"]) == (1, "atoma")
    assert [tool["name"] for tool in listed["result"]["tools"]] == ["describe", "query"]
    told = described["result"]["structuredContent"]
    assert told["rows"]["tasks"] == 3
    assert any("title" in sql for sql in told["tables"])
    assert not any("_atoma_pending" in sql for sql in told["tables"])
    assert asked["result"]["structuredContent"] == {"columns": ["id"], "rows": [["2"], ["3"]], "more": False}
    assert json.loads(asked["result"]["content"][0]["text"]) == asked["result"]["structuredContent"]
    assert ended.stderr == ""


async def test_nothing_is_written_and_what_is_refused_is_said_to_the_assistant(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    await write(file, "", range(1, 4))
    for sql in ("DELETE FROM tasks", "SELECT * FROM _atoma_meta", "ATTACH 'b.db' AS b", "SELECT nothing FROM tasks"):
        refused = called(file, "query", sql=sql)
        assert refused["isError"] and refused["content"][0]["text"].startswith("QUERY: ")
    assert called(file, "query", sql="SELECT 1", limit=0)["isError"]
    some = called(file, "query", sql="SELECT id FROM tasks", limit=2)["structuredContent"]
    assert (len(some["rows"]), some["more"]) == (2, True)
    assert len(titles(file)) == 3


async def test_messages_that_make_no_sense_are_answered_by_the_protocols_codes(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    await write(file, "", range(1, 2))
    answers = said(
        file,
        "not JSON",
        {"id": 1},
        {"id": 2, "method": "resources/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "drop"}},
        {"id": 4, "method": "tools/call", "params": {"name": "query", "arguments": {"sql": 5}}},
        {"method": "notifications/nonsense"},
        {"id": 5, "method": "ping"},
    )
    assert [answer.get("error", {}).get("code") for answer in answers] == [-32700, -32600, -32601, -32602, -32602, None]
    assert said(file, "x" * (LINE_MAX + 5), {"id": 1, "method": "ping"})[0]["error"]["code"] == -32600
    missing = atoma("mcp", tmp_path / "none.db")
    assert (missing.code, missing.out) == (1, "") and missing.err.startswith("atoma: ")
