"""The runtime over ports that keep rows in memory: whoever implements them gets the whole of ``Store`` and transactions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import trio
from msgspec import structs

from atoma.contracts.execution import (
    ExecutionMeta,
    QueryRequest,
    QueryResult,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.mutations import Op
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.errors import ConflictError, NotFoundError
from atoma.ports import Environment
from atoma.ports.loops import LoopGuard
from atoma.query import col, select
from atoma.query.evaluate import evaluate
from atoma.query.seek import cursor_of
from atoma.runtime import Runtime
from atoma.runtime.registry import PolicyNames
from atoma.runtime.writeback import WriteBack
from atoma.schema import Schema, StoreSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: str
    text: str = ""
    rank: int = 0


TASKS = StoreSpec("tasks", Task)


@dataclass
class Rows:
    """Both execution ports over a dict: an authority of its own, with versions and refusals."""

    rows: dict[tuple[str, str], StoredRow] = field(default_factory=dict)
    version: int = 0

    async def execute_query(self, request: QueryRequest) -> QueryResult:
        await trio.lowlevel.checkpoint()
        query = request.query
        limit, cursor = query.plan.limit, ""
        asked = query if limit is None else structs.replace(query, plan=structs.replace(query.plan, limit=limit + 1))
        found = evaluate(asked, {request.store: [row for (name, _), row in self.rows.items() if name == request.store]})
        if limit is not None and len(found) > limit:
            found = found[:limit]
            cursor = cursor_of(query, found[-1])
        meta = ExecutionMeta("local", commit=self.version, cursor=cursor)
        return QueryResult(tuple(found), (), meta) if query.plan.whole_rows else QueryResult((), tuple(found), meta)

    async def execute_write(self, request: WriteRequest) -> WriteResult:
        await trio.lowlevel.checkpoint()
        before = dict(self.rows)
        moved = [(store, id) for store, id, seen in request.options.reads if self._version(store, id) != seen]
        items = tuple(self._refused(entry) if moved else self._write(entry) for entry in request.entries)
        if request.options.atomic and status_of(items) != "confirmed":
            self.rows = before
            items = tuple(self._refused(entry) for entry in request.entries)
        return WriteResult(status_of(items), items, receipts=(None,) * len(items))

    def _version(self, store: str, id: str) -> int | None:
        row = self.rows.get((store, id))
        return None if row is None else row.version

    def _refused(self, entry: Op, code: str = "CONFLICT") -> WriteItemResult:
        return WriteItemResult(entry.id, False, error=ErrorInfo(code, "it is otherwise"))

    def _write(self, entry: Op) -> WriteItemResult:
        key = (entry.store, entry.id)
        there = self.rows.get(key)
        if entry.base_version is not None and self._version(*key) != entry.base_version:
            return self._refused(entry)
        if entry.kind == "create" and there is not None:
            return self._refused(entry)
        if entry.kind in ("patch", "delete") and there is None:
            return self._refused(entry, "NOT_FOUND")
        self.version += 1
        if entry.kind == "delete":
            del self.rows[key]
            return WriteItemResult(entry.id, True, True)
        base = entry.defaults if there is None else {} if entry.kind == "replace" else there.image
        image = {**base, **entry.values}
        self.rows[key] = StoredRow(entry.id, self.version, 0, entry.scope, image)
        return WriteItemResult(entry.id, True, True, self.version, image)


@asynccontextmanager
async def opened() -> AsyncGenerator[Runtime]:
    ports = Rows()
    async with trio.open_nursery() as nursery:
        yield Runtime(
            Schema(TASKS),
            query=ports,
            write=ports,
            writeback=WriteBack(None, frozenset()),
            live=None,
            names=PolicyNames("rows", {}, frozenset({"rows"})),
            environment=Environment(),
            synced=frozenset(),
            nursery=nursery,
            guard=LoopGuard("the client"),
        )
        nursery.cancel_scope.cancel()


async def test_what_was_written_is_read() -> None:
    async with opened() as runtime:
        tasks = runtime.store(TASKS)
        made = await tasks.insert(Task(id="1", text="a"))
        assert made.value == Task(id="1", text="a")
        await tasks.update("1", rank=3)
        await tasks.update("1", lambda task: replace(task, text=task.text + "b"))
        assert await tasks.get("1") == Task(id="1", text="ab", rank=3)
        await tasks.upsert(Task(id="2", text="new"))
        assert await tasks.get_many(["2", "9", "1"]) == [Task(id="2", text="new"), None, await tasks.get("1")]
        await tasks.delete("1")
        assert (await tasks.exists("1"), await tasks.count()) == (False, 1)


async def test_queries_are_answered_in_order_and_by_the_page() -> None:
    async with opened() as runtime:
        tasks = runtime.store(TASKS)
        made = await tasks.insert_many([Task(id=f"{number}", rank=number % 3) for number in range(9)])
        assert [item.ok for item in made] == [True] * 9
        page = await tasks.query(select(TASKS).where(col("rank") > 0).order_by("-rank", "id").limit(4))
        assert [(task.rank, task.id) for task in page] == [(2, "2"), (2, "5"), (2, "8"), (1, "1")]
        assert await tasks.first(select(TASKS).where(col("rank") == 0).order_by("-id")) == Task(id="6", rank=0)
        assert await tasks.count(select(TASKS).where(col("rank") == 1)) == 3


async def test_refusals_of_the_port_are_typed_errors() -> None:
    async with opened() as runtime:
        tasks = runtime.store(TASKS)
        await tasks.insert(Task(id="1"))
        version = await tasks.version("1")
        with pytest.raises(ConflictError):
            await tasks.insert(Task(id="1", text="again"))
        with pytest.raises(NotFoundError):
            await tasks.delete("2")
        await tasks.update("1", text="moved")
        with pytest.raises(ConflictError):
            await tasks.update("1", text="late", base_version=version)
        several = await tasks.insert_many([Task(id="1"), Task(id="3")])
        assert [item.ok for item in several] == [False, True]
        assert await tasks.get("1") == Task(id="1", text="moved")


async def test_a_transaction_is_one_atomic_unit_that_checks_what_it_read() -> None:
    async with opened() as runtime:
        tasks = runtime.store(TASKS)
        await tasks.insert(Task(id="1", rank=1))
        async with runtime.transaction() as tx:
            mine = tx.store(TASKS)
            task = await mine.get("1")
            assert task is not None
            await mine.update("1", rank=task.rank + 1)
            await mine.insert(Task(id="2"))
            assert await tasks.count() == 1, "nothing is written before the end"
        assert [task.rank for task in await tasks.query(select(TASKS).order_by("id"))] == [2, 0]
        with pytest.raises(ConflictError):
            async with runtime.transaction() as tx:
                mine = tx.store(TASKS)
                await mine.get("1")
                await mine.insert(Task(id="3"))
                await tasks.update("1", rank=9)
        assert await tasks.get("3") is None
