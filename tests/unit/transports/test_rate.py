"""Bytes a second: an honest sender gets slower, a flood is refused, and this machine is not counted."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from wsproto.connection import ConnectionType

from atoma.contracts.sync import Mutation, PushReply, PushRequest
from atoma.errors import RemoteError
from atoma.ports import Peer, Principal, SyncService
from atoma.ports.rate import PAUSE_S, Meter
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames import open_channel, serve_pipe
from atoma_transports.websocket.pipe import WebSocketPipe
from tests.unit.transports.kit import Unasked

pytestmark = pytest.mark.virtual_time
RATE = 100_000
LIMITS = ChannelLimits(bytes_per_s=RATE)


class Host(Unasked):
    """Takes every push."""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return Principal("alice")

    def service(self, principal: Principal) -> SyncService:
        return self

    async def push(self, request: PushRequest) -> PushReply:
        return PushReply((), 0)


def push(size: int) -> PushRequest:
    return PushRequest(b"c", 1, (Mutation(1, b"x" * size, b""),), b"")


@asynccontextmanager
async def service(*, loopback: bool = False, limits: ChannelLimits = LIMITS) -> AsyncGenerator[ServiceProxy]:
    ours, theirs = trio.testing.memory_stream_pair()
    pipe = WebSocketPipe(ours, ConnectionType.CLIENT, b"", message_bytes=limits.first_frame_bytes)
    far = WebSocketPipe(theirs, ConnectionType.SERVER, b"", message_bytes=limits.first_frame_bytes)
    async with trio.open_nursery() as nursery:
        peer = Peer("192.0.2.1", loopback, "websocket")
        nursery.start_soon(functools.partial(serve_pipe, far, Host(), peer, limits=limits))
        async with open_channel(pipe, token="t") as channel:
            yield ServiceProxy(channel)
        nursery.cancel_scope.cancel()


async def seconds_for(service: ServiceProxy, size: int, times: int) -> float:
    began = trio.current_time()
    for _ in range(times):
        await service.push(push(size))
    return trio.current_time() - began


async def test_a_steady_sender_is_slowed_to_the_rate_and_never_refused() -> None:
    async with service() as far:
        assert await seconds_for(far, 10_000, 100) == pytest.approx(9.0, abs=0.5)  # 1 MB, the first second's worth free
        await trio.sleep(60)
        assert await seconds_for(far, 10_000, 9) == 0.0  # a burst after a pause


async def test_a_large_message_passes_and_what_follows_too_soon_is_refused_with_the_time_to_wait() -> None:
    async with service() as far:
        assert await seconds_for(far, 10 * RATE, 1) == 0.0
        with pytest.raises(RemoteError) as refused:
            await far.push(push(10))
        assert (refused.value.remote_code, refused.value.remote_retryable) == ("RATE_LIMITED", True)
        assert 5 < refused.value.retry_after_s < 10
        await trio.sleep(refused.value.retry_after_s)
        assert await seconds_for(far, 10, 1) <= PAUSE_S


async def test_this_machine_is_not_counted_and_zero_is_no_limit() -> None:
    async with service(loopback=True) as near:
        assert await seconds_for(near, 100_000, 50) == 0.0
    async with service(limits=ChannelLimits(bytes_per_s=0)) as free:
        assert await seconds_for(free, 100_000, 50) == 0.0


async def test_a_flood_does_not_grow_the_debt_without_end_nor_kill_the_connection() -> None:
    async with service() as far:
        codes: list[str] = []

        async def flood() -> None:
            try:
                await far.push(push(3 * RATE))
            except RemoteError as error:
                codes.append(error.remote_code)

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(flood)
        assert set(codes) == {"RATE_LIMITED"}
        assert len(codes) > 50
        await trio.sleep(70)
        assert await seconds_for(far, 10, 1) == 0.0


async def test_the_meter_is_exact() -> None:
    await trio.sleep(100)
    meter = Meter(1000)
    meter.count(1000)
    assert meter.debt_s() == 0.0
    meter.count(500)
    assert meter.debt_s() == pytest.approx(0.5)
    await meter.pause()
    assert meter.debt_s() == 0.0
    meter.count(10**9)
    assert meter.debt_s() == pytest.approx(60)
