"""Pages of other sites: refused, unless the server names them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio

from atoma import StaticTokenVerifier
from atoma.errors import ConfigurationError
from atoma.hub import AllowLoopback, open_hub
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.serving import open_server
from tests.unit.hub.kit import SCHEMA

SITE, OTHER = "https://app.example.org", "https://evil.example"
TOKEN = {"authorization": "Bearer good"}


@asynccontextmanager
async def server(*origins: str) -> AsyncGenerator[str]:
    verifier = StaticTokenVerifier({"good": "ada"})
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=verifier) as hub:
        async with open_server(hub, "127.0.0.1:0", origins=origins) as address:
            yield address


async def ask(
    address: str, method: str, path: str, fields: dict[str, str], body: bytes = b""
) -> tuple[int, dict[str, str]]:
    """Status and header fields of the answer."""
    host, _, port = address.rpartition(":")
    http = h11.Connection(h11.CLIENT)
    head = h11.Request(
        method=method,
        target=path,
        headers=list({"host": address, "content-length": str(len(body)), **fields}.items()),
    )
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(
            (http.send(head) or b"") + (http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b"")
        )
        with trio.fail_after(60):
            while True:
                event: Any = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some(65_536)))
                elif isinstance(event, h11.Response):
                    return event.status_code, {name.decode(): value.decode() for name, value in event.headers}


WANTED = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
JSON = {"content-type": "application/json", **TOKEN, "sec-fetch-site": "cross-site"}


async def test_a_named_site_is_answered_and_told_so() -> None:
    async with server(SITE) as address:
        status, told = await ask(address, "OPTIONS", "/v1/query", {"origin": SITE, **WANTED})
        assert (status, told["access-control-allow-origin"]) == (204, SITE)
        assert "authorization" in told["access-control-allow-headers"]
        assert "POST" in told["access-control-allow-methods"]
        status, told = await ask(address, "POST", "/v1/query", {"origin": SITE, **JSON}, b"{}")
        assert (status, told["access-control-allow-origin"], told["vary"]) == (
            400,
            SITE,
            "origin",
        )  # errors are read, too
        assert "access-control-allow-credentials" not in told
        status, told = await ask(address, "GET", "/v1/notify?scope=main", {"origin": SITE, **TOKEN})
        assert (status, told["access-control-allow-origin"]) == (200, SITE)


@pytest.mark.parametrize("origins", [(), (SITE,)])
@pytest.mark.parametrize(
    "origin", [OTHER, SITE.replace("https", "http"), f"{SITE}:8443", f"{SITE}.evil.example", "null"]
)
async def test_no_other_site_is(origins: tuple[str, ...], origin: str) -> None:
    async with server(*origins) as address:
        status, told = await ask(address, "OPTIONS", "/v1/query", {"origin": origin, **WANTED})
        assert status == 405
        assert "access-control-allow-origin" not in told
        for method, path in (("POST", "/v1/query"), ("GET", "/v1/notify?scope=main"), ("GET", "/v1/schema")):
            status, told = await ask(address, method, path, {"origin": origin, **JSON})
            assert status == 403, path
            assert "access-control-allow-origin" not in told


async def test_pages_keep_to_their_own_site_and_requests_without_a_page_go_on() -> None:
    async with server(SITE) as address:
        assert (await ask(address, "OPTIONS", "/page", {"origin": SITE, **WANTED}))[0] == 405
        assert (await ask(address, "POST", "/page", {"origin": SITE, **JSON}))[0] == 403
        status, told = await ask(address, "GET", "/v1/schema", TOKEN)
        assert (status, told["vary"]) == (200, "origin")
        assert "access-control-allow-origin" not in told


async def test_what_is_spoken_is_told_to_anybody_and_what_is_stored_to_whoever_has_a_token() -> None:
    async with server() as address:
        assert (await ask(address, "GET", "/v1/openapi.json", {}))[0] == 200
        assert (await ask(address, "GET", "/v1/schema", {}))[0] == 401
        assert (await ask(address, "GET", "/v1/schema", TOKEN))[0] == 200
        status, told = await ask(address, "POST", "/v1/schema", TOKEN)
        assert (status, told["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "origins",
    ["https://a.example", ["a.example"], ["https://a.example/"], ["*"], ["https://a.example:443"], ["ftp://a"], [1]],
)
async def test_what_is_no_origin_is_refused_at_the_start(origins: Any) -> None:
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=StaticTokenVerifier({"good": "ada"})) as hub:
        with pytest.raises(ConfigurationError, match="origins= "):
            async with open_server(hub, "127.0.0.1:0", origins=origins):
                pass


async def test_a_hub_that_lets_in_its_machine_names_no_other_site() -> None:
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub:
        with pytest.raises(ConfigurationError, match="origins= need a verifier"):
            async with open_server(hub, "127.0.0.1:0", origins=[SITE]):
                pass
