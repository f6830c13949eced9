"""Who may stay on a port: guests for a moment, the known as long as they like, and everybody is told why not."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import ConnectionType

from atoma.contracts.codec import encode
from atoma.errors import AtomaError, ConnectFailed, RemoteError
from atoma.ports import Peer, Principal
from atoma.testing.conformance import TOKEN, TinyHub
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames.envelope import Auth, decode_frame, encode_frame
from atoma_transports.http import EventSender, HttpHandler, HttpRequest, HttpResponse
from atoma_transports.serving import open_server, places
from atoma_transports.serving.head import HTTP2_PREFACE
from atoma_transports.serving.places import ConnectionSlot, ConnectionSlots, share_of
from atoma_transports.websocket import WebSocketTransport
from atoma_transports.websocket.pipe import WebSocketPipe
from tests.unit.transports.http.kit import Client, pull

GRPC = importlib.util.find_spec("grpclib") is not None
needs_grpc = pytest.mark.skipif(not GRPC, reason="gRPC is not installed")
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
UPGRADE = (
    b"GET /sync HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
FIRST_BYTES = {"nothing": b"", "a request": b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", "frames": UPGRADE}
if GRPC:
    FIRST_BYTES["grpc"] = HTTP2_PREFACE + SETTINGS
every_beginning = pytest.mark.parametrize("beginning", FIRST_BYTES.values(), ids=FIRST_BYTES)
QUICK = ChannelLimits(handshake_s=0.4, close_s=0.1)
OUT_S = 0.4 + 2 * 0.1


async def dial(address: str) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))


@asynccontextmanager
async def dialled(address: str) -> AsyncGenerator[Client]:
    with trio.fail_after(25):
        async with await dial(address) as stream:
            yield Client(stream)


async def rest_of(stream: trio.abc.Stream) -> bytes:
    """Everything until the other side hangs up."""
    found = b""
    with trio.fail_after(25), suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            found += data
    return found


async def known_over_http(address: str, **fields: str) -> Client:
    client = Client(await dial(address))
    answer = await client.call("pull", pull(), authorization=f"Bearer {TOKEN}", **fields)  # type: ignore[arg-type]
    assert answer.status == 200, answer
    return client


async def is_served(client: Client) -> bool:
    return (await client.call("pull", pull(), authorization=f"Bearer {TOKEN}")).status == 200


# ---------------------------------------------------------------------- guests


@every_beginning
async def test_guests_take_no_place_of_the_known(beginning: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GUESTS_MAX", 5)
    monkeypatch.setattr(places, "KNOWN_MAX", 3)
    async with open_server(TinyHub(), "127.0.0.1:0") as address, AsyncExitStack() as stack:

        async def crowd() -> None:
            for _ in range(25):
                stream = await stack.enter_async_context(await dial(address))
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(beginning)

        await crowd()
        with trio.fail_after(25):
            known = await known_over_http(address)
            async with WebSocketTransport(f"ws://{address}/sync", token=TOKEN).connect() as channel:
                await crowd()
                assert await is_served(known)
                assert (await channel.call("pull", pull())) is not None
                if GRPC:
                    from atoma_transports.grpc import GrpcTransport

                    async with GrpcTransport(f"grpc://{address}", token=TOKEN).connect() as third:
                        await crowd()
                        assert (await third.call("pull", pull())) is not None
        await known.stream.aclose()


async def test_of_the_guests_the_oldest_of_the_largest_crowd_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GUESTS_MAX", 4)
    with ExitStack() as stack:
        port = ConnectionSlots(ChannelLimits())
        came = [stack.enter_context(port.enter(address)) for address in ("a", "b", "b", "c", "d", "d", "d")]
        assert [place.unwanted for place in came] == [True, True, False, False, True, False, False]
        came[2].accept()  # and is a guest no more
        came.append(stack.enter_context(port.enter("e")))
        assert [place.unwanted for place in came[2:]] == [False, False, True, False, False, False]


@every_beginning
async def test_who_shows_no_token_is_out_in_time(beginning: bytes) -> None:
    async with open_server(TinyHub(), "127.0.0.1:0", limits=QUICK) as address:
        async with await dial(address) as stream:
            began = trio.current_time()
            await stream.send_all(beginning)
            await rest_of(stream)
            assert trio.current_time() - began < OUT_S + 2  # 2 s for a slow machine


@pytest.mark.parametrize("path", ["/v1/pull", "/nowhere"])
async def test_asking_on_without_a_token_buys_no_time(path: str) -> None:
    async with open_server(TinyHub(), "127.0.0.1:0", limits=QUICK) as address, dialled(address) as client:
        began = trio.current_time()
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            while trio.current_time() - began < 10:
                answer = await client.ask("POST", path, b"{}", authorization="Bearer guessed")
                assert answer.status in (401, 404)
                await trio.sleep(0.02)
        assert trio.current_time() - began < OUT_S + 2


@needs_grpc
async def test_pings_and_questions_about_health_buy_no_time() -> None:
    from tests.unit.transports.grpc.driver_kit import RawPeer, message

    async with open_server(TinyHub(), "127.0.0.1:0", limits=QUICK) as address, await dial(address) as stream:
        peer = RawPeer(stream, client_side=True)
        watch = peer.begin("/grpc.health.v1.Health/Watch")
        peer.wire.send_data(watch, message(b""), end_stream=True)
        began = trio.current_time()
        while not peer.closed and trio.current_time() - began < 10:
            peer.wire.ping(b"areyouon")
            check = peer.begin("/grpc.health.v1.Health/Check")
            peer.wire.send_data(check, message(b""), end_stream=True)
            await peer.send()
            with trio.move_on_after(0.02):
                await peer.receive()
            if any(type(event).__name__ == "ConnectionTerminated" for event in peer.events):
                break  # it says goodbye before it hangs up
        assert trio.current_time() - began < OUT_S + 2
        assert any(type(event).__name__ == "ConnectionTerminated" for event in peer.events)


@needs_grpc
async def test_four_watches_are_enough_for_a_connection() -> None:
    from grpclib.const import Status
    from h2.events import DataReceived, ResponseReceived, TrailersReceived

    from tests.unit.transports.grpc.driver_kit import RawPeer, message

    def watch(peer: RawPeer) -> int:
        call = peer.begin("/grpc.health.v1.Health/Watch")
        peer.wire.send_data(call, message(b""), end_stream=True)
        return call

    def statuses(peer: RawPeer) -> dict[int, str]:
        ends = [event for event in peer.events if isinstance(event, (ResponseReceived, TrailersReceived))]
        told = {event.stream_id: dict(cast("list[tuple[str, str]]", event.headers)) for event in ends}
        return {id: fields["grpc-status"] for id, fields in told.items() if "grpc-status" in fields}

    def is_watched(peer: RawPeer, call: int) -> bool:
        return any(isinstance(event, DataReceived) and event.stream_id == call for event in peer.events)

    async with open_server(TinyHub(), "127.0.0.1:0") as address, await dial(address) as stream:
        peer = RawPeer(stream, client_side=True)
        for _ in range(6):
            watch(peer)
        await peer.send()
        with trio.fail_after(25):
            while len(refused := statuses(peer)) < 2:
                await peer.receive()
        assert set(refused.values()) == {str(Status.RESOURCE_EXHAUSTED.value)}
        peer.wire.reset_stream(next(id for id in range(1, 12, 2) if id not in refused))
        with trio.fail_after(25):
            served = False
            while not served:  # until the server has seen that the first one is over
                again = watch(peer)
                await peer.send()
                while again not in statuses(peer) and not (served := is_watched(peer, again)):
                    await peer.receive()


async def test_a_page_is_shown_to_the_end_and_then_a_guest_goes() -> None:
    async def feed(request: HttpRequest, send: EventSender) -> None:
        for number in range(3):
            await send(str(number))
            await trio.sleep(OUT_S)

    async def page(request: HttpRequest) -> HttpResponse:
        await trio.sleep(2 * OUT_S)
        return HttpResponse(b"a page")

    handler = HttpHandler()
    handler.events("/events", feed)
    handler.get("/page", page)
    async with open_server(TinyHub(), "127.0.0.1:0", limits=QUICK, pages=handler) as address:
        async with dialled(address) as client:
            await client.send("GET", "/events")
            seen = await rest_of(client.stream)
            assert [f"data: {number}".encode() in seen for number in range(3)] == [True] * 3
        async with dialled(address) as client:
            for _ in range(2):
                assert (await client.ask("GET", "/page")).body == b"a page"
            began = trio.current_time()
            assert await client.ended()
            assert trio.current_time() - began < OUT_S + 2


# ---------------------------------------------------------------------- what is said to whom


async def test_who_finds_no_place_is_told_in_their_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "KNOWN_MAX", 2)
    async with open_server(TinyHub(), "127.0.0.1:0") as address:
        known = [await known_over_http(address) for _ in range(2)]
        async with dialled(address) as client:
            answer = await client.call("pull", pull(), authorization=f"Bearer {TOKEN}")
            assert (answer.status, answer.code, answer.fields["retry-after"]) == (503, "OVERLOADED", "5")
        async with dialled(address) as client:
            await client.stream.send_all(UPGRADE)
            assert (await client.head())[0] == 503
        with pytest.raises(ConnectFailed, match="503"):
            async with WebSocketTransport(f"ws://{address}/sync", token=TOKEN).connect():
                raise AssertionError("connected")
        if GRPC:
            from atoma_transports.grpc import GrpcTransport

            with pytest.raises(AtomaError) as refused:
                async with GrpcTransport(f"grpc://{address}", token=TOKEN).connect():
                    raise AssertionError("connected")
            assert "OVERLOADED" in str(refused.value)
        await known.pop().stream.aclose()
        with trio.fail_after(25):
            while True:
                with suppress(AssertionError):
                    known.append(await known_over_http(address))
                    break
        for client in known:
            await client.stream.aclose()


async def test_a_place_that_goes_between_handshake_and_token_is_told_in_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "KNOWN_MAX", 1)
    async with open_server(TinyHub(), "127.0.0.1:0") as address, dialled(address) as client:
        await client.stream.send_all(UPGRADE)
        assert (await client.head())[0] == 101
        known = await known_over_http(address)
        pipe = WebSocketPipe(client.stream, ConnectionType.CLIENT, client.received, message_bytes=65536)
        await pipe.send(encode_frame("auth", payload=encode(Auth(TOKEN))))
        frame = decode_frame(await pipe.receive(), 65536)
        assert frame.kind == "error"
        assert b"OVERLOADED" in frame.payload
        await known.stream.aclose()


async def test_a_guest_who_has_to_go_in_the_middle_of_a_request_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GUESTS_MAX", 2)
    slow = trio.Event()

    class Slow(TinyHub):
        async def authenticate(self, token: str, peer: Peer) -> Principal:
            slow.set()
            return await super().authenticate(token, peer) if token == TOKEN else await trio.sleep_forever()

    async with open_server(Slow(), "127.0.0.1:0") as address, dialled(address) as client, AsyncExitStack() as stack:
        await client.send("POST", "/v1/pull", b"{}", authorization="Bearer slowly")
        await slow.wait()
        for _ in range(2):
            another = Client(await stack.enter_async_context(await dial(address)))
            await another.send("POST", "/v1/pull", b"{}", authorization="Bearer slowly")
        answer = await client.answer()
        assert (answer.status, b"try again" in answer.body) == (503, True)
        if GRPC:
            stream = await stack.enter_async_context(await dial(address))
            await stream.send_all(HTTP2_PREFACE + SETTINGS)
            with trio.fail_after(25):
                assert (await stream.receive_some())[3:4] == b"\4"
            for _ in range(2):
                await stack.enter_async_context(await dial(address))
            assert b"\7\0\0\0\0\0" in await rest_of(stream)  # GOAWAY


# ---------------------------------------------------------------------- by address


async def test_behind_a_declared_proxy_places_go_by_the_believed_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PER_ADDRESS_MAX", 2)
    async with open_server(TinyHub(), "127.0.0.1:0", trusted_proxies=["127.0.0.1"]) as address:
        ada = [await known_over_http(address, x_forwarded_for="192.0.2.1") for _ in range(2)]
        spoofed = "192.0.2.7, 192.0.2.1"
        async with dialled(address) as client:
            ask = partial(client.call, "pull", pull(), authorization=f"Bearer {TOKEN}")
            assert (await ask(x_forwarded_for=spoofed)).status == 503
            assert (await ask(x_forwarded_for="192.0.2.2")).status == 200  # the same connection, another client
            assert (await ask(x_forwarded_for="192.0.2.1")).status == 503
            await ada.pop().stream.aclose()
            with trio.fail_after(25):
                while (await ask(x_forwarded_for="192.0.2.1")).status != 200:
                    await trio.sleep(0.01)
            for caller, status in (("192.0.2.1", 503), ("192.0.2.2", 101)):
                async with dialled(address) as other:
                    asked = f"\r\nx-forwarded-for: {caller}\r\n\r\n".encode()
                    await other.stream.send_all(UPGRADE.replace(b"\r\n\r\n", asked))
                    assert (await other.head())[0] == status, "the handshake looks for a place as well"
        await ada.pop().stream.aclose()


async def test_a_machine_of_its_own_may_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PER_ADDRESS_MAX", 1)
    async with open_server(TinyHub(), "127.0.0.1:0") as address:
        for client in [await known_over_http(address) for _ in range(3)]:
            await client.stream.aclose()
    with ExitStack() as stack:
        port = ConnectionSlots(ChannelLimits())
        one, two = (stack.enter_context(port.enter("192.0.2.1")) for _ in range(2))
        one.accept()
        with pytest.raises(RemoteError, match="no room"):
            two.accept()


async def test_a_proxy_keeps_its_connection_between_requests_but_no_stream_without_a_token() -> None:
    async with open_server(TinyHub(), "127.0.0.1:0", limits=QUICK, trusted_proxies=["127.0.0.1"]) as address:
        client = await known_over_http(address, x_forwarded_for="192.0.2.1")
        answer = await client.ask("POST", "/v1/pull", b"{}", authorization="", x_forwarded_for="192.0.2.2")
        assert answer.status == 401
        await trio.sleep(2 * OUT_S)
        assert await is_served(client)
        await client.stream.send_all(UPGRADE.replace(b"\r\n\r\n", b"\r\nx-forwarded-for: 192.0.2.2\r\n\r\n"))
        began = trio.current_time()
        await rest_of(client.stream)
        assert trio.current_time() - began < OUT_S + 2
        await client.stream.aclose()


@pytest.mark.parametrize(
    ("address", "share"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("memory", "memory"),
    ],
)
def test_a_network_of_one_customer_counts_as_one(address: str, share: str) -> None:
    assert share_of(address) == share


# ---------------------------------------------------------------------- the accounts

Steps = list[tuple[str, int, str]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "enter", "speak", "accept", "turn", "leave"]),
        st.integers(0, 30),
        st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_the_accounts_are_right_whatever_happens(steps: Steps) -> None:
    async def main() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(places, "GUESTS_MAX", 4)
            patch.setattr(places, "KNOWN_MAX", 5)
            patch.setattr(places, "PER_ADDRESS_MAX", 3)
            port = ConnectionSlots(ChannelLimits())
            present: list[tuple[ExitStack, ConnectionSlot]] = []
            for step, number, address in steps:
                here = [(stack, place) for stack, place in present if place.state != "gone"]
                asking = {place for _, place in here if place.asks and place.state == "guest"}
                silent = {place for _, place in here if not place.asks and place.state == "guest"}
                if step == "enter":
                    stack = ExitStack()
                    present.append((stack, stack.enter_context(port.enter(address, proxy=bool(number % 2)))))
                    gone = {place for place in asking | silent if place.unwanted}
                    assert len(gone) == (len(asking) + len(silent) == 4)
                    assert gone <= (silent if len(silent) >= 2 else asking), "half the places are for each kind"
                elif here:
                    stack, place = here[number % len(here)]
                    if step == "accept":
                        known = [other for _, other in here if other.state == "known"]
                        alike = [other for other in known if other.share == place.share]
                        room = place.state == "known" or (len(known) < 5 and len(alike) < 3)
                        assert place.has_room == room
                        with suppress(RemoteError):
                            place.accept()
                            assert room
                        assert place.state == ("known" if room else "guest")
                    elif step == "speak":
                        place.speak()
                    elif step == "turn":
                        place.turn_to(address, patient=bool(number % 3))
                    else:
                        stack.close()
                        present = [pair for pair in present if pair[1] is not place]
                states = [place.state for _, place in present]
                assert states.count("guest") <= 4
                assert states.count("known") <= 5
                assert all((place.state == "gone") == place.unwanted for _, place in present)
            for stack, _ in present:
                stack.close()
            assert (port._known, len(port._silent), len(port._asking), port._asked_to_go) == (0, 0, 0, 0)
            assert not port._known_from

    trio.run(main)
