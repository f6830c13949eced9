"""A caller may ask for more than the road carries: what is made and not sent yet has a bound."""

from __future__ import annotations

import tracemalloc

import pytest
import trio

from atoma.contracts.sync import Cursor, PullRequest
from atoma.ports import Transport
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.unit.transports.kit import PullHost

CALLS = 100
BYTES = 1_000_000


def transport_to(address: str, name: str) -> Transport:
    if name == "grpc":
        return GrpcTransport(address)
    return HttpTransport(f"http://{address}") if name == "http" else WebSocketTransport(f"ws://{address}/sync")


@pytest.mark.parametrize("name", ["websocket", "grpc", "http"])
async def test_large_answers_to_calls_at_once_are_not_all_kept(name: str) -> None:
    answered: set[str] = set()
    async with (
        open_server(PullHost(), "127.0.0.1:0", limits=ChannelLimits(queue_bytes=2 * BYTES)) as address,
        transport_to(address, name).connect() as channel,
    ):
        service = ServiceProxy(channel)

        async def pull(number: int) -> None:
            reply = await service.pull(PullRequest(f"{number}.", Cursor(), b"c", max_bytes=BYTES))
            assert len(reply.scope) > BYTES
            answered.add(reply.scope.partition(".")[0])

        tracemalloc.start()
        try:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for number in range(CALLS):
                        nursery.start_soon(pull, number)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert answered == {f"{number}" for number in range(CALLS)}
    assert peak < CALLS * BYTES / 2
