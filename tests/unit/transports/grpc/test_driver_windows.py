"""Frames and windows: what the peer has room for, also when it changes its mind, and room that is given back."""

from __future__ import annotations

import random
import struct

import pytest
import trio
from h2.events import DataReceived, SettingsAcknowledged
from h2.settings import SettingCodes

from atoma_transports.grpc._driver.client import CallFailed, GrpcLimits
from tests.unit.transports.grpc.driver_kit import Echo, RawPeer, connected, message, serving

pytestmark = pytest.mark.virtual_time

SMALL = GrpcLimits(stream_window=65_535, connection_window=65_535)


def received(peer: RawPeer, call: int) -> list[bytes]:
    return [event.data for event in peer.events if isinstance(event, DataReceived) and event.stream_id == call]


async def settle(peer: RawPeer, **settings: int) -> None:
    """Announce ``settings`` and take what comes until they are acknowledged."""
    peer.wire.update_settings({SettingCodes[name]: value for name, value in settings.items()})
    known = sum(isinstance(event, SettingsAcknowledged) for event in peer.events)
    await peer.send()
    while sum(isinstance(event, SettingsAcknowledged) for event in peer.events) == known:
        await peer.receive()


async def test_an_answer_keeps_to_a_window_that_shrinks_and_goes_on_when_it_grows() -> None:
    """h2 as the peer ends the connection when more comes than it has room for."""
    async with serving(Echo()) as peer:
        await peer.send()
        while not any(isinstance(event, SettingsAcknowledged) for event in peer.events):
            await peer.receive()
        call = peer.begin("/test.Echo/count")
        peer.wire.send_data(call, message(b"3 40000"), end_stream=True)
        await settle(peer, INITIAL_WINDOW_SIZE=10_000)
        while len(b"".join(received(peer, call))) < 10_000:
            await peer.receive()
        await settle(peer, INITIAL_WINDOW_SIZE=0)  # 10 000 are out already: the window is below nothing
        peer.wire.increment_flow_control_window(9_000, call)
        await peer.send()
        with trio.move_on_after(5):
            await peer.receive()
        assert len(b"".join(received(peer, call))) == 10_000
        peer.wire.increment_flow_control_window(200_000)
        await peer.send()
        await trio.sleep(1)
        await settle(peer, INITIAL_WINDOW_SIZE=200_000)  # nothing else says that there is room now
        assert await peer.status(call) == "OK"
        assert len(b"".join(received(peer, call))) == 3 * (5 + 1 + 40_000)


async def test_frames_are_no_larger_than_the_peer_takes() -> None:
    async with serving(Echo()) as peer:
        call = peer.begin("/test.Echo/count")
        peer.wire.send_data(call, message(b"1 60000"), end_stream=True)
        await peer.send()
        assert await peer.status(call) == "OK"
        assert max(map(len, received(peer, call))) == 16_384


async def test_headers_larger_than_a_frame_come_in_several() -> None:
    letters = random.Random(1)
    large = {f"x{i}": "".join(letters.choices("abcXYZ019_", k=5_000)) for i in range(40)}
    async with connected(GrpcLimits(metadata_bytes=300_000)) as both:
        for _ in range(2):  # before and after the peer has said how large its frames may be
            with pytest.raises(CallFailed):
                await both.stub.fail(b"", metadata=large)
            assert both.echo.metadata == large
        assert await both.stub.unary(b"next") == b"next"


async def test_what_is_under_way_to_a_call_that_was_left_gives_its_room_back() -> None:
    async with connected(GrpcLimits(stream_window=300_000, connection_window=300_000)) as both:
        for _ in range(30):
            async with both.stub.count.open() as call:
                await call.send_message(b"inf 5000", end=True)
                await call.recv_message()
        assert await both.stub.unary(b"x" * 1_000_000) == b"x" * 1_000_000


async def test_the_request_of_a_call_that_is_refused_gives_its_room_back() -> None:
    async with serving(Echo(), SMALL) as peer:
        for _ in range(20):
            call = peer.begin("/test.Echo/unknown")
            peer.wire.send_data(call, message(b"x" * 8_000), end_stream=True)  # h2 refuses to send without room
            await peer.send()
            assert await peer.status(call) == "UNIMPLEMENTED"


async def test_a_frame_that_is_too_large_is_refused_by_its_head() -> None:
    async with serving(Echo()) as peer:
        await peer.send(struct.pack(">HBBBL", 0xFFFF, 0xFF, 0, 0, 1), b"x" * 100)
        with trio.fail_after(1):
            assert await peer.until_closed() is not None
