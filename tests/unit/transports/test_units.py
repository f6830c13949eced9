"""What comes in a million small units costs as much as they do: they count against ``bytes_per_s``, on every protocol.

Real handlers on streams in memory, in virtual time: a parser takes no time at all, so whatever time passes was waited for.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import pytest
import trio
import trio.testing
from hyperframe.frame import PingFrame, WindowUpdateFrame

from atoma.contracts.codec import encode
from atoma.contracts.sync import PullRequest
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.fairness import BYTE_S, CALL_S, KNOWN_SHARE, TINY_BYTES, TINY_PER_S, TURN_EVENTS, UNIT_BYTES
from atoma_transports.calls.requests import MESSAGEPACK, read_request
from tests.steps import Steps
from tests.unit.transports.handlers import (
    CONTINUATION,
    PING,
    PREFACE,
    PULL,
    Port,
    chunks,
    fragments,
    grpc_data,
    grpc_head,
    grpc_message,
    http_call,
    http_head,
    open_port,
    serialized,
    upgrade,
    ws_auth,
    ws_call,
    ws_frame,
)
from tests.unit.transports.http.kit import PEER

pytestmark = pytest.mark.virtual_time
S = TypeVar("S", bound=msgspec.Struct)
RATE = 100_000
LIMITS = ChannelLimits(bytes_per_s=RATE)
UNITS = 500
ENHANCE_YOUR_CALM = (11).to_bytes(4, "big")
WAITS_S = UNITS * UNIT_BYTES / RATE - 1.0
"""How long so many units take at that rate, when a second's worth is free."""


@dataclass(frozen=True)
class Flood:
    """A call that comes with many small units: in them, or behind them.

    Attributes:
        handler: Who is spoken to.
        opening: Sent first, and answered with ``welcome``.
        call: Sent then, in one piece; ``answer`` is in what comes back.
    """

    handler: str
    call: Callable[[], bytes]
    opening: bytes = b""
    welcome: bytes = b""
    answer: bytes = b"main"


def padded_body(size: int = UNITS) -> bytes:
    """A pull in JSON of so many bytes."""
    body = b'{"scope":"main","cursor":{},"client_id":"Y2xpZW50","max_bytes":0}'
    return body + b" " * (size - len(body))


def long_pull(size: int) -> PullRequest:
    """A pull that is about as long as that."""
    return msgspec.structs.replace(PULL, client_id=b"c" * (size - 100))


def ws(call: Callable[[], bytes]) -> Flood:
    return Flood("websocket", call, upgrade() + ws_auth(), b"welcome")


def grpc(call: Callable[[], bytes]) -> Flood:
    return Flood("grpc", call, PREFACE)


def grpc_in_bytes(padding: int = 0) -> bytes:
    """A call whose message comes in frames of one byte, behind so many more that nobody waits for."""
    message = grpc_message()
    parts = [grpc_data(message[at : at + 1], 3, padding=padding) for at in range(len(message) - 1)]
    refused = grpc_head(path="/nothing/Here") + grpc_data(b"x", padding=padding) * (UNITS - len(parts))
    return refused + grpc_head(3) + b"".join(parts) + grpc_data(message[-1:], 3, end=True)


def grpc_behind(unit: bytes) -> bytes:
    return unit * UNITS + grpc_head() + grpc_data(grpc_message(), end=True)


FLOODS: dict[str, Flood] = {
    "HTTP, chunks of a byte": Flood("http", lambda: http_head(content_type="application/json") + chunks(padded_body())),
    "HTTP, requests ahead": Flood("http", lambda: http_call(token="nobody's") * UNITS + http_call()),
    "WebSocket, fragments of a byte": ws(lambda: fragments(ws_call(long_pull(UNITS)))),
    "WebSocket, empty continuations": ws(
        lambda: (
            ws_frame(b"", final=False)
            + ws_frame(b"", CONTINUATION, final=False) * UNITS
            + ws_frame(ws_call(), CONTINUATION)
        )
    ),
    "WebSocket, pings": ws(lambda: ws_frame(b"", PING) * UNITS + ws_frame(ws_call())),
    "gRPC, DATA of a byte": grpc(grpc_in_bytes),
    "gRPC, padded DATA": grpc(lambda: grpc_in_bytes(255)),
    "gRPC, WINDOW_UPDATE of one": grpc(lambda: grpc_behind(serialized(WindowUpdateFrame(0, 1)))),
    "gRPC, PING": grpc(lambda: grpc_behind(serialized(PingFrame(0, b"areyouon")))),
}


async def seconds_for(port: Port, flood: Flood) -> float:
    """How long the answer takes."""
    wired = port.connect(flood.handler)
    if flood.opening:
        await wired.send(flood.opening)
        await wired.until(flood.welcome)
        await trio.sleep(2.0)  # what the opening was counted as is worn off
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wired.send, flood.call())
        with trio.fail_after(60):
            await wired.until(flood.answer)
    return trio.current_time() - began


@pytest.mark.parametrize("name", FLOODS)
async def test_small_units_count_as_what_they_cost(name: str) -> None:
    flood = FLOODS[name]
    async with open_port(LIMITS, loopback=False) as port:
        took = await seconds_for(port, flood)
    assert 0.85 * WAITS_S <= took <= 1.4 * WAITS_S
    async with open_port(LIMITS, loopback=True) as port:
        assert await seconds_for(port, flood) == 0.0, "this machine is not counted"


SMALL, PIECES = TINY_BYTES, 2_000
IN_PIECES: dict[str, Flood] = {
    "HTTP": Flood("http", lambda: http_head(content_type="application/json") + chunks(padded_body(SMALL * PIECES), SMALL)),
    "WebSocket": ws(lambda: fragments(ws_call(long_pull(SMALL * PIECES)), SMALL)),
    "gRPC": grpc(
        lambda: grpc_head(path="/nothing/Here") + grpc_data(b"x" * SMALL) * PIECES
        + grpc_head(3) + grpc_data(grpc_message(), 3, end=True)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PIECES)
async def test_others_run_between_the_turns_of_a_parser(name: str) -> None:
    """Also while the peer is well within its share."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await trio.lowlevel.checkpoint()

    async with open_port() as port, trio.open_nursery() as nursery:
        flood = IN_PIECES[name]
        wired = port.connect(flood.handler)
        await wired.send(flood.opening)
        await wired.until(flood.welcome)
        nursery.start_soon(beat)
        await wired.send(flood.call())
        await wired.until(flood.answer)
        nursery.cancel_scope.cancel()
    assert beats >= PIECES / TURN_EVENTS + 4


async def test_units_that_are_large_count_as_their_bytes() -> None:
    body = padded_body(100_000)
    async with open_port(LIMITS, loopback=False) as port:
        wired = port.connect("http")
        began = trio.current_time()
        for _ in range(4):
            await wired.send(http_head(content_type="application/json"), chunks(body, 2 * UNIT_BYTES))
            await wired.until(b"main")
        assert 2.0 <= trio.current_time() - began <= 3.2


async def test_over_http_too_what_follows_a_flood_is_refused_with_the_time_to_wait() -> None:
    body = padded_body(60_000)
    async with open_port(ChannelLimits(bytes_per_s=RATE // 10), loopback=False) as port:
        wired = port.connect("http")
        await wired.send(http_head(content_type="application/json"), chunks(body, 60_000))
        await wired.until(b"200 OK")
        await wired.send(http_call())
        assert b"429" in await wired.until(b"RATE_LIMITED")
        await trio.sleep(10)
        await wired.send(http_call())
        await wired.until(b"200 OK")


MANY = 2 * TINY_PER_S + 10
CUT: dict[str, tuple[str, bytes, bytes, bytes, bytes]] = {
    "HTTP": ("http", b"", b"", http_head("/nothing", token="", content_type="application/json") + chunks(b"x" * MANY), b"404"),
    "HTTP, a call": ("http", b"", b"", http_head() + chunks(b"x" * MANY), b"pieces"),
    "WebSocket, fragments": (
        "websocket", upgrade() + ws_auth(), b"welcome", fragments(b"x" * MANY), b"RATE_LIMITED: more than 1,000 pieces",
    ),
    "WebSocket, continuations": (
        "websocket", upgrade(), b"101", ws_frame(b"", final=False) + ws_frame(b"", CONTINUATION, final=False) * MANY,
        b"RATE_LIMITED: more than 1,000 pieces",
    ),
    "WebSocket, pings": (
        "websocket", upgrade(), b"101", ws_frame(b"", PING) * MANY, b"RATE_LIMITED: more than 1,000 pieces",
    ),
    "gRPC, pings": ("grpc", PREFACE, b"", serialized(PingFrame(0, b"areyouon")) * MANY, ENHANCE_YOUR_CALM),
    "gRPC, empty DATA": ("grpc", PREFACE + grpc_head(), b"", grpc_data(b"") * MANY, ENHANCE_YOUR_CALM),
    "gRPC, DATA of a byte": (
        "grpc", PREFACE + grpc_head(path="/nothing/Here"), b"", grpc_data(b"x") * (16 * MANY), ENHANCE_YOUR_CALM,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
async def test_pieces_that_carry_next_to_nothing_end_the_connection_with_a_reason(name: str) -> None:
    handler, opening, welcome, flood, reason = CUT[name]
    async with open_port() as port:
        wired = port.connect(handler)
        await wired.send(opening)
        await wired.until(welcome)

        async def send() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await wired.send(flood)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with trio.fail_after(30):
                said = await wired.rest()
            nursery.cancel_scope.cancel()
        assert reason in said


CALLS_MAX = 100
"""Function calls that a unit takes, with room: a ping of WebSocket takes half as many."""
IN_ONE_STEP = CUT | {
    "WebSocket, after a bad token": (
        "websocket", upgrade(), b"101", ws_auth("nobody's") + ws_frame(b"", PING) * MANY, b"UNAUTHENTICATED: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_ONE_STEP)
async def test_no_step_of_the_loop_goes_through_all_that_came(name: str) -> None:
    """Not even while the connection ends, when the peer has been told why and sends on."""
    handler, opening, welcome, flood, reason = IN_ONE_STEP[name]
    steps = Steps()
    async with open_port() as port:
        wired = port.connect(handler)
        await wired.send(opening)
        await wired.until(welcome)
        trio.lowlevel.add_instrument(steps)
        with trio.fail_after(30):
            await wired.send(flood)
            await wired.until(reason)
            with contextlib.suppress(trio.BrokenResourceError):
                await wired.send(flood)
            await wired.rest()
        trio.lowlevel.remove_instrument(steps)
    assert steps.most <= TURN_EVENTS * CALLS_MAX


def batch_of(calls: int) -> bytes:
    message = {"scope": "main", "cursor": {}, "client_id": "Y2xpZW50", "max_bytes": "0"}
    parts = [{"id": str(n), "method": "pull", "message": message} for n in range(calls)]
    return json.dumps({"version": "1", "id": "abcdefgh", "calls": parts}).encode()


@pytest.mark.parametrize("calls", [1, 100])
async def test_a_batch_earns_what_its_calls_would(calls: int) -> None:
    body = batch_of(calls)
    found: list[float] = []
    async with open_port() as port:
        owner = port.fairness.of("alice")

        async def look(request: PullRequest) -> None:
            found.append(owner.seconds.debt_s())

        port.hub.on_pull = look
        owner.seconds.count(2 * KNOWN_SHARE)  # one second's worth is free
        wired = port.connect("http")
        head = http_head("/v1/batch", content_type="application/json", content_length=str(len(body)))
        await wired.send(head, body)
        await wired.until(b"replies")
    earned = calls * CALL_S + len(body) * BYTE_S
    assert found == [pytest.approx(1.0 - earned / KNOWN_SHARE)] * calls


async def test_decoding_is_counted_beside_reading(mock_clock: trio.testing.MockClock) -> None:
    class Slow:
        """A format whose steps take two milliseconds each."""

        growth = 1.0

        def decode(self, data: bytes, kind: type[S]) -> S:
            return MESSAGEPACK.decode(data, kind)

        def decode_in_steps(self, data: bytes, kind: type[S]) -> Generator[None, None, S]:
            for _ in range(100):
                mock_clock.jump(0.002)
                yield
            return self.decode(data, kind)

    async with open_port() as port:
        with port.fairness.connection(ChannelLimits(), PEER) as share:
            share.admit("alice")
            await read_request(
                encode(msgspec.structs.replace(PULL, client_id=bytes(100_000))), PullRequest, Slow(), share
            )
            assert share.is_over()
            assert port.fairness.of("alice").seconds.debt_s() == pytest.approx(0.2 / KNOWN_SHARE - 1.2, abs=0.01)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (http_head(token="nobody's"), b"401"),
        (http_head("/v1/nothing"), b"404"),
        (http_head("/nothing", token="", content_type="application/json"), b"404"),
        (http_head(content_type="text/plain"), b"415"),
    ],
    ids=["token", "method", "page", "type"],
)
async def test_who_asks_for_what_is_known_before_a_body_is_read(head: bytes, status: bytes) -> None:
    """The body never comes, and the answer does."""
    async with open_port() as port:
        wired = port.connect("http")
        began = trio.current_time()
        await wired.send(head)
        assert status in await wired.until(b"\r\n")
        assert trio.current_time() - began <= 0.5, (
            "a body that is sent ahead is waited for, so that the connection goes on"
        )
