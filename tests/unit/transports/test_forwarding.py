"""Who made a request when proxies are on the way: told alike in every language that is spoken on a port."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import ConnectionType

from atoma import AllowLoopback, Schema, StaticTokenVerifier, StoreSpec, open_hub
from atoma.contracts.codec import encode
from atoma.errors import AuthenticationError, ConfigurationError
from atoma.hub import Hub
from atoma.ports import Peer
from atoma.testing.conformance import TOKEN, TinyHub
from atoma.testing.queries import rows_of
from atoma_stores.sqlite import SQLiteHubStore
from atoma_transports.frames.envelope import Auth, decode_frame, encode_frame
from atoma_transports.http import HttpHandler
from atoma_transports.protocol import QueryCall, RemoteOp
from atoma_transports.protocol.plans import encode_query
from atoma_transports.serving import open_server
from atoma_transports.serving.addresses import FORWARDING, HOPS_MAX, Origins
from atoma_transports.websocket.pipe import WebSocketPipe
from tests.unit.transports.http.kit import Client, pull

Fields = tuple[tuple[str, str], ...]
TRUSTED = ["127.0.0.1", "10.0.0.0/24", "2001:db8::/32"]
BEARER = ("authorization", f"Bearer {TOKEN}")
HELLO = "/atoma.sync.v1.Sync/Hello"
UPGRADE = (
    ("upgrade", "websocket"),
    ("connection", "upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "MDEyMzQ1Njc4OWFiY2RlZg=="),
)

# ---------------------------------------------------------------------- the rule

LISTS = [
    ("192.0.2.9", "192.0.2.9"),
    ("198.51.100.1, 192.0.2.9", "192.0.2.9"),  # the client wrote the first one itself
    ("198.51.100.1, 10.0.0.5", "198.51.100.1"),  # a second proxy of ours stands before the first
    ("127.0.0.1, 192.0.2.9, 10.0.0.5, 10.0.0.6", "192.0.2.9"),
    ("10.0.0.5, 10.0.0.6", "10.0.0.5"),  # nobody else is named
    ("192.0.2.9:4711", "192.0.2.9"),
    ("[2001:db9::1]:4711", "2001:db9::1"),
    ("2001:db9::1", "2001:db9::1"),
    ("::ffff:192.0.2.9", "192.0.2.9"),
    ("192.0.2.9, unknown", "127.0.0.1"),  # nothing before what cannot be read is certain
    ("192.0.2.9, 10.0.0.5, _hidden, 10.0.0.6", "10.0.0.6"),
    ("", "127.0.0.1"),
    (" , ,", "127.0.0.1"),
    (", ".join(["192.0.2.9"] + ["10.0.0.5"] * 5000), "10.0.0.5"),
]


@pytest.mark.parametrize(("value", "address"), LISTS, ids=[value[:40] or "nothing" for value, _ in LISTS])
def test_the_last_stranger_of_the_list_is_who_asks(value: str, address: str) -> None:
    origins = Origins(TRUSTED)
    asked = origins.of(origins.connected("127.0.0.1", "http"), {"x-forwarded-for": value})
    assert asked == Peer(address, False, "http")


@given(hops=st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "10.0.0.1", "10.0.0.2", "nonsense"]), min_size=1))
def test_what_a_client_writes_in_front_changes_nothing(hops: list[str]) -> None:
    origins = Origins(TRUSTED)
    connected = origins.connected("127.0.0.1", "http")
    honest = origins.of(connected, {"x-forwarded-for": "203.0.113.7, 10.0.0.9"})
    spoofed = origins.of(connected, {"x-forwarded-for": ", ".join([*hops, "203.0.113.7", "10.0.0.9"])})
    assert spoofed == honest == Peer("203.0.113.7", False, "http")
    known = {"10.0.0.1", "10.0.0.2"}
    alone = origins.of(connected, {"x-forwarded-for": ", ".join(hops)}).address
    read = hops[len(hops) - hops[::-1].index("nonsense") :] if "nonsense" in hops else hops
    strangers = [hop for hop in read[-HOPS_MAX:] if hop not in known]
    assert alone == (strangers[-1] if strangers else read[-HOPS_MAX:][0] if read else "127.0.0.1")


@pytest.mark.parametrize("field", FORWARDING)
def test_a_stranger_who_forwards_is_not_believed_and_not_this_machine(field: str) -> None:
    origins = Origins(["10.0.0.7"])
    near, far = origins.connected("127.0.0.1", "http"), origins.connected("192.0.2.1", "http")
    assert near.loopback
    assert origins.of(near, {field: "198.51.100.1"}) == Peer("127.0.0.1", False, "http")
    assert origins.of(far, {field: "198.51.100.1"}) == Peer("192.0.2.1", False, "http")
    assert origins.of(near, {"accept": "*/*"}) is near


def test_only_one_field_of_a_declared_proxy_is_believed() -> None:
    origins = Origins(["127.0.0.1"])
    proxy = origins.connected("127.0.0.1", "http")
    assert not proxy.loopback  # whatever it forgets to say
    for field in FORWARDING[1:]:
        assert origins.of(proxy, {field: "for=198.51.100.1"}).address == "127.0.0.1"


@pytest.mark.parametrize("given", ["127.0.0.1", ["proxy.example"], ["10.0.0.1/8"], [""]])
async def test_what_is_no_address_is_refused_at_the_start(given: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        async with open_server(TinyHub(), "127.0.0.1:0", trusted_proxies=given):
            raise AssertionError("listening")


# ---------------------------------------------------------------------- every language

Ask = Callable[[str, Fields], Awaitable[str]]


@asynccontextmanager
async def dialled(address: str) -> AsyncGenerator[trio.SocketStream]:
    with trio.fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
            yield stream


def request(method: str, path: str, fields: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def over_http(address: str, fields: Fields) -> str:
    async with dialled(address) as stream:
        given = (("host", "localhost"), ("content-type", "application/json"), ("content-length", "2"), *fields)
        await stream.send_all(request("POST", "/v1/cancel", given, b"{}"))
        answer = await Client(stream).answer()
        return answer.code if answer.fields["content-type"] == "application/json" else str(answer.status)


async def over_websocket(address: str, fields: Fields) -> str:
    token = dict(fields).get("authorization", "").partition(" ")[2]
    async with dialled(address) as stream:
        await stream.send_all(request("GET", "/sync", (("host", "localhost"), *UPGRADE, *fields)))
        client = Client(stream)
        status, _ = await client.head()
        if status != 101:
            return str(status)
        pipe = WebSocketPipe(stream, ConnectionType.CLIENT, client.received, message_bytes=65536)
        await pipe.send(encode_frame("auth", payload=encode(Auth(token))))
        try:
            frame = decode_frame(await pipe.receive(), 65536)
        except AuthenticationError:
            return "UNAUTHENTICATED"
        return "UNAUTHENTICATED" if frame.kind == "error" else "MALFORMED"  # let in, as `{}` is over HTTP


async def over_grpc(address: str, fields: Fields) -> str:
    from tests.unit.transports.grpc.driver_kit import RawPeer, message

    async with dialled(address) as stream:
        peer = RawPeer(stream, client_side=True)
        call = peer.begin(HELLO, *fields)
        peer.wire.send_data(call, message(b""), end_stream=True)
        await peer.send()
        return {"OK": "MALFORMED", "INVALID_ARGUMENT": "400"}.get(status := await peer.status(call), status)


GRPC = importlib.util.find_spec("grpclib") is not None
LANGUAGES = [over_http, over_websocket, *([over_grpc] if GRPC else [])]
languages = pytest.mark.parametrize("ask", LANGUAGES, ids=lambda ask: ask.__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""


SCHEMA = Schema(StoreSpec("notes", Note))
QUERY = QueryCall((RemoteOp(0, "query", "notes", query=encode_query(rows_of("notes", limit=1))),))


def site() -> HttpHandler:
    handler = HttpHandler()
    handler.folder("/", "atoma.inspector", "static")
    return handler


@asynccontextmanager
async def local_hub() -> AsyncGenerator[Hub]:
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub:
        yield hub


@languages
async def test_what_came_through_a_proxy_is_not_this_machine(ask: Ask) -> None:
    async with local_hub() as hub, open_server(hub, "127.0.0.1:0") as address:
        assert await ask(address, ()) == "MALFORMED"
        for field in FORWARDING:
            assert await ask(address, ((field, "192.0.2.1"),)) == "UNAUTHENTICATED", field


@languages
async def test_the_hub_hears_the_address_that_the_proxy_tells(ask: Ask) -> None:
    hub = TinyHub()
    async with open_server(hub, "127.0.0.1:0", trusted_proxies=["127.0.0.1"]) as address:
        spoofed = ("x-forwarded-for", "127.0.0.1, 198.51.100.1, 192.0.2.9")
        assert await ask(address, (BEARER, spoofed, ("x-real-ip", "127.0.0.1"))) == "MALFORMED"
        assert await ask(address, (BEARER, ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "192.0.2.7"))) != "400"
        assert await ask(address, (BEARER,)) == "MALFORMED"
    assert [(peer.address, peer.loopback) for peer in hub.peers] == [
        ("192.0.2.9", False),
        ("192.0.2.7", False),
        ("127.0.0.1", False),
    ]


async def test_a_token_that_was_good_for_one_is_asked_for_again_for_another() -> None:
    """A proxy sends the requests of many clients over one connection."""
    async with local_hub() as hub, open_server(hub, "127.0.0.1:0") as address, dialled(address) as stream:
        client = Client(stream)
        for forwarded, status in (("", 200), ("192.0.2.1", 401), ("", 200)):
            answer = await client.call("query", QUERY, authorization="", x_forwarded_for=forwarded)
            assert answer.status == status


@pytest.mark.parametrize(("names", "proxies"), [(["hub.example"], []), ([], ["127.0.0.1"])])
async def test_a_hub_for_this_machine_does_not_start_where_others_come(names: list[str], proxies: list[str]) -> None:
    async with local_hub() as hub:
        with pytest.raises(ConfigurationError, match="behind a proxy that is anybody"):
            async with open_server(hub, "127.0.0.1:0", names=names, trusted_proxies=proxies):
                raise AssertionError("listening")
    tokens = StaticTokenVerifier({TOKEN: "alice"})
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=tokens) as hub:
        async with open_server(hub, "127.0.0.1:0", names=names, trusted_proxies=proxies):
            pass


ONCE = [
    ("authorization", "Bearer wrong"),
    ("host", "localhost"),
    ("origin", "http://localhost"),
    ("content-type", "application/grpc"),
]


@languages
@pytest.mark.parametrize("field", ONCE, ids=[name for name, _ in ONCE])
async def test_a_field_that_decides_may_come_once(ask: Ask, field: tuple[str, str]) -> None:
    """A proxy may have looked at the first, while the last one counts here."""
    hub = TinyHub()
    async with open_server(hub, "127.0.0.1:0") as address:
        first = () if field[0] in ("host", "content-type") and ask is over_http else (field,)
        assert await ask(address, (BEARER, *first, field)) == "400"
        assert hub.peers == []


# ---------------------------------------------------------------------- the language of a request


async def test_a_kept_alive_connection_goes_on_in_frames() -> None:
    """A proxy asks for the upgrade on a connection on which it has sent requests before."""
    hub = TinyHub()
    async with open_server(hub, "127.0.0.1:0", trusted_proxies=["127.0.0.1"]) as address, dialled(address) as stream:
        client = Client(stream)
        for _ in range(2):
            assert (
                await client.call("pull", pull(), authorization=BEARER[1], x_forwarded_for="192.0.2.1")
            ).status == 200
        fields = (("host", "localhost"), *UPGRADE, ("x-forwarded-for", "192.0.2.2"))
        await stream.send_all(request("GET", "/sync", fields))
        assert (await client.head())[0] == 101
        pipe = WebSocketPipe(stream, ConnectionType.CLIENT, client.received, message_bytes=65536)
        await pipe.send(encode_frame("auth", payload=encode(Auth(TOKEN))))
        assert decode_frame(await pipe.receive(), 65536).kind == "welcome"
    assert [(peer.address, peer.transport) for peer in hub.peers] == [("192.0.2.1", "http"), ("192.0.2.2", "websocket")]


async def test_frames_sent_ahead_of_the_upgrade_are_not_lost() -> None:
    async with open_server(TinyHub(), "127.0.0.1:0") as address, dialled(address) as stream:
        client = Client(stream)
        assert (await client.call("pull", pull(), authorization=BEARER[1])).status == 200
        frame = WebSocketPipe(stream, ConnectionType.CLIENT, b"", message_bytes=65536)
        ahead = frame._framed(encode_frame("auth", payload=encode(Auth(TOKEN))))
        await stream.send_all(request("GET", "/sync", (("host", "localhost"), *UPGRADE)) + ahead)
        assert (await client.head())[0] == 101
        pipe = WebSocketPipe(stream, ConnectionType.CLIENT, client.received, message_bytes=65536)
        assert decode_frame(await pipe.receive(), 65536).kind == "welcome"


async def test_an_upgrade_where_there_is_none_is_still_refused() -> None:
    async with open_server(TinyHub(), "127.0.0.1:0") as address:
        for path, origin, status in (("/page", "", 403), ("/sync", "http://evil.example", 403)):
            async with dialled(address) as stream:
                client = Client(stream)
                assert (await client.call("pull", pull(), authorization=BEARER[1])).status == 200
                fields = (("host", "localhost"), *UPGRADE, *((("origin", origin),) if origin else ()))
                await stream.send_all(request("GET", path, fields))
                assert (await client.head())[0] == status


@pytest.mark.parametrize(("size", "status"), [(5_000, 404), (8_191, 404), (8_192, 414), (60_000, 414), (200_000, 431)])
async def test_a_long_path_is_answered(size: int, status: int) -> None:
    async with open_server(TinyHub(), "127.0.0.1:0", pages=site()) as address, dialled(address) as stream:
        client = Client(stream)
        await stream.send_all(request("GET", "/" + "x" * size, (("host", "localhost"),)))
        answer = await client.answer()
        assert answer.status == status
        assert len(answer.body) < 300
