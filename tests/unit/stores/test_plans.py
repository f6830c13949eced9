"""SQLite uses the declared indexes, and the engine's own: read off its query plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from atoma.ports import LocalTx
from atoma.query import bind, count, select
from atoma.query.evaluate import evaluate
from atoma.query.normal import rebind
from atoma.schema.expressions import col
from atoma.testing.queries import rows_of
from tests.unit.stores.kit import CARDS, SCHEMA, SYNCED, Opened, card, insert, opened


async def plans_of(db: Opened, work: object) -> list[str]:
    """The plans of every statement that ``work``, a read, runs."""
    assert callable(work)

    def body(connection: apsw.Connection) -> list[str]:
        statements: list[tuple[str, object]] = []

        def trace(_: object, sql: str, bindings: object) -> bool:
            statements.append((sql, bindings))
            return True

        connection.exec_trace = trace
        try:
            work(connection)
        finally:
            connection.exec_trace = None
        plans: list[str] = []
        for sql, bindings in statements:
            if sql.lstrip().upper().startswith(("SELECT", "WITH")):
                found = connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)  # type: ignore[arg-type]
                plans.append(" / ".join(str(row[3]) for row in found))
        return plans

    return await db.db.sqlite.read(body)


FILTERS = {
    "equal": rows_of("cards", col("lane") == "done"),
    "equal and range": rows_of("cards", (col("lane") == "done") & (col("rank") > 3)),
    "filter and order": rows_of("cards", col("lane") == "done", order_by=("rank",), limit=5),
}


async def test_a_derived_table_is_computed_once_not_for_each_row_that_it_is_joined_to() -> None:
    lane, rank = CARDS.col(lambda card: card.lane), CARDS.col(lambda card: card.rank)
    top = select(CARDS).columns(lane, count()).group_by(lane).limit(5).named("top")
    query = bind(select(CARDS).join(top, rank < top.col(lambda row: row[1])), SCHEMA)
    async with opened() as db:
        plan = (await plans_of(db, db.db._reader.answer(query)))[1]
    assert plan.startswith("MATERIALIZE"), plan
    assert "CO-ROUTINE" not in plan, "SQLite would make it anew within the loop around it"


@pytest.mark.paths
@pytest.mark.parametrize("name", FILTERS)
async def test_a_query_uses_the_declared_index_and_answers_like_a_scan(name: str) -> None:
    async with opened() as db:
        await db.write(*(insert(f"{n:03}", card(lane="done" if n % 4 else "todo", rank=n % 9)) for n in range(200)))
        query = FILTERS[name]
        plans = await plans_of(db, db.db._reader.answer(query))
        assert "_atoma_index_cards__lane__rank" in plans[1], plans  # after the commit number
        assert not any("SCAN cards" in plan for plan in plans)
        rows = (await db.db.read(rows_of("cards"))).rows
        assert (await db.db.read(query)).rows == tuple(evaluate(rebind(query, SCHEMA.store), {"cards": rows}))


async def test_without_an_index_the_plan_is_a_scan() -> None:
    async with opened() as db:
        await db.write(insert("1"))
        query = rows_of("cards", col("title") == "a")
        plans = await plans_of(db, db.db._reader.answer(query))
        assert plans[1].startswith("SCAN")
        assert "_atoma_index" not in plans[1]


OUTBOX_READS: dict[str, tuple[Callable[[LocalTx], object], str]] = {
    "the queued ones": (lambda tx: tx.outbox.queued(limit=10, max_bytes=10**6), "INDEX _atoma_pending_mid"),
    "the acked ones": (lambda tx: tx.outbox.acked("main"), "INDEX _atoma_pending_acked (scope=?)"),
    "those of a row": (lambda tx: tx.outbox.on_row("cards", "1"), "PRIMARY KEY (store=? AND id=?)"),
    "the latest of a row": (lambda tx: tx.outbox.last_mid("cards", "1"), "PRIMARY KEY (store=? AND id=?)"),
    "one by its number": (lambda tx: tx.outbox.by_mid(3), "INDEX _atoma_pending_mid (mid=?)"),
    "what is shadowed in a scope": (lambda tx: tx.base.shadowed("main"), "INDEX _atoma_shadow_scope (scope=?)"),
}
"""Each way that the outbox is read in, with what has to be in its plan."""


@pytest.mark.parametrize("name", OUTBOX_READS)
async def test_the_outbox_is_read_by_its_indexes(name: str, tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", synced=SYNCED) as db:
        await db.queue(*(insert(str(n)) for n in range(50)))
        read, expected = OUTBOX_READS[name]
        (plan,) = await plans_of(db, lambda connection: read(db.db._begin(connection)[0]))
        assert expected in plan
        assert "SCAN" not in plan or name == "the queued ones", "these alone are read in their order, from the first on"
        assert "TEMP B-TREE" not in plan, "nothing is sorted"


async def test_what_an_index_has_refused_is_found_by_its_key() -> None:
    async with opened() as db:
        await db.write(insert("1", {"name": "one"}, "tags"))
        (plan,) = await plans_of(db, lambda connection: db.db._begin(connection)[0].base.hidden("tags"))
        assert plan.count("PRIMARY KEY (store=?") == 2, plan
        assert "SCAN" not in plan
    async with opened(synced=SYNCED) as db:
        assert await plans_of(db, lambda connection: db.db._begin(connection)[0].base.hidden("tags")) == []


@pytest.mark.parametrize("found_by", ["id", "query", "name"])
async def test_a_row_says_its_scope_however_it_is_found(found_by: str) -> None:
    wanted = {
        "id": (rows_of("cards", col("id") == "1"), rows_of("tags", col("id") == "2")),
        "query": (rows_of("cards"), rows_of("tags")),
        "name": (rows_of("cards", col("title") == "a"), rows_of("tags", col("name") == "x")),
    }
    async with opened() as db:
        await db.write(insert("1", card(board="other")), insert("2", {"name": "x"}, "tags"))
        told = [(await db.db.read(query)).rows[0] for query in wanted[found_by]]
    assert [(row.id, row.scope) for row in told] == [("1", "other"), ("2", "main")]  # of a field; of the declaration
