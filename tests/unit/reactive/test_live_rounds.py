"""What happens to live queries in the middle of a round: who comes then, and one that cannot take a row."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeAlias

import pytest
import trio

from atoma import min_, select
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import RowImage, Scalar
from atoma.errors import QueryError
from atoma.ports import Environment, LocalTx, apply_batch
from atoma.query import bind
from atoma.query.plans import by_ids
from atoma.schema import Schema, StoreSpec
from atoma.schema.expressions import col
from atoma.testing.queries import rows_of
from atoma_stores.live import dispatch
from atoma_stores.live.delivery import CHECKPOINT_EVERY_BATCHES
from atoma_stores.live.dispatch import open_live_queries
from atoma_stores.live.operators import window
from atoma_stores.live.operators.aggregates import EXTREMES
from atoma_stores.live.source import SnapshotMoved
from atoma_stores.sqlite.engine import SQLiteEngine
from tests.unit.reactive.test_live import ALL, NOTES, TODO, TOP, open_room, settle

pytestmark = pytest.mark.virtual_time

FOUR_TIMES = rows_of("cards", col("rank") * 4 > 0)
TOO_MUCH = 2**61
Changes: TypeAlias = dict[tuple[str, str], dict[str, Scalar] | None]
TWO = by_ids("cards", ("a", "big0"))


@pytest.mark.parametrize("steps", range(10))
async def test_who_comes_while_a_commit_is_told_gets_what_it_made(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "STEP_S", -1.0)  # each result is told in a step of its own
    async with open_room() as room:
        for query in (ALL, TODO, TOP, TWO):
            await room.follow(query)
        room.source.put("cards", "c", rank=3)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        late = [await room.follow(query, settled=False) for query in (ALL, TODO, TOP, TWO)]
        await settle()
        assert [each.ids for each in late] == [["a", "b", "c"], ["a", "b", "c"], ["a", "b"], ["a"]]


@pytest.mark.parametrize("rows", [1, 20, 400], ids=["one", "some", "more than a writer waits for"])
async def test_a_query_that_a_row_cannot_be_tested_for_ends_alone(rows: int) -> None:
    seconds = itertools.count()
    async with open_room(clock=lambda: float(next(seconds))) as room:  # reading costs more than to test every row
        before, bad = await room.follow(TOP), await room.follow(FOUR_TIMES)
        after, notes = await room.follow(ALL), await room.follow(NOTES)
        big: Changes = {("cards", f"big{number:03}"): {"rank": TOO_MUCH} for number in range(rows)}
        room.source.write({**big, ("notes", "n"): {}})
        await settle()
        assert isinstance(bad.error, QueryError)
        room.source.put("cards", "A", rank=-1)
        await settle()
        assert (before.error, before.ids) == (None, ["A", "a"])
        assert (after.error, after.ids) == (None, ["A", "a", "b", *(id for _, id in big)])
        assert (notes.error, notes.ids) == (None, ["n"])
        assert (await room.follow()).ids == after.ids


async def test_what_is_read_again_because_a_snapshot_moved_leads_on_from_what_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "TOGETHER", 1)  # the first result is read when the snapshot moves
    async with open_room() as room:
        first, second = await room.follow(), await room.follow(TODO)

        def move(query: BoundQuery) -> Exception | None:
            if query.plan.where is None:
                return None
            room.source.failure = lambda query: None
            room.source.delete("cards", "c", heard=False)
            room.source.put("cards", "d")  # a gap, so that everything is read again
            return SnapshotMoved()

        room.source.failure = move
        room.source.put("cards", "c", heard=False)
        room.source.delete("cards", "a")
        await settle()
        assert [each.ids for each in (first, second)] == [["b", "d"], ["d", "b"]]


async def has_others_run(batches: AsyncIterator[object]) -> bool:
    """Whether another task had its turn before the next of ``batches`` was there."""
    ran = trio.Event()

    async def run() -> None:
        ran.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await anext(batches)
        return ran.is_set()


async def test_a_reader_that_would_wait_takes_a_short_round_itself() -> None:
    async with open_room() as room, room.live.open_live(ALL) as batches:
        await anext(batches)
        other = await room.follow(TODO)
        room.source.put("cards", "c", rank=3)
        assert not await has_others_run(batches)
        await settle()
        assert (other.ids, other.commits[1:]) == (["a", "b", "c"], [room.source.commit])
        others = [await room.follow(rows_of("cards", col("rank") > -n)) for n in range(dispatch.STEPS_AT_ONCE)]
        room.source.put("cards", "d", rank=4)
        assert await has_others_run(batches), "more is taken by the task, which lets others run"
        await settle()
        assert {tuple(each.ids) for each in others} == {("a", "b", "c", "d")}


async def test_batches_that_are_there_let_others_run_now_and_then() -> None:
    turns = 0

    async def run() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with open_room() as room, room.live.open_live(ALL) as batches, trio.open_nursery() as nursery:
        await anext(batches)
        nursery.start_soon(run)
        for number in range(2 * CHECKPOINT_EVERY_BATCHES):
            room.source.put("cards", "c", rank=number)
            await anext(batches)
        assert 0 < turns < CHECKPOINT_EVERY_BATCHES
        nursery.cancel_scope.cancel()


async def test_a_reader_is_not_told_before_what_others_lack_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "SLACK_MIN", 0)
    async with open_room() as room, room.live.open_live(ALL) as batches:
        await anext(batches)
        least = await room.follow(rows_of("cards", order_by=("rank",), limit=1))
        room.source.gate = trio.Event()
        room.source.delete("cards", "a")  # and the second one has to be read
        with trio.move_on_after(5) as waited:
            await anext(batches)
        assert waited.cancelled_caught
        assert least.ids == ["a"]
        room.source.gate.set()
        told = await anext(batches)
        await settle()
        assert (least.ids, least.commits[-1]) == (["b"], told.commit)


@dataclass(frozen=True)
class Note:
    id: str
    text: str
    rank: int


NOTE = StoreSpec("notes", Note)
LEAST = select(NOTE).group_by("text").columns(NOTE.col(lambda note: note.text), min_(NOTE.col(lambda note: note.rank)))


def put(*ranks: int, text: str | None) -> Callable[[LocalTx], None]:
    def body(tx: LocalTx) -> None:
        for rank in ranks:
            image: RowImage | None = None if text is None else {"text": text, "rank": rank}
            tx.rows.put("notes", f"n{rank}", "main", image)

    return body


async def test_the_least_of_a_group_is_known_whose_key_no_query_may_name() -> None:
    schema = Schema(NOTE)
    many = range(3 * EXTREMES)
    async with (
        SQLiteEngine(":memory:").open_database(schema, Environment(executor="inline"), frozenset()) as database,
        open_live_queries(database, schema) as live,
        live.open_live(bind(LEAST, schema)) as batches,
    ):
        await anext(batches)
        await database.apply(put(*many, text="a\x00b"))  # as other tools, and older versions, may have left it
        rows = apply_batch((), await anext(batches))
        for rank in many[:-1]:
            await database.apply(put(rank, text=None))
            rows = apply_batch(rows, await anext(batches))
            assert rows == (("a\x00b", rank + 1),)
