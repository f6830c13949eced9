"""Giving up: at the caller, at the server, by the clock, and what the other calls notice of it: nothing."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from grpclib.const import Status

from atoma_transports.grpc._driver.calls import read_timeout, write_timeout
from atoma_transports.grpc._driver.client import CallFailed, CallReset, ConnectionLost, GrpcLimits, open_grpc_channel
from tests.unit.transports.grpc.driver_kit import Echo, EchoStub, Raw, RawPeer, connected, message, serving

pytestmark = pytest.mark.virtual_time


async def test_a_cancelled_call_cancels_its_handler_at_once_and_no_other() -> None:
    async with connected() as both:
        other: list[bytes] = []
        async with trio.open_nursery() as nursery:

            async def beside() -> None:
                async with both.stub.chat.open() as call:
                    for i in range(10):
                        await call.send_message(b"%d" % i)
                        other.append(await call.recv_message() or b"")
                        await trio.sleep(0.1)
                    await call.end()
                    assert await call.recv_message() is None

            nursery.start_soon(beside)
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_after_start, both.echo, scope)
                await both.stub.slow(b"")
            assert scope.cancelled_caught
            began = trio.current_time()
            await trio.testing.wait_all_tasks_blocked()
            assert both.echo.cancelled == [began]
            assert both.client.calls == 1
        assert other == [b"%d" % i for i in range(10)]


async def cancel_after_start(echo: Echo, scope: trio.CancelScope) -> None:
    await echo.on_start.wait()
    scope.cancel()


async def test_a_call_that_is_cancelled_before_it_begins_is_not_sent() -> None:
    async with connected() as both:
        with trio.CancelScope() as scope:
            scope.cancel()
            await both.stub.unary(b"x")
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert both.echo.started == 0


async def test_the_deadline_of_the_caller_travels_and_ends_both_sides() -> None:
    async with connected() as both:
        with trio.move_on_after(1.5) as scope:
            await both.stub.slow(b"")
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1.5, abs=0.001)
        await trio.testing.wait_all_tasks_blocked()
        assert both.echo.budget == pytest.approx(1.5, abs=0.002)
        assert both.echo.cancelled == pytest.approx([1.5], abs=0.002)
        assert await both.stub.unary(b"next") == b"next"


async def test_a_timeout_given_to_the_stub() -> None:
    async with connected() as both:
        with pytest.raises(TimeoutError):
            await both.stub.slow(b"", timeout=2)
        assert trio.current_time() == pytest.approx(2)
        with trio.move_on_after(1) as nearer:
            await both.stub.slow(b"", timeout=50)
        assert nearer.cancelled_caught
        assert both.echo.budget == pytest.approx(1, abs=0.002)


async def test_without_a_deadline_none_travels() -> None:
    async with connected() as both, trio.open_nursery() as nursery:
        nursery.start_soon(both.stub.slow, b"")
        await both.echo.on_start.wait()
        assert both.echo.budget == math.inf
        nursery.cancel_scope.cancel()


async def test_the_server_keeps_the_deadline_of_a_caller_that_does_not() -> None:
    echo = Echo()
    async with serving(echo) as peer:
        call = peer.begin("/test.Echo/slow", ("grpc-timeout", "250m"))
        peer.wire.send_data(call, message(b""), end_stream=True)
        await peer.send()
        assert await peer.status(call) == "DEADLINE_EXCEEDED"
        assert echo.cancelled == [0.25]
        passed = peer.begin("/test.Echo/slow", ("grpc-timeout", "0n"))
        await peer.send()
        assert await peer.status(passed) == "DEADLINE_EXCEEDED"
        strange = peer.begin("/test.Echo/unary", ("grpc-timeout", "soon"))
        await peer.send()
        assert await peer.status(strange) == "INVALID_ARGUMENT"


async def test_leaving_a_stream_early_ends_its_handler() -> None:
    async with connected() as both:
        async with both.stub.count.open() as call:
            await call.send_message(b"inf", end=True)
            async for text in call:
                if text == b"20":
                    break
        await trio.testing.wait_all_tasks_blocked()
        sent = both.echo.sent
        await trio.sleep(10)
        assert both.echo.sent == sent
        assert both.client.calls == 0
        async with both.stub.mute.open() as call:
            await call.send_message(b"", end=True)
            assert await call.recv_message() == b"0"
        await trio.testing.wait_all_tasks_blocked()
        assert both.echo.cancelled == [trio.current_time()]
        assert await both.stub.unary(b"next") == b"next"


async def test_an_error_in_the_block_ends_the_call() -> None:
    async with connected() as both:
        with pytest.raises(ZeroDivisionError):
            async with both.stub.mute.open() as call:
                await call.send_message(b"", end=True)
                await call.recv_message()
                _ = 1 / 0
        await trio.testing.wait_all_tasks_blocked()
        assert len(both.echo.cancelled) == 1


async def test_a_server_that_is_cancelled_cancels_handlers_and_fails_calls() -> None:
    async with connected() as both:
        failed: list[ConnectionLost] = []

        async def call() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await both.stub.slow(b"")
            failed.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await both.echo.on_start.wait()
            both.server.cancel()
        assert failed[0].maybe_sent
        assert failed[0].status is Status.UNAVAILABLE
        assert both.client.lost
        assert len(both.echo.cancelled) == 1


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (8, "CANCELLED"),
        (7, "UNAVAILABLE"),
        (11, "RESOURCE_EXHAUSTED"),
        (12, "PERMISSION_DENIED"),
        (0, "INTERNAL"),
        (99, "INTERNAL"),
    ],
)
async def test_what_a_reset_by_the_server_means(code: int, status: str) -> None:
    near, far = trio.testing.memory_stream_pair()
    async with open_grpc_channel(near, authority="test", limits=GrpcLimits(), codec=Raw()) as client:
        server = RawPeer(far, client_side=False)
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await server.send()
                await server.receive()
                server.wire.reset_stream(1, code)
                await server.send()

            nursery.start_soon(answer)
            with pytest.raises(CallReset) as caught:
                await EchoStub(client).unary(b"x")
        assert caught.value.status.name == status
        assert caught.value.maybe_sent == (status != "UNAVAILABLE")


async def test_a_status_comes_before_the_reset_that_follows_it() -> None:
    """A server that refuses while the request is still under way answers, then cuts off: the answer counts."""
    limits = GrpcLimits(message_bytes=10_000_000, stream_window=65_535)
    async with connected(limits, GrpcLimits(message_bytes=1_000)) as both:
        with pytest.raises(CallFailed) as caught:
            await both.stub.unary(b"x" * 5_000_000)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert await both.stub.unary(b"next") == b"next"


def test_timeouts_are_written_rounded_up_in_eight_digits() -> None:
    for seconds in (0, 0.0001, 0.0011, 1.5, 9_999.9999, 12_345.6, 10**12):
        text = write_timeout(seconds)
        assert len(text) <= 9
        if seconds < 10**8:
            assert seconds <= read_timeout(text) <= seconds + (0.0011 if seconds < 10_000 else 1)
    for text in ("", "1", "1x", "-1S", "1.5S", "123456789S", "１S"):
        with pytest.raises(ValueError, match="not a timeout"):
            read_timeout(text)
