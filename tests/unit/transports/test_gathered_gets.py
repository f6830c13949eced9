"""Gets that are asked of a hub in one tick are one request, and none of them pays for another."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from atoma import Schema, StoreSpec, open_client
from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.sync import OpenReply, OpenRequest
from atoma.contracts.values import StoredRow
from atoma.errors import RemoteError
from atoma.ports import Peer, Principal
from atoma.query.plans import ids_of
from atoma.runtime import Store
from atoma_transports.gathering import GATHERED_MAX
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.unit.transports.kit import Unasked

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Row:
    id: str
    n: int = 0


ROWS = StoreSpec("rows", Row)


@dataclass
class Host(Unasked):
    """Has every row whose id is a number, and refuses to be asked for one beside others."""

    asked: list[tuple[str, ...]] = field(default_factory=list)
    refused: str = ""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return Principal("alice")

    def service(self, principal: Principal) -> Host:
        return self

    async def open(self, request: OpenRequest) -> OpenReply:
        return OpenReply(b"h", b"e", "alice", 0, b"", ())

    async def query(self, request: QueryRequest) -> QueryResult:
        ids = ids_of(request.query) or ()
        self.asked.append(ids)
        await trio.sleep(0.1)
        if self.refused in ids:
            raise RemoteError("not this one", remote_code="PERMISSION_DENIED")
        return QueryResult(tuple(StoredRow(id, 1, 1, "main", {"n": int(id)}) for id in sorted(ids) if id.isdigit()))


@asynccontextmanager
async def asking(host: Host) -> AsyncGenerator[Store[Row]]:
    network = MemoryNetwork()
    async with (
        network.listen(host),
        open_client(Schema(ROWS), plugins=[Remote(MemoryTransport(network))], policy="direct-remote") as client,
    ):
        await client.store(ROWS).get("0")  # it connects
        host.asked.clear()
        yield client.store(ROWS)


async def test_gets_of_one_tick_are_one_request_and_each_has_its_row() -> None:
    host, found = Host(), dict[str, Row | None]()

    async def get(id: str) -> None:
        found[id] = await rows.get(id)

    async with asking(host) as rows:
        async with trio.open_nursery() as nursery:
            for id in ("7", "none", "3", "5"):
                nursery.start_soon(get, id)
                nursery.start_soon(get, id)
        assert found == {"7": Row("7", 7), "none": None, "3": Row("3", 3), "5": Row("5", 5)}
        assert [sorted(ids) for ids in host.asked] == [["3", "5", "7", "none"]]
        assert await rows.get("9") == Row("9", 9)  # alone, afterwards
        assert host.asked[1:] == [("9",)]


async def test_as_many_go_together_as_a_query_may_carry() -> None:
    host = Host()
    async with asking(host) as rows:
        async with trio.open_nursery() as nursery:
            for id in range(2 * GATHERED_MAX + 1):
                nursery.start_soon(rows.get, f"{id}")
        assert sorted(map(len, host.asked)) == [1, GATHERED_MAX, GATHERED_MAX]


@pytest.mark.parametrize("late", [False, True])
async def test_whoever_goes_takes_nobody_along(late: bool) -> None:
    host, found = Host(), list[Row | None]()
    scopes = [trio.CancelScope() for _ in range(3)]

    async def get(id: int) -> None:
        with scopes[id]:
            found.append(await rows.get(f"{id}"))

    async with asking(host) as rows:
        async with trio.open_nursery() as nursery:
            for id in range(3):
                nursery.start_soon(get, id)
            if late:
                await trio.testing.wait_all_tasks_blocked()
                assert len(host.asked) == 1
            for scope in scopes[:2]:
                scope.cancel()
                await trio.lowlevel.checkpoint()
    assert found == [Row("2", 2)]
    assert [scope.cancelled_caught for scope in scopes] == [True, True, False]


async def test_nobody_fails_for_what_another_has_asked() -> None:
    host, outcomes = Host(refused="2"), dict[str, object]()

    async def get(id: str) -> None:
        try:
            outcomes[id] = await rows.get(id)
        except RemoteError as error:
            outcomes[id] = error.remote_code

    async with asking(host) as rows:
        async with trio.open_nursery() as nursery:
            for id in ("1", "2", "3"):
                nursery.start_soon(get, id)
    assert outcomes == {"1": Row("1", 1), "2": "PERMISSION_DENIED", "3": Row("3", 3)}
    assert sorted(map(len, host.asked)) == [1, 1, 1, 3]
