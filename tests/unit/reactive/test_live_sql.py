"""SQL that a program writes itself is followed: by the fields that it reads, at one commit with all else, bounded."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import pytest
import trio
import trio.testing

from atoma.bindings.blocking import open_client as open_blocking
from atoma.client import Client, open_client
from atoma.errors import QueryError
from atoma.ports import LIVE_QUERIES, Reset, apply_batch
from atoma.ports.live import LiveBatch, LiveInspection, LiveStats
from atoma.query import col, select
from atoma.runtime.functions import Reads
from atoma.schema import Schema, StoreSpec
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine

T = TypeVar("T")


@dataclass(frozen=True)
class Card:
    id: str
    lane: str = "todo"
    rank: int = 0
    note: str | None = None


@dataclass(frozen=True)
class Lane:
    id: str
    most: int = 0


class Count(NamedTuple):
    lane: str
    cards: int


class Named(msgspec.Struct, frozen=True):
    id: str
    rank: int


CARDS, LANES, BIN = StoreSpec("cards", Card), StoreSpec("lanes", Lane), StoreSpec("bin", Card, soft_delete=True)
SCHEMA = Schema(CARDS, LANES, BIN)
BY_LANE = "SELECT lane, count(*) FROM cards WHERE rank >= :least GROUP BY lane ORDER BY lane"
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def on_device(path: str | Path = ":memory:") -> LocalExecution:
    return LocalExecution(SQLiteEngine(path))


def stats_of(client: Client) -> list[LiveStats]:
    live = client._planes.find(LIVE_QUERIES)
    assert isinstance(live, LiveInspection)
    return list(live.stats())


async def following(rows: tuple[T, ...], batches: AsyncIterator[LiveBatch[T]]) -> tuple[T, ...]:
    """The rows after the next batch."""
    with trio.fail_after(60):
        return apply_batch(rows, await anext(batches))


async def is_quiet(batches: AsyncIterator[object]) -> None:
    with trio.move_on_after(5) as scope:
        raise AssertionError(f"something was told: {await anext(batches)!r}")
    assert scope.cancelled_caught


@pytest.mark.virtual_time
async def test_it_is_followed_by_the_fields_that_it_reads() -> None:
    async with open_client(SCHEMA, plugins=[on_device()]) as client:
        cards, lanes = client.store(CARDS), client.store(LANES)
        async with client.live_sql(Count, BY_LANE, least=1) as batches:
            first = await anext(batches)
            assert first.changes == (Reset(()),)
            await cards.insert_many([Card("a", rank=1), Card("b", rank=2), Card("c", "done", 3)])
            rows = await following((), batches)
            assert rows == (Count("done", 1), Count("todo", 2))
            reads = stats_of(client)[0].reads
            await cards.update("a", note="nothing that it reads")
            await lanes.insert(Lane("todo"))
            await is_quiet(batches)
            assert stats_of(client)[0].reads == reads, "it was not even asked again"
            await cards.update("a", rank=9)
            await is_quiet(batches)
            assert stats_of(client)[0].reads == reads + 1, "of equal rows nothing is told"
            await cards.delete("b")
            batch = await anext(batches)
            after = apply_batch(rows, batch)
            assert after == (Count("done", 1), Count("todo", 1))
            assert after[0] is rows[0], "a row that is the same is the same object"
            assert not any(isinstance(change, Reset) for change in batch.changes)
        async with client.live_sql(Count, BY_LANE, least=1) as batches:
            rows = await following((), batches)
            await cards.delete("c")
            assert await following(rows, batches) == (Count("todo", 1),), "what it reads is known the second time, too"


@pytest.mark.virtual_time
async def test_rows_that_are_only_counted_are_followed_as_they_come_and_go() -> None:
    async with open_client(SCHEMA, plugins=[on_device()]) as client:
        cards, bins = client.store(CARDS), client.store(BIN)
        counted, binned = "SELECT count(*) FROM cards", "SELECT count(*) FROM bin"
        opened = client.live_sql(int, counted), client.live_sql(int, binned)
        async with opened[0] as here, opened[1] as there:
            assert [await following((), each) for each in (here, there)] == [(0,), (0,)]
            await cards.insert(Card("a"))
            assert await following((0,), here) == (1,)
            await cards.update("a", rank=1)
            await is_quiet(here)
            await cards.delete("a")
            assert await following((1,), here) == (0,)
            await bins.insert(Card("a"))
            assert await following((0,), there) == (1,)
            await bins.delete("a")
            assert await following((1,), there) == (0,), "a row that was deleted softly is not there"
            await bins.restore("a")
            assert await following((0,), there) == (1,)


STATEMENTS: dict[str, tuple[type[Any], str, dict[str, object]]] = {
    "groups": (Count, BY_LANE, {"least": 3}),
    "a join": (tuple[str, int], "SELECT c.id, l.most FROM cards c JOIN lanes l ON l.id = c.lane ORDER BY c.id", {}),
    "a window": (tuple[str, int], "SELECT id, rank() OVER (ORDER BY rank, id) FROM cards", {}),
    "what no key tells apart": (str, "SELECT lane FROM cards ORDER BY rank, id LIMIT 4", {}),
    "an anti join": (str, "SELECT id FROM lanes WHERE id NOT IN (SELECT lane FROM cards) ORDER BY id", {}),
    "by names": (Named, "SELECT * FROM (SELECT id, rank FROM cards) WHERE rank BETWEEN :a AND :b", {"a": 2, "b": 6}),
    "no store": (int, "SELECT 1", {}),
    "what was deleted softly": (str, "SELECT id FROM bin ORDER BY id", {}),
}


@dataclass
class Followed:
    """A statement that is followed, and what its batches have led to."""

    batches: AsyncIterator[LiveBatch[Any]]
    of_values: bool = True  # of rows of a store a batch also says that a version is another one
    rows: tuple[Any, ...] = ()
    commits: list[int] = field(default_factory=list)

    async def drain(self) -> None:
        with trio.move_on_after(1):
            while True:
                batch = await anext(self.batches)
                before, self.rows = self.rows, apply_batch(self.rows, batch)
                equal = self.rows == before and bool(self.commits)
                assert not (equal and self.of_values), "a batch that changes nothing"
                self.commits.append(batch.commit)


async def write(client: Client, dice: random.Random) -> None:
    """Something that may concern each of the statements, or none."""
    id = dice.choice("abcdefgh")
    card = Card(id, dice.choice(["todo", "doing", "done"]), dice.randrange(8), dice.choice([None, "x"]))
    match dice.randrange(6):
        case 0 | 1:
            await client.store(CARDS).upsert(card)
        case 2:
            await client.delete_where(select(CARDS).where(col("id") == id))
        case 3:
            async with client.transaction() as tx:
                await tx.store(LANES).upsert(Lane(card.lane, card.rank))
                await tx.store(CARDS).upsert(card)
        case 4:
            await client.delete_where(select(LANES).where(col("id") == card.lane))
        case _:
            store = client.store(BIN)
            await (store.delete(id) if await store.get(id) else store.upsert(card))


@pytest.mark.paths
@pytest.mark.virtual_time
async def test_after_every_commit_it_is_what_a_fresh_answer_is(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    dice, told = random.Random(seed), 0
    print(f"seed {seed}")
    async with open_client(SCHEMA, plugins=[on_device(tmp_path / "a.db")]) as client, AsyncExitStack() as stack:
        followed = {
            what: Followed(await stack.enter_async_context(client.live_sql(into, text, **params)))
            for what, (into, text, params) in STATEMENTS.items()
        }
        beside = Followed(await stack.enter_async_context(client.live(select(CARDS).order_by("id"))), of_values=False)
        for _ in range(20):
            for _ in range(dice.choice([1, 1, 3])):
                await write(client, dice)
            for what, each in (*followed.items(), ("a query", beside)):
                await each.drain()
                if what in STATEMENTS:
                    into, text, params = STATEMENTS[what]
                    fresh = await client.sql(into, text, **params)
                    assert (each.rows, list(map(type, each.rows))) == (fresh, list(map(type, fresh))), (what, seed)
        commits = set(beside.commits)
        for what in ("a window", "by names"):  # they read only what the query does
            assert set(followed[what].commits) <= commits, f"seed {seed}: {what} was told at another commit"
        told = sum(len(each.commits) for each in followed.values())
        assert len(followed["no store"].commits) == 1
    assert told > 40, f"seed {seed}: nearly nothing has changed"


async def test_it_stands_at_one_commit_with_queries(tmp_path: Path) -> None:
    async def fill(client: Client) -> None:
        for number in range(60):
            async with client.transaction() as tx:
                await tx.store(CARDS).insert(Card(f"{number}"))
                await tx.store(LANES).insert(Lane(f"{number}"))

    async with open_client(SCHEMA, plugins=[on_device(tmp_path / "a.db")]) as client, trio.open_nursery() as nursery:
        text, commits = "SELECT count(*) FROM lanes", 0
        async with client.live_sql(int, text) as counts, client.live(select(CARDS)) as cards:
            lanes, rows = await following((), counts), await following((), cards)
            nursery.start_soon(fill, client)
            with trio.fail_after(60):
                while len(rows) < 60:
                    one, other = await anext(counts), await anext(cards)
                    assert one.commit == other.commit
                    lanes, rows = apply_batch(lanes, one), apply_batch(rows, other)
                    assert lanes == (len(rows),)
                    commits += 1
        assert commits > 1


async def test_what_another_tool_writes_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_client(SCHEMA, plugins=[on_device(path)]) as client:
        await client.store(CARDS).insert_many([Card("a", rank=1), Card("b", rank=2)])
        async with client.live_sql(Count, BY_LANE, least=1) as batches:
            rows = await following((), batches)

            def write_raw() -> None:
                with closing(sqlite3.connect(path)) as tool, tool:
                    tool.execute("UPDATE cards SET rank = 0 WHERE id = 'a'")

            await trio.to_thread.run_sync(write_raw)
            with trio.fail_after(60):
                assert await following(rows, batches) == (Count("todo", 1),)


async def test_who_leaves_stops_the_statement_that_runs_for_it(tmp_path: Path) -> None:
    async with open_client(SCHEMA, plugins=[on_device(tmp_path / "a.db")]) as client:
        async with client.live(select(CARDS)) as cards:
            await anext(cards)
            with trio.fail_after(60), trio.move_on_after(0.2):
                async with client.live_sql(int, ENDLESS) as batches:
                    await anext(batches)
            await client.store(CARDS).insert(Card("a"))
            with trio.fail_after(60):
                assert (await anext(cards)).changes
        assert not stats_of(client)


@pytest.mark.parametrize("path", [":memory:", "a.db"])
async def test_it_takes_a_bounded_time_and_others_go_on(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoma_stores.live.dispatch.LIVE_SQL_S", 0.3)
    where = path if path == ":memory:" else tmp_path / path
    async with open_client(SCHEMA, plugins=[on_device(where)]) as client, client.live(select(CARDS)) as cards:
        await anext(cards)
        async with client.live_sql(int, ENDLESS) as batches:
            with trio.fail_after(60), pytest.raises(QueryError, match=r"may take 0\.3 seconds"):
                await anext(batches)
        await client.store(CARDS).insert(Card("a"))
        with trio.fail_after(60):
            assert (await anext(cards)).changes


async def test_it_has_a_bounded_number_of_rows() -> None:
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT :many) SELECT x FROM n"
    async with open_client(SCHEMA, plugins=[on_device()]) as client:
        async with client.live_sql(int, numbers, many=100_001) as batches:
            with pytest.raises(QueryError, match="at most 100,000 rows: add LIMIT"):
                await anext(batches)
        async with client.live_sql(int, numbers, many=100_000) as batches:
            assert len(await following((), batches)) == 100_000


@pytest.mark.virtual_time
async def test_equal_statements_are_one_and_values_of_other_types_are_others() -> None:
    async with open_client(SCHEMA, plugins=[on_device()]) as client, AsyncExitStack() as stack:
        texts: list[tuple[str, ...]] = []
        for value in (1, 1, 1.0, "1"):
            batches = await stack.enter_async_context(client.live_sql(str, "SELECT typeof(:it)", it=value))
            texts.append(await following((), batches))
        assert texts == [("integer",), ("integer",), ("real",), ("text",)]
        assert [(each.query, each.subscribers, each.tier) for each in stats_of(client)] == [
            ("SELECT typeof(:it)", 2, 2),
            ("SELECT typeof(:it)", 1, 2),
            ("SELECT typeof(:it)", 1, 2),
        ]


@pytest.mark.virtual_time
async def test_a_row_that_does_not_fit_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    async with open_client(SCHEMA, plugins=[on_device()]) as client:
        await client.store(CARDS).insert(Card("a"))
        async with client.live_sql(int, "SELECT max(note) FROM cards") as batches:
            with pytest.raises(QueryError, match="do not make a int"):
                await anext(batches)
        async with client.live_sql(int, "SELECT count(*) FROM cards") as batches:
            assert await following((), batches) == (1,)


async def test_it_is_explained() -> None:
    async with open_client(SCHEMA, plugins=[on_device()]) as client:
        text = "SELECT c.rank FROM cards c WHERE c.id = :id AND EXISTS (SELECT 1 FROM lanes)"
        told = await client.explain_sql(text, id="a")
        assert told.live == ("tier 2: asked again: it is SQL of a program's own, which reads cards (id, rank), lanes")
        assert [(each.line.split(" USING")[0], each.scans) for each in told.sources] == [
            ("SEARCH cards", False),
            ("SCAN lanes", True),
        ]
        assert not any("main." in each.line for each in told.sources), "as the program calls its stores"
        assert "this device alone" in told.hub
        with pytest.raises(QueryError, match="no such table: nowhere"):
            await client.explain_sql("SELECT * FROM nowhere")


async def totals(reads: Reads) -> dict[str, int]:
    runs.append(1)
    found = dict(await reads.sql(Count, BY_LANE, least=1))
    return {lane.id: found.get(lane.id, 0) for lane in await reads.query(select(LANES).where(col("most") > 0))}


runs: list[int] = []


@pytest.mark.virtual_time
async def test_a_live_function_reads_by_it_too() -> None:
    runs.clear()
    async with open_client(SCHEMA, plugins=[on_device()]) as client:
        cards, lanes = client.store(CARDS), client.store(LANES)
        async with client.live(totals) as values:
            assert await anext(values) == {}
            await lanes.insert(Lane("todo", 1))
            assert await anext(values) == {"todo": 0}
            await cards.insert(Card("a", rank=1))
            assert await anext(values) == {"todo": 1}
            ran = len(runs)
            await cards.update("a", note="nothing that it reads")
            await is_quiet(values)
            assert len(runs) == ran
            await cards.update("a", lane="done")
            assert await anext(values) == {"todo": 0}


def test_a_program_without_a_loop_follows_it_too() -> None:
    with open_blocking(SCHEMA, plugins=[on_device()]) as client:
        with client.live_sql(Count, BY_LANE, least=0) as batches:
            assert next(batches).changes == (Reset(()),)
            client.store(CARDS).insert(Card("a", rank=9))
            assert apply_batch((), next(batches)) == (Count("todo", 1),)
        assert "reads cards (lane, rank)" in client.explain_sql(BY_LANE, least=0).live
