"""Reading at a hub: what one principal may take, and what it cannot take from the others."""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from atoma.contracts.execution import OperationContext, QueryRequest, QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.sync import SnapshotRequest
from atoma.contracts.values import RowImage
from atoma.errors import ConfigurationError, RemoteError
from atoma.hub import AllowLoopback, Hub, ReadBudget, open_hub
from atoma.ports.environment import Environment
from atoma.ports.hub import HubDatabase, ScanPage
from atoma.ports.hub_queries import QueryPage, ReadAllowance
from atoma.ports.service import Principal
from atoma.query.plans import by_ids
from atoma.schema import Schema
from atoma.schema.expressions import col
from atoma.testing.queries import count_of, rows_of
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from tests.unit.hub.kit import SCHEMA, SCOPE, direct
from tests.unit.stores.kit import atoma_threads, insert

SLOW = rows_of("cards", col("title").like("%"))
"""Not by id and not by an index: it has to wait for a turn."""
GET = by_ids("cards", ("a",))
ROW: RowImage = {"title": "x", "lane": "todo", "rank": 0.0, "done": 0, "board": SCOPE}


@dataclass
class Slow:
    """A hub's database whose readers take their time; lookups never end by themselves."""

    database: HubDatabase
    seconds: float
    running: int = 0
    most: int = 0
    read: list[float] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)

    async def _take(self, allowance: ReadAllowance) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        took = min(self.seconds, allowance.seconds)
        try:
            await trio.sleep(took)
        finally:
            self.running -= 1
            allowance.spent(took)

    async def query(self, *args: Any, allowance: ReadAllowance, **more: Any) -> QueryPage:
        await self._take(allowance)
        self.read.append(trio.current_time())
        return await self.database.query(*args, **more, allowance=allowance)

    async def scan(self, *args: Any, allowance: ReadAllowance, **more: Any) -> ScanPage:
        await self._take(allowance)
        self.read.append(trio.current_time())
        return await self.database.scan(*args, **more, allowance=allowance)


@dataclass
class SlowStore:
    """Opens it."""

    seconds: float = 1.0
    opened: Slow | None = None

    @asynccontextmanager
    async def open_hub_database(self, schema: Schema, environment: Environment) -> AsyncGenerator[HubDatabase]:
        async with SQLiteHubStore(":memory:").open_hub_database(schema, environment) as database:
            self.opened = Slow(database, self.seconds)
            yield cast("HubDatabase", self.opened)


@asynccontextmanager
async def slow_hub(budget: ReadBudget | None = None, seconds: float = 1.0) -> AsyncGenerator[tuple[Hub, Slow]]:
    store = SlowStore(seconds)
    async with open_hub(SCHEMA, store, verifier=AllowLoopback(), reads=budget) as hub:
        result = await hub.service(Principal("owner")).write(direct(insert("a", ROW), idem="k" * 20))
        assert result.status == "confirmed"
        assert store.opened is not None
        yield hub, store.opened


async def ask(hub: Hub, user: str, query: BoundQuery = SLOW) -> QueryResult:
    return await hub.service(Principal(user)).query(QueryRequest(query, OperationContext("trace")))


async def asked_by(hub: Hub, user: str, times: int) -> list[str]:
    """Ask at the same time; the codes of what was refused."""
    codes: list[str] = []

    async def once() -> None:
        try:
            await ask(hub, user)
        except RemoteError as error:
            codes.append(error.remote_code)

    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(once)
    return codes


@pytest.mark.virtual_time
async def test_one_principal_reads_twice_at_a_time_and_another_is_not_kept_waiting() -> None:
    async with slow_hub() as (hub, database), trio.open_nursery() as nursery:
        nursery.start_soon(asked_by, hub, "mallory", 10)
        await trio.testing.wait_all_tasks_blocked()
        assert database.running == 2
        began = trio.current_time()
        await ask(hub, "ada")
        assert trio.current_time() == began + 1.0
        assert database.most == 3


@pytest.mark.virtual_time
async def test_in_the_long_run_one_principal_reads_for_a_second_a_second() -> None:
    async with slow_hub(ReadBudget(seconds_per_s=0.5, readers=4), seconds=0.1) as (hub, database):
        began = trio.current_time()
        assert await asked_by(hub, "mallory", 60) == []
        assert trio.current_time() - began == pytest.approx(60 * 0.1 / 0.5, abs=3)
        assert database.most == 4


@pytest.mark.virtual_time
async def test_an_answer_says_how_long_the_hub_took() -> None:
    async with slow_hub(seconds=0.25) as (hub, _):
        await trio.sleep(10)
        (step,) = (await ask(hub, "ada")).meta.path
        assert (step.node, step.outcome) == ("hub", "ok")
        assert step.seconds == pytest.approx(0.25, abs=0.01)


@pytest.mark.virtual_time
async def test_who_has_read_far_too_much_is_told_when_to_come_again() -> None:
    async with slow_hub(ReadBudget(query_s=9), seconds=8.0) as (hub, _):
        await asked_by(hub, "mallory", 2)
        with pytest.raises(RemoteError, match="seconds per second") as caught:
            await ask(hub, "mallory")
        assert (caught.value.remote_code, caught.value.remote_retryable) == ("RATE_LIMITED", True)
        await trio.sleep(caught.value.retry_after_s)
        await ask(hub, "mallory")


@pytest.mark.virtual_time
async def test_reads_that_wait_are_bounded() -> None:
    async with slow_hub(ReadBudget(readers=1, waiting=3)) as (hub, _):
        assert await asked_by(hub, "mallory", 9) == ["OVERLOADED"] * 5


@pytest.mark.virtual_time
async def test_snapshots_take_turns_too() -> None:
    async with slow_hub() as (hub, database), trio.open_nursery() as nursery:
        for _ in range(5):
            request = SnapshotRequest(SCOPE, b"client-of-mallory")
            nursery.start_soon(hub.service(Principal("mallory")).snapshot, request)
        await trio.testing.wait_all_tasks_blocked()
        assert database.running == 2


@pytest.mark.virtual_time
async def test_a_get_needs_no_turn() -> None:
    async with slow_hub(ReadBudget(readers=1, waiting=1)) as (hub, _), trio.open_nursery() as nursery:
        nursery.start_soon(asked_by, hub, "mallory", 2)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert [row.id for row in (await ask(hub, "mallory", GET)).rows] == ["a"]
        assert trio.current_time() == began


@pytest.mark.virtual_time
async def test_principals_who_are_within_their_budget_are_not_remembered_for_ever() -> None:
    async with slow_hub(seconds=0.0) as (hub, _):
        for number in range(1_200):
            await ask(hub, f"user-{number}")
            await trio.sleep(0.001)
        assert len(hub._core.readers) <= 1_001  # pyright: ignore[reportPrivateUsage]


BOARD = col("board") == SCOPE
QUERIES: dict[str, tuple[BoundQuery, bool]] = {
    "by id": (GET, True),
    "by an index": (rows_of("seats", BOARD, col("place") == "window"), True),
    "by an index, counted": (count_of("seats", BOARD, col("place") == "window"), True),
    "by an index, and by a pattern": (rows_of("seats", BOARD, col("place") == "a", col("place").like("%")), False),
    "by a pattern": (rows_of("cards", BOARD, col("title").like("%")), False),
    "everything": (rows_of("cards"), False),
    "without an index": (rows_of("cards", BOARD, col("title") == "x"), False),
    "by many ids": (by_ids("cards", tuple(map(str, range(101)))), False),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_only_what_goes_by_id_or_index_is_answered_on_the_loop(name: str, tmp_path: Path) -> None:
    query, on_loop = QUERIES[name]
    async with open_hub(SCHEMA, SQLiteHubStore(tmp_path / "hub.db"), verifier=AllowLoopback()) as hub:
        service = hub.service(Principal("owner"))
        await service.write(direct(insert("a", ROW), idem="k" * 20))
        assert "atoma-reader" not in atoma_threads()
        await service.query(QueryRequest(query, OperationContext("trace")))
        assert ("atoma-reader" not in atoma_threads()) is on_loop


async def test_a_query_ends_when_its_time_is_over_although_the_loop_is_busy(tmp_path: Path) -> None:
    store = SQLiteHubStore(tmp_path / "hub.db")
    async with open_hub(SCHEMA, store, verifier=AllowLoopback(), reads=ReadBudget(query_s=0.02)) as hub:
        service = hub.service(Principal("owner"))
        for number in range(0, 5_000, 1_000):
            rows = [insert(str(number + n), {**ROW, "title": "x" * 200}) for n in range(1_000)]
            assert (await service.write(direct(*rows, idem=f"key-{number:016}"))).status == "confirmed"
        patterns = functools.reduce(operator.or_, (col("title").like(f"%x%y{n}%") for n in range(200)))
        answered: list[str] = []

        async def query() -> None:
            try:
                await ask(hub, "mallory", rows_of("cards", patterns))
            except RemoteError as error:
                answered.append(error.remote_code)

        database = cast("Any", hub)._core.database.database
        async with trio.open_nursery() as nursery:
            nursery.start_soon(query)
            await trio.testing.wait_all_tasks_blocked()
            idle = 0
            while idle < 100:  # the loop does nothing else
                threading.Event().wait(0.005)
                idle = 0 if database.statistics.reading else idle + 1
            nursery.cancel_scope.deadline = trio.current_time() + 1.0
        assert answered == ["TIMEOUT"]


@pytest.mark.parametrize("wrong", [0, -1, "2"])
def test_a_budget_of_nothing_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"ReadBudget\(readers=…\) must be a number above 0"):
        ReadBudget(readers=wrong)
