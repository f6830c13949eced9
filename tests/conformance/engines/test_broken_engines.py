"""A broken engine is found: one planted fault for each important promise, and the check that sees it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.execution import QueryResult, WriteRequest, WriteResult
from atoma.contracts.query import BoundQuery, Call
from atoma.errors import QueryError, StoreError
from atoma.ports import Environment, LocalDatabase, LocalEngine
from atoma.schema import Schema
from atoma.testing.conformance import ENGINE_CHECKS, CheckFailed, check_promise
from atoma_stores.sqlite import SQLiteEngine


class Database:
    """A database around another one; everything that is not said here is the other's."""

    def __init__(self, inner: LocalDatabase) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def read(self, query: BoundQuery) -> QueryResult:
        return await self.inner.read(query)

    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        return await self.inner.commit(request, stages)

    async def apply(self, body: Callable[[Any], Any], **options: Any) -> Any:
        return await self.inner.apply(body, **options)

    def subscribe_commits(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        return self.inner.subscribe_commits(listener)  # type: ignore[attr-defined, no-any-return]

    async def hear_others(self) -> None:
        await self.inner.hear_others()  # type: ignore[attr-defined]

    def open_snapshot(self) -> Any:
        return self.inner.open_snapshot()  # type: ignore[attr-defined]


class NeverAtomic(Database):
    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        return await self.inner.commit(replace(request, options=replace(request.options, atomic=False)), stages)


class ItemByItem(Database):
    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        parts = []
        for number, entry in enumerate(request.entries):
            await trio.lowlevel.checkpoint()
            part = replace(request, entries=(entry,), idem=f"{request.idem}:{number}")
            parts.append(await self.inner.commit(part, stages))
        return replace(parts[0], items=tuple(part.items[0] for part in parts))


class FirstStageOnly(Database):
    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        return await self.inner.commit(request, stages[:1])


class Reversed(Database):
    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        result = await self.inner.commit(request, stages)
        return replace(result, items=result.items[::-1])


class Unsorted(Database):
    async def read(self, query: BoundQuery) -> QueryResult:
        return await self.inner.read(replace(query, plan=replace(query.plan, order=())))


class Unpaged(Database):
    async def read(self, query: BoundQuery) -> QueryResult:
        return await self.inner.read(replace(query, plan=replace(query.plan, seek=None)))


class NullIsDifferent(Database):
    """Takes NULL for a value that differs from any other."""

    async def read(self, query: BoundQuery) -> QueryResult:
        where = query.plan.where
        if isinstance(where, Call) and where.fn == "ne":
            either = Call("or", (where, Call("is_null", where.args[:1])))
            query = replace(query, plan=replace(query.plan, where=either))
        return await self.inner.read(query)


class Literal(Database):
    """Knows no pattern."""

    async def read(self, query: BoundQuery) -> QueryResult:
        where = query.plan.where
        if isinstance(where, Call) and where.fn == "like":
            query = replace(query, plan=replace(query.plan, where=replace(where, fn="eq")))
        return await self.inner.read(query)


class Quiet(Database):
    """Tells nobody of what ``apply`` did."""

    def __init__(self, inner: LocalDatabase) -> None:
        super().__init__(inner)
        self.applying = False

    async def apply(self, body: Callable[[Any], Any], **options: Any) -> Any:
        self.applying = True
        try:
            return await self.inner.apply(body, **options)
        finally:
            self.applying = False

    def subscribe_commits(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        def hear(batch: Any) -> None:
            if not self.applying:
                listener(batch)

        return super().subscribe_commits(hear)


class Silent(Database):
    """Says of a refused entry only that it was refused."""

    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        result = await self.inner.commit(request, stages)
        items = tuple(item if item.ok else replace(item, row=None) for item in result.items)
        return replace(result, items=items)


class Restarts(Database):
    """Counts the versions of a row from its insert."""

    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        result = await self.inner.commit(request, stages)
        pairs = zip(request.entries, result.items, strict=True)
        items = tuple(replace(item, version=1) if entry.kind == "create" else item for entry, item in pairs)
        return replace(result, items=items)


class Timeless(Database):
    async def read(self, query: BoundQuery) -> QueryResult:
        result = await self.inner.read(query)
        return replace(result, meta=replace(result.meta, commit=1))


class Lenient(Database):
    async def read(self, query: BoundQuery) -> QueryResult:
        try:
            return await self.inner.read(query)
        except QueryError:
            return QueryResult(())


class Rounds(Database):
    async def read(self, query: BoundQuery) -> QueryResult:
        result = await self.inner.read(query)
        rows = [replace(row, image={**row.image, "count": int(float(row.image["count"] or 0))}) for row in result.rows]
        return replace(result, rows=tuple(rows))


class KeepsHalf(Database):
    async def apply(self, body: Callable[[Any], Any], **options: Any) -> Any:
        failures: list[Exception] = []

        def caught(tx: Any) -> Any:
            try:
                return body(tx)
            except Exception as error:
                failures.append(error)

        result = await self.inner.apply(caught, **options)
        if failures:
            raise failures[0]
        return result


class NoReceipts(Database):
    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        result = await self.inner.commit(request, stages)
        return replace(result, receipts=(None,) * len(result.items))


class NoMemory(Database):
    async def recall(self, idem: str) -> WriteResult | None:
        return None


class NoReads(Database):
    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        return await self.inner.commit(replace(request, options=replace(request.options, reads=())), stages)


class OtherError(Database):
    async def commit(self, request: WriteRequest, stages: Sequence[Any]) -> WriteResult:
        try:
            return await self.inner.commit(request, stages)
        except Exception as error:
            raise StoreError("something went wrong") from error


@dataclass(frozen=True)
class BrokenEngine:
    """The SQLite engine with one thing wrong."""

    wrap: Callable[[LocalDatabase], Any]
    path: str

    @asynccontextmanager
    async def open_database(
        self, schema: Schema, environment: Environment, synced: frozenset[str]
    ) -> AsyncGenerator[LocalDatabase]:
        async with SQLiteEngine(self.path).open_database(schema, environment, synced) as database:
            yield self.wrap(database)


@dataclass(frozen=True)
class BrokenEngineSite:
    wrap: Callable[[LocalDatabase], Any] = Database
    place: str = ""
    name: str = "broken"
    virtual: bool = True
    durable: bool = True

    @asynccontextmanager
    async def open_site(self) -> AsyncGenerator[LocalEngine]:
        with tempfile.TemporaryDirectory() as folder:
            yield BrokenEngine(self.wrap, self.place or f"{folder}/x.db")


ENGINE_FAULTS: dict[str, tuple[BrokenEngineSite, str]] = {
    "atomic means nothing": (BrokenEngineSite(NeverAtomic), "an_atomic_unit_leaves_all_or_nothing"),
    "a unit is several transactions": (BrokenEngineSite(ItemByItem), "a_cancelled_unit_is_whole_or_not_there"),
    "later stages are forgotten": (BrokenEngineSite(FirstStageOnly), "a_stage_that_raises_undoes_its_unit"),
    "results are in another order": (BrokenEngineSite(Reversed), "results_are_one_per_entry_and_in_order"),
    "order is not kept": (BrokenEngineSite(Unsorted), "queries_mean_what_they_mean_in_python"),
    "unknown fields find nothing": (BrokenEngineSite(Lenient), "queries_mean_what_they_mean_in_python"),
    "a cursor is not heeded": (BrokenEngineSite(Unpaged), "queries_mean_what_they_mean_in_python"),
    "NULL is compared": (BrokenEngineSite(NullIsDifferent), "queries_mean_what_they_mean_in_python"),
    "like is equality": (BrokenEngineSite(Literal), "queries_mean_what_they_mean_in_python"),
    "live queries miss what is applied": (BrokenEngineSite(Quiet), "live_queries_follow_every_commit"),
    "a refusal shows no row": (BrokenEngineSite(Silent), "results_are_one_per_entry_and_in_order"),
    "versions are used twice": (BrokenEngineSite(Restarts), "versions_move_with_visible_changes_only"),
    "commits have one number": (BrokenEngineSite(Timeless), "commits_are_numbered_in_order"),
    "large numbers are rounded": (BrokenEngineSite(Rounds), "what_is_written_is_read_back_exactly"),
    "a body's error undoes nothing": (BrokenEngineSite(KeepsHalf), "a_body_that_raises_leaves_nothing"),
    "nothing follows a write": (BrokenEngineSite(NoReceipts), "a_receipt_follows_its_mutation"),
    "a key is forgotten": (BrokenEngineSite(NoMemory), "a_unit_of_the_outbox_is_recalled_by_its_key"),
    "reads are not looked at": (BrokenEngineSite(NoReads), "a_unit_whose_reads_moved_is_refused"),
    "a stage's error is renamed": (BrokenEngineSite(OtherError), "a_stage_that_raises_undoes_its_unit"),
    "nothing is kept": (BrokenEngineSite(place=":memory:"), "what_was_committed_is_there_after_opening_again"),
    "pending writes are not kept": (BrokenEngineSite(place=":memory:"), "volatile_writes_do_not_outlive_the_program"),
    "the outbox is not filled": (BrokenEngineSite(FirstStageOnly), "the_outbox_keeps_the_order_of_writing"),
}


@pytest.mark.virtual_time
@pytest.mark.parametrize("fault", ENGINE_FAULTS)
async def test_a_broken_engine_is_found(fault: str) -> None:
    site, check = ENGINE_FAULTS[fault]
    with pytest.raises(CheckFailed) as found:
        await check_promise(site, ENGINE_CHECKS[check])
    assert found.value.check == check


@pytest.mark.virtual_time
async def test_the_database_around_another_one_breaks_nothing_itself() -> None:
    for check in {check for _, check in ENGINE_FAULTS.values()}:
        await check_promise(BrokenEngineSite(), ENGINE_CHECKS[check])
