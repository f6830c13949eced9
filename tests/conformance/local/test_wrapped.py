"""One contract for local stores: in memory, in a file, and in memory behind the whole protocol, frames included.

The wrapped one is a local store whose requests become the protocol's operations, bytes, operations and requests again, and
its answers the same way back. Whoever holds the two nodes cannot tell the three apart.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atoma.contracts.execution import (
    OperationContext,
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteOptions,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.mutations import Op
from atoma.contracts.presence import AppearReply, AppearRequest, PresenceRequest
from atoma.contracts.query import BoundQuery
from atoma.contracts.sync import (
    NotifyRequest,
    OpenReply,
    OpenRequest,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotReply,
    SnapshotRequest,
)
from atoma.contracts.values import RowImage
from atoma.errors import AtomaError, RemoteError
from atoma.ports import QueryNode, WriteNode
from atoma.ports.service import Peer, Principal, SyncService
from atoma.query.plans import by_ids, number_of
from atoma.schema.expressions import col
from atoma.testing.queries import count_of, rows_of
from atoma_stores.local import LocalQueryNode, LocalWriteNode
from atoma_transports.adapters import ServiceProxy
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from tests.paths import memory
from tests.unit.stores.kit import card, delete, insert, opened, update

SITES = ("memory", "file", "wrapped memory")
CONTEXT = OperationContext("trace")


class NotServed(RemoteError):
    """A local store has no log."""

    def __init__(self) -> None:
        super().__init__("this is a local store", remote_code="MALFORMED")


class LocalService:
    """A local store as a hub's service: direct queries and writes, and nothing of a log."""

    def __init__(self, query: LocalQueryNode, write: LocalWriteNode) -> None:
        self._query = query
        self._write = write

    async def query(self, request: QueryRequest) -> QueryResult:
        return await self._query.query(request)

    async def write(self, request: WriteRequest) -> WriteResult:
        return await self._write.write(request)

    async def resolve(self, request: ResolveRequest) -> Resolution:
        raise NotServed

    async def open(self, request: OpenRequest) -> OpenReply:
        raise NotServed

    async def push(self, request: PushRequest) -> PushReply:
        raise NotServed

    async def pull(self, request: PullRequest) -> PullReply:
        raise NotServed

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        raise NotServed

    def notify(self, request: NotifyRequest) -> Any:
        raise NotServed

    def presence(self, request: PresenceRequest) -> Any:
        raise NotServed

    async def appear(self, request: AppearRequest) -> AppearReply:
        raise NotServed


@dataclass
class Hosted:
    """Lets everybody in to one service."""

    one: SyncService

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return Principal(f"{token}@{peer.address}")

    def service(self, principal: Principal) -> SyncService:
        return self.one


@dataclass
class Place:
    """The two nodes of a local store."""

    reader: QueryNode
    writer: WriteNode
    keys: int = 0

    async def write(
        self, *entries: Op, atomic: bool = False, reads: tuple[tuple[str, str, int | None], ...] = ()
    ) -> WriteResult:
        self.keys += 1
        options = WriteOptions(atomic=atomic, reads=reads)
        return await self.writer.write(WriteRequest(entries, options, CONTEXT, f"key-{self.keys}"))

    async def query(self, query: BoundQuery = rows_of("cards")) -> QueryResult:
        return await self.reader.query(QueryRequest(query, CONTEXT))

    async def rows(self) -> dict[str, RowImage]:
        return {row.id: row.image for row in (await self.query()).rows}


@asynccontextmanager
async def open_place(site: str, folder: Path) -> AsyncGenerator[Place]:
    async with AsyncExitStack() as stack:
        db = (await stack.enter_async_context(opened(folder / "a.db" if site == "file" else memory()))).db
        reader, writer = LocalQueryNode(db), LocalWriteNode(db)
        if site == "wrapped memory":
            network = MemoryNetwork()
            await stack.enter_async_context(network.listen(Hosted(LocalService(reader, writer))))
            proxy = ServiceProxy(await stack.enter_async_context(MemoryTransport(network).connect()))
            yield Place(proxy, proxy)
        else:
            yield Place(reader, writer)


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def code_of(error: AtomaError) -> str:
    return error.remote_code if isinstance(error, RemoteError) else error.code


async def told(work: Awaitable[WriteResult | QueryResult]) -> object:
    """All that the contract promises of an answer: no commit number and no source, which say where it is from."""
    try:
        result = await work
    except AtomaError as error:
        return code_of(error)
    if isinstance(result, WriteResult):
        return result.status, result.items
    return result.rows, result.tuples, result.meta.cursor


async def test_each_operation_answers_with_the_row_and_its_version(site: str, tmp_path: Path) -> None:
    async with open_place(site, tmp_path) as place:
        made = (await place.write(insert("1", card("ä")))).items[0]
        assert (made.ok, made.changed, made.row) == (True, True, card("ä"))
        patched = (await place.write(update("1", lane="done", weight=0.5))).items[0]
        assert patched.version > made.version
        assert patched.row == card("ä", lane="done", weight=0.5)
        merged = Op("upsert", "cards", "1", {"rank": 4}, defaults=card())
        assert (await place.write(merged)).items[0].row == card("ä", lane="done", weight=0.5, rank=4)
        fresh = Op("upsert", "cards", "2", {"rank": 9}, defaults=card("new"))
        assert (await place.write(fresh)).items[0].row == card("new", rank=9)
        replaced = Op("replace", "cards", "1", card("r"))
        assert (await place.write(replaced)).items[0].row == card("r")
        gone = (await place.write(delete("2"))).items[0]
        assert (gone.ok, gone.changed, gone.version, gone.row) == (True, True, 0, None)
        assert await place.rows() == {"1": card("r")}
        found = (await place.query(by_ids("cards", ("1", "2")))).rows
        assert [(row.id, row.scope, row.image) for row in found] == [("1", "main", card("r"))]


async def test_base_version_is_honoured(site: str, tmp_path: Path) -> None:
    async with open_place(site, tmp_path) as place:
        first = (await place.write(insert("1"))).items[0].version
        assert (await place.query()).rows[0].version == first
        second = (await place.write(update("1", base_version=first, rank=1))).items[0].version
        assert second > first
        for stale in (
            update("1", base_version=first, rank=2),
            delete("1", base_version=first),
            Op("replace", "cards", "1", card("x"), base_version=first),
            Op("replace", "cards", "9", card("x"), base_version=first),
        ):
            refused = (await place.write(stale)).items[0]
            assert (refused.ok, refused.error.code if refused.error else "") == (False, "CONFLICT")
        assert await place.rows() == {"1": card(rank=1)}
        assert (await place.write(delete("1", base_version=second))).status == "confirmed"
        assert await place.rows() == {}


@pytest.mark.paths
async def test_reads_are_checked_and_an_atomic_unit_is_all_or_nothing(site: str, tmp_path: Path) -> None:
    async with open_place(site, tmp_path) as place:
        version = (await place.write(insert("1"))).items[0].version
        seen = (("cards", "1", version), ("cards", "2", None))
        assert (await place.write(update("1", rank=1), reads=seen)).status == "confirmed"
        assert (await place.write(insert("3"), reads=seen, atomic=True)).status == "rejected"
        mixed = await place.write(insert("4"), insert("1"), delete("nope"))
        assert mixed.status == "partial"
        assert [item.error.code if item.error else "ok" for item in mixed.items] == ["ok", "CONFLICT", "NOT_FOUND"]
        refused = await place.write(insert("5"), insert("1"), atomic=True)
        assert [item.error.code if item.error else "ok" for item in refused.items] == ["ABORTED", "CONFLICT"]
        assert set(await place.rows()) == {"1", "4"}


async def test_queries_have_order_pages_counts_and_typed_refusals(site: str, tmp_path: Path) -> None:
    async with open_place(site, tmp_path) as place:
        await place.write(*(insert(f"{number}", card(f"t{number}", rank=number % 3)) for number in range(9)))
        order = ("-rank", "id")
        pages = [await place.query(rows_of("cards", order_by=order, offset=offset, limit=4)) for offset in (0, 4, 8)]
        ids = [[row.id for row in page.rows] for page in pages]
        assert ids == [["2", "5", "8", "1"], ["4", "7", "0", "3"], ["6"]]
        assert [bool(page.meta.cursor) for page in pages] == [True, True, False]
        count = await place.query(count_of("cards", col("rank") > 0))
        assert (count.rows, number_of(count)) == ((), 6)
        assert await told(place.query(rows_of("cards", col("nonsense") == 1))) == "QUERY"
        assert await told(place.query(rows_of("nonsense"))) == "UNKNOWN_STORE"


def draw_entry(source: random.Random, versions: dict[str, int]) -> Op:
    id = str(source.randrange(5))
    base = source.choice([None, None, versions.get(id), versions.get(id, 1) - 1 or 1])
    whole = card(source.choice(["ä", "", "z' --"]), rank=source.randrange(4), weight=source.choice([None, 0.1, -1e300]))
    match source.choice(["insert", "update", "upsert", "replace", "delete"]):
        case "insert":
            return insert(id, whole)
        case "update":
            return update(id, base_version=base, rank=source.randrange(4))
        case "upsert":
            return Op("upsert", "cards", id, {"rank": 7}, base_version=base, defaults=whole)
        case "replace":
            return Op("replace", "cards", id, whole, base_version=base)
        case _:
            return delete(id, base_version=base)


def draw_query(source: random.Random) -> BoundQuery:
    where = source.choice([(), (col("rank") >= 2,), (col("title").in_(("ä", "")),), (col("weight") < 1,)])
    order = (source.choice(["title", "rank", "weight", "-title", "-rank", "-weight"]), "id")
    if source.random() < 0.2:
        return count_of("cards", *where)
    return rows_of("cards", *where, order_by=order, limit=source.choice([None, 2]), offset=source.choice([0, 1]))


@pytest.mark.paths
@pytest.mark.parametrize("seed", range(6))
async def test_the_three_answer_alike(seed: int, tmp_path: Path) -> None:
    source = random.Random(seed)
    versions: dict[str, int] = {}
    refused = 0
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(open_place(site, tmp_path)) for site in SITES]
        for _ in range(40):
            entries = tuple(draw_entry(source, versions) for _ in range(source.randint(1, 4)))
            atomic = source.random() < 0.4
            first, *others = [await told(place.write(*entries, atomic=atomic)) for place in places]
            assert others == [first, first]
            assert isinstance(first, tuple)
            status, items = first
            refused += status != "confirmed"
            versions.update({item.id: item.version for item in items if item.ok and item.version})
            query = draw_query(source)
            found, *same = [await told(place.query(query)) for place in places]
            assert same == [found, found]
    assert 5 < refused < 40
