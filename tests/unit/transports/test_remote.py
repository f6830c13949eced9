"""The plugin: a node and a link over a transport, one shared connection, opened when it is needed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
import trio
import trio.testing

from atoma.client.context import Planes
from atoma.contracts.execution import (
    OperationContext,
    QueryRequest,
    QueryResult,
    WriteItemResult,
    WriteOptions,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.mutations import Op
from atoma.contracts.sync import (
    OpenReply,
    OpenRequest,
)
from atoma.contracts.values import StoredRow
from atoma.errors import AuthenticationError, ChannelBroken, ConnectFailed, PluginError
from atoma.kernel import EventDispatch
from atoma.ports import SYNC_LINK, Channel, Environment, Peer, Principal, SyncLink
from atoma.schema import Schema, StoreSpec
from atoma.testing.queries import rows_of
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.unit.transports.kit import Unasked

T = TypeVar("T")
pytestmark = pytest.mark.virtual_time


@dataclass
class Host(Unasked):
    """Counts connections; its one service answers queries and writes."""

    connections: int = 0
    expired: bool = False
    writes: list[str] = field(default_factory=list)

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        self.connections += 1
        if token != "t":
            raise AuthenticationError("bad token")
        return Principal("alice")

    def service(self, principal: Principal) -> Host:
        return self

    async def open(self, request: OpenRequest) -> OpenReply:
        return OpenReply(b"h", b"e", "alice", 0, b"", ())

    async def query(self, request: QueryRequest) -> QueryResult:
        await trio.sleep(0.1)
        return QueryResult((StoredRow("a", 1, 1, "main", {"x": 1}),))

    async def write(self, request: WriteRequest) -> WriteResult:
        if self.expired:
            raise AuthenticationError("the token has expired")
        self.writes.append(request.idem)
        return WriteResult("confirmed", tuple(WriteItemResult(entry.id, True) for entry in request.entries))


@dataclass(frozen=True)
class Row:
    id: str


def planes(nursery: trio.Nursery) -> Planes:
    """What the plugins of a client register with."""
    return Planes(Schema(StoreSpec("s", Row)), Environment(), nursery, frozenset(), EventDispatch())


class Asking:
    """The remote node under test."""

    def __init__(self, context: Planes, id: str = "remote-memory") -> None:
        self.node = context.nodes[id]

    async def query(self) -> QueryResult:
        return await self.node.query(QueryRequest(rows_of("s"), OperationContext("tr")))  # type: ignore[union-attr]

    async def write(self, idem: str) -> WriteResult:
        entries = (Op("delete", "s", "a"),)
        request = WriteRequest(entries, WriteOptions(), OperationContext("tr"), idem)
        return await self.node.write(request)  # type: ignore[union-attr]


@asynccontextmanager
async def opened(token: str = "t") -> AsyncGenerator[tuple[Host, MemoryNetwork, Planes, Asking]]:
    host, network = Host(), MemoryNetwork()
    async with trio.open_nursery() as nursery, network.listen(host):
        context = planes(nursery)
        async with Remote(MemoryTransport(network, token=token)).open(context):
            yield host, network, context, Asking(context)
        nursery.cancel_scope.cancel()


async def test_it_registers_itself_and_takes_everything_back() -> None:
    async with opened() as (host, _, context, _):
        assert (list(context.nodes), list(context.transports)) == (["remote-memory"], ["memory"])
        assert context.find(SYNC_LINK) is not None
        assert host.connections == 0  # nothing is connected before the first request
    assert (context.nodes, context.transports, context.find(SYNC_LINK)) == ({}, {}, None)


async def test_many_first_requests_share_one_connection() -> None:
    async with opened() as (host, _, _, asking):
        results: list[QueryResult] = []

        async def ask() -> None:
            results.append(await asking.query())

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert [result.meta.source for result in results] == ["remote"] * 50
        assert (await asking.write("k")).meta.source == "remote"
        assert host.connections == 1


async def test_a_connection_that_died_in_silence_is_replaced_without_the_caller_noticing() -> None:
    async with opened() as (host, network, _, asking):
        await asking.query()
        network.disconnect()
        await trio.testing.wait_all_tasks_blocked()
        assert (await asking.write("key")).status == "confirmed"
        assert (host.connections, host.writes) == (2, ["key"])


async def test_a_request_that_may_have_arrived_is_not_repeated() -> None:
    async with opened() as (host, network, _, asking):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ChannelBroken) as broken:
                    await asking.query()
                assert broken.value.maybe_sent

            nursery.start_soon(ask)
            await trio.sleep(0.05)
            network.disconnect()
        assert host.connections == 1
        await asking.query()
        assert host.connections == 2


async def test_a_failed_connection_was_certainly_not_sent_and_the_next_request_tries_again() -> None:
    async with opened() as (host, network, _, asking):
        network.partition()
        failures: list[ConnectFailed] = []

        async def ask() -> None:
            with pytest.raises(ConnectFailed) as failed:
                await asking.write("key")
            failures.append(failed.value)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert [failure.maybe_sent for failure in failures] == [False] * 3
        assert len({id(failure) for failure in failures}) == 3
        network.heal()
        await asking.write("key")
        assert host.writes == ["key"]


async def test_a_wrong_token_is_told_as_such() -> None:
    async with opened("wrong") as (_, _, _, asking):
        with pytest.raises(AuthenticationError, match="bad token"):
            await asking.query()


async def test_a_token_that_expires_is_asked_for_anew() -> None:
    async with opened() as (host, _, _, asking):
        await asking.write("one")
        host.expired = True
        with pytest.raises(AuthenticationError, match="expired"):
            await asking.write("two")
        host.expired = False
        await asking.write("three")
        assert (host.connections, host.writes) == (2, ["one", "three"])


async def test_a_caller_who_leaves_does_not_spoil_the_connection_for_others() -> None:
    async with opened() as (host, _, _, asking):
        with trio.move_on_after(0.05):
            await asking.query()
        assert (await asking.query()).rows[0].id == "a"
        assert host.connections == 1


async def test_a_sync_session_has_a_connection_of_its_own() -> None:
    async with opened() as (host, network, context, asking):
        await asking.query()
        link = context.require(SYNC_LINK)
        assert isinstance(link, SyncLink)
        async with link.connect() as service:
            assert (await service.open(OpenRequest(b"c", 1, 1, b"", ()))).principal == "alice"
            assert host.connections == 2
            assert len(network.links) == 2
        await trio.testing.wait_all_tasks_blocked()
        assert len(network.links) == 1


async def test_several_remotes_live_side_by_side_and_one_is_the_link() -> None:
    host, network = Host(), MemoryNetwork()
    async with trio.open_nursery() as nursery, network.listen(host):
        context = planes(nursery)
        first = Remote(MemoryTransport(network, token="t"))
        second = Remote(MemoryTransport(network, token="t", name="backup"), link=False)
        assert (list(first.provides), list(second.provides)) == ([SYNC_LINK], [])
        async with first.open(context), second.open(context):
            assert list(context.nodes) == ["remote-memory", "remote-backup"]
            await Asking(context, "remote-backup").query()
            third = Remote(MemoryTransport(network, name="third"))
            with pytest.raises(PluginError):
                async with third.open(context):
                    raise AssertionError("two links")
            assert list(context.nodes) == ["remote-memory", "remote-backup"]
        nursery.cancel_scope.cancel()


async def test_a_transport_that_hangs_is_given_up() -> None:
    class Hanging:
        name = "hanging"

        @asynccontextmanager
        async def connect(self) -> AsyncGenerator[Channel]:
            await trio.sleep_forever()
            raise AssertionError
            yield

    async with trio.open_nursery() as nursery:
        context = planes(nursery)
        async with Remote(Hanging()).open(context):
            began = trio.current_time()
            with pytest.raises(ConnectFailed):
                await Asking(context, "remote-hanging").query()
            assert trio.current_time() - began < 20
        nursery.cancel_scope.cancel()


async def test_a_hub_that_is_down_is_not_stormed_and_callers_are_told_at_once() -> None:
    host, network = Host(), MemoryNetwork()
    attempts: list[float] = []

    class Counting:
        name = "memory"

        @asynccontextmanager
        async def connect(self) -> AsyncGenerator[Channel]:
            attempts.append(trio.current_time())
            async with MemoryTransport(network, token="t").connect() as channel:
                yield channel

    async with trio.open_nursery() as nursery:
        context = planes(nursery)
        async with Remote(Counting()).open(context):
            asking = Asking(context)
            began = trio.current_time()

            async def insist() -> None:
                while trio.current_time() < began + 120:
                    called = trio.current_time()
                    with pytest.raises(ConnectFailed, match="no host can be reached") as failed:
                        await asking.query()
                    assert failed.value.maybe_sent is False
                    assert trio.current_time() == called
                    await trio.sleep(0.05)

            async with trio.open_nursery() as callers:
                for _ in range(5):
                    callers.start_soon(insist)
            assert 8 < len(attempts) < 22  # 12,000 calls
            gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
            assert gaps[0] < 0.1
            assert all(7 < gap <= 15.1 for gap in gaps[-4:])
            assert len({round(gap, 3) for gap in gaps[-4:]}) > 1  # jitter
            async with network.listen(host):
                await trio.sleep(15.1)
                assert (await asking.query()).rows[0].id == "a"
                assert host.connections == 1
                network.disconnect()
                await trio.testing.wait_all_tasks_blocked()
                assert (await asking.query()).rows[0].id == "a"  # a success starts the count anew
        nursery.cancel_scope.cancel()
