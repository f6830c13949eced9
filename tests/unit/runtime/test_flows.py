"""The semantic core over scripted ports: what it asks, what it makes of the answers, and nothing else.

The ports here are written in the test: they are the other side of the seam, not stand-ins for parts of the product.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atoma.contracts.execution import (
    ExecutionMeta,
    OperationContext,
    QueryRequest,
    QueryResult,
    WriteItemResult,
    WriteOptions,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.mutations import Op
from atoma.contracts.values import ErrorInfo
from atoma.errors import ConflictError, ConnectFailed, QueryError, UnknownPolicy, ValidationError, WriteRejected
from atoma.ports import QueryPort, WritePort
from atoma.query import Rows, bind, col, select
from atoma.runtime.registry import PolicyNames
from atoma.runtime.results import ResultMismatch, aligned
from tests.unit.runtime.kit import NOTES, SCHEMA, Note, Scripted, open_runtime, stored

T = TypeVar("T")


async def test_crud_needs_two_ports_and_nothing_else() -> None:
    port = Scripted(answer=lambda request: QueryResult((stored("1", "x"),)))
    assert isinstance(port, QueryPort)
    assert isinstance(port, WritePort)
    async with open_runtime(port) as runtime:
        notes = runtime.store(NOTES)
        assert (await notes.insert(Note(id="1", text="x"))).value == Note(id="1", text="x")
        await notes.update("1", text="y")
        await notes.upsert(Note(id="1"))
        await notes.delete("1")
        assert await notes.get("1") == Note(id="1", text="x")
    assert [request.entries[0].kind for request in port.writes] == ["create", "patch", "upsert", "delete"]
    assert len(port.queries) == 1


async def test_one_query_is_one_call_with_the_bound_query_and_a_trace() -> None:
    port = Scripted(answer=lambda request: QueryResult((stored("1", "x"),)))
    async with open_runtime(port) as runtime:
        page = await runtime.store(NOTES).query(select(NOTES).where(col("text") == "x").limit(5), policy="there")
        assert list(page) == [Note(id="1", text="x")]
    (request,) = port.queries
    assert request.store == "notes"
    assert request.context.policy == "there"
    assert request.context.trace_id
    assert request.query == bind(select(NOTES).where(col("text") == "x").limit(5), SCHEMA)
    with pytest.raises(AttributeError):
        request.store = "other"  # type: ignore[misc]


async def test_an_error_of_the_port_is_the_callers_and_no_local_answer_is_made_up() -> None:
    def fail(request: QueryRequest) -> QueryResult:
        raise ConnectFailed("the hub is away")

    port = Scripted(answer=fail)
    async with open_runtime(port) as runtime:
        with pytest.raises(ConnectFailed):
            await runtime.store(NOTES).get("1")
    assert len(port.queries) == 1


async def test_a_write_carries_one_key_drawn_before_the_port_and_immutable_entries() -> None:
    port = Scripted()
    async with open_runtime(port) as runtime:
        await runtime.store(NOTES).insert_many([Note(id="1"), Note(id="2")], confirm="optimistic", durability="full")
        await runtime.store(NOTES).insert(Note(id="3"))
    first, second = port.writes
    assert first.idem
    assert first.idem != second.idem
    assert first.options.durability == "full"
    assert second.options.durability is None, "what the call leaves open is the database's to decide"
    with pytest.raises(AttributeError):
        first.entries[0].id = "9"  # type: ignore[misc]


async def test_what_is_invalid_never_reaches_the_port() -> None:
    port = Scripted()
    async with open_runtime(port) as runtime:
        notes = runtime.store(NOTES)
        with pytest.raises(ValidationError):
            await notes.insert(Note(id="", text="x"))
        with pytest.raises(ValidationError):
            await notes.update("1", text=1)
        with pytest.raises(UnknownPolicy):
            await notes.insert(Note(id="1"), policy="nowhere")
    assert port.writes == []


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(0, 1000))
async def test_results_are_matched_by_id_in_whatever_order_they_come(oks: list[bool], seed: int) -> None:
    def shuffled(request: WriteRequest) -> WriteResult:
        refused = ErrorInfo("CONFLICT", "taken")
        items = [
            WriteItemResult(entry.id, ok=ok, error=None if ok else refused)
            for entry, ok in zip(request.entries, oks, strict=True)
        ]
        random.Random(seed).shuffle(items)
        return WriteResult(status_of(tuple(items)), tuple(items))

    async with open_runtime(Scripted(decide=shuffled)) as runtime:
        result = await runtime.store(NOTES).insert_many(Note(id=str(n)) for n in range(len(oks)))
    assert [(item.id, item.ok) for item in result] == [(str(n), ok) for n, ok in enumerate(oks)]
    wanted = "confirmed" if all(oks) else "partial" if any(oks) else "rejected"
    assert result.status == wanted
    assert all(isinstance(item.error, ConflictError) for item in result.failed)


@pytest.mark.parametrize(
    "broken",
    [
        lambda request: WriteResult("confirmed", ()),
        lambda request: WriteResult("confirmed", (WriteItemResult("zzz", ok=True),)),
        lambda request: WriteResult("rejected", (WriteItemResult(request.entries[0].id, ok=True),)),
        lambda request: WriteResult("confirmed", (WriteItemResult(request.entries[0].id, ok=True),), receipts=(1, 2)),
    ],
    ids=["too few", "foreign id", "status disagrees", "receipts do not fit"],
)
async def test_results_that_do_not_fit_the_request_are_an_error(broken: Callable[[WriteRequest], WriteResult]) -> None:
    async with open_runtime(Scripted(decide=broken)) as runtime:
        with pytest.raises(ResultMismatch):
            await runtime.store(NOTES).insert(Note(id="1"))


async def test_a_rejection_by_the_authority_has_its_reason() -> None:
    def deny(request: WriteRequest) -> WriteResult:
        return WriteResult("rejected", (WriteItemResult("1", ok=False, error=ErrorInfo("DENIED", "not yours")),))

    async with open_runtime(Scripted(decide=deny)) as runtime:
        with pytest.raises(WriteRejected, match="not yours") as caught:
            await runtime.store(NOTES).insert(Note(id="1"))
    assert caught.value.reason == "DENIED"


@dataclass
class Verdict:
    """A receipt that waits for the test to decide."""

    reason: str = ""
    decided: trio.Event = field(default_factory=trio.Event)
    state: str = "queued"
    meta: None = None

    async def moved(self, since: str) -> None:
        await self.decided.wait()

    async def wait(self, *, observed: bool) -> int:
        await self.decided.wait()
        if self.reason:
            raise WriteRejected("no", reason=self.reason)
        return 7


@pytest.mark.parametrize("reason", ["", "CONFLICT"])
async def test_strict_waits_for_the_verdict_and_optimistic_does_not(reason: str) -> None:
    verdict = Verdict(reason)

    def queue(request: WriteRequest) -> WriteResult:
        return WriteResult("confirmed", (WriteItemResult("1", ok=True),), receipts=(verdict,))

    async with open_runtime(Scripted(decide=queue)) as runtime:
        notes = runtime.store(NOTES)
        handle = await notes.insert(Note(id="1"))
        assert handle.state == "queued"
        with trio.move_on_after(0.01) as scope:
            await notes.insert(Note(id="1"), confirm="strict")
        assert scope.cancelled_caught
        verdict.decided.set()
        if reason:
            with pytest.raises(ConflictError):
                await notes.insert(Note(id="1"), confirm="strict")
        else:
            await notes.insert(Note(id="1"), confirm="strict")
            assert await handle.accepted() == 7


@pytest.mark.parametrize("part", [select(NOTES).limit(1), select(NOTES).offset(1)])
async def test_get_all_of_a_part_is_refused(part: Rows[Note]) -> None:
    port = Scripted()
    async with open_runtime(port) as runtime:
        with pytest.raises(QueryError, match="every row"):
            await runtime.store(NOTES).get_all(part)
    assert port.queries == []


def test_policy_names_resolve_and_execute_nothing(tmp_path: Path) -> None:
    names = PolicyNames("a", {"notes": "b"}, frozenset({"a", "b", "c"}))
    assert names.resolve("notes", None) == "b"
    assert names.resolve("other", None) == "a"
    assert names.resolve("notes", "c") == "c"
    with pytest.raises(UnknownPolicy):
        names.resolve("notes", "d")
    assert not [name for name in vars(PolicyNames) if name.startswith(("execute", "run"))]


@given(st.permutations(range(5)))
def test_what_belongs_to_a_result_stays_with_it(order: list[int]) -> None:
    """A08: rows, versions, errors and receipts are those of the entry with the result's id, in whatever order they come."""
    entries = tuple(Op("upsert", "notes", str(number)) for number in range(5))
    request = WriteRequest(entries, WriteOptions(), OperationContext("t"), "key")
    items = tuple(
        WriteItemResult(str(number), number != 3, True, 10 + number, {"text": f"row {number}"}) for number in order
    )
    receipts = tuple(f"receipt {number}" for number in order)
    found = aligned(request, WriteResult("partial", items, ExecutionMeta("remote", trace_id="t"), receipts))
    assert [(item.id, item.ok, item.version, item.row) for item in found.items] == [
        (str(number), number != 3, 10 + number, {"text": f"row {number}"}) for number in range(5)
    ]
    assert found.receipts == tuple(f"receipt {number}" for number in range(5))
    assert (found.status, found.meta) == ("partial", ExecutionMeta("remote", trace_id="t"))
    with pytest.raises(ResultMismatch):
        aligned(request, WriteResult("confirmed", (items[0],) * 5, receipts=receipts))


async def test_how_a_unit_is_to_be_written_reaches_the_port_as_it_was_said() -> None:
    """A22: options, context and the store of every entry."""
    port = Scripted()
    async with open_runtime(port) as runtime:
        await runtime.core.writes.write(
            [Op("upsert", "notes", "1"), Op("upsert", "notes", "2")],
            policy="there",
            confirm="strict",
            atomic=True,
            durability="full",
            reads=(("notes", "1", 7), ("notes", "9", None)),
        )
        values = {"text": "said"}
        await runtime.store(NOTES).update("3", values)
        values["text"] = "changed afterwards"
    first, second = port.writes
    assert first.options == WriteOptions("strict", True, "full", (("notes", "1", 7), ("notes", "9", None)))
    assert (first.context.policy, second.context.policy) == ("there", "here")
    assert first.context.trace_id
    assert first.context.trace_id != second.context.trace_id
    assert [(entry.store, entry.id) for entry in first.entries] == [("notes", "1"), ("notes", "2")]
    assert isinstance(first.entries, tuple)
    assert second.entries[0].values == {"text": "said"}
    assert second.options == WriteOptions()


def test_a_registry_of_names_holds_names_and_nothing_that_could_run() -> None:
    """A52: what it keeps is text; an unknown name is a coded error, also as a store's own or the client's."""
    names = PolicyNames("gone", {"notes": "away"}, frozenset({"a"}))
    held = [getattr(names, name) for name in PolicyNames.__slots__]
    flat = [part for value in held for part in (value.items() if isinstance(value, dict) else [value])]
    assert not any(callable(part) for part in flat)
    for store in ("notes", "other"):
        with pytest.raises(UnknownPolicy) as caught:
            names.resolve(store, None)
        assert (caught.value.code, caught.value.policy) == ("UNKNOWN_POLICY", "away" if store == "notes" else "gone")
    assert names.resolve("notes", "a") == "a"
