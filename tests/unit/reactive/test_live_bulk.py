"""Commits of many rows cost at most a third more than to ask again, told by the calls that are made, which are the clock as well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import pytest

from atoma.contracts.query import BoundQuery
from atoma.ports import Environment, LocalTx
from atoma.query import bind, col, select
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.live.dispatch import open_live_queries
from atoma_stores.sqlite.engine import SQLiteEngine


@dataclass(frozen=True)
class Card:
    id: str
    lane: int
    rank: int


CARDS = StoreSpec("cards", Card, indexes=[Index("rank"), Index("lane", "rank")])
SCHEMA = Schema(CARDS)
ROWS = 2_000
QUERIES = {
    "a page of fifty": bind(select(CARDS).order_by("rank").limit(50), SCHEMA),
    "a page of five": bind(select(CARDS).order_by("rank").limit(5), SCHEMA),
    "a lane": bind(select(CARDS).where(col("lane") == 7), SCHEMA),
}


def put(rows: list[tuple[str, int, int]]) -> Callable[[LocalTx], None]:
    def body(tx: LocalTx) -> None:
        for id, lane, rank in rows:
            tx.rows.put("cards", id, "main", {"lane": lane, "rank": rank})

    return body


async def calls_for(query: BoundQuery, count: int, *, into: bool, least_tier: int) -> int:
    """Calls from the write of ``count`` rows, which come into the result or but for one do not, to its batch."""
    calls = began = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    async with SQLiteEngine(":memory:").open_database(SCHEMA, Environment(), frozenset()) as database:
        await database.apply(put([(f"c{at}", at % 20, at * 10 + 100_000) for at in range(ROWS)]))
        live_queries = open_live_queries(database, SCHEMA, least_tier=least_tier, clock=lambda: calls * 1e-7)
        async with live_queries as live, live.open_live(query) as batches:
            await anext(batches)
            before = sys.getprofile()
            sys.setprofile(note)
            try:
                for turn in range(4):
                    rows = [(f"c{(20 * at + 7) % ROWS}", 7, 1_000 - 10 * turn - at) for at in range(count)]
                    if not into:
                        rows = [(f"c{20 * at + 8}", 8, 900_000 + 10 * turn + at) for at in range(count - 1)]
                        rows.append(("c7", 7, 40 - turn))
                    began = calls
                    await database.apply(put(rows))
                    await anext(batches)
            finally:
                sys.setprofile(before)
    return calls - began


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("into", [True, False], ids=["into the result", "beside it"])
async def test_a_bulk_change_costs_at_most_a_third_more_than_asking_again(name: str, into: bool) -> None:
    for count in (16, 48, 90):
        asked = await calls_for(QUERIES[name], count, into=into, least_tier=2)
        taken = await calls_for(QUERIES[name], count, into=into, least_tier=0)
        assert taken <= 1.3 * asked, (count, taken, asked)
