"""What comes back into the cache: the answers of the other side, merged as asked, and nothing twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from atoma.contracts.codec import encode
from atoma.contracts.execution import ExecutionMeta, QueryRequest, QueryResult
from atoma.contracts.mutations import MutationBody, Op, PendingMutation
from atoma.contracts.sync import Outcome
from atoma.contracts.values import StoredRow
from atoma.contracts.writeback import ConfirmedRow, Writeback
from atoma.ports import Environment, LocalTx
from atoma.query import col, select
from atoma.runtime.applying import ApplyFlow
from atoma.runtime.flows import MergeMode
from atoma_stores.local import LocalQueryNode
from atoma_stores.sqlite import SQLiteEngine
from tests.paths import memory
from tests.unit.runtime.kit import NOTES, SCHEMA, Scripted, open_runtime, stored


@asynccontextmanager
async def open_cache(rows: Sequence[StoredRow], pending: str = "") -> AsyncGenerator[tuple[Scripted, ApplyFlow]]:
    """A local cache that holds ``rows``; the row ``pending`` has an unsettled write on it."""
    async with SQLiteEngine(memory()).open_database(SCHEMA, Environment(executor="inline"), frozenset()) as database:
        node, apply = LocalQueryNode(database), ApplyFlow(database)

        def fill(tx: LocalTx) -> None:
            for row in rows:
                tx.base.put("notes", row.id, row.scope, row.image, row.seq)
            if pending:
                tx.base.shadow("notes", pending, "main", {"text": "base"})
                op = Op("patch", "notes", pending, {"text": pending})
                body = encode(MutationBody(0, "key", "main", 0, 1, 0, (op,)))
                mutation = PendingMutation(0, "volatile", 0, "key", "main", 0, body, b"")
                tx.outbox.add(mutation, [("notes", pending, {"text": "base"})])

        await database.apply(fill)

        class Port(Scripted):
            async def execute_query(self, request: QueryRequest) -> QueryResult:
                if request.context.policy == "direct-local":
                    return await node.query(request)
                return await super().execute_query(request)

        yield Port(), apply


REMOTE = {
    "fewer rows": [stored("a", "A", 5)],
    "more rows": [stored("a", "A", 5), stored("b", "b", 5), stored("c", "C", 5), stored("d", "d", 5)],
    "changed row": [stored("a", "A", 5), stored("b", "changed", 5), stored("d", "d", 5)],
    "filter": [stored("c", "C", 5), stored("d", "d", 5)],
    "empty": [],
}
LOCAL = [stored("a", "A"), stored("b", "b"), stored("d", "d")]
FILTERED = select(NOTES).where(col("id") > "a").order_by("-text")


@pytest.mark.paths
@pytest.mark.parametrize("merge", ["replace", "upsert-only", "preserve-missing"])
@pytest.mark.parametrize("remote", list(REMOTE))
@pytest.mark.parametrize("pending", ["", "b"], ids=["clean", "pending"])
async def test_get_all_merges_a_remote_answer_as_asked(merge: MergeMode, remote: str, pending: str) -> None:
    query = FILTERED if remote == "filter" else select(NOTES)
    answered = {row.id: str(row.image["text"]) for row in REMOTE[remote]}
    local = {row.id: str(row.image["text"]) for row in LOCAL}
    async with open_cache(LOCAL, pending) as (port, apply):
        port.answer = lambda request: QueryResult(tuple(REMOTE[remote])[::-1], meta=ExecutionMeta("remote"))
        async with open_runtime(port, apply) as runtime:
            page = await runtime.store(NOTES).get_all(query, policy="there", merge=merge)
            kept = {note.id: note.text for note in await runtime.store(NOTES).get_all(policy="direct-local")}
    asked_for = {id: text for id, text in local.items() if remote != "filter" or id > "a"}
    expected_store = {**local, **answered}
    own: dict[str, str] = {}
    for id, text in asked_for.items():
        protected = id == pending
        if protected:
            expected_store[id] = text  # what the user sees is not touched while a write is pending
        elif id not in answered and merge == "replace":
            del expected_store[id]
        if id not in answered and (merge == "preserve-missing" or (protected and merge == "replace")):
            own[id] = text
    assert kept == expected_store
    expected = sorted({**answered, **own}.items(), key=lambda row: row[1] if remote == "filter" else row[0])
    if remote == "filter":
        expected.reverse()
    assert [(note.id, note.text) for note in page] == expected
    assert page.meta.source == ("mixed" if own else "remote")
    assert len(page.versions) == len(page)


@pytest.mark.paths
async def test_apply_writeback_is_idempotent_and_stays_out_of_the_outbox() -> None:
    async with SQLiteEngine(memory()).open_database(SCHEMA, Environment(executor="inline"), frozenset()) as database:
        commits: list[int] = []
        database.subscribe_commits(lambda changes: commits.append(len(changes.changes)))
        apply = ApplyFlow(database)
        value = Writeback(rows=[ConfirmedRow("notes", "1", {"text": "x"}, 3, "main")])
        await apply.apply_writeback(value)
        await apply.apply_writeback(value)
        assert [count for count in commits if count] == [1]
        assert await database.inspect(lambda tx: tx.outbox.queued(limit=10, max_bytes=1000)) == []


@pytest.mark.paths
async def test_an_answer_from_before_a_settlement_is_not_taken_over() -> None:
    async with SQLiteEngine(memory()).open_database(SCHEMA, Environment(executor="inline"), frozenset()) as database:
        apply = ApplyFlow(database)
        row = ConfirmedRow("notes", "1", {"text": "new"}, 3, "main")
        await apply.apply_writeback(Writeback(rows=[row]))
        asked = apply.freshness.now
        apply.freshness.settled([("notes", "1")])
        older = replace(row, image={"text": "old"}, version=2)
        late = await apply.apply_writeback(Writeback(rows=[older], missing=[older], as_of=asked, versions=True))
        assert not late.versions
        assert late.kept == {("notes", "1")}
        row_now = await database.inspect(lambda tx: tx.rows.read("notes", "1"))
        assert row_now is not None
        assert row_now.image == {"text": "new"}
        taken = await apply.apply_writeback(Writeback(rows=[older], as_of=apply.freshness.now, versions=True))
        assert list(taken.versions) == [("notes", "1")]


@pytest.mark.paths
async def test_a_verdict_on_a_layer_takes_it_away_by_its_key() -> None:
    async with open_cache(LOCAL, "b") as (_, apply):
        rows = [ConfirmedRow("notes", "b", {"text": "theirs"}, 9, "main")]
        gone = await apply.apply_writeback(Writeback(rows=rows, versions=True))
        assert dict(gone.versions) == {}, "what is pending stays visible over what is confirmed"
        value = Writeback(verdicts={"key": Outcome(0, "rejected", "main")})
        await apply.apply_writeback(value)
        assert list(await apply.versions_of(rows)) == [("notes", "b")], (
            "the layer is gone, the confirmed image is shown"
        )
        await apply.apply_writeback(value)
