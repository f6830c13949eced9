"""Calls of every kind, what they carry and how they end."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.service import Health
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from h2.events import DataReceived
from h2.settings import SettingCodes
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from atoma_transports.grpc._driver.client import CallFailed, ConnectionLost, GrpcLimits, open_grpc_channel
from atoma_transports.grpc._driver.compression import RememberingDecoder, RememberingEncoder, passing
from atoma_transports.grpc._driver.server import serve_grpc
from tests.unit.transports.grpc.driver_kit import Echo, EchoStub, Raw, connected, message, serving

NAMES = st.sampled_from([":path", "te", "content-type", "x-one", "x-two"])
VALUES = st.sampled_from(["", "a", "trailers", "b" * 30, "ü", "c" * 300])

pytestmark = pytest.mark.virtual_time


async def test_a_unary_call() -> None:
    async with connected() as both:
        assert await both.stub.unary(b"hello") == b"hello"
        assert await both.stub.unary(b"") == b""


async def test_a_large_message_passes_a_small_window() -> None:
    limits = GrpcLimits(stream_window=65_535, connection_window=65_535)
    text = bytes(range(256)) * 16_000  # 4 MB
    async with connected(limits) as both:
        assert await both.stub.unary(text) == text
        assert await both.stub.unary(text) == text  # and the windows were given back


async def test_many_large_messages_at_once() -> None:
    limits = GrpcLimits(stream_window=65_535, connection_window=100_000)
    async with connected(limits) as both, trio.open_nursery() as nursery:

        async def one(letter: bytes) -> None:
            assert await both.stub.unary(letter * 300_000) == letter * 300_000

        for letter in b"abcdefghijklmnop":
            nursery.start_soon(one, bytes([letter]))


async def test_a_stream_of_answers() -> None:
    async with connected() as both:
        assert await both.stub.count(b"2500") == [b"%d" % i for i in range(2500)]
        assert await both.stub.count(b"0") == []


async def test_streams_of_requests() -> None:
    async with connected() as both:
        assert await both.stub.join([b"a", b"bc", b"", b"d"]) == b"abcd"
        assert await both.stub.chat([b"1", b"2", b"3"]) == [b"1", b"2", b"3"]


async def test_a_conversation() -> None:
    async with connected() as both, both.stub.chat.open() as call:
        for text in (b"one", b"two"):
            await call.send_message(text)
            assert await call.recv_message() == text
        await call.end()
        assert await call.recv_message() is None


async def test_calls_at_once_do_not_mix() -> None:
    async with connected() as both, trio.open_nursery() as nursery:

        async def one(i: int) -> None:
            for j in range(20):
                assert await both.stub.unary(b"%d %d" % (i, j)) == b"%d %d" % (i, j)

        for i in range(100):
            nursery.start_soon(one, i)


@given(
    texts=st.lists(st.binary(max_size=400), max_size=8),
    cuts=st.lists(st.integers(0, 1_000), max_size=20),
    chunk=st.integers(1, 600),
)
async def test_messages_arrive_however_they_are_cut(texts: list[bytes], cuts: list[int], chunk: int) -> None:
    """Frames end anywhere in a message, and reads end anywhere in a frame."""
    data = b"".join(map(message, texts))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    async with serving(Echo()) as peer:
        call = peer.begin("/test.Echo/join")
        for start, stop in pairwise(edges):
            peer.wire.send_data(call, data[start:stop], pad_length=stop % 3 or None)
        peer.wire.end_stream(call)
        raw = peer.wire.data_to_send()
        for i in range(0, len(raw), chunk):
            await peer.send(raw[i : i + chunk])
        assert await peer.status(call) == "OK"
        received = b"".join(event.data for event in peer.events if isinstance(event, DataReceived))
        assert received == message(b"".join(texts))


@pytest.mark.parametrize("sizes", [[0], [100], [100_000], [100, 5_000, 70_000], [5_000, 6_000], [0, 4_096]])
async def test_headers_stay_readable_whatever_table_the_peer_has(sizes: list[int]) -> None:
    """The compression of headers remembers them, within what both sides agreed on."""
    echo = Echo()
    async with serving(echo) as peer:
        for round_ in range(4):
            for i in range(8):
                fields = [("one", "a" * i), ("two", f"{i % 3}"), ("three", f"{round_}")]
                call = peer.begin("/test.Echo/fail", *fields)
                peer.wire.send_data(call, message(b""), end_stream=True)
                await peer.send()
                assert await peer.status(call) == "NOT_FOUND"
                assert echo.metadata == dict(fields)
                same = peer.begin("/test.Echo/unary")
                peer.wire.send_data(same, message(b"x"), end_stream=True)
                await peer.send()
                assert await peer.status(same) == "OK"
            if round_ < len(sizes):
                peer.wire.update_settings({SettingCodes.HEADER_TABLE_SIZE: sizes[round_]})


@given(
    st.lists(
        st.one_of(
            st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=6),
            st.sampled_from([0, 60, 200, 4096, 10_000]),
        ),
        max_size=40,
    )
)
def test_what_is_remembered_is_what_was_said(steps: list[list[tuple[str, str, bool]] | int]) -> None:
    """The remembering ends against each other and against hpack's own, with tables of changing size."""
    encoder, decoder, witness = RememberingEncoder(), RememberingDecoder(100_000, 1_000), Decoder(100_000)
    for step in steps:
        if isinstance(step, int):
            encoder.header_table_size = step
            for reader in (decoder, witness):  # which takes nothing beyond its last word
                reader.max_allowed_table_size = step
            assert encoder.header_table_size == min(step, 4096)  # what the peer offers is not what is taken
            continue
        lasting = [(name, value) for name, value, once in step if not once]
        headers = lasting + [passing(name, value) for name, value, once in step if once]
        block = encoder.encode(headers)
        expected = [(name.encode(), value.encode()) for name, value in headers]
        assert [tuple(header) for header in decoder.decode(block, raw=True)] == expected
        assert [tuple(header) for header in witness.decode(block, raw=True)] == expected


def test_sizes_that_came_and_went_are_not_told() -> None:
    """Of all sizes since the last headers the smallest and the last one are told: others may be more than is allowed now."""
    encoder, decoder = RememberingEncoder(), Decoder()
    for size in (50, 4096, 60):
        encoder.header_table_size = size
    decoder.max_allowed_table_size = 60
    assert [tuple(header) for header in decoder.decode(encoder.encode([("a", "x")]), raw=True)] == [(b"a", b"x")]


def test_a_block_that_changes_the_table_is_read_each_time() -> None:
    decoder = RememberingDecoder(100_000, 1_000)

    def read(block: bytes) -> list[tuple[object, ...]]:
        return [tuple(header) for header in decoder.decode(block, raw=True)]

    remember_a, remember_b, newest, second = b"\x40\x01a\x01x", b"\x40\x01b\x01y", b"\xbe", b"\xbf"
    assert read(remember_a) == read(remember_a) == [(b"a", b"x")]
    assert read(second) == read(newest) == [(b"a", b"x")]
    assert read(remember_b) == [(b"b", b"y")]
    assert read(newest) == [(b"b", b"y")]
    assert read(second) == [(b"a", b"x")]


async def test_padding_gives_its_room_back() -> None:
    echo = Echo()
    async with serving(echo, GrpcLimits(stream_window=65_535, connection_window=65_535)) as peer:
        call = peer.begin("/test.Echo/join")
        for _ in range(1_000):
            while peer.wire.local_flow_control_window(call) < 300:
                await peer.receive()
            peer.wire.send_data(call, message(b""), pad_length=255)
            await peer.send()
        peer.wire.end_stream(call)
        await peer.send()
        assert await peer.status(call) == "OK"


async def test_a_reader_of_many_small_messages_leaves_time_to_others() -> None:
    async with connected() as both, trio.open_nursery() as nursery:
        turns = 0

        async def beside() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with both.stub.count.open() as call:
            await call.send_message(b"5000", end=True)
            await call.recv_message()
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            nursery.start_soon(beside)
            assert len([text async for text in call]) == 4999
        assert turns > 50
        nursery.cancel_scope.cancel()


async def test_metadata_and_an_error_with_all_it_carries() -> None:
    sent: dict[str, str | bytes] = {
        "authorization": "Bearer abc",
        "blob-bin": bytes(range(255, -1, -1)),
        "one-bin": b"x",
    }
    async with connected() as both:
        with pytest.raises(CallFailed) as caught:
            await both.stub.fail(b"", metadata=sent)
        assert both.echo.metadata == sent
        assert caught.value.status is Status.NOT_FOUND
        assert caught.value.message == "no such row: 50 % of «ü»"
        assert caught.value.metadata == {"atoma-error-bin": bytes(range(256)), "plain": "said"}
        assert await both.stub.unary(b"after") == b"after"


async def test_an_error_nobody_expected_tells_the_caller_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def explode() -> None:
        raise RuntimeError("the password is 1234")

    async with connected() as both:
        both.echo.fails = explode
        with caplog.at_level(logging.ERROR), pytest.raises(CallFailed) as caught:
            await both.stub.fail(b"")
    assert caught.value.status is Status.INTERNAL
    assert "1234" not in str(caught.value)
    assert "1234" in caplog.text


async def test_an_error_in_a_nursery_of_the_handler_is_that_error() -> None:
    async def refuse() -> None:
        raise GRPCError(Status.ABORTED, "inside")

    async def grouped() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(refuse)

    async with connected() as both:
        both.echo.fails = grouped
        with pytest.raises(CallFailed, match="inside") as caught:
            await both.stub.fail(b"")
    assert caught.value.status is Status.ABORTED


async def test_a_method_that_is_not_there_and_one_that_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as both:
        with pytest.raises(CallFailed) as unknown:
            await both.stub.unknown(b"")
        with pytest.raises(CallFailed) as silent:
            await both.stub.nothing(b"")
    assert unknown.value.status is Status.UNIMPLEMENTED
    assert silent.value.status is Status.INTERNAL


async def test_generated_stubs_and_services_of_others() -> None:
    near, far = trio.testing.memory_stream_pair()
    limits, drain = GrpcLimits(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_grpc(far, Health().__mapping__(), limits=limits, drain=drain)

        nursery.start_soon(serve)
        async with open_grpc_channel(near, authority="test", limits=limits) as client:
            reply = await HealthStub(client).Check(HealthCheckRequest())
            assert reply.status == HealthCheckResponse.SERVING
            with pytest.raises(GRPCError) as caught:
                await HealthStub(client).Check(HealthCheckRequest(service="none"))
            assert caught.value.status is Status.NOT_FOUND


async def test_no_asyncio_loop_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an asyncio loop was made")

    monkeypatch.setattr(asyncio.BaseEventLoop, "__init__", refuse)
    monkeypatch.setattr(asyncio, "get_event_loop", refuse)
    async with connected() as both:
        assert await both.stub.unary(b"x") == b"x"
        assert len(await both.stub.count(b"10")) == 10
        with trio.move_on_after(1):
            await both.stub.slow(b"")


async def test_after_the_block_the_stream_is_closed_and_calls_fail() -> None:
    near, far = trio.testing.memory_stream_pair()
    limits, echo = GrpcLimits(), Echo()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_grpc(far, echo.__mapping__(), limits=limits, drain=trio.Event(), codec=Raw())

        nursery.start_soon(serve)
        async with open_grpc_channel(near, authority="test", limits=limits, codec=Raw()) as client:
            stub = EchoStub(client)
            assert await stub.unary(b"x") == b"x"
        assert client.lost
        with pytest.raises(ConnectionLost) as caught:
            await stub.unary(b"x")
        assert not caught.value.maybe_sent
        with pytest.raises(trio.ClosedResourceError):
            await near.send_all(b"x")
