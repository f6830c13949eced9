"""The HTTP handler: pages, JSON and event streams, and what it refuses."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from atoma.errors import AuthenticationError
from atoma.ports import Peer, Principal, SyncService
from atoma_transports.calls import ChannelLimits
from atoma_transports.http import (
    EventSender,
    HttpError,
    HttpHandler,
    HttpRequest,
    HttpResponse,
    json_response,
)
from atoma_transports.serving.addresses import host_check
from atoma_transports.serving.handlers import Hosting
from tests.unit.transports.kit import Unasked

pytestmark = pytest.mark.virtual_time
PEER = Peer("127.0.0.1", True, "http")


class Host(Unasked):
    """Lets nobody in: pages ask for no token."""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        raise AuthenticationError("nobody is known here")

    def service(self, principal: Principal) -> SyncService:
        return self


class Site:
    """A handler with one of everything, and the client's end of one connection to it."""

    def __init__(self, package: str = "") -> None:
        self.active = 0
        self.drain = trio.Event()
        self.handler = HttpHandler()
        self.handler.get("/state", self.state)
        self.handler.get("/fails", self.fails)
        self.handler.get("/long", self.long)
        self.handler.post("/act", self.act)
        self.handler.events("/events", self.feed)
        self.handler.events("/refused", self.refused)
        self.handler.events("/broken", self.broken)
        self.handler.events("/quiet", self.quiet)
        if package:
            self.handler.folder("/", package, "static")
        self.ours, self.theirs = trio.testing.memory_stream_pair()
        self.received = b""

    async def state(self, request: HttpRequest) -> HttpResponse:
        return json_response({"path": request.path, "query": dict(request.query)})

    async def fails(self, request: HttpRequest) -> HttpResponse:
        raise RuntimeError("SELECT secret")

    async def long(self, request: HttpRequest) -> HttpResponse:
        self.active += 1
        try:
            await trio.sleep_forever()
        finally:
            self.active -= 1
        raise AssertionError

    async def act(self, request: HttpRequest) -> HttpResponse:
        value = request.json()
        if value == "teapot":
            raise HttpError(418, "short and stout")
        return json_response({"got": value}, status=201)

    async def feed(self, request: HttpRequest, send: EventSender) -> None:
        self.active += 1
        try:
            for number in range(3):
                await send(f"line {number}\nsecond", event="tick", id=str(number))
            await trio.sleep_forever()
        finally:
            self.active -= 1

    async def refused(self, request: HttpRequest, send: EventSender) -> None:
        await trio.sleep(0.05)
        raise HttpError(403, "not for you")

    async def broken(self, request: HttpRequest, send: EventSender) -> None:
        raise RuntimeError("SELECT secret")

    async def quiet(self, request: HttpRequest, send: EventSender) -> None:
        await trio.sleep_forever()

    async def run(self) -> None:
        hosting = Hosting(Host(), PEER, host_check(()), ChannelLimits(), self.drain)
        try:
            await self.handler.serve(self.theirs, hosting)
        finally:
            await trio.aclose_forcefully(self.theirs)

    async def send(self, text: str) -> None:
        await self.ours.send_all(text.replace("\n", "\r\n").encode())

    async def ask(self, method: str, path: str, body: str = "", **fields: str) -> tuple[int, dict[str, str], str]:
        given = {"host": "127.0.0.1:1", **{name.replace("_", "-"): value for name, value in fields.items()}}
        if body:
            given.setdefault("content-length", str(len(body.encode())))
            given.setdefault("content-type", "application/json")
        lines = "".join(f"{name}: {value}\n" for name, value in given.items() if value)
        await self.send(f"{method} {path} HTTP/1.1\n{lines}\n{body}")
        return await self.answer(head_only=method == "HEAD")

    async def read_until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            data = await self.ours.receive_some()
            if not data:
                raise EOFError(self.received)
            self.received += data
        found, _, self.received = self.received.partition(mark)
        return found

    async def answer(self, *, head_only: bool = False) -> tuple[int, dict[str, str], str]:
        first, *lines = (await self.read_until(b"\r\n\r\n")).decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = 0 if head_only else int(fields.get("content-length", 0))
        while len(self.received) < size:
            self.received += await self.ours.receive_some()
        body, self.received = self.received[:size], self.received[size:]
        return int(first.split()[1]), fields, body.decode()

    async def closed(self) -> bool:
        with trio.fail_after(200):
            return not self.received and not await self.ours.receive_some()


@asynccontextmanager
async def site(package: str = "") -> AsyncGenerator[Site]:
    async with trio.open_nursery() as nursery:
        opened = Site(package)
        nursery.start_soon(opened.run)
        yield opened
        nursery.cancel_scope.cancel()


async def test_one_connection_carries_many_requests() -> None:
    async with site() as page:
        for number in range(3):
            status, fields, body = await page.ask("GET", f"/state?n={number}&t=%C3%BC")
            assert (status, fields["content-type"]) == (200, "application/json")
            assert json.loads(body) == {"path": "/state", "query": {"n": str(number), "t": "ü"}}
            assert "default-src 'self'" in fields["content-security-policy"]
            assert fields["x-content-type-options"] == "nosniff"


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    async with site() as page:
        await page.send("".join(f"GET /state?n={n} HTTP/1.1\nhost: localhost\n\n" for n in range(3)))
        answers = [json.loads((await page.answer())[2])["query"]["n"] for _ in range(3)]
        assert answers == ["0", "1", "2"]


async def test_head_is_get_without_the_body() -> None:
    async with site() as page:
        status, fields, body = await page.ask("HEAD", "/state")
        assert (status, int(fields["content-length"]) > 0, body) == (200, True, "")
        assert (await page.ask("GET", "/state"))[0] == 200


async def test_a_post_takes_json_and_a_handler_can_refuse() -> None:
    async with site() as page:
        assert (await page.ask("POST", "/act", '{"a": [1, null]}'))[::2] == (201, '{"got":{"a":[1,null]}}')
        assert (await page.ask("POST", "/act", '"teapot"'))[::2] == (418, "short and stout\n")
        assert (await page.ask("POST", "/act", "{"))[0] == 400
        assert (await page.ask("POST", "/act", "[" * 30_000))[0] == 400
        assert (await page.ask("POST", "/act", "[" * 100_000))[0] == 413
        assert (await page.ask("POST", "/act", "1", content_type="application/json; charset=utf-8"))[0] == 201


async def test_a_body_in_chunks_and_an_expected_100_work() -> None:
    async with site() as page:
        await page.send(
            "POST /act HTTP/1.1\nhost: localhost\ncontent-type: application/json\n"
            "transfer-encoding: chunked\nexpect: 100-continue\n\n"
        )
        assert (await page.answer())[0] == 100
        await page.send("2\n[1\n2\n,2\n1\n]\n0\n\n")
        assert (await page.answer())[::2] == (201, '{"got":[1,2]}')


@pytest.mark.parametrize(
    ("method", "path", "body", "fields", "status"),
    [
        ("GET", "/nowhere", "", {}, 404),
        ("POST", "/state", "1", {}, 405),
        ("GET", "/act", "", {}, 405),
        ("DELETE", "/state", "", {}, 405),
        ("OPTIONS", "/act", "", {}, 405),
        ("POST", "/act", "a=b", {"content_type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/act", "1", {"content_type": "text/plain"}, 415),
        ("POST", "/act", "1", {"origin": "http://evil.example"}, 403),
        ("POST", "/act", "1", {"origin": "http://127.0.0.1:1"}, 201),
        ("POST", "/act", "1", {"origin": "null"}, 403),
        ("GET", "/state", "", {"host": "evil.example"}, 421),
        ("GET", "/state", "", {"host": "evil.example:8765"}, 421),
        ("GET", "/state", "", {"host": "localhost.evil.example"}, 421),
        ("GET", "/state", "", {"host": "localhost:8765"}, 200),
        ("GET", "/state", "", {"host": "[::1]:8765"}, 200),
        ("GET", "/state", "", {"host": "192.168.1.5"}, 200),
        ("GET", "/state", "", {"host": ""}, 400),
        ("GET", "/fails", "", {}, 500),
        ("GET", "/state", "", {"upgrade": "websocket", "connection": "upgrade"}, 403),
    ],
)
async def test_what_is_refused(
    method: str, path: str, body: str, fields: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")
    async with site() as page:
        answered, _, text = await page.ask(method, path, body, **fields)
        assert answered == status
        assert "SELECT" not in text


async def test_a_body_with_two_lengths_is_refused_and_ends_the_connection() -> None:
    async with site() as page:
        await page.send(
            "POST /act HTTP/1.1\nhost: localhost\ncontent-type: application/json\ncontent-length: 3\n"
            "transfer-encoding: chunked\n\n1\n1\n0\n\n"
        )
        assert (await page.answer())[0] == 400
        assert await page.closed()


async def test_sizes_have_bounds() -> None:
    async with site() as page:
        assert (await page.ask("POST", "/act", json.dumps("x" * (1024 * 1024 - 2))))[0] == 201
    async with site() as page:
        assert (await page.ask("POST", "/act", json.dumps("x" * (1024 * 1024 - 1))))[0] == 413
    async with site() as page:
        assert (await page.ask("GET", "/state", x="y" * 200_000))[0] == 431
        assert await page.closed()


async def test_who_dawdles_is_hung_up_on() -> None:
    async with site() as page:
        began = trio.current_time()
        await page.send("GET /state HT")
        assert await page.closed()
        assert trio.current_time() - began == pytest.approx(10)
    async with site() as page:
        await page.ask("GET", "/state")
        began = trio.current_time()
        assert await page.closed()
        assert trio.current_time() - began == pytest.approx(75)
    async with site() as page:
        began = trio.current_time()
        await page.send("POST /act HTTP/1.1\nhost: localhost\ncontent-type: application/json\ncontent-length: 9\n\n1")
        assert (await page.answer())[0] == 408
        assert trio.current_time() - began == pytest.approx(30, abs=0.01)


@pytest.mark.parametrize("noise", ["\n\n\n\n", "GET\n\n", "\x16\x03\x01\n\n", "PRI * HTTP/2.0\n\nSM\n\n"])
async def test_noise_gets_a_400_and_an_end(noise: str) -> None:
    async with site() as page:
        await page.send(noise)
        assert 400 <= (await page.answer())[0] < 600
        assert await page.closed()


async def test_events_come_and_the_handler_ends_with_its_client() -> None:
    async with site() as page:
        await page.send("GET /events HTTP/1.1\nhost: localhost\n\n")
        head = await page.read_until(b"\r\n\r\n")
        assert b"text/event-stream" in head
        text = await page.read_until(b"line 2\ndata: second\n\n")
        assert b"id: 1\nevent: tick\ndata: line 1\ndata: second\n\n" in text
        assert page.active == 1
        await page.read_until(b": still here")  # a sign of life, fifteen seconds later
        await page.ours.aclose()
        with trio.fail_after(1):
            await trio.testing.wait_all_tasks_blocked()
        assert page.active == 0


async def test_a_long_handler_ends_with_its_client() -> None:
    async with site() as page:
        await page.send("GET /long HTTP/1.1\nhost: localhost\n\n")
        await trio.testing.wait_all_tasks_blocked()
        assert page.active == 1
        await page.ours.aclose()
        with trio.fail_after(0.1):
            while page.active:
                await trio.sleep(0.001)


async def test_draining_ends_idle_connections_and_event_streams() -> None:
    async with site() as page:
        await page.ask("GET", "/state")
        page.drain.set()
        with trio.fail_after(1):
            assert await page.closed()
    async with site() as page:
        await page.send("GET /events HTTP/1.1\nhost: localhost\n\n")
        await page.read_until(b"line 2")
        page.drain.set()
        with trio.fail_after(1):
            while await page.ours.receive_some():
                pass
        assert page.active == 0


async def test_files_come_from_the_package_and_from_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "pages_of_a_test"
    (package / "static" / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("SECRET = 1\n")
    (package / "static" / "index.html").write_text("<h1>hello</h1>")
    (package / "static" / "app.js").write_text("1")
    (package / "static" / "sub" / "logo.png").write_bytes(b"png")
    monkeypatch.syspath_prepend(tmp_path)
    async with site("pages_of_a_test") as page:
        status, fields, body = await page.ask("GET", "/")
        assert (status, fields["content-type"], body) == (200, "text/html; charset=utf-8", "<h1>hello</h1>")
        assert "javascript" in (await page.ask("GET", "/app.js"))[1]["content-type"]
        assert (await page.ask("GET", "/sub/logo.png"))[1]["content-type"] == "image/png"
        assert (await page.ask("GET", "/state"))[0] == 200
        for path in (
            "/../__init__.py",
            "/%2e%2e/__init__.py",
            "/sub/../../__init__.py",
            "/sub/..%2f..%2f__init__.py",
            "/..%5c__init__.py",
            "//etc/passwd",
            "/sub",
            "/app.js/",
            "/app.js%00",
        ):
            assert (await page.ask("GET", path))[0] == 404, path


async def test_an_event_stream_can_be_refused_before_its_first_event(caplog: pytest.LogCaptureFixture) -> None:
    async with site() as page:
        assert (await page.ask("GET", "/refused"))[::2] == (403, "not for you\n")
        caplog.set_level(logging.CRITICAL, "atoma.transports")
        status, _, text = await page.ask("GET", "/broken")
        assert (status, "SELECT" in text) == (500, False)
        assert (await page.ask("GET", "/state"))[0] == 200


async def test_an_event_stream_without_news_begins_all_the_same() -> None:
    async with site() as page:
        with trio.fail_after(1):
            status, fields, _ = await page.ask("GET", "/quiet")
        assert (status, fields["content-type"]) == (200, "text/event-stream")
