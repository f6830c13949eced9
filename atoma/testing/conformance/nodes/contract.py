"""What a node promises the kernel: aligned results, refusals as data, one application per key, prompt cancelling."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import trio

from atoma.contracts.execution import (
    OperationContext,
    QueryRequest,
    QueryResult,
    ResolveRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.mutations import Op
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import RowImage
from atoma.errors import AtomaError, RemoteError
from atoma.ports import QueryNode, ResolvingNode, WriteNode
from atoma.query.plans import by_ids
from atoma.schema.expressions import col
from atoma.testing.conformance.cancelling import cancel_everywhere, cancel_sampled
from atoma.testing.conformance.checks import CheckTable, NotChecked, expect, expect_equal, expect_error
from atoma.testing.conformance.notes import ask, delete, insert, note, unit, update
from atoma.testing.conformance.questions import IMAGES, check_queries
from atoma.testing.queries import rows_of

POINTS = 20


class NodeGround(Protocol):
    """A node over an empty store of notes."""

    @property
    def query(self) -> QueryNode | None:
        """The node that answers queries; None: there is none to check."""
        ...

    @property
    def write(self) -> WriteNode | None:
        """The node that carries writes out, over the same rows; None: there is none to check."""
        ...

    @property
    def once_per_key(self) -> bool:
        """Whether a repeated idempotency key gets the first answer again, as the kernel's retries expect."""
        ...


class NodeSite(Protocol):
    """The part that the author of a node supplies."""

    @property
    def name(self) -> str:
        """What verdicts call it."""
        ...

    @property
    def virtual(self) -> bool:
        """Whether it works on a virtual clock."""
        ...

    def open_site(self) -> AbstractAsyncContextManager[NodeGround]:
        """Nodes over an empty store ``NOTES`` of ``NOTES_SCHEMA``, of their own for one check.

        A node that only reads gets its rows by ``write`` all the same: the site supplies whatever fills its source.
        """
        ...


@dataclass
class Nodes:
    """The nodes of a ground, with what a check asks of them."""

    site: NodeSite
    ground: NodeGround
    keys: list[str] = field(default_factory=list[str])

    async def put(self, *entries: Op, idem: str = "", atomic: bool = False) -> WriteResult:
        """Write entries under a key of their own, or under ``idem``."""
        if self.ground.write is None:
            raise NotChecked("the site has no node that writes")
        self.keys.append(idem or f"key-{len(self.keys)}")
        return await self.ground.write.write(unit(self.keys[-1], *entries, atomic=atomic))

    async def find(self, spec: BoundQuery | None = None) -> QueryResult:
        """Query notes."""
        if self.ground.query is None:
            raise NotChecked("the site has no node that reads")
        return await self.ground.query.query(ask(spec))

    async def rows(self) -> dict[str, RowImage]:
        """Every row's image, by id."""
        return {row.id: row.image for row in (await self.find()).rows}


@asynccontextmanager
async def open_nodes(site: NodeSite) -> AsyncGenerator[Nodes]:
    """The nodes of ``site``."""
    async with site.open_site() as ground:
        yield Nodes(site, ground)


CHECKS: CheckTable[NodeSite, Nodes] = CheckTable(open_nodes)


@CHECKS.add
async def results_align_with_the_entries(nodes: Nodes) -> None:
    """One result per entry, in the order of the entries, with their ids; the status agrees with them."""
    await nodes.put(insert("taken"))
    entries = (insert("b"), insert("taken"), update("nobody", text="x"), update("taken", text="new"), insert("a"))
    result = await nodes.put(*entries)
    expect_equal([item.id for item in result.items], [entry.id for entry in entries], "the ids")
    expect_equal([item.ok for item in result.items], [True, False, False, True, True], "what was written")
    expect_equal((result.status, status_of(result.items)), ("partial", "partial"), "the status")
    expect(
        len(result.receipts) in (0, len(entries)), f"{len(entries)} entries came with {len(result.receipts)} receipts"
    )
    expect_equal(await nodes.rows(), {"taken": note("new"), "a": note(), "b": note()}, "the rows")


@CHECKS.add
async def refusals_are_results_and_not_exceptions(nodes: Nodes) -> None:
    """A taken id, a missing row and a stale version are items with an error that has a code and a message."""
    version = (await nodes.put(insert("a"))).items[0].version
    refused = {
        "CONFLICT": insert("a"),
        "NOT_FOUND": update("nobody", text="x"),
    }
    for code, entry in refused.items():
        result = await nodes.put(entry)
        (item,) = result.items
        expect_equal((result.status, item.ok, item.changed), ("rejected", False, False), f"the result of {entry.kind}")
        expect(item.error is not None and item.error.message, f"a refused {entry.kind} does not say why")
        if item.error is not None:
            expect_equal(item.error.code, code, f"the code of a refused {entry.kind}")
    gone = (await nodes.put(delete("nobody"))).items[0]
    expect(not gone.changed, "the delete of nothing changed something")
    stale = (await nodes.put(update("a", version + 1000, text="x"))).items[0]
    expect_equal(stale.error.code if stale.error else None, "CONFLICT", "the code of a write on another version")
    expect_equal(await nodes.rows(), {"a": note()}, "the rows")


@CHECKS.add
async def what_is_written_is_found_exactly(nodes: Nodes) -> None:
    """A query gives back every value as it was written."""
    images = {
        "a": note("ß\n\t'\"; -- 🦜", count=2**63 - 1, weight=0.1, blob=bytes(range(256))),
        "☃": note("", count=-(2**63)),
        "c": note("ü" * 10_000),
    }
    await nodes.put(*(insert(id, image) for id, image in images.items()))
    expect_equal(await nodes.rows(), images, "the rows")


@CHECKS.add
async def queries_mean_what_they_mean_in_python(nodes: Nodes) -> None:
    """Filters, order, pages and counts are those of :mod:`atoma.query.evaluate`."""
    await nodes.put(*(insert(id, image) for id, image in IMAGES.items()))
    await check_queries(nodes.find)


@CHECKS.add
async def an_upsert_makes_merges_or_replaces(nodes: Nodes) -> None:
    """Without a row, an upsert makes one of ``values`` and ``defaults``; with one it merges, or replaces it whole."""
    merging = Op("upsert", "notes", "a", {"text": "new"}, scope="main", defaults=note(count=1))
    replacing = Op("replace", "notes", "a", note("whole"), scope="main")
    for entry, image in (
        (merging, note("new", count=1)),
        (update("a", count=2, blob=b"x"), note("new", count=2, blob=b"x")),
        (merging, note("new", count=2, blob=b"x")),
        (replacing, note("whole")),
    ):
        result = await nodes.put(entry)
        expect_equal((result.status, await nodes.rows()), ("confirmed", {"a": image}), f"status and rows after {entry}")


@CHECKS.add
async def a_result_says_where_it_comes_from(nodes: Nodes) -> None:
    """``meta.source`` of a query is one of the three words; its trace is the caller's, or left for the kernel to add."""
    await nodes.put(insert("a"))
    if nodes.ground.query is None:
        raise NotChecked("the site has no node that reads")
    for trace in ("one", "two"):
        result = await nodes.ground.query.query(QueryRequest(rows_of("notes"), OperationContext(trace)))
        expect(result.meta.trace_id in ("", trace), f"the trace id is {result.meta.trace_id!r}, not {trace!r}")
        expect(result.meta.source in ("local", "remote", "mixed"), f"the source is {result.meta.source!r}")


@CHECKS.add
async def what_cannot_be_asked_is_a_typed_error(nodes: Nodes) -> None:
    """A query that does not fit the store raises an AtomaError with the code QUERY, and nothing else, each time."""
    await nodes.put(insert("a"))
    for _ in range(2):
        with expect_error(AtomaError, what="a query of an unknown field") as caught:
            await nodes.find(rows_of("notes", col("nonsense") == 1))
        error = caught.error
        code = error.remote_code if isinstance(error, RemoteError) else error.code
        expect_equal(code, "QUERY", "the code")
    expect_equal(await nodes.rows(), {"a": note()}, "the rows")


@CHECKS.add
async def an_atomic_unit_is_written_whole_or_not_at_all(nodes: Nodes) -> None:
    """One refused entry of an atomic unit makes it rejected, and none of it is there."""
    await nodes.put(insert("a"))
    result = await nodes.put(insert("b"), insert("a"), update("a", text="x"), atomic=True)
    expect_equal((result.status, len(result.items)), ("rejected", 3), "status and items of a unit with a refused entry")
    expect(not any(item.changed for item in result.items), "an entry of a rejected unit says that it changed something")
    expect_equal(await nodes.rows(), {"a": note()}, "the rows after a rejected unit")
    result = await nodes.put(insert("b"), update("a", text="x"), atomic=True)
    expect_equal(result.status, "confirmed", "the status of a good unit")
    expect_equal(await nodes.rows(), {"a": note("x"), "b": note()}, "the rows after a good unit")


@CHECKS.add
async def the_same_key_is_applied_once(nodes: Nodes) -> None:
    """A repeated key gets the first answer again, whatever has happened since; another key is another write."""
    if not nodes.ground.once_per_key:
        raise NotChecked("the site says that its node does not remember keys")
    first = await nodes.put(insert("a"), insert("b"), idem="key")
    await nodes.put(delete("a"), idem="another")
    again = await nodes.put(insert("a"), insert("b"), idem="key")
    expect_equal((again.status, again.items), (first.status, first.items), "the answer to the same key")
    expect_equal(sorted(await nodes.rows()), ["b"], "the rows")


@CHECKS.add
async def a_key_resolves_to_what_became_of_it(nodes: Nodes) -> None:
    """``resolve`` gives the answer of a key that was written, and abandons one that was not, for good."""
    node = nodes.ground.write
    if not isinstance(node, ResolvingNode):
        raise NotChecked("the node cannot tell what became of a key")
    written = await nodes.put(insert("a"), idem="key")
    context = OperationContext("trace-1")
    resolution = await node.resolve(ResolveRequest("key", context))
    expect(resolution.result is not None, "the key of a write is called abandoned")
    if resolution.result is not None:
        expect_equal(resolution.result.items, written.items, "what the key resolves to")
    expect((await node.resolve(ResolveRequest("never", context))).abandoned, "a key of no write is not abandoned")
    late = await nodes.put(insert("late"), idem="never")
    expect_equal(late.status, "rejected", "the status of a late copy of an abandoned write")
    expect((await node.resolve(ResolveRequest("never", context))).abandoned, "an abandoned key is not so any more")
    expect_equal(sorted(await nodes.rows()), ["a"], "the rows")


@CHECKS.add
async def callers_do_not_wait_for_or_mix_with_each_other(nodes: Nodes) -> None:
    """Twenty callers at once each get the answer to their own request."""
    got: dict[str, list[str]] = {}

    async def call(number: int) -> None:
        result = await nodes.put(insert(f"{number}a"), insert(f"{number}b"), idem=f"caller-{number}")
        found = await nodes.find(by_ids("notes", (f"{number}a",)))
        got[str(number)] = [item.id for item in result.items] + [row.id for row in found.rows]

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(call, number)
    wanted = {str(number): [f"{number}a", f"{number}b", f"{number}a"] for number in range(20)}
    expect_equal(got, wanted, "who got what")


@CHECKS.add
async def a_call_is_over_when_it_is_cancelled(nodes: Nodes) -> None:
    """Wherever a query or a write is cancelled, Cancelled alone comes out, no half of an atomic unit stays, and the next call works."""
    numbers = iter(range(10**6))
    last = [0]

    async def write() -> None:
        last[0] = next(numbers)
        await nodes.put(insert(f"{last[0]}a"), insert(f"{last[0]}b"), idem=f"cancel-{last[0]}", atomic=True)

    async def read() -> None:
        await nodes.find()

    async def in_order() -> None:
        halves = by_ids("notes", (f"{last[0]}a", f"{last[0]}b"))
        found = [row.id for row in (await nodes.find(halves)).rows]
        expect(len(found) in (0, 2), f"a cancelled unit left {found}")

    await nodes.put(insert("x"))
    for operation in (write, read):
        if nodes.site.virtual:
            await cancel_everywhere(operation, in_order)
        else:
            await cancel_sampled(operation, in_order, POINTS)
    with trio.CancelScope() as scope:
        scope.cancel()
        await nodes.put(insert("never"), idem="never-1")
        raise AssertionError("a write in a cancelled scope came back")
    expect(scope.cancelled_caught, "the cancel was swallowed")
