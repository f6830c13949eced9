"""What requests and answers of one principal take is one account: who is slow keeps none of the others waiting, whatever they speak."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import msgspec
import pytest
import trio
import trio.testing
from hyperframe.frame import PingFrame

from atoma.contracts.codec import encode
from atoma.contracts.sync import Cursor, PullRequest
from atoma_transports import streams
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits, memory
from atoma_transports.calls.memory import PATIENCE_S, Holding, Memory
from atoma_transports.frames.envelope import encode_frame
from atoma_transports.grpc import GrpcTransport
from atoma_transports.grpc.convert import pack
from atoma_transports.http.envelope import BatchCall, BatchRequest
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.unit.transports.handlers import (
    PREFACE,
    Wired,
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
)
from tests.unit.transports.kit import PullHost
from tests.unit.transports.test_places import dial, rest_of

MB = 1_000_000
CALLS = range(1, 31)
PING = b"\x89\x80\0\0\0\0"


def pull(size: int = MB) -> PullRequest:
    return PullRequest("", Cursor(), b"a client of ours", max_bytes=size)


def asks_over_websocket() -> bytes:
    calls = [encode_frame("call", id, encode(pull()), method="pull") for id in CALLS]
    return upgrade() + ws_auth() + b"".join(fragments(call, 60_000) for call in calls)


def asks_over_grpc() -> bytes:
    """Thirty calls; only as much of the answers is taken as HTTP/2 grants from the start."""
    data = pack(pull())
    message = b"\0" + len(data).to_bytes(4, "big") + data
    return PREFACE + b"".join(grpc_head(id) + grpc_data(message, id, end=True) for id in range(1, 61, 2))


def asks_over_http() -> bytes:
    calls = tuple(BatchCall(id, "pull", msgspec.Raw(encode(pull()))) for id in CALLS)
    body = encode(BatchRequest(1, "0123456789abcdef0123456789abcdef", calls))
    return http_head("/v1/batch", content_length=str(len(body))) + body


ASKS = {"websocket": asks_over_websocket, "grpc": asks_over_grpc, "http": asks_over_http}


@pytest.mark.parametrize("name", ASKS)
async def test_who_takes_no_answers_gives_way_to_the_other_connections(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for thirty megabytes over a real socket and reads nothing; one of its answers is more than may be held."""
    monkeypatch.setattr(memory, "PATIENCE_S", 0.02)
    ping = {"websocket": PING, "grpc": serialized(PingFrame(0, b"areyouon")), "http": b"x"}[name]
    limits = ChannelLimits(memory_bytes=MB // 2)
    async with open_server(PullHost(), "127.0.0.1:0", limits=limits) as address, await dial(address) as slow:
        await slow.send_all(ASKS[name]())
        async with WebSocketTransport(f"ws://{address}/sync", token="any").connect() as channel:
            service = ServiceProxy(channel)
            with trio.fail_after(120):
                try:
                    while True:  # until the server has hung up on it, which sending alone finds out
                        assert (await service.pull(pull(10))).scope == "x" * 10
                        await slow.send_all(ping)
                        await trio.sleep(0.01)
                except trio.BrokenResourceError:
                    pass
                assert (await service.pull(pull(10))).scope
        assert len(await rest_of(slow)) < 30 * MB


STALLED: dict[str, Callable[[], bytes]] = {
    "http": lambda: http_head("/v1/write", content_length=str(MB)) + b"x" * (MB * 9 // 10),
    "websocket": lambda: upgrade() + ws_auth() + fragments(b"x" * MB, 60_000)[: MB * 9 // 10],
}


@pytest.mark.virtual_time
@pytest.mark.parametrize("name", STALLED)
async def test_a_request_that_stops_half_way_gives_way_to_those_that_come(name: str) -> None:
    body = b"x" * (MB * 9 // 10)
    async with open_port(ChannelLimits(memory_bytes=MB)) as port:
        slow, other = port.connect(name), port.connect("http")
        await slow.send(STALLED[name]())
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(2 * PATIENCE_S):
            await other.send(http_head("/v1/write", content_length=str(len(body))), body)
            assert await other.until(b"HTTP/1.1 4"), "it was read, and is no write"
            assert b"HTTP/1.1 200" not in await slow.rest()


class Most(trio.abc.Instrument):
    """Notes the most that an account has held."""

    def __init__(self, account: Memory) -> None:
        self._account = account
        self.held = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.held = max(self.held, self._account.held)


BODY = b"x" * (MB * 9 // 10)
REQUESTS: dict[str, tuple[bytes, Callable[[int], bytes], bytes, int]] = {
    "websocket": (
        upgrade() + ws_auth(), lambda id: fragments(encode_frame("call", id, BODY, method="write"), 60_000), b"\xa5error", 5,
    ),
    "http": (b"", lambda id: http_head("/v1/write", content_length=str(len(BODY))) + BODY, b"HTTP/1.1 4", 1),
}  # fmt: skip


@pytest.mark.virtual_time
@pytest.mark.parametrize("name", REQUESTS)
async def test_large_requests_at_once_are_read_as_far_as_there_is_room_and_all_are_answered(name: str) -> None:
    opening, request, answer, each = REQUESTS[name]
    async with open_port(ChannelLimits(memory_bytes=2 * MB)) as port:
        account = port.fairness.of("alice").memory
        most = Most(account)
        trio.lowlevel.add_instrument(most)
        answered = 0

        async def send(wired: Wired) -> None:
            await wired.send(opening, *map(request, range(1, each + 1)))

        async def ask() -> None:
            nonlocal answered
            wired = port.connect(name)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, wired)
                for _ in range(each):
                    await wired.until(answer)
                    answered += 1

        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(most)
        assert account.held == 0
    assert answered == 8 * each
    assert 2 * MB <= most.held < 4 * MB


async def test_requests_over_grpc_are_taken_as_there_is_room_and_all_are_answered() -> None:
    limits = ChannelLimits(memory_bytes=300_000)
    answered: list[int] = []
    async with (
        open_server(PullHost(), "127.0.0.1:0", limits=limits) as address,
        GrpcTransport(f"grpc://{address}", token="any").connect() as channel,
    ):
        service = ServiceProxy(channel)

        async def ask(number: int) -> None:
            reply = await service.pull(PullRequest("x" * 100_000, Cursor(), b"c", max_bytes=number))
            answered.append(len(reply.scope) - 100_000)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(ask, number)
    assert sorted(answered) == list(range(30))


@pytest.mark.virtual_time
async def test_single_answers_over_http_are_made_as_there_is_room_too() -> None:
    """Each connection answers one call after the other; all of them together would hold eight megabytes."""
    body = encode(pull())
    async with open_port(ChannelLimits(memory_bytes=MB)) as port:
        account = port.fairness.of("alice").memory
        most = Most(account)
        trio.lowlevel.add_instrument(most)
        clients = [port.connect("http") for _ in range(8)]
        for client in clients:
            await client.send(http_head("/v1/pull", content_length=str(len(body))), body)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.until, b"\xa5proof")  # the end of a page
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(most)
    assert most.held < 3 * MB


async def test_nothing_is_held_once_everything_is_answered() -> None:
    calls = {
        "websocket": upgrade() + ws_auth() + fragments(ws_call(), 60_000),
        "grpc": PREFACE + grpc_head() + grpc_data(grpc_message(), end=True),
        "http": http_call(),
    }
    async with open_port() as port:
        account = port.fairness.of("alice").memory
        most = Most(account)
        trio.lowlevel.add_instrument(most)
        for name, call in calls.items():
            wired = port.connect(name)
            await wired.send(call)
            await wired.until(b"main")
            await trio.testing.wait_all_tasks_blocked()
            assert (name, account.held) == (name, 0)
            await wired.stream.aclose()
        assert most.held > 0
        trio.lowlevel.remove_instrument(most)


async def test_an_answer_that_waits_is_there_once() -> None:
    """Neither the message and its frame, nor the frame and what goes over the wire."""
    calls = [fragments(encode_frame("call", id, encode(pull()), method="pull"), 60_000) for id in CALLS]
    async with open_port(ChannelLimits(memory_bytes=4 * MB)) as port, trio.open_nursery() as nursery:
        client = port.connect("websocket", lockstep=True)
        nursery.start_soon(client.send, upgrade(), ws_auth())
        await client.until(b"welcome")
        tracemalloc.start()
        try:
            nursery.start_soon(client.send, *calls)
            await trio.testing.wait_all_tasks_blocked()
            large = sum(trace.size >= MB for trace in tracemalloc.take_snapshot().traces)
        finally:
            tracemalloc.stop()
        assert large == port.fairness.of("alice").memory.held // MB == 3
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------------- the rules


@pytest.mark.virtual_time
async def test_the_first_of_the_requests_that_come_in_part_is_read_on() -> None:
    account, first, second = Memory(), Holding(100), Holding(100)
    account.count(first, parts=60)
    account.count(second, parts=40)
    assert await account.read_on(first) == 0.0
    with trio.move_on_after(PATIENCE_S / 2) as waited:
        await account.read_on(second)
    assert waited.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(account.read_on, second)
        await trio.testing.wait_all_tasks_blocked()
        account.count(first, parts=-60, requests=60)
        account.drop(first)
    assert account.held == 40


@pytest.mark.virtual_time
async def test_whose_peer_has_moved_nothing_for_the_longest_time_gives_way() -> None:
    account, ended = Memory(), list[str]()
    slow, slower, mine = Holding(100), Holding(100), Holding(100)
    for name, holding in (("slow", slow), ("slower", slower)):

        def end(name: str = name, holding: Holding = holding) -> None:
            ended.append(name)
            account.drop(holding)

        holding.end = end
    account.count(slow, answers=30)
    await trio.sleep(3 * PATIENCE_S)
    account.count(slower, answers=70)
    await trio.sleep(PATIENCE_S / 2)
    account.count(slow, answers=-10)
    began = trio.current_time()
    with trio.fail_after(3 * PATIENCE_S):
        async with account.make_answer(mine, 50):
            assert ended == ["slower"]
    assert trio.current_time() - began == pytest.approx(PATIENCE_S)
    account.count(mine, answers=50)
    await account.read_on(mine)
    assert ended == ["slower"], "there is room, so nobody has to go"


@pytest.mark.virtual_time
async def test_who_is_made_to_wait_is_not_who_is_slow() -> None:
    """A request is not read on while others hold the memory: when it is its turn its time begins."""
    account, ended = Memory(), list[str]()
    first, second = Holding(100), Holding(100, end=lambda: ended.append("second"))
    account.count(first, parts=50)
    account.count(second, parts=50)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(account.read_on, second)
        await trio.sleep(5 * PATIENCE_S)
        account.count(first, parts=-50, requests=50)
    third = Holding(100)
    with trio.move_on_after(PATIENCE_S / 2):
        await account.read_on(third)
    assert not ended
    with trio.move_on_after(2 * PATIENCE_S):
        await account.read_on(third)
    assert ended == ["second"]


LARGE = PullRequest("x" * 125_000, Cursor(), b"a client of ours", max_bytes=0)
ASKED = {
    "websocket": (upgrade(), ws_auth(), fragments(ws_call(LARGE), 60_000)),
    "http": (http_head(content_length=str(len(encode(LARGE)))) + encode(LARGE),),
}


@pytest.mark.virtual_time
@pytest.mark.parametrize("name", ASKED)
async def test_who_takes_an_answer_slowly_is_not_who_takes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every piece counts, though the answer is not out before the last one."""
    monkeypatch.setattr(streams, "CHUNK_BYTES", 32_768)
    async with open_port(ChannelLimits(memory_bytes=200_000)) as port:
        slow, other = port.connect(name, lockstep=True), port.connect("websocket")
        for part in ASKED[name]:
            await slow.send(part)
            if part is not ASKED[name][-1]:
                await slow.until(b"\r\n\r\n" if part is ASKED[name][0] else b"welcome")
        with trio.fail_after(5 * PATIENCE_S):
            while slow.received.count(b"x") < 5_000:
                slow.received += await slow.stream.receive_some(8_000)
            await other.send(*ASKED["websocket"])
            while slow.received.count(b"x") < 125_000:
                await trio.sleep(0.9 * PATIENCE_S)
                data = await slow.stream.receive_some(32_768)
                assert data, "it was closed, though it took a piece just before"
                slow.received += data
            await other.until(b"x" * 125_000)
