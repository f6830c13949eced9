"""The memory network's faults: each frame may be lost, doubled, damaged, delayed or cost the connection."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from atoma.contracts.codec import encode
from atoma.contracts.sync import (
    Cursor,
    Hint,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
)
from atoma.errors import AtomaError, ChannelBroken, ConnectFailed, ProtocolError
from atoma.ports import Peer, Principal, SyncService
from atoma_transports.adapters import ServiceProxy
from atoma_transports.frames.envelope import Frame, decode_frame, encode_frame
from atoma_transports.memory import Direction, FaultHook, MemoryNetwork, MemoryTransport
from tests.unit.transports.kit import Unasked

pytestmark = pytest.mark.virtual_time
Decide = Callable[[Direction, Frame, bytes], Sequence[bytes] | float | None]


@dataclass
class Counting(Unasked):
    """A host whose service counts what reaches it."""

    pushes: list[int] = field(default_factory=list)

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return Principal("alice")

    def service(self, principal: Principal) -> SyncService:
        return self

    async def push(self, request: PushRequest) -> PushReply:
        self.pushes.append(request.confirmed_mid)
        return PushReply((), request.confirmed_mid)

    async def pull(self, request: PullRequest) -> PullReply:
        return PullReply(request.scope, request.cursor, request.cursor)


class Faults:
    """Does to each frame what ``decide`` says: frames in its place, seconds of delay, or None for a break."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide

    async def on_frame(self, direction: Direction, frame: bytes) -> Sequence[bytes]:
        decision = self.decide(direction, decode_frame(frame, 10**7), frame)
        if decision is None:
            raise trio.BrokenResourceError
        if isinstance(decision, float | int):
            await trio.sleep(decision)
            return [frame]
        return decision


def push(number: int = 1) -> PushRequest:
    return PushRequest(b"c", 1, (), b"", confirmed_mid=number)


def on(kind: str, decision: Callable[[bytes], Sequence[bytes] | float | None]) -> Faults:
    """Does something to frames of one kind and lets the others pass."""
    return Faults(lambda direction, frame, data: decision(data) if frame.kind == kind else [data])


@asynccontextmanager
async def service(faults: FaultHook) -> AsyncGenerator[tuple[Counting, ServiceProxy]]:
    host, network = Counting(), MemoryNetwork()
    async with network.listen(host), MemoryTransport(network, faults=faults).connect() as channel:
        yield host, ServiceProxy(channel)


async def test_a_lost_request_is_for_the_callers_deadline() -> None:
    async with service(on("call", lambda data: [])) as (host, proxy):
        with trio.move_on_after(100) as patience:
            await proxy.push(push())
        assert patience.cancelled_caught
        assert host.pushes == []


async def test_a_lost_reply_leaves_the_work_done() -> None:
    async with service(on("reply", lambda data: [])) as (host, proxy):
        with trio.move_on_after(5) as patience:
            await proxy.push(push())
        assert patience.cancelled_caught
        assert host.pushes == [1]


async def test_a_doubled_request_may_arrive_twice_and_is_answered_once() -> None:
    async with service(on("call", lambda data: [data, data])) as (host, proxy):
        assert (await proxy.push(push(1))).last_mid == 1
        assert (await proxy.push(push(2))).last_mid == 2
        assert sorted(set(host.pushes)) == [1, 2]


async def test_a_doubled_reply_is_taken_once() -> None:
    async with service(on("reply", lambda data: [data, data])) as (host, proxy):
        assert [(await proxy.push(push(number))).last_mid for number in (1, 2, 3)] == [1, 2, 3]
        assert host.pushes == [1, 2, 3]


async def test_replies_in_another_order_reach_their_callers() -> None:
    held: list[bytes] = []

    def swap(data: bytes) -> Sequence[bytes]:
        held.append(data)
        return [] if len(held) < 3 else list(reversed(held))

    async with service(on("reply", swap)) as (_, proxy):
        answers: dict[int, int] = {}

        async def ask(number: int) -> None:
            answers[number] = (await proxy.push(push(number))).last_mid

        async with trio.open_nursery() as nursery:
            for number in (1, 2, 3):
                nursery.start_soon(ask, number)
        assert answers == {1: 1, 2: 2, 3: 3}


async def test_delay_is_only_delay() -> None:
    async with service(on("call", lambda data: 3.0)) as (_, proxy):
        began = trio.current_time()
        assert (await proxy.push(push())).last_mid == 1
        assert trio.current_time() - began == pytest.approx(3.0)


@pytest.mark.parametrize(("kind", "pushes"), [("call", []), ("reply", [1])])
async def test_a_break_is_told_at_once(kind: str, pushes: list[int]) -> None:
    async with service(on(kind, lambda data: None)) as (host, proxy):
        with pytest.raises(ChannelBroken) as broken, trio.fail_after(1):
            await proxy.push(push())
        assert broken.value.maybe_sent
        assert host.pushes == pushes


ANSWERS: dict[str, bytes] = {
    "noise": b"\xc1\xc1",
    "truncated": encode_frame("reply", 1, b"payload")[:-2],
    "never asked": encode_frame("reply", 99, b""),
    "a client's kind": encode_frame("call", 1),
    "an item": encode_frame("item", 1, encode(Hint("main", 1))),
    "an end": encode_frame("end", 1),
    "another version": encode([9, "reply", 1]),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_server_that_breaks_the_protocol_loses_its_connection(name: str) -> None:
    async with service(on("reply", lambda data: [ANSWERS[name]])) as (_, proxy):
        with pytest.raises(ProtocolError) as caught, trio.fail_after(1):
            await proxy.push(push())
        assert caught.value.maybe_sent
        with pytest.raises(AtomaError):
            await proxy.push(push())


async def test_a_reply_that_is_no_reply_fails_its_call_alone() -> None:
    wrong = on("reply", lambda data: [encode_frame("reply", 1, encode({"no": "reply"}))])
    async with service(wrong) as (_, proxy):
        with pytest.raises(ProtocolError, match="malformed PushReply"):
            await proxy.push(push())


async def test_sites_are_parted_one_by_one() -> None:
    host, network = Counting(), MemoryNetwork()

    async def reaches(site: str) -> bool:
        try:
            with trio.fail_after(30):
                async with MemoryTransport(network, site=site).connect() as channel:
                    await ServiceProxy(channel).pull(PullRequest("main", Cursor(), b"c"))
        except ConnectFailed:
            return False
        return True

    async with network.listen(host):
        network.partition("a")
        assert [await reaches("a"), await reaches("b")] == [False, True]
        network.partition("b", silent=True)
        assert [await reaches("a"), await reaches("b"), await reaches("c")] == [False, False, True]
        network.heal("a")
        assert [await reaches("a"), await reaches("b")] == [True, False]
        network.partition()
        assert [await reaches("a"), await reaches("c")] == [False, False]
        network.heal()
        assert [await reaches("a"), await reaches("b"), await reaches("c")] == [True] * 3


async def test_the_same_faults_give_the_same_run() -> None:
    async def run() -> list[tuple[float, int]]:
        seen: list[tuple[float, int]] = []
        turns = iter([0.1, 0.7, 0.2, 0.9, 0.3])
        began = trio.current_time()
        async with service(on("call", lambda data: next(turns))) as (_, proxy):
            for number in range(5):
                await proxy.push(push(number))
                seen.append((round(trio.current_time() - began, 6), number))
        return seen

    first = await run()
    assert first == await run()
    assert first[-1][0] == pytest.approx(2.2)


async def test_a_hook_that_fails_by_itself_is_a_lost_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")

    def fail(data: bytes) -> Sequence[bytes]:
        raise LookupError("a mistake in the hook")

    async with service(on("call", fail)) as (host, proxy):
        with pytest.raises(ChannelBroken, match="the log says how"):
            await proxy.push(push())
        assert host.pushes == []


def test_a_network_of_another_run_keeps_nothing_of_its_clock() -> None:
    """Trio's clock begins anywhere in every run: what was taken at one time of one says nothing in the next."""
    network = MemoryNetwork()

    async def pulls() -> int:
        host, answered = Counting(), 0
        async with network.listen(host), MemoryTransport(network).connect() as channel:
            with trio.move_on_after(5):
                for _ in range(3):
                    await ServiceProxy(channel).pull(PullRequest("main", Cursor(), b"c"))
                    answered += 1
        return answered

    late, early = trio.testing.MockClock(autojump_threshold=0), trio.testing.MockClock(autojump_threshold=0)
    late.jump(1_000_000)
    assert [trio.run(pulls, clock=clock) for clock in (late, early)] == [3, 3]
