"""How many connections a principal has on a port, whatever is spoken on them; and what the next one is told."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
import trio
import trio.testing

from atoma.contracts.sync import PullRequest
from atoma.errors import AtomaError
from atoma.ports import Peer, Principal, Transport
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.errors import UNVERIFIED
from atoma_transports.calls.fairness import RESTED_S
from atoma_transports.grpc import GrpcTransport
from atoma_transports.grpc.messages import trailer_of
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.unit.transports.handlers import (
    PREFACE,
    PULL,
    Wired,
    grpc_data,
    grpc_head,
    grpc_message,
    http_call,
    open_port,
    upgrade,
    ws_auth,
    ws_call,
    ws_frame,
)
from tests.unit.transports.http.kit import Hub

MOST = 3
LIMITS = ChannelLimits(connections=MOST)
virtual_time = pytest.mark.virtual_time

ASKS: dict[str, tuple[bytes, bytes]] = {
    "http": (http_call(), b"main"),
    "websocket": (upgrade() + ws_auth() + ws_frame(ws_call()), b"main"),
    "grpc": (PREFACE + grpc_head() + grpc_data(grpc_message(), end=True), b"main"),
}
"""The first call on a connection, and what is in its answer."""


def test_sixteen_unless_told_otherwise() -> None:
    assert ChannelLimits().connections == 16


async def ask(wired: Wired, handler: str, mark: bytes = b"main") -> None:
    await wired.send(ASKS[handler][0])
    await wired.until(mark)


@virtual_time
@pytest.mark.parametrize("handler", ASKS)
async def test_one_too_many_is_refused_whatever_the_others_speak(handler: str) -> None:
    async with open_port(LIMITS) as port:
        others = [port.connect(other) for other in ASKS]
        for wired, other in zip(others, ASKS, strict=True):
            await ask(wired, other)
        assert port.connections() == MOST
        late = port.connect(handler)
        await ask(late, handler, b"3 connections to this server, which is the limit")

        await others[-1].stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert port.connections() == MOST - 1
        await ask(port.connect(handler), handler)


@virtual_time
async def test_another_principal_has_their_own() -> None:
    async with open_port(LIMITS) as port:
        for _ in range(MOST):
            await ask(port.connect("websocket"), "websocket")
        bob = port.connect("websocket")
        await bob.send(upgrade() + ws_auth("bob") + ws_frame(ws_call()))
        await bob.until(b"main")
        assert (port.connections(), port.connections("bob")) == (MOST, 1)


@virtual_time
async def test_a_kept_connection_that_rests_gives_way_and_one_in_use_does_not() -> None:
    async with open_port(LIMITS) as port:
        kept = [port.connect("http") for _ in range(MOST)]
        for wired in kept:
            await ask(wired, "http")
            await trio.sleep(RESTED_S / 10)
        refused = port.connect("http")
        await ask(refused, "http", b"OVERLOADED")

        await trio.sleep(RESTED_S)
        await ask(kept[0], "http")  # so that it has rested least
        await ask(port.connect("websocket"), "websocket")
        assert port.connections() == MOST
        with trio.fail_after(0.1):
            await kept[1].rest()  # the one that had rested longest was ended
        for wired in (kept[0], kept[2]):
            await ask(wired, "http")


@virtual_time
async def test_a_connection_that_was_refused_does_not_stay() -> None:
    """Or somebody with enough connections would take the places of a port with further ones."""
    async with open_port(LIMITS) as port:
        for _ in range(MOST):
            await ask(port.connect("websocket"), "websocket")
        late = port.connect("http")
        await ask(late, "http", b"OVERLOADED")
        began = trio.current_time()
        await late.rest()
        assert trio.current_time() - began <= LIMITS.handshake_s + 2 * LIMITS.close_s


@virtual_time
async def test_a_connection_is_that_of_the_last_who_asked() -> None:
    async with open_port(LIMITS) as port:
        wired = port.connect("http")
        for token in ("alice", "bob", "alice", "bob"):
            await wired.send(http_call(token))
            await wired.until(b"main")
            assert port.connections(token) == 1
        assert port.connections() == 0
        await wired.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert port.connections("bob") == 0


@virtual_time
@pytest.mark.parametrize("handler", ["http", "grpc"])
async def test_what_a_proxy_keeps_is_nobodys(handler: str) -> None:
    """It passes on what many ask, each of them over any of its connections."""
    async with open_port(LIMITS, proxy=True) as port:
        for _ in range(3 * MOST):
            await ask(port.connect(handler), handler)
            await trio.testing.wait_all_tasks_blocked()
            assert port.connections() == 0


@virtual_time
@pytest.mark.parametrize("handler", ["http", "grpc"])
async def test_while_a_proxy_waits_for_an_answer_its_connection_is_the_callers(handler: str) -> None:
    async with open_port(LIMITS, proxy=True) as port:

        async def wait(request: PullRequest) -> None:
            await trio.sleep(10)

        port.hub.on_pull = wait
        for _ in range(MOST):
            await port.connect(handler).send(ASKS[handler][0])
        await trio.testing.wait_all_tasks_blocked()
        assert port.connections() == MOST
        await ask(port.connect(handler), handler, b"connections to this server")
        await trio.sleep(11)
        assert port.connections() == 0


@virtual_time
async def test_in_memory_as_well() -> None:
    network = MemoryNetwork(limits=LIMITS)
    async with network.listen(Hub()):
        await fill(lambda: MemoryTransport(network, token="alice"))


async def fill(make: Callable[[], Transport]) -> None:
    """Open as many connections as may be, then one more; once one is closed, another may come."""

    async def keep(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            async with make().connect() as channel:
                await ServiceProxy(channel).pull(PULL)
                task_status.started(scope)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        scopes = [await nursery.start(keep) for _ in range(MOST)]
        with pytest.raises(AtomaError, match="3 connections to this server, which is the limit") as refused:
            async with make().connect() as channel:
                await ServiceProxy(channel).pull(PULL)
        assert "OVERLOADED" in str(refused.value)
        scopes[0].cancel()
        for _ in range(100):  # until the server has noticed
            try:
                async with make().connect() as channel:
                    await ServiceProxy(channel).pull(PULL)
                break
            except AtomaError:
                await trio.sleep(0.05)
        else:
            pytest.fail("the place was not given back")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "transport",
    [
        lambda address: WebSocketTransport(f"ws://{address}/sync", token="alice"),
        lambda address: GrpcTransport(address, token="alice", insecure=True),
    ],
    ids=["websocket", "grpc"],
)
async def test_our_own_clients_are_told_over_sockets(transport: Callable[[str], Transport]) -> None:
    async with open_server(Hub(), "127.0.0.1:0", limits=LIMITS) as address:
        await fill(lambda: transport(address))


async def test_our_own_http_client_takes_turns_with_itself() -> None:
    """Its kept connections give way, so that devices of one user find a place however many they kept."""
    limits = ChannelLimits(connections=6)
    async with open_server(Hub(), "127.0.0.1:0", limits=limits) as address, trio.open_nursery() as nursery:
        ready = 0

        async def device() -> None:
            nonlocal ready
            async with HttpTransport(f"http://{address}", token="alice").connect() as channel:
                await ServiceProxy(channel).pull(PULL)
                ready += 1
                await trio.sleep_forever()

        with trio.fail_after(30):
            for count in range(1, 5):
                nursery.start_soon(device)
                while ready < count:
                    await trio.sleep(0.02)
        assert ready == 4
        nursery.cancel_scope.cancel()


class Away(Hub):
    """Its verifier asks something that does not answer."""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        await trio.sleep_forever()
        raise AssertionError


@virtual_time
@pytest.mark.parametrize("handler", ASKS)
async def test_a_verifier_that_takes_too_long_is_told_in_one_code_whatever_is_spoken(handler: str) -> None:
    """HTTP called it UNAVAILABLE, as if the hub were closing, and gRPC said nothing before it hung up."""
    async with open_port(LIMITS) as port:
        port.hub = Away()
        wired = port.connect(handler)
        await wired.send(ASKS[handler][0])
        with trio.fail_after(LIMITS.handshake_s + 1):
            told = await wired.until(b"looking at the token took too long")
        told += await wired.rest()
        code = base64.b64encode(trailer_of(UNVERIFIED)).rstrip(b"=") if handler == "grpc" else b"TIMEOUT"
        assert code in told
