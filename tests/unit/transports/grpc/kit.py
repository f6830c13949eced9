"""The gRPC handler on a stream in memory, so that time is virtual, and callers that know nothing of ours above the driver."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing
from grpclib.exceptions import GRPCError

from atoma.contracts.codec import decode
from atoma.contracts.sync import Cursor, PullRequest
from atoma.contracts.values import ErrorInfo
from atoma.ports import Peer, ServiceHost
from atoma.testing.conformance import TOKEN, TinyHub
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.grpc._driver.calls import GrpcLimits
from atoma_transports.grpc._driver.client import CallFailed, GrpcClient, open_grpc_channel
from atoma_transports.grpc.handler import GrpcHandler
from atoma_transports.serving.handlers import Hosting
from atoma_transports.serving.places import ConnectionSlots

BEARER = {"authorization": f"Bearer {TOKEN}"}
PULL = PullRequest("main", Cursor(b"e", 1, b"h"), b"client", max_bytes=10)


@dataclass
class Port:
    """A hub behind the handler, and one connection to it."""

    hub: TinyHub = field(default_factory=TinyHub)
    drain: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def open_handler(
    host: ServiceHost | None = None,
    limits: ChannelLimits | None = None,
    client_limits: GrpcLimits | None = None,
    *,
    loopback: bool = True,
) -> AsyncGenerator[tuple[Port, GrpcClient]]:
    """Serve a tiny hub, or ``host``, on one end of a stream; the other end has a bare gRPC client."""
    port = Port()
    ours, theirs = trio.testing.memory_stream_pair()
    peer = Peer("memory", loopback=loopback, transport="grpc")
    limits = limits or ChannelLimits()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            with ConnectionSlots(limits).enter("memory") as place:
                hosting = Hosting(host or port.hub, peer, lambda name: True, limits, port.drain, place=place)
                with place.scope:
                    await GrpcHandler().serve(theirs, hosting)
            port.ended.set()

        nursery.start_soon(serve)
        async with open_grpc_channel(ours, authority="hub", limits=client_limits or GrpcLimits()) as client:
            yield port, client
        with trio.fail_after(60):
            await port.ended.wait()


def told(error: GRPCError) -> ErrorInfo:
    """What the trailer of ``error`` says."""
    assert isinstance(error, CallFailed)
    data = error.metadata["atoma-error-bin"]
    assert isinstance(data, bytes)
    return decode(data, ErrorInfo)
