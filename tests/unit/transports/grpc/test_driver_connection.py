"""How connections live and end: silence, draining, going away, nonsense, and nothing left behind."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hyperframe.frame import GoAwayFrame

from atoma_transports.grpc._driver.client import CallFailed, ConnectionLost, GrpcLimits, open_grpc_channel
from tests.unit.transports.grpc.driver_kit import Echo, EchoStub, Raw, RawPeer, connected, message, serving

pytestmark = pytest.mark.virtual_time


async def test_a_mute_server_is_noticed() -> None:
    near, far = trio.testing.memory_stream_pair()
    limits = GrpcLimits(ping_s=15, pong_s=10)
    async with open_grpc_channel(near, authority="test", limits=limits, codec=Raw()) as client:
        with pytest.raises(ConnectionLost, match="silent for 25") as caught:
            await EchoStub(client).unary(b"x")
        assert trio.current_time() == pytest.approx(25)
        assert caught.value.maybe_sent
        assert client.lost
        assert "silent" in (client.reason or "")
        assert await client.wait_lost() == client.reason
    await far.aclose()


async def test_a_mute_client_is_noticed() -> None:
    echo = Echo()
    async with serving(echo, GrpcLimits(ping_s=15, pong_s=10)) as peer:
        call = peer.begin("/test.Echo/slow")
        peer.wire.send_data(call, message(b""), end_stream=True)
        await peer.send()
        await peer.until_closed_without_answering()
        assert 25 <= trio.current_time() < 26
        assert echo.cancelled == [25]


async def test_silence_of_calls_is_no_silence_of_the_connection() -> None:
    async with connected(GrpcLimits(ping_s=15, pong_s=10)) as both:
        with trio.move_on_after(1_000) as scope:
            await both.stub.slow(b"")
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert both.echo.cancelled == pytest.approx([1_000])
        assert not both.client.lost


async def test_draining_finishes_what_runs_and_refuses_what_comes() -> None:
    async with connected() as both:
        async with both.stub.chat.open() as call:
            await call.send_message(b"before")
            assert await call.recv_message() == b"before"
            both.drain.set()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(CallFailed) as caught:
                await both.stub.unary(b"late")
            assert caught.value.status is Status.UNAVAILABLE
            assert not both.served.is_set()
            await trio.sleep(5)
            await call.send_message(b"after")
            assert await call.recv_message() == b"after"
            await call.end()
            assert await call.recv_message() is None
        await both.client.wait_lost()
        await both.served.wait()
        assert trio.current_time() == 5  # neither side had to wait for the other
        with pytest.raises(ConnectionLost) as lost:
            await both.stub.unary(b"later")
        assert not lost.value.maybe_sent


async def test_draining_an_idle_connection_ends_it_at_once() -> None:
    async with connected() as both:
        assert await both.stub.unary(b"x") == b"x"
        both.drain.set()
        await both.served.wait()
        assert trio.current_time() == 0
        assert both.client.lost


async def test_a_server_going_away_answers_the_calls_it_has() -> None:
    """The polite way of other servers: GOAWAY first, then the answers."""
    near, far = trio.testing.memory_stream_pair()
    async with open_grpc_channel(near, authority="test", limits=GrpcLimits(), codec=Raw()) as client:
        server, stub = RawPeer(far, client_side=False), EchoStub(client)
        answers: list[bytes | str] = []

        async def call() -> None:
            try:
                answers.append(await stub.unary(b"x"))
            except ConnectionLost as error:
                answers.append(f"sent: {error.maybe_sent}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            await server.receive()
            goaway = GoAwayFrame(0, last_stream_id=1, error_code=0)
            await server.send(goaway.serialize())
            await trio.testing.wait_all_tasks_blocked()
            assert client.going_away
            assert not client.lost
            assert answers == ["sent: False"]
            with pytest.raises(ConnectionLost) as caught:
                await stub.unary(b"y")
            assert not caught.value.maybe_sent
            server.wire.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
            server.wire.send_data(1, message(b"answer"))
            server.wire.send_headers(1, [("grpc-status", "0")], end_stream=True)
            await server.send()
        assert answers == ["sent: False", b"answer"]
        await client.wait_lost()
    await far.aclose()


async def test_a_server_that_ends_the_connection_fails_calls_at_once() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with open_grpc_channel(near, authority="test", limits=GrpcLimits(), codec=Raw()) as client:

        async def hang_up() -> None:
            await far.receive_some()
            await far.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_up)
            with pytest.raises(ConnectionLost) as caught:
                await EchoStub(client).unary(b"x")
        assert caught.value.maybe_sent
        assert client.lost
        assert trio.current_time() == 0


async def test_a_server_that_gives_up_in_anger_says_all_the_same_what_it_has_not_seen() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with open_grpc_channel(near, authority="test", limits=GrpcLimits(), codec=Raw()) as client:
        server, lost = RawPeer(far, client_side=False), list[bool]()

        async def call() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await EchoStub(client).unary(b"x")
            lost.append(caught.value.maybe_sent)

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
            await server.receive()
            await server.send(GoAwayFrame(0, last_stream_id=1, error_code=11).serialize())
        assert sorted(lost) == [False, True]
        assert client.lost
    await far.aclose()


async def test_closing_leaves_no_task() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with connected() as both:
        await both.stub.unary(b"x")
        with trio.move_on_after(1):
            await both.stub.slow(b"")
        async with both.stub.count.open() as call:
            await call.send_message(b"inf", end=True)
            await call.recv_message()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_closing_with_calls_in_flight_fails_them_and_waits_no_longer_than_agreed() -> None:
    near, far = trio.testing.memory_stream_pair()
    limits = GrpcLimits(close_s=0.5)
    failed: list[GRPCError] = []
    async with trio.open_nursery() as nursery:
        async with open_grpc_channel(near, authority="test", limits=limits, codec=Raw()) as client:

            async def call() -> None:
                with pytest.raises(ConnectionLost) as caught:
                    await EchoStub(client).unary(b"x")
                failed.append(caught.value)

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            never = trio.Event()
            near.send_stream.send_all_hook = never.wait
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() <= 0.5
    assert len(failed) == 2
    await far.aclose()


@pytest.mark.parametrize("seed", range(40))
async def test_nonsense_ends_its_connection_and_nothing_else(seed: int) -> None:
    """Bits flipped in a good conversation: the server answers or hangs up, and raises nothing."""
    chance = random.Random(seed)
    echo = Echo()
    async with serving(echo) as peer:
        for _ in range(20):
            call = peer.begin("/test.Echo/unary", ("x-bin", "abc"), ("grpc-timeout", "1S"))
            peer.wire.send_data(call, message(b"x" * chance.randrange(50)), end_stream=True)
        data = bytearray(peer.wire.data_to_send())
        first = chance.choice((0, 24, 90))
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(first, len(data))] ^= 1 << chance.randrange(8)
        await peer.send(bytes(data))
        with trio.move_on_after(2):
            while not peer.closed:
                try:
                    await peer.receive()
                except Exception:
                    break  # what this peer makes of the answers is its own affair


async def test_no_http2_at_all() -> None:
    async with serving(Echo()) as peer:
        peer.wire.clear_outbound_data_buffer()
        await peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        end = await peer.until_closed()
        assert end is not None
        assert end.error_code == 1
