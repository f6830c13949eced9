"""A runtime over scripted ports, and the store that it has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from atoma.contracts.execution import (
    ExecutionMeta,
    QueryRequest,
    QueryResult,
    WriteItemResult,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.values import StoredRow
from atoma.ports import Environment
from atoma.ports.loops import LoopGuard
from atoma.runtime import Runtime
from atoma.runtime.applying import ApplyFlow
from atoma.runtime.registry import PolicyNames
from atoma.runtime.writeback import WriteBack
from atoma.schema import Schema, StoreSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


@dataclass
class Scripted:
    """A query port and a write port that answer what the test wants and remember what they were asked."""

    answer: Callable[[QueryRequest], QueryResult] = lambda request: QueryResult(())
    decide: Callable[[WriteRequest], WriteResult] = lambda request: confirmed(request)
    queries: list[QueryRequest] = field(default_factory=list)
    writes: list[WriteRequest] = field(default_factory=list)

    async def execute_query(self, request: QueryRequest) -> QueryResult:
        self.queries.append(request)
        return self.answer(request)

    async def execute_write(self, request: WriteRequest) -> WriteResult:
        self.writes.append(request)
        return self.decide(request)


def confirmed(request: WriteRequest) -> WriteResult:
    items = tuple(WriteItemResult(entry.id, ok=True, changed=True, row=dict(entry.values)) for entry in request.entries)
    return WriteResult("confirmed", items, ExecutionMeta("remote"))


def stored(id: str, text: str, seq: int = 1) -> StoredRow:
    return StoredRow(id, 1, seq, "main", {"text": text})


@asynccontextmanager
async def open_runtime(port: Scripted, apply: ApplyFlow | None = None) -> AsyncGenerator[Runtime]:
    async with trio.open_nursery() as nursery:
        yield Runtime(
            SCHEMA,
            query=port,
            write=port,
            writeback=WriteBack(apply, frozenset()),
            live=None,
            names=PolicyNames("here", {}, frozenset({"here", "there", "direct-local"})),
            environment=Environment(),
            synced=frozenset(),
            nursery=nursery,
            guard=LoopGuard("the client"),
        )
        nursery.cancel_scope.cancel()
