"""Everything has a bound, and beyond it there is an answer that says so."""

from __future__ import annotations

from typing import cast

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.events import ResponseReceived

from atoma_transports.grpc._driver.client import GrpcLimits, open_grpc_channel
from tests.unit.transports.grpc.driver_kit import Echo, EchoStub, Raw, RawPeer, connected, message, serving

pytestmark = pytest.mark.virtual_time

SMALL = GrpcLimits(message_bytes=1_000)


async def test_a_message_at_the_limit_passes_and_one_above_it_is_refused_on_both_sides() -> None:
    async with connected(SMALL) as both:
        assert len(await both.stub.unary(b"x" * 1_000)) == 1_000
        with pytest.raises(GRPCError, match="1001 bytes; the limit is 1000") as caught:
            await both.stub.unary(b"x" * 1_001)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert both.echo.started == 1 or both.echo.started == 2
    async with connected(GrpcLimits(), SMALL) as both:
        with pytest.raises(GRPCError, match="1001 bytes; the limit is 1000") as caught:
            await both.stub.unary(b"x" * 1_001)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        with pytest.raises(GRPCError, match="the limit is 1000"):  # the answer, too
            await both.stub.count(b"1 2000")
    async with connected(SMALL, GrpcLimits()) as both:
        with pytest.raises(GRPCError, match="the limit is 1000"):
            await both.stub.count(b"1 2000")
        assert await both.stub.unary(b"next") == b"next"


async def test_an_announced_length_is_refused_before_any_of_it_comes() -> None:
    async with serving(Echo(), SMALL) as peer:
        call = peer.begin("/test.Echo/unary")
        peer.wire.send_data(call, message(b"abc", size=2**32 - 1))
        await peer.send()
        assert await peer.status(call) == "RESOURCE_EXHAUSTED"


async def test_compressed_and_cut_off_messages() -> None:
    async with serving(Echo()) as peer:
        compressed = peer.begin("/test.Echo/unary")
        peer.wire.send_data(compressed, message(b"abc", flag=1), end_stream=True)
        await peer.send()
        assert await peer.status(compressed) == "UNIMPLEMENTED"
        for part in (b"\x00\x00", message(b"abc", size=10)):
            cut = peer.begin("/test.Echo/unary")
            peer.wire.send_data(cut, part, end_stream=True)
            await peer.send()
            assert await peer.status(cut) == "INTERNAL"


async def test_what_is_no_grpc_is_told_so() -> None:
    async with serving(Echo()) as peer:
        for status, fields in (
            ("415", {"content-type": "text/html"}),
            ("405", {":method": "GET"}),
            ("415", {"content-type": "application/grpc+json"}),
        ):
            headers = {":method": "POST", ":scheme": "http", ":path": "/test.Echo/unary", ":authority": "t"} | fields
            stream_id = peer.wire.get_next_available_stream_id()
            peer.wire.send_headers(stream_id, list(headers.items()), end_stream=True)
            await peer.send()
            answer: dict[str, str] = {}
            while not answer:
                await peer.receive()
                for event in peer.events:
                    if isinstance(event, ResponseReceived) and event.stream_id == stream_id:
                        answer = dict(cast("list[tuple[str, str]]", event.headers))
            assert answer[":status"] == status


async def test_metadata_above_the_limit_costs_its_call_and_far_above_the_connection() -> None:
    limits = GrpcLimits(metadata_bytes=2_000)
    async with connected(limits) as both:
        with pytest.raises(GRPCError, match="metadata") as caught:
            await both.stub.fail(b"", metadata={"big": "x" * 3_000})
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert await both.stub.unary(b"next") == b"next"
    async with serving(Echo(), limits) as peer:
        above = peer.begin("/test.Echo/unary", ("big", "x" * 2_500))
        await peer.send()
        assert await peer.status(above) == "RESOURCE_EXHAUSTED"
        peer.begin("/test.Echo/unary", ("big", "x" * 9_000))
        await peer.send()
        end = await peer.until_closed()
        assert end is not None
        assert end.error_code == 11  # ENHANCE_YOUR_CALM


async def test_a_call_with_more_metadata_fields_than_may_be_is_refused_alone() -> None:
    async with connected(GrpcLimits(metadata_fields=40)) as both:
        with pytest.raises(GRPCError, match="in 40 fields") as caught:
            await both.stub.fail(b"", metadata={f"a{number}": "x" for number in range(40)})
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        with pytest.raises(GRPCError, match="no such row"):
            await both.stub.fail(b"", metadata={f"a{number}": "x" for number in range(20)})


async def test_an_answer_with_more_metadata_than_the_caller_takes_is_a_status_all_the_same() -> None:
    async with connected(GrpcLimits(metadata_bytes=400), GrpcLimits()) as both:
        with pytest.raises(GRPCError, match="exceeds the 400 bytes") as caught:
            await both.stub.fail(b"")
        assert caught.value.status is Status.RESOURCE_EXHAUSTED


async def test_calls_beyond_the_limit_are_refused_and_others_go_on() -> None:
    async with connected(GrpcLimits(calls=3)) as both, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(both.stub.slow, b"")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(GRPCError, match="in flight") as caught:
            await both.stub.unary(b"x")
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        nursery.cancel_scope.cancel()
    async with connected(GrpcLimits(calls=100), GrpcLimits(calls=2)) as both, trio.open_nursery() as nursery:
        assert await both.stub.unary(b"x") == b"x"  # the server's settings have arrived
        for _ in range(2):
            nursery.start_soon(both.stub.slow, b"")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(GRPCError, match="no more calls at once") as caught:
            await both.stub.unary(b"x")
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        nursery.cancel_scope.cancel()


async def test_a_peer_that_ignores_the_number_of_calls_gets_a_status_for_each() -> None:
    echo = Echo()
    async with serving(echo, GrpcLimits(calls=2)) as peer:
        calls = [peer.begin("/test.Echo/unread") for _ in range(50)]
        await peer.send()
        assert [await peer.status(call) for call in calls[2:]] == ["RESOURCE_EXHAUSTED"] * 48
        assert echo.started == 2


async def test_a_handler_waits_for_a_reader_that_takes_its_time() -> None:
    limits = GrpcLimits(stream_window=65_535, connection_window=131_072, queue_bytes=10_000, slow_s=1_000)
    async with connected(limits) as both, both.stub.count.open() as call:
        await call.send_message(b"inf 1000", end=True)
        assert await call.recv_message() is not None
        await trio.sleep(100)
        ahead = both.echo.sent
        assert 20 < ahead < 150  # the windows and the buffers, no more
        assert await both.stub.unary(b"beside") == b"beside"
        for i in range(1, 500):
            text = await call.recv_message()
            assert text is not None
            assert text.startswith(b"%d." % i)
        assert both.echo.sent < 500 + 150


async def test_a_reader_that_takes_nothing_is_given_up() -> None:
    limits = GrpcLimits(stream_window=65_535, slow_s=20)
    async with connected(limits) as both, both.stub.count.open() as call:
        await call.send_message(b"inf 1000", end=True)
        await call.recv_message()
        await trio.sleep(60)
        with pytest.raises(GRPCError, match="no room to send for 20 s") as caught:
            while await call.recv_message() is not None:
                pass
            await call.recv_trailing_metadata()
        assert caught.value.status is Status.RESOURCE_EXHAUSTED


async def test_a_server_that_takes_no_request_is_given_up() -> None:
    limits = GrpcLimits(stream_window=65_535, slow_s=20)
    async with connected(limits) as both:
        with pytest.raises(GRPCError, match="no room to send for 20 s") as caught:
            await both.stub.unread(b"x" * 1_000_000)
        assert trio.current_time() == pytest.approx(20)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        await trio.testing.wait_all_tasks_blocked()
        assert len(both.echo.cancelled) == 1
        assert await both.stub.unary(b"next") == b"next"


async def test_a_connection_that_takes_no_bytes_is_closed() -> None:
    """Flow control of HTTP/2 grants everything, but the stream below stands still."""
    near, far = trio.testing.memory_stream_pair()
    never = trio.Event()
    near.send_stream.send_all_hook = never.wait
    limits = GrpcLimits(slow_s=5, ping_s=1_000)
    async with open_grpc_channel(near, authority="test", limits=limits, codec=Raw()) as client:
        with pytest.raises(GRPCError, match="took nothing for 5") as caught:
            await EchoStub(client).unary(b"x")
        assert caught.value.status is Status.UNAVAILABLE
        assert trio.current_time() == pytest.approx(5)
    assert trio.current_time() <= 5 + limits.close_s
    await far.aclose()


async def test_unread_answers_do_not_take_the_window_from_later_calls() -> None:
    limits = GrpcLimits(stream_window=65_535, connection_window=65_535)
    async with connected(limits) as both:
        for _ in range(10):
            async with both.stub.count.open() as call:
                await call.send_message(b"inf 1000", end=True)
                await call.recv_message()
                await trio.testing.wait_all_tasks_blocked()
        assert await both.stub.unary(b"x" * 200_000) == b"x" * 200_000


async def test_one_reader_that_stands_still_leaves_the_window_to_others() -> None:
    limits = GrpcLimits(stream_window=65_535, connection_window=200_000, slow_s=1_000)
    async with connected(limits) as both, both.stub.count.open() as call:
        await call.send_message(b"inf 1000", end=True)
        await call.recv_message()
        await trio.testing.wait_all_tasks_blocked()
        assert await both.stub.unary(b"x" * 500_000) == b"x" * 500_000


@pytest.mark.parametrize("sizes", [{"stream_window": 65_534}, {"stream_window": 100_000, "connection_window": 99_999}])
def test_windows_that_cannot_work_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="window"):
        GrpcLimits(**sizes)


GOOD = [(":status", "200"), ("content-type", "application/grpc")]
BAD_VALUE = [*GOOD, ("grpc-status", "5"), ("x-bin", "\xff")]


@pytest.mark.parametrize(
    ("headers", "body", "trailers", "status"),
    [
        ([(":status", "200")], b"", None, Status.UNKNOWN),
        ([(":status", "503")], b"", None, Status.UNAVAILABLE),
        ([("x", "y")], b"", None, Status.INTERNAL),
        (GOOD, message(b"x"), [("grpc-status", "abc")], Status.UNKNOWN),
        (GOOD, b"", [("grpc-status", "0")], Status.INTERNAL),
        (GOOD, message(b"x"), [], Status.INTERNAL),
        (GOOD, message(b"x", flag=1), [], Status.UNIMPLEMENTED),
        (GOOD, b"\x00\x00", [], Status.INTERNAL),
        (BAD_VALUE, b"", None, Status.INTERNAL),
    ],
)
async def test_an_answer_that_breaks_the_protocol_fails_its_call_only(
    headers: list[tuple[str, str]], body: bytes, trailers: list[tuple[str, str]] | None, status: Status
) -> None:
    near, far = trio.testing.memory_stream_pair()
    async with open_grpc_channel(near, authority="test", limits=GrpcLimits(), codec=Raw()) as client:
        server = RawPeer(far, client_side=False)
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await server.receive()
                server.wire.send_headers(1, headers, end_stream=trailers is None)
                if trailers is not None:
                    server.wire.send_data(1, body, end_stream=not trailers)
                    if trailers:
                        server.wire.send_headers(1, trailers, end_stream=True)
                await server.send()

            nursery.start_soon(answer)
            with pytest.raises(GRPCError) as caught:
                await EchoStub(client).unary(b"x")
        assert caught.value.status is status
        assert not client.lost
    await far.aclose()
