"""The first words of HTTP/2: a peer that only greets costs one task and its bytes, whatever it waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

import trio
from hyperframe.frame import SettingsFrame

from atoma_transports.grpc._driver.calls import GrpcLimits
from atoma_transports.grpc._driver.wire import Http2Wire
from atoma_transports.serving.head import HTTP2_PREFACE, RECEIVE_BYTES, quiet_frames

ACKNOWLEDGED = SettingsFrame(flags=("ACK",)).serialize()
QUIET_BYTES_MAX = 1024
"""What a peer may send before it asks for something: longer greetings are looked at by HTTP/2 itself."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """A peer that has been greeted, and goes on.

    Attributes:
        seen: What it has sent so far.
        acknowledged: Whether its settings have been.
    """

    seen: bytes
    acknowledged: bool


@lru_cache(8)
def greeting_of(limits: GrpcLimits) -> bytes:
    """What a server with ``limits`` says first, whatever it is asked later."""
    return Http2Wire(limits, client_side=False, now=0.0).data_to_send()


async def greet(stream: trio.abc.Stream, limits: GrpcLimits, turn: Callable[[], Awaitable[None]]) -> Greeted | None:
    """Greet the peer, and wait until it asks for something; None when it hangs up before that.

    Args:
        stream: Begins with the preface of HTTP/2.
        limits: What the peer is told.
        turn: Lets others run, before what comes in further pieces is looked at.

    Raises what a lost stream raises.
    """
    await stream.send_all(greeting_of(limits))
    start = at = len(HTTP2_PREFACE)
    seen = bytearray()
    acknowledged = False
    while True:
        first = not seen
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            await turn()  # many may hang up at once
            return None
        seen += data
        at, asks = quiet_frames(seen, at)
        if asks or len(seen) > QUIET_BYTES_MAX or not seen.startswith(HTTP2_PREFACE):
            return Greeted(bytes(seen), acknowledged)
        if at > start and not acknowledged:
            if (seen[start + 3], seen[start + 4]) != (SettingsFrame.type, 0):
                return Greeted(bytes(seen), acknowledged)
            await stream.send_all(ACKNOWLEDGED)
            acknowledged = True
        if not first:
            await turn()
