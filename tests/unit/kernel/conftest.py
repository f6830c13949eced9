"""A kernel over nodes that do what a test tells them, and everything that it says about itself."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from atoma.contracts.events import Event
from atoma.contracts.execution import (
    Confirm,
    Durability,
    ExecutionMeta,
    OperationContext,
    QueryRequest,
    QueryResult,
    Source,
    WriteItemResult,
    WriteOptions,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.mutations import Op
from atoma.contracts.policy import Policy
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.kernel import DetachedResults, EventDispatch, ExecutionKernel, KernelLimits
from atoma.ports import Environment, Staging
from atoma.ports.tasks import open_tasks
from atoma.schema import Schema, StoreSpec
from atoma.testing.queries import rows_of


@dataclass
class Thing:
    id: str
    size: int = 0


class Node:
    """Answers queries and writes; ``behave`` may wait or raise first, or return ids to refuse."""

    def __init__(self, name: str, *, remote: bool = False, rows: Sequence[StoredRow] = ()) -> None:
        self.name = name
        self.remote = remote
        self.rows = tuple(rows) or (StoredRow(name, 1, 0, "main", {"size": 1}),)
        self.requests: list[QueryRequest | WriteRequest] = []
        self.running = 0
        self.behaviour: list[Any] = []

    async def query(self, request: QueryRequest) -> QueryResult:
        await self._behave(request)
        source: Source = "remote" if self.remote else "local"
        return QueryResult(self.rows, meta=ExecutionMeta(source, commit=7, cursor="here"))

    async def write(self, request: WriteRequest) -> WriteResult:
        refused = await self._behave(request)
        return answer(request, refused)

    async def _behave(self, request: QueryRequest | WriteRequest) -> frozenset[str]:
        self.requests.append(request)
        what = self.behaviour.pop(0) if self.behaviour else None
        self.running += 1
        try:
            await trio.lowlevel.checkpoint()
            if isinstance(what, float):
                await trio.sleep(what)
            elif isinstance(what, trio.Event):
                await what.wait()
            elif isinstance(what, Exception):
                raise what
        finally:
            self.running -= 1
        return frozenset(what) if isinstance(what, set) else frozenset()


def answer(request: WriteRequest, refused: frozenset[str] = frozenset()) -> WriteResult:
    info = ErrorInfo("CONFLICT", "there already")
    items = tuple(
        WriteItemResult(entry.id, entry.id not in refused, error=info if entry.id in refused else None)
        for entry in request.entries
    )
    return WriteResult(status_of(items), items)


class Stage:
    """Takes part in atomic segments; the writer below only notes that it was asked to."""

    def __init__(self, database: str = "db") -> None:
        self.database = database

    def stage(self, tx: object, request: WriteRequest) -> None:
        del tx, request


class Writer:
    """Notes what is committed, and answers like an engine: it notices cancellation before and after the commit only."""

    database = "db"

    def __init__(self) -> None:
        self.commits: list[tuple[WriteRequest, tuple[Staging, ...]]] = []
        self.behaviour: list[Any] = []
        self.open = 0

    def durability_of(self, stores: Collection[str], asked: Durability | None = None) -> Durability:
        return asked or "normal"

    async def commit(self, request: WriteRequest, stages: Sequence[Staging]) -> WriteResult:
        await trio.lowlevel.checkpoint()
        what = self.behaviour.pop(0) if self.behaviour else None
        self.open += 1
        with trio.CancelScope(shield=True):
            await trio.sleep(0.001)
            if isinstance(what, Exception):
                self.open -= 1
                raise what
            self.commits.append((request, tuple(stages)))
        self.open -= 1
        await trio.lowlevel.checkpoint()
        result = answer(request)
        return WriteResult(result.status, result.items, receipts=what if isinstance(what, tuple) else ())


@dataclass
class House:
    """A kernel, its nodes and what it told."""

    kernel: ExecutionKernel
    nodes: dict[str, Any]
    writer: Writer
    nursery: trio.Nursery
    events: EventDispatch
    told: list[Event] = field(default_factory=list)

    async def query(self, policy: str = "", *, query: BoundQuery | None = None, store: str = "things") -> QueryResult:
        asked = rows_of(store) if query is None else query
        return await self.kernel.execute_query(QueryRequest(asked, OperationContext("trace", policy)))

    async def write(
        self,
        policy: str = "",
        *,
        ids: Sequence[str] = ("a",),
        store: str = "things",
        confirm: Confirm = "optimistic",
    ) -> WriteResult:
        entries = tuple(Op("create", store, id) for id in ids)
        options = WriteOptions(confirm=confirm)
        return await self.kernel.execute_write(
            WriteRequest(entries, options, OperationContext("trace", policy), "idem")
        )


OpenHouse = Callable[..., Any]


@pytest.fixture
def stage() -> type[Stage]:
    return Stage


@pytest.fixture
def make_node() -> type[Node]:
    return Node


@pytest.fixture
def open_house() -> OpenHouse:
    """Opens a kernel with ``local-query``, ``local-write``, ``outbox`` and ``remote-test``, or with given nodes."""

    @asynccontextmanager
    async def open_(
        *policies: Policy,
        nodes: Mapping[str, Any] | None = None,
        synced: frozenset[str] = frozenset(),
        default: str = "direct-local",
        schema: Schema | None = None,
        seed: int = 1,
        detached: DetachedResults | None = None,
        limits: KernelLimits = KernelLimits(),
        without: Sequence[str] = (),
    ) -> AsyncGenerator[House]:
        standard = {
            "local-query": Node("local-query"),
            "local-write": Stage(),
            "outbox": Stage(),
            "remote-test": Node("remote-test", remote=True),
        }
        every = {id: node for id, node in {**standard, **(nodes or {})}.items() if id not in without}
        events = EventDispatch()
        writer = Writer()
        async with open_tasks() as nursery:
            kernel = ExecutionKernel(
                schema or Schema(StoreSpec("things", Thing), StoreSpec("notes", Thing)),
                nodes=every,
                policies=policies,
                environment=Environment(random=random.Random(seed), executor="inline"),
                events=events,
                nursery=nursery,
                writer=writer,
                synced=synced,
                default=default,
                detached=detached,
                limits=limits,
            )
            house = House(kernel, every, writer, nursery, events)
            events.subscribe(house.told.append)
            nursery.start_soon(events.deliver)
            yield house
            nursery.cancel_scope.cancel()

    return open_
