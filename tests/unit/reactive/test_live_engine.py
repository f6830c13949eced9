"""Live queries over the SQLite engine on disk: its threads, its closing, and writers that do not wait for one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import pytest
import trio

from atoma.contracts.values import StoredRow
from atoma.errors import ClosedError
from atoma.ports import Environment, LiveBatch, LocalTx, apply_batch
from atoma.query import bind, col, select
from atoma.query.evaluate import evaluate
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.changes import CommitDelta
from atoma_stores.live.dispatch import LocalLiveQueries, open_live_queries
from atoma_stores.sqlite.engine import SQLiteEngine


@dataclass(frozen=True)
class Card:
    id: str
    lane: int
    rank: int


CARDS = StoreSpec("cards", Card, indexes=[Index("rank")])
SCHEMA = Schema(CARDS)
QUERIES = [
    bind(select(CARDS).order_by("rank").limit(10), SCHEMA),
    bind(select(CARDS).where(col("lane") == 1), SCHEMA),
    bind(select(CARDS).order_by("-rank").limit(3).offset(2), SCHEMA),
]
WRITERS, WRITES = 8, 40
Batch: TypeAlias = LiveBatch[StoredRow]


def put(*rows: tuple[str, int, int]) -> Callable[[LocalTx], None]:
    def body(tx: LocalTx) -> None:
        for id, lane, rank in rows:
            tx.rows.put("cards", id, "main", {"lane": lane, "rank": rank})

    return body


def expected(number: int, rows: tuple[StoredRow, ...]) -> tuple[StoredRow, ...]:
    """What the query of that number finds among ``rows``."""
    return tuple(evaluate(QUERIES[number], {"cards": rows}))


async def test_every_batch_is_the_result_at_its_commit_while_threads_write(tmp_path: Path) -> None:
    history: dict[int, tuple[StoredRow, ...]] = {}
    current: dict[str, StoredRow] = {}
    results: list[tuple[StoredRow, ...]] = [()] * len(QUERIES)
    batches = [0] * len(QUERIES)

    def hear(change: CommitDelta) -> None:
        for id, (_, new) in change.changes.get("cards", {}).items():
            if new is None:
                del current[id]
            else:
                current[id] = new
        history[change.commit] = tuple(current.values())

    async def follow(live: LocalLiveQueries, number: int) -> None:
        async with live.open_live(QUERIES[number]) as stream:
            async for batch in stream:
                results[number] = apply_batch(results[number], cast("Batch", batch))
                batches[number] += 1
                while batch.commit and batch.commit not in history:
                    await trio.lowlevel.checkpoint()  # a first snapshot may see a commit just before it is told
                assert results[number] == expected(number, history.get(batch.commit, ()))
                last = tuple(current.values())
                if "top" in current and all(results[at] == expected(at, last) for at in range(len(QUERIES))):
                    nursery.cancel_scope.cancel()

    async def write(writer: int) -> None:
        for number in range(WRITES):
            at = writer * 7 + number
            await database.apply(put((f"c{at * 3 % 50}", at % 3, at * 31 % 97)))

    engine = SQLiteEngine(tmp_path / "live.db")
    with trio.fail_after(60):
        async with engine.open_database(SCHEMA, Environment(), frozenset()) as database:
            database.subscribe_commits(hear)
            async with open_live_queries(database, SCHEMA) as live:
                async with trio.open_nursery() as nursery:
                    for number in range(len(QUERIES)):
                        nursery.start_soon(follow, live, number)
                    async with trio.open_nursery() as writers:
                        for writer in range(WRITERS):
                            writers.start_soon(write, writer)
                    await database.apply(put(("last", 1, -1)))
                    await database.apply(put(("top", 1, 1000)))
    assert results == [expected(at, tuple(current.values())) for at in range(len(QUERIES))]
    assert min(batches) > 3
    assert len(current) == 52


@pytest.mark.paths
async def test_a_write_is_in_the_first_result_of_a_query_opened_after_it(tmp_path: Path) -> None:
    async with SQLiteEngine(tmp_path / "live.db").open_database(SCHEMA, Environment(), frozenset()) as database:
        async with open_live_queries(database, SCHEMA) as live:
            async with live.open_live(QUERIES[1]):
                for number in range(50):
                    await database.apply(put((f"c{number}", 1, number)))
                    async with live.open_live(QUERIES[1]) as batches:
                        first: tuple[StoredRow, ...] = apply_batch((), cast("Batch", await anext(batches)))
                        assert [row.id for row in first][-1:] == [sorted(f"c{at}" for at in range(number + 1))[-1]]
                        assert len(first) == number + 1


@pytest.mark.paths
async def test_closing_the_database_ends_a_waiting_reader(tmp_path: Path) -> None:
    ended: list[Exception] = []
    started = trio.Event()

    async def read(live: LocalLiveQueries) -> None:
        try:
            async with live.open_live(QUERIES[0]) as batches:
                async for _ in batches:
                    started.set()
        except ClosedError as error:
            ended.append(error)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            async with SQLiteEngine(tmp_path / "live.db").open_database(SCHEMA, Environment(), frozenset()) as database:
                async with open_live_queries(database, SCHEMA) as live:
                    nursery.start_soon(read, live)
                    await started.wait()
    assert len(ended) == 1
    with pytest.raises(ClosedError):
        async with live.open_live(QUERIES[0]):
            raise AssertionError
