"""A hub behind a real nginx, with the configuration that `docs/how-to/behind-a-proxy.md` shows, word for word."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import Hub, Schema, StaticTokenVerifier, StoreSpec, Sync, open_client, open_hub
from atoma.contracts.sync import NotifyRequest
from atoma.errors import AtomaError
from atoma.hub import AllowLoopback
from atoma.plugins import Plugin
from atoma.ports import Peer, Principal, Transport
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.adapters import ServiceProxy
from atoma_transports.http import HttpTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.certificates import client_context, make_certificate
from tests.free_port import free_port
from tests.unit.transports.http.kit import Client as HttpClient

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin") or ""
CURL = shutil.which("curl") or ""
pytestmark = [
    pytest.mark.xdist_group("machine"),
    pytest.mark.skipif(not NGINX, reason="needs the nginx program (Debian: apt install nginx-light)"),
]
PAGE = Path(__file__).parents[3] / "docs/how-to/behind-a-proxy.md"
PATIENCE_S = 60
TOKEN = "a-secret"
FAR = "127.0.0.2"
"""An address of this machine that is not a proxy's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str


CARDS = StoreSpec("cards", Card)
SCHEMA = Schema(CARDS)


class Verifier:
    """The one token, and a list of who brought one."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self._tokens = StaticTokenVerifier({TOKEN: "alice"})

    async def verify(self, token: str, peer: Peer) -> Principal:
        self.peers.append(peer)
        return await self._tokens.verify(token, peer)


def configuration(folder: Path, port: int, hub: str, certificate: Path) -> str:
    """The page's configuration, on other ports and with files of its own."""
    text: str
    (text,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for there, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("127.0.0.1:8765", hub),
        ("hub.example;", "localhost;"),
        ("/etc/ssl/hub.example.crt", str(certificate)),
        ("/etc/ssl/hub.example.key", str(certificate)),
    ):
        assert there in text, f"the page does not say {there!r} any more"
        text = text.replace(there, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds) + "    access_log off;\n"
    return text.replace("http {\n", f"http {{\n{own}")


@dataclass
class Nginx:
    """nginx with a folder, until it is stopped; and again."""

    folder: Path
    port: int
    certificate: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        user = "user root; " if os.geteuid() == 0 else ""
        directives = f"{user}daemon off; pid {self.folder}/pid; error_log {self.folder}/errors notice;"
        command = [
            NGINX,
            "-p",
            str(self.folder),
            "-c",
            str(self.folder / "nginx.conf"),
            "-e",
            str(self.folder / "errors"),
        ]
        self.running = subprocess.Popen([*command, "-g", directives], stderr=subprocess.PIPE)

    async def ready(self) -> None:
        with trio.fail_after(PATIENCE_S):
            while True:
                assert self.running is not None
                assert self.running.poll() is None, (self.folder / "errors").read_text(encoding="utf-8")
                if (self.folder / "pid").exists():  # it is written when nginx listens
                    return
                await trio.sleep(0.02)

    def reload(self) -> None:
        assert self.running is not None
        self.running.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self.running is not None:
            self.running.terminate()
            self.running.communicate(timeout=PATIENCE_S)
            self.running = None


@dataclass
class Proxied:
    """A hub and the proxy before it."""

    hub: Hub
    nginx: Nginx
    context: Callable[[], ssl.SSLContext]
    verifier: Verifier = field(default_factory=Verifier)

    @property
    def name(self) -> str:
        return f"localhost:{self.nginx.port}"

    def transport(self, kind: str) -> Transport:
        options: dict[str, Any] = {"token": TOKEN, "ssl_context": self.context()}
        if kind == "websocket":
            return WebSocketTransport(f"wss://{self.name}/sync", **options)
        if kind == "http":
            return HttpTransport(f"https://{self.name}", **options)
        from atoma_transports.grpc import GrpcTransport

        return GrpcTransport(f"grpcs://{self.name}", **options)

    @asynccontextmanager
    async def dialled(self) -> AsyncGenerator[HttpClient]:
        """A connection to nginx from an address that is not a proxy's."""
        near = await trio.open_tcp_stream("127.0.0.1", self.nginx.port, local_address=FAR)
        context = self.context()
        context.set_alpn_protocols(["http/1.1"])
        stream = trio.SSLStream(near, context, server_hostname="localhost", https_compatible=True)
        with trio.fail_after(PATIENCE_S):
            async with stream:
                yield HttpClient(stream)


@asynccontextmanager
async def proxied(folder: Path) -> AsyncGenerator[Proxied]:
    certificate = make_certificate(folder)
    nginx = Nginx(folder, free_port(), certificate)
    found = Verifier()
    async with open_hub(SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=found) as hub:
        async with open_server(hub, "127.0.0.1:0", names=["hub.example"], trusted_proxies=["127.0.0.1"]) as address:
            text = configuration(folder, nginx.port, address, certificate)
            (folder / "nginx.conf").write_text(text, encoding="utf-8")
            nginx.start()
            try:
                await nginx.ready()
                yield Proxied(hub, nginx, partial(client_context, certificate), found)
            finally:
                nginx.stop()


def insert(key: str, title: str) -> bytes:
    values = {"title": title}
    op = {"index": 0, "name": "insert", "store": "cards", "id": key, "scope": "main", "values": values}
    return json.dumps({"idem": f"key of {key}", "options": {}, "ops": [op]}).encode()


GRPC = importlib.util.find_spec("grpclib") is not None
KINDS = ["websocket", "http", *(["grpc"] if GRPC else [])]
every_kind = pytest.mark.parametrize("kind", KINDS)


async def test_the_hub_hears_who_asked_whatever_they_write_themselves(tmp_path: Path) -> None:
    async with proxied(tmp_path) as place, place.dialled() as client:
        for number, spoofed in enumerate(("", "127.0.0.1", "198.51.100.1, 127.0.0.1")):
            body, bearer = insert(str(number), "who am I"), f"Bearer {TOKEN}"
            asked = {"host": "hub.example", "authorization": bearer, "x_forwarded_for": spoofed}
            assert (await client.ask("POST", "/v1/write", body, **asked)).status == 200
        assert (await client.ask("POST", "/v1/write", b"{}", host="evil.example")).status == 421
        assert {(peer.address, peer.loopback) for peer in place.verifier.peers} == {(FAR, False)}


@every_kind
async def test_every_language_comes_through(kind: str, tmp_path: Path) -> None:
    async with proxied(tmp_path) as place:
        with trio.fail_after(PATIENCE_S):
            for _ in range(2):  # the second time over connections to the hub that nginx has kept
                async with place.transport(kind).connect() as channel:
                    service = ServiceProxy(channel)
                    async with service.notify(NotifyRequest(("main",))) as hints:
                        assert (await anext(aiter(hints))).scope == "main"
        assert {peer.transport for peer in place.verifier.peers} == {kind}
        assert not any(peer.loopback for peer in place.verifier.peers)


async def test_an_upgrade_comes_on_a_connection_that_was_kept(tmp_path: Path) -> None:
    async with proxied(tmp_path) as place:
        async with place.dialled() as client:
            for number in range(4):
                body = insert(str(number), "kept")
                answer = await client.ask("POST", "/v1/write", body, authorization=f"Bearer {TOKEN}", host=place.name)
                assert answer.status == 200, answer
        for _ in range(3):
            async with place.transport("websocket").connect() as channel:
                assert ServiceProxy(channel) is not None


async def test_events_are_not_held_back(tmp_path: Path) -> None:
    async with proxied(tmp_path) as place, place.dialled() as listener, place.dialled() as writer:
        bearer = f"Bearer {TOKEN}"
        await listener.send("GET", "/v1/notify?scope=main", authorization=bearer, host=place.name)
        assert (await listener.head())[0] == 200
        for number in range(3):
            body = insert(str(number), "news")
            assert (await writer.ask("POST", "/v1/write", body, authorization=bearer, host=place.name)).status == 200
            with trio.fail_after(60):  # held back, they would come in a lump of 4 KiB
                await listener.read_until(b'"head":"%d"' % (number + 1))
        refused = await writer.ask("GET", "/v1/notify?scope=main", authorization="Bearer x", host=place.name)
        assert refused.status == 401


async def test_large_bodies_come_through_and_larger_ones_are_refused(tmp_path: Path) -> None:
    async with proxied(tmp_path) as place:
        for size, status in ((900_000, 200), (6_000_000, 413), (10_000_000, 413)):
            async with place.dialled() as client:
                body = insert(str(size), "x" * size)
                asked = {"authorization": f"Bearer {TOKEN}", "host": place.name, "content_length": str(len(body))}
                await client.send("POST", "/v1/write", body[:1000], **asked)
                with suppress(trio.BrokenResourceError):  # of the largest, nginx reads no more than the head
                    await client.stream.send_all(body[1000:])
                assert (await client.head())[0] == status


@every_kind
async def test_devices_live_through_a_reload_and_a_restart(kind: str, tmp_path: Path) -> None:
    async with proxied(tmp_path) as place, trio.open_nursery() as nursery:

        def device(name: str) -> Any:
            engine = LocalExecution(SQLiteEngine(tmp_path / f"{name}.db"))
            plugins: list[Plugin] = [engine, Remote(place.transport(kind)), Sync(stores=[CARDS])]
            return open_client(SCHEMA, plugins=plugins, policy="sync-queue")

        async with device("one") as one, device("two") as two:
            written = 0
            stop = trio.Event()

            async def write_on() -> None:
                nonlocal written
                while not stop.is_set():
                    await one.store(CARDS).insert(Card(id=f"c{written}", title="written in mid-stream"))
                    written += 1
                    await trio.sleep(0.01)

            async def seen(count: int) -> None:
                with trio.fail_after(PATIENCE_S):
                    while len(await two.store(CARDS).get_all()) < count:
                        await trio.sleep(0.02)

            nursery.start_soon(write_on)
            await seen(5)
            place.nginx.reload()
            await seen(written + 5)
            place.nginx.stop()
            await trio.sleep(0.3)
            place.nginx.start()
            await place.nginx.ready()
            await seen(written + 5)
            stop.set()
            with trio.fail_after(PATIENCE_S):
                await one.sync.wait_idle()
            await seen(written)
            assert await one.inbox.entries() == []
            assert len(await two.store(CARDS).get_all()) == written


@every_kind
async def test_a_hub_for_this_machine_lets_nobody_in_through_a_proxy(kind: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    nginx = Nginx(tmp_path, free_port(), certificate)
    async with open_hub(SCHEMA, SQLiteHubStore(tmp_path / "hub.db"), verifier=AllowLoopback()) as hub:
        async with open_server(hub, "127.0.0.1:0") as address:
            text = configuration(tmp_path, nginx.port, address, certificate)
            (tmp_path / "nginx.conf").write_text(text, encoding="utf-8")
            nginx.start()
            try:
                await nginx.ready()
                place = Proxied(hub, nginx, partial(client_context, certificate))
                with trio.fail_after(PATIENCE_S), pytest.raises(AtomaError, match="own machine only"):
                    async with place.transport(kind).connect():
                        raise AssertionError("let in")
            finally:
                nginx.stop()
