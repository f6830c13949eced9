"""What the demo's server refuses, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.xdist_group("machine")

if TYPE_CHECKING:
    from .conftest import RunningDemo

FIRST_CARDS = 12
JSON = {"Content-Type": "application/json"}


def ask(demo: RunningDemo, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    place = urlsplit(demo.address)
    connection = HTTPConnection(str(place.hostname), place.port, timeout=10)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_foreign_pages_and_foreign_names_are_refused(shared_demo: RunningDemo) -> None:
    wish = {"title": "from elsewhere", "lane": "todo"}
    assert ask(shared_demo, "POST", "/api/a/add", wish, Content_Type="text/plain")[0] == 415
    assert ask(shared_demo, "POST", "/api/a/add", wish, Origin="http://evil.example", **JSON)[0] == 403
    assert ask(shared_demo, "POST", "/api/a/add", wish, Host="evil.example", **JSON)[0] == 421
    assert ask(shared_demo, "GET", "/inspector", Host="evil.example")[0] == 421
    assert ask(shared_demo, "GET", "/static/demo/../page.py")[0] == 404
    assert b"from elsewhere" not in ask(shared_demo, "GET", "/api/inspector/rows?client=a&store=cards")[1]


@pytest.mark.parametrize(
    ("command", "body", "status", "says"),
    [
        ("add", {"title": "x", "lane": "attic"}, 409, "a lane is one of"),
        ("add", {"title": "   ", "lane": "todo"}, 409, "a title has 1 to 200 characters"),
        ("add", {"title": 7, "lane": "todo"}, 409, "a title has 1 to 200 characters"),
        ("add", ["x"], 400, "send a JSON object"),
        ("edit", {"title": "x"}, 400, "id has to be text"),
        ("edit", {"id": "nobody", "title": "x"}, 409, "nobody"),
        ("plug", {"plugged": "no"}, 400, "plugged has to be true or false"),
        ("inbox", {"id": "nobody", "mid": 1, "action": "keep"}, 409, "nobody"),
        ("inbox", {"id": "nobody", "mid": 1, "action": "keep", "fields": ["title"]}, 409, "nobody"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(
    shared_demo: RunningDemo, command: str, body: object, status: int, says: str
) -> None:
    answered, text = ask(shared_demo, "POST", f"/api/a/{command}", body, **JSON)
    assert (answered, says in text.decode()) == (status, True), text


def test_the_inspector_says_which_store_or_client_is_unknown(shared_demo: RunningDemo) -> None:
    status, answer = ask(shared_demo, "GET", "/api/inspector/rows?client=a&store=carts")
    assert (status, json.loads(answer)["error"]["message"]) == (
        404,
        "no store named 'carts'; the schema declares: cards",
    )
    assert ask(shared_demo, "GET", "/api/inspector/rows?client=z&store=cards") == (
        404,
        b"no client 'z'; there are: a, b\n",
    )


def test_ctrl_c_ends_the_demo_within_a_second_even_with_open_streams(demo: RunningDemo) -> None:
    place = urlsplit(demo.address)
    streams = [HTTPConnection(str(place.hostname), place.port, timeout=10) for _ in range(3)]
    for stream, path in zip(
        streams, ("/api/events", "/api/inspector/a/events", "/api/inspector/b/events"), strict=True
    ):
        stream.request("GET", path)
        assert stream.getresponse().read(6) == b"event:"
    code, output = demo.interrupt(within_s=10.0)
    for stream in streams:
        stream.close()
    assert code in (0, 130)
    assert "Traceback" not in output


def test_the_files_keep_the_boards_for_the_next_time(demo: RunningDemo, start: Callable[[Path], RunningDemo]) -> None:
    assert ask(demo, "POST", "/api/b/add", {"title": "still here tomorrow", "lane": "done"}, **JSON)[0] == 200
    demo.interrupt(within_s=10.0)
    again = start(demo.directory)
    rows = json.loads(ask(again, "GET", "/api/inspector/rows?client=b&store=cards")[1])["rows"]
    assert [row[1] for row in rows].count("still here tomorrow") == 1
    assert len(rows) == FIRST_CARDS + 1
