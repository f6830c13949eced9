"""What becomes of those who come faster than they can be served: numbers of passes, places and answers, never seconds."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from atoma.testing.conformance import TinyHub
from atoma_transports.calls.fairness import Fairness
from atoma_transports.serving import arrivals, open_server
from atoma_transports.serving.arrivals import ACCEPTS, PAUSE_S, STARTS, SWAPS, Arrival, Arrivals
from atoma_transports.serving.crowds import Crowds
from atoma_transports.serving.head import HTTP2_PREFACE, asks_for_something
from tests.unit.transports.test_places import dial, needs_grpc, rest_of

SETTINGS = b"\0\0\0\4\0\0\0\0\0"
GREETING = HTTP2_PREFACE + SETTINGS
WINDOW = b"\0\0\4\x08\0\0\0\0\0\0\1\0\0"
HEADERS = b"\0\0\1\1\4\0\0\0\1\x88"
PING = b"\0\0\x08\6\0\0\0\0\0areyouon"
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


# ---------------------------------------------------------------------- who asks


@pytest.mark.parametrize(
    ("head", "asks"),
    [
        (b"", False),
        (GREETING[:10], False),
        (HTTP2_PREFACE, False),
        (GREETING, False),
        (GREETING + WINDOW, False),
        (GREETING + WINDOW + HEADERS[:9], True),
        (GREETING + HEADERS, True),
        (GREETING + PING, True),
        (REQUEST[:-1], False),
        (REQUEST, True),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 400, True),
        (b"\x16\x03\x01", True),
    ],
)
def test_who_only_greets_has_asked_for_nothing(head: bytes, asks: bool) -> None:
    assert asks_for_something(head) == asks


# ---------------------------------------------------------------------- the crowds


@given(steps=st.lists(st.tuples(st.sampled_from("aaab"), st.sampled_from(["add", "take", "surplus"]))))
def test_crowds_take_turns_and_the_largest_gives_way(steps: list[tuple[str, str]]) -> None:
    crowds: Crowds[int] = Crowds()
    there: list[tuple[str, int]] = []  # in the order in which they came
    for number, (address, step) in enumerate(steps):
        if step == "add":
            crowds.add(address, number)
            there.append((address, number))
        elif there:
            before = there.copy()
            if step == "take":
                found = crowds.take()
            else:
                found = crowds.surplus()
                sizes = {one: sum(where == one for where, _ in before) for one, _ in before}
                where = next(one for one, each in before if each == found)
                assert sizes[where] == max(sizes.values())
                crowds.remove(where, found)
            where = next(one for one, each in before if each == found)
            assert found == next(each for one, each in before if one == where), "the first of its address"
            there.remove((where, found))
        assert len(crowds) == len(there)
        assert sorted(crowds.everybody()) == sorted(each for _, each in there)


def test_one_address_after_the_other_has_its_turn() -> None:
    crowds: Crowds[str] = Crowds()
    for one in ("a1", "a2", "a3", "b1", "a4", "b2"):
        crowds.add(one[0], one)
    assert [crowds.take() for _ in range(6)] == ["a1", "b1", "a2", "b2", "a3", "a4"]


# ---------------------------------------------------------------------- at a listening socket


class Listener(socket.socket):
    """A listening socket, over which what is sent has arrived at once, that gives its connections these addresses in turns."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        super().__init__(socket.AF_UNIX)
        self.bind("")  # Linux finds a name, in no folder
        self.listen(1000)
        self.setblocking(False)
        self.taken = 0
        self.fails: list[OSError] = []
        self._addresses = addresses

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if self.fails:
            raise self.fails.pop()
        connection, _ = super().accept()
        self.taken += 1
        return connection, (self._addresses[(self.taken - 1) % len(self._addresses)], 4711)


class Port:
    """A port that has places for so many, and keeps those whom it serves."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.served: list[Arrival] = []

    @property
    def full(self) -> bool:
        return len(self.served) >= self.places

    def close(self) -> None:
        for arrival in self.served:
            arrival.socket.close()


class Crowd:
    """Those who come to a listening socket."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.all: list[socket.socket] = []

    def come(self, *heads: bytes) -> None:
        for head in heads:
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            one.connect(self._listener.getsockname())
            one.send(head)
            self.all.append(one)

    def answers(self) -> list[bytes | None]:
        """What each has been told last; None while nothing."""
        found: list[bytes | None] = []
        for one in self.all:
            try:
                found.append(one.recv(4096))
            except BlockingIOError:
                found.append(None)
            except ConnectionResetError:  # hung up on before it was heard
                found.append(b"")
        return found


@asynccontextmanager
async def listening(
    places: int, addresses: tuple[str, ...] = ("192.0.2.1",)
) -> AsyncGenerator[tuple[Port, Crowd, Arrivals, Listener]]:
    with Listener(addresses) as listener:
        port, crowd = Port(places), Crowd(listener)
        try:
            yield port, crowd, Arrivals(listener, port, port.served.append), listener
        finally:
            port.close()
            for one in crowd.all:
                one.close()


async def test_who_has_asked_comes_before_all_who_have_not() -> None:
    async with listening(places=0) as (port, crowd, door, _), trio.open_nursery() as nursery:
        crowd.come(*[GREETING] * (ACCEPTS - 2), REQUEST)
        nursery.start_soon(door.take_all)
        with trio.fail_after(25):
            while not port.served:
                await trio.lowlevel.checkpoint()
        assert port.served[0].words() == REQUEST
        nursery.cancel_scope.cancel()


async def test_a_pass_of_the_loop_has_a_bound() -> None:
    async with listening(places=0) as (port, crowd, door, listener), trio.open_nursery() as nursery:
        crowd.come(*[GREETING, REQUEST, GREETING] * 100)
        nursery.start_soon(door.take_all)
        before = (0, 0)
        with trio.fail_after(25):
            while len(port.served) < 300:
                await (
                    trio.testing.wait_all_tasks_blocked()
                ) if listener.taken == 300 else await trio.lowlevel.checkpoint()
                now = (listener.taken, len(port.served))
                assert now[0] - before[0] <= 2 * ACCEPTS, "tasks of a pass run in any order"
                assert now[1] - before[1] <= 2 * SWAPS or listener.taken == 300
                before = now
        nursery.cancel_scope.cancel()


async def test_while_there_are_places_nobody_is_refused_and_the_system_keeps_the_rest() -> None:
    async with listening(places=1000) as (port, crowd, door, listener), trio.open_nursery() as nursery:
        crowd.come(*[b""] * 600)
        nursery.start_soon(door.take_all)
        with trio.fail_after(25):
            while len(port.served) < 600:
                await trio.lowlevel.checkpoint()
                assert listener.taken - len(port.served) <= STARTS
        assert set(crowd.answers()) == {None}
        nursery.cancel_scope.cancel()


async def test_of_those_who_ask_none_is_refused_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "SILENT_MAX", 3)
    async with listening(places=0) as (port, crowd, door, _), trio.open_nursery() as nursery:
        crowd.come(*[REQUEST] * 300)
        nursery.start_soon(door.take_all)
        with trio.fail_after(25):
            while len(port.served) < 300:
                await trio.lowlevel.checkpoint()
        assert set(crowd.answers()) == {None}
        nursery.cancel_scope.cancel()


async def test_surplus_is_told_and_hung_up_on_without_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two addresses the one with more who wait loses its first ones; who hung up is not missed."""
    monkeypatch.setattr(arrivals, "SILENT_MAX", 4)
    addresses = ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")
    async with listening(places=0, addresses=addresses) as (port, crowd, door, _):
        crowd.come(b"", GREETING, b"GET", b"", b"", GREETING, b"", b"")
        crowd.all[7].close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.take_all)
            await trio.testing.wait_all_tasks_blocked()
            del crowd.all[7]
            answers = crowd.answers()
            assert None not in answers[:3], "the first of the larger crowd"
            assert answers[0] is not None
            assert answers[0].startswith(b"HTTP/1.1 503 ")
            assert answers[1] is not None
            assert b"\7\0\0\0\0\0" in answers[1], "GOAWAY"
            assert answers[3:7] == [None] * 4
            assert len(port.served) == 4
            nursery.cancel_scope.cancel()


async def test_who_asks_while_waiting_is_not_surplus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "SILENT_MAX", 4)
    async with listening(places=0) as (port, crowd, door, _):
        crowd.come(*[b""] * 5)
        door._accept()
        crowd.all[0].send(REQUEST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.take_all)
            await trio.testing.wait_all_tasks_blocked()
            assert port.served[0].words() == REQUEST
            assert crowd.answers() == [None] * 5
            nursery.cancel_scope.cancel()


@pytest.mark.virtual_time
async def test_when_the_system_has_no_room_it_is_asked_again_later(mock_clock: trio.testing.MockClock) -> None:
    async with listening(places=9) as (port, crowd, door, listener), trio.open_nursery() as nursery:
        crowd.come(b"", b"")
        listener.fails += [OSError(errno.ECONNABORTED, "gone"), OSError(errno.EMFILE, "too many open files")]
        nursery.start_soon(door.take_all)
        await trio.sleep(PAUSE_S / 2)
        assert not port.served
        await trio.sleep(PAUSE_S)
        assert len(port.served) == 2, "one that was broken off while it waited stops nobody"
        nursery.cancel_scope.cancel()


async def test_those_who_wait_are_hung_up_on_at_the_end() -> None:
    async with listening(places=0) as (_, crowd, door, _):
        crowd.come(*[b""] * 20, *[REQUEST] * 20)
        door._accept()
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.cancel()
            nursery.start_soon(door.take_all)
        assert crowd.answers() == [b""] * 40


# ---------------------------------------------------------------------- on a port


@pytest.mark.virtual_time
async def test_guests_who_have_asked_go_on_before_those_who_have_not(mock_clock: trio.testing.MockClock) -> None:
    fairness = Fairness()
    turns = 0

    async def silent() -> None:
        nonlocal turns
        for _ in range(20):
            await fairness.guest_turn(asks=False)
            turns += 1

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(silent)
        for _ in range(200):
            await trio.lowlevel.checkpoint()
        before = turns
        assert 0 < before <= 201, "of all of them one in each pass"
        await fairness.guest_turn(asks=True)
        assert turns - before <= 3


def tasks() -> int:
    """How many tasks there are."""

    def below(task: trio.lowlevel.Task) -> int:
        return 1 + sum(below(child) for nursery in task.child_nurseries for child in nursery.child_tasks)

    root = trio.lowlevel.current_root_task()
    assert root is not None
    return below(root)


@needs_grpc
async def test_a_guest_who_only_greets_costs_one_task_and_nothing_of_http2() -> None:
    from atoma_transports.grpc._driver.wire import Http2Wire

    def wires() -> int:
        gc.collect()
        return sum(type(one) is Http2Wire for one in gc.get_objects())

    async with open_server(TinyHub(), "127.0.0.1:0") as address, AsyncExitStack() as stack:

        async def come() -> None:
            guest = await stack.enter_async_context(await dial(address))
            await guest.send_all(GREETING + WINDOW)
            assert (await received(guest, SETTINGS_ACK))[3:4] == b"\4", (
                "it is greeted and its settings are acknowledged"
            )

        await come()  # what is made once, however many come
        before = (tasks(), wires())
        for _ in range(10):
            await come()
        assert tasks() - before[0] == 10
        assert wires() <= before[1]


SETTINGS_ACK = b"\0\0\0\4\1\0\0\0\0"


async def received(stream: trio.abc.ReceiveStream, until: bytes | int) -> bytes:
    """What comes until it ends with these bytes, or has so many."""
    found = b""
    with trio.fail_after(25):
        while not (len(found) >= until if isinstance(until, int) else found.endswith(until)):
            data = await stream.receive_some()
            assert data, found
            found += data
    return found


@needs_grpc
@pytest.mark.parametrize("pieces", [1, 2, 40])
async def test_who_greets_and_asks_later_is_served_and_its_settings_are_acknowledged_once(pieces: int) -> None:
    from h2.events import DataReceived, SettingsAcknowledged

    from tests.unit.transports.grpc.driver_kit import RawPeer, message

    async with open_server(TinyHub(), "127.0.0.1:0") as address, await dial(address) as stream:
        peer = RawPeer(stream, client_side=True)
        greeting = peer.wire.data_to_send()
        size = -(-len(greeting) // pieces)
        for start in range(0, len(greeting), size):
            await stream.send_all(greeting[start : start + size])
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(25):
            while not any(isinstance(event, SettingsAcknowledged) for event in peer.events):
                await peer.receive()
            check = peer.begin("/grpc.health.v1.Health/Check")
            peer.wire.send_data(check, message(b""), end_stream=True)
            await peer.send()
            while not any(isinstance(event, DataReceived) for event in peer.events):
                await peer.receive()
        assert sum(isinstance(event, SettingsAcknowledged) for event in peer.events) == 1


@needs_grpc
async def test_who_greets_wrongly_is_sent_away() -> None:
    async with open_server(TinyHub(), "127.0.0.1:0") as address, await dial(address) as stream:
        await stream.send_all(HTTP2_PREFACE.replace(b"SM", b"XX") + SETTINGS)
        assert b"\7\0\0\0\0\0" in await rest_of(stream), "GOAWAY"


@needs_grpc
async def test_who_only_greets_is_told_when_the_server_ends() -> None:
    async with trio.open_nursery() as nursery:
        async with open_server(TinyHub(), "127.0.0.1:0") as address:
            stream = await dial(address)
            await stream.send_all(GREETING)
            await received(stream, SETTINGS_ACK)
            found: list[bytes] = []

            async def listen() -> None:
                found.append(await rest_of(stream))

            nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
    assert b"\7\0\0\0\0\0" in found[0]
    await stream.aclose()
