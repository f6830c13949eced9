"""What a peer can make a server hold: handlers, items and bytes have bounds, however much is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from atoma.contracts.codec import encode
from atoma.contracts.sync import Cursor, Hint, NotifyRequest, PullRequest
from atoma.testing.conformance import TOKEN, TinyHub
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames.envelope import Auth, decode_frame, encode_frame
from atoma_transports.grpc.convert import pack
from atoma_transports.memory import MemoryNetwork
from atoma_transports.memory.network import MemoryPipe
from atoma_transports.protocol import QueryCall, RemoteOp
from atoma_transports.protocol.json_mapping import encode_json
from tests.fuzz.attacks import http_request, socket_frame
from tests.fuzz.peers import (
    HEADERS,
    FramePeer,
    GrpcPeer,
    HttpPeer,
    Peer,
    WebSocketPeer,
    data_frame,
    headers_frame,
    joined,
    prefixed,
)
from tests.fuzz.stage import PATIENT, Stage, open_stage

pytestmark = pytest.mark.virtual_time
LIMITS = ChannelLimits(frame_bytes=64 * 1024, queue_bytes=128 * 1024, calls=8, window=4, slow_s=0.5, close_s=0.1)
NOTIFY = encode(NotifyRequest(("main",)))
PULL = encode(PullRequest("main", Cursor(), b"client-1", max_bytes=30_000))


async def session(hub: TinyHub, attack: Callable[[MemoryPipe], Awaitable[None]]) -> None:
    network = MemoryNetwork(limits=LIMITS)
    async with network.listen(hub):
        pipe = await network.connect("peer", None)
        await pipe.send(encode_frame("auth", payload=encode(Auth(TOKEN))))
        assert decode_frame(await pipe.receive(), 10_000).kind == "welcome"
        await attack(pipe)
        await pipe.aclose()
    assert hub.active == 0


async def test_credit_beyond_the_window_is_not_kept() -> None:
    gate = trio.Event()
    hub = TinyHub(hints=100_000, on_hint=gate.wait)

    async def attack(pipe: MemoryPipe) -> None:
        await pipe.send(encode_frame("stream", 1, NOTIFY, method="notify", credit=1024))
        for _ in range(100):
            await pipe.send(encode_frame("credit", 1, credit=1024))
            await trio.testing.wait_all_tasks_blocked()
        gate.set()
        with trio.move_on_after(0.3):
            while True:
                await pipe.receive()
        assert hub.sent_hints == 4 * LIMITS.window + 1  # the last one waits for credit

    await session(hub, attack)


async def test_a_peer_that_gives_credit_and_reads_nothing_is_not_answered_for_ever() -> None:
    hub = TinyHub(hints=100_000)

    async def attack(pipe: MemoryPipe) -> None:
        await pipe.send(encode_frame("stream", 1, NOTIFY, method="notify", credit=1024))
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await pipe.send(encode_frame("credit", 1, credit=1024))
                await trio.sleep(0.01)
        assert hub.sent_hints < LIMITS.queue_bytes // len(encode_frame("item", 1, encode(Hint("main", 1))))

    await session(hub, attack)


async def test_a_peer_that_reads_nothing_is_sent_no_more_than_the_bounds_hold() -> None:
    hub = TinyHub(hints=100_000, hint_letters=1000)

    async def attack(pipe: MemoryPipe) -> None:
        for id in range(1, 9):
            await pipe.send(encode_frame("stream", id, NOTIFY, method="notify", credit=1024))
        for _ in range(200):
            with trio.move_on_after(0.01):
                await pipe.send(encode_frame("credit", 1, credit=1024))
        assert 0 < hub.sent_hints <= 300
        await trio.sleep(2)
        assert hub.active == 0, "a peer that takes nothing is dismissed"

    await session(hub, attack)


async def test_calls_beyond_the_limit_start_no_handler() -> None:
    hub = TinyHub(on_pull=trio.sleep_forever)

    async def attack(pipe: MemoryPipe) -> None:
        refused = 0
        for id in range(1, 500):
            await pipe.send(encode_frame("call", id, PULL, method="pull"))
            if id > LIMITS.calls:
                frame = decode_frame(await pipe.receive(), 10_000)
                refused += frame.kind == "error" and frame.id == id
        assert refused == 499 - LIMITS.calls
        assert hub.active == LIMITS.calls

    await session(hub, attack)


async def test_calls_that_are_cancelled_at_once_do_not_pile_up() -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):  # as cleaning up may be
            await trio.sleep(0.2)

    hub = TinyHub(on_pull=stubborn)

    async def attack(pipe: MemoryPipe) -> None:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                while True:
                    await pipe.receive()

            nursery.start_soon(read)
            for id in range(1, 500):
                await pipe.send(encode_frame("call", id, PULL, method="pull"))
                await pipe.send(encode_frame("cancel", id))
                await trio.testing.wait_all_tasks_blocked()
                assert hub.active <= 2 * LIMITS.calls
            await trio.sleep(0.5)
            assert hub.active == 0
            nursery.cancel_scope.cancel()

    await session(hub, attack)


LARGE = b"x" * (PATIENT.frame_bytes + 1)
STRANGERS_MAX = PATIENT.first_frame_bytes


async def test_a_message_over_the_limit_reaches_no_handler() -> None:
    large = QueryCall((RemoteOp(0, "query", "x" * len(LARGE)),))
    attacks: list[tuple[Callable[[Stage], Peer], bytes]] = [
        (FramePeer, joined(encode_frame("call", 7, encode(large), method="query"))),
        (WebSocketPeer, socket_frame(encode_frame("call", 7, encode(large), method="query"))),
        (HttpPeer, http_request("/v1/query", encode_json(large))),
        (GrpcPeer, large_call(pack(large))),
    ]
    async with open_stage(strict=False) as stage:
        for kind, data in attacks:
            peer = kind(stage)
            await peer.begin()
            began = stage.host.begun
            await peer.attack(data)
            with trio.move_on_after(1):
                await peer.until_closed()
            assert stage.host.begun == began, kind
            if isinstance(peer, GrpcPeer):
                assert peer.statuses[3] == "8"
            else:
                assert peer.closed, kind
            await peer.hang_up()


async def test_a_message_over_the_limit_is_refused_before_its_end() -> None:
    chunked = http_request("/v1/query", b"", content_length="", transfer_encoding="chunked")
    attacks: list[tuple[Callable[[Stage], Peer], bytes]] = [
        (WebSocketPeer, socket_frame(LARGE, final=False)),
        (WebSocketPeer, socket_frame(LARGE, size=2**40)),
        (HttpPeer, chunked + b"fffffff\r\n" + LARGE),
        (HttpPeer, http_request("/v1/query", b"", content_length=str(len(LARGE)))),
        (HttpPeer, b"GET / HTTP/1.1\r\nx: " + LARGE),
        (GrpcPeer, headers_frame(3, HEADERS.items()) + data_frame(3, prefixed(b"", size=len(LARGE)))),
        (GrpcPeer, b"\xff\xff\xff\0\0\0\0\0\x03" + LARGE),
    ]
    async with open_stage(strict=False) as stage:
        for kind, data in attacks:
            peer = kind(stage)
            await peer.begin()
            began = stage.host.begun
            await peer.attack(data)
            with trio.move_on_after(1):
                await peer.until_closed()
            assert peer.closed or (isinstance(peer, GrpcPeer) and peer.statuses[3] == "8"), (kind, data[:100])
            assert stage.host.begun == began, kind
            await peer.hang_up()


async def test_a_stranger_may_send_less() -> None:
    async with open_stage(strict=False) as stage:
        for size in (STRANGERS_MAX - 1000, STRANGERS_MAX + 1):
            peer = WebSocketPeer(stage)
            await peer.connect()
            await peer.attack(socket_frame(b"x" * size, final=False))
            with trio.move_on_after(1):
                await peer.until_closed()
            assert peer.closed == (size > STRANGERS_MAX)
            await peer.hang_up()


def large_call(data: bytes) -> bytes:
    """A gRPC call whose message comes in as many frames as it takes."""
    rest = prefixed(data)
    parts = [rest[start : start + 16_000] for start in range(0, len(rest), 16_000)]
    return headers_frame(3, HEADERS.items()) + b"".join(data_frame(3, part) for part in parts)
