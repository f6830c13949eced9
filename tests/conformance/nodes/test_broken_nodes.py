"""A broken node is found: one planted fault for each important promise, and the check that sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.execution import QueryRequest, QueryResult, WriteRequest, WriteResult
from atoma.errors import QueryError, StoreError
from atoma.ports import seeded_environment
from atoma.testing.conformance import NODE_CHECKS, NOTES_SCHEMA, CheckFailed, NodeGround, check_promise
from atoma_stores.local import LocalQueryNode, LocalWriteNode
from atoma_stores.sqlite import SQLiteEngine


@dataclass
class Nodes:
    """A node around another one, with one thing wrong."""

    inner: Any
    fault: str = ""
    once_per_key: bool = True

    @property
    def query_node(self) -> Nodes:
        return self

    async def write(self, request: WriteRequest) -> WriteResult:
        if self.fault == "shielded":
            with trio.CancelScope(shield=True):
                return await self._write(request)
        if self.fault == "not atomic":
            request = replace(request, options=replace(request.options, atomic=False))
        if self.fault == "halves":
            parts = []
            for entry in request.entries:
                await trio.lowlevel.checkpoint()
                parts.append(await self._write(replace(request, entries=(entry,))))
            return replace(parts[0], items=tuple(item for part in parts for item in part.items))
        if self.fault == "no upsert":
            entries = tuple(
                replace(entry, kind="create") if entry.kind == "upsert" else entry for entry in request.entries
            )
            request = replace(request, entries=entries)
        if self.fault == "replaces":
            request = replace(request, entries=tuple(replace(entry, kind="replace") for entry in request.entries))
        result = await self._write(request)
        if self.fault == "reversed":
            return replace(result, items=result.items[::-1])
        if self.fault == "status":
            return replace(result, status="confirmed")
        if self.fault == "short":
            return replace(result, items=tuple(item for item in result.items if item.ok))
        if self.fault == "raises" and any(not item.ok for item in result.items):
            raise StoreError("refused")
        return result

    async def _write(self, request: WriteRequest) -> WriteResult:
        return await self.inner[1].write(request)  # type: ignore[no-any-return]

    async def query(self, request: QueryRequest) -> QueryResult:
        try:
            result = await self.inner[0].query(request)
        except QueryError as error:
            if self.fault == "untyped":
                raise ValueError("no such column") from error
            raise
        if self.fault == "another trace":
            return replace(result, meta=replace(result.meta, trace_id="mine"))  # type: ignore[no-any-return]
        if self.fault == "no limit":
            return await self.inner[0].query(replace(request, query=replace(request.query, limit=None)))  # type: ignore[no-any-return]
        if self.fault == "one page":
            return await self.inner[0].query(replace(request, query=replace(request.query, after=None)))  # type: ignore[no-any-return]
        return result  # type: ignore[no-any-return]


@dataclass
class NodePair:
    query: Nodes
    write: Nodes
    once_per_key: bool


@dataclass(frozen=True)
class BrokenNodeSite:
    fault: str = ""
    once_per_key: bool = False
    name: str = "broken"
    virtual: bool = True

    @asynccontextmanager
    async def open_site(self) -> AsyncGenerator[NodeGround]:
        engine = SQLiteEngine(":memory:")
        async with engine.open_database(NOTES_SCHEMA, seeded_environment(1), frozenset()) as database:
            nodes = Nodes((LocalQueryNode(database), LocalWriteNode(database)), self.fault)
            yield NodePair(nodes, nodes, self.once_per_key)


NODE_FAULTS: dict[str, tuple[BrokenNodeSite, str]] = {
    "results are in another order": (BrokenNodeSite("reversed"), "results_align_with_the_entries"),
    "refused entries have no result": (BrokenNodeSite("short"), "results_align_with_the_entries"),
    "the status does not agree": (BrokenNodeSite("status"), "refusals_are_results_and_not_exceptions"),
    "refusals are raised": (BrokenNodeSite("raises"), "refusals_are_results_and_not_exceptions"),
    "atomic means nothing": (BrokenNodeSite("not atomic"), "an_atomic_unit_is_written_whole_or_not_at_all"),
    "a cancelled unit leaves a half": (BrokenNodeSite("halves"), "a_call_is_over_when_it_is_cancelled"),
    "a cancel is swallowed": (BrokenNodeSite("shielded"), "a_call_is_over_when_it_is_cancelled"),
    "errors have no type": (BrokenNodeSite("untyped"), "what_cannot_be_asked_is_a_typed_error"),
    "the trace is another one": (BrokenNodeSite("another trace"), "a_result_says_where_it_comes_from"),
    "limits are not kept": (BrokenNodeSite("no limit"), "queries_mean_what_they_mean_in_python"),
    "a cursor is not heeded": (BrokenNodeSite("one page"), "queries_mean_what_they_mean_in_python"),
    "an upsert finds a row and is refused": (BrokenNodeSite("no upsert"), "an_upsert_makes_merges_or_replaces"),
    "an upsert always replaces": (BrokenNodeSite("replaces"), "an_upsert_makes_merges_or_replaces"),
    "a repeated key is written again": (BrokenNodeSite(once_per_key=True), "the_same_key_is_applied_once"),
}


@pytest.mark.virtual_time
@pytest.mark.parametrize("fault", NODE_FAULTS)
async def test_a_broken_node_is_found(fault: str) -> None:
    site, check = NODE_FAULTS[fault]
    with pytest.raises(CheckFailed) as found:
        await check_promise(site, NODE_CHECKS[check])
    assert found.value.check == check
