"""Frames that cost the server work and the peer nothing are bounded: the connection ends, with ENHANCE_YOUR_CALM."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from atoma_transports.grpc._driver.client import GrpcLimits
from atoma_transports.grpc._driver.server import serve_grpc
from tests.unit.transports.grpc.driver_kit import Echo, RawPeer, connected, message, serving

pytestmark = pytest.mark.virtual_time

CALM = 11
LIMITS = GrpcLimits(resets_per_s=100, chatter_per_s=100)


def pings(peer: RawPeer) -> list[Frame]:
    return [PingFrame(0, opaque_data=b"x" * 8)] * 150


def settings(peer: RawPeer) -> list[Frame]:
    return [SettingsFrame(0, settings={})] * 150


def empty_data(peer: RawPeer) -> list[Frame]:
    return [DataFrame(peer.begin("/test.Echo/join"), b"")] * 150


def priorities(peer: RawPeer) -> list[Frame]:
    return [PriorityFrame(1, depends_on=3)] * 150


def window_updates(peer: RawPeer) -> list[Frame]:
    return [WindowUpdateFrame(0, window_increment=1)] * 2_000


def resets(peer: RawPeer) -> list[Frame]:
    frames: list[Frame] = []
    for _ in range(150):
        call = peer.begin("/test.Echo/slow")
        frames.append(begun(peer))
        frames.append(RstStreamFrame(call, error_code=8))
    return frames


def overflows(peer: RawPeer) -> list[Frame]:
    """Mistakes that make the server throw its own calls away."""
    frames: list[Frame] = []
    for _ in range(150):
        call = peer.begin("/test.Echo/slow")
        frames.append(begun(peer))
        frames.append(WindowUpdateFrame(call, window_increment=2**31 - 1))
    return frames


def late_data(peer: RawPeer) -> list[Frame]:
    """More of a request after its end: a mistake, too."""
    frames: list[Frame] = []
    for _ in range(150):
        call = peer.begin("/test.Echo/unread", end=True)
        frames.append(begun(peer))
        frames.append(DataFrame(call, b"more"))
    return frames


def begun(peer: RawPeer) -> Frame:
    """The bytes that h2 made for a call, as one more frame of a list."""

    class Made(Frame):
        data = peer.wire.data_to_send()

        def serialize(self) -> bytes:
            return self.data

    return Made(0)


@pytest.mark.parametrize(
    "flood", [pings, settings, empty_data, priorities, window_updates, resets, overflows, late_data]
)
async def test_a_flood_ends_the_connection(flood: Callable[[RawPeer], list[Frame]]) -> None:
    echo = Echo()
    async with serving(echo, LIMITS) as peer:
        frames = flood(peer)
        await peer.send(*(frame.serialize() for frame in frames))
        end = await peer.until_closed()
        assert end is not None
        assert end.error_code == CALM


def late_headers(call: int) -> Frame:
    return HeadersFrame(call, data=b"\x82", flags=["END_HEADERS"])


@pytest.mark.parametrize("late", [lambda call: DataFrame(call, b"more"), late_headers])
async def test_a_mistake_in_one_call_ends_that_call(late: Callable[[int], Frame]) -> None:
    echo = Echo()
    async with serving(echo) as peer:
        call = peer.begin("/test.Echo/slow")
        peer.wire.send_data(call, message(b""), end_stream=True)
        await peer.send(late(call).serialize())
        assert (await peer.status(call)).startswith("reset")
        await trio.testing.wait_all_tasks_blocked()
        assert echo.started == len(echo.cancelled)
        other = peer.begin("/test.Echo/unary")
        peer.wire.send_data(other, message(b"x"), end_stream=True)
        await peer.send()
        assert await peer.status(other) == "OK"


@pytest.mark.parametrize("flood", [pings, settings, resets])
async def test_the_same_frames_at_leisure_are_no_flood(flood: Callable[[RawPeer], list[Frame]]) -> None:
    echo = Echo()
    async with serving(echo, LIMITS) as peer:
        for frame in flood(peer):
            await peer.send(frame.serialize())
            await trio.sleep(0.05)
        call = peer.begin("/test.Echo/unary")
        peer.wire.send_data(call, message(b"x"), end_stream=True)
        await peer.send()
        assert await peer.status(call) == "OK"


async def test_endless_headers_end_the_connection() -> None:
    async with serving(Echo(), LIMITS) as peer:
        start = HeadersFrame(1, data=b"")
        more = ContinuationFrame(1, data=b"")
        await peer.send(start.serialize(), *[more.serialize()] * 100)
        assert await peer.until_closed() is not None


async def test_calls_without_number_end_the_connection() -> None:
    echo = Echo()
    async with serving(echo, GrpcLimits(calls=10)) as peer:
        for _ in range(2_000):
            peer.begin("/test.Echo/unread")
        await peer.send()
        assert await peer.until_closed() is not None
        assert echo.started <= 10


async def test_answers_that_nobody_takes_stop_the_reader() -> None:
    """Pings within their bound, and their answers left lying: what waits is bounded."""
    near, far = trio.testing.memory_stream_pair()
    never, reads = trio.Event(), 0
    far.send_stream.send_all_hook = never.wait

    async def count() -> None:
        nonlocal reads
        reads += 1

    far.receive_stream.receive_some_hook = count
    limits = GrpcLimits(chatter_per_s=100_000, slow_s=50, ping_s=1_000)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_grpc(far, {}, limits=limits, drain=trio.Event())

        nursery.start_soon(serve)
        peer = RawPeer(near, client_side=True)
        await peer.send()
        flood = PingFrame(0, opaque_data=b"x" * 8).serialize() * 60_000  # 1 MB: 16 reads, and as much to answer
        await near.send_all(flood)
        await trio.testing.wait_all_tasks_blocked()
        assert reads < 8
        await trio.sleep(60)  # after slow_s the peer is given up
        assert not nursery.child_tasks


async def test_leaving_a_stream_with_much_under_way_is_no_flood() -> None:
    async with connected(LIMITS) as both:
        for _ in range(5):
            async with both.stub.count.open() as call:
                await call.send_message(b"inf 100", end=True)
                await call.recv_message()
        assert await both.stub.unary(b"next") == b"next"


async def test_cancelling_every_call_at_once_is_no_flood() -> None:
    async with connected() as both:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(both.stub.slow, b"")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert len(both.echo.cancelled) == 200
        assert await both.stub.unary(b"next") == b"next"
