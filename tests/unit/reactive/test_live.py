"""Live queries over a database whose timing the test decides: what is read when, and when a commit is heard."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import pytest
import trio
import trio.testing

from atoma.contracts.completeness import COMPLETE, Completeness
from atoma.contracts.execution import ExecutionMeta, QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.raw import Question
from atoma.contracts.values import Scalar, StoredRow
from atoma.errors import ClosedError, QueryError, StoreError, UnknownStore
from atoma.ports import Insert, LiveBatch, LiveInspection, LiveQueries, Reset, Update, apply_batch
from atoma.ports.completeness import CompletenessBoard
from atoma.query.evaluate import evaluate
from atoma.query.plans import by_ids
from atoma.schema import Schema, StoreSpec
from atoma.schema.expressions import col
from atoma.testing.queries import rows_of
from atoma_stores.changes import BeforeAfter, CommitDelta, CommitListener
from atoma_stores.live.dispatch import LocalLiveQueries, open_live_queries

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Card:
    id: str
    lane: str = "todo"
    rank: int = 0


SCHEMA = Schema(StoreSpec("cards", Card), StoreSpec("notes", Card))
ALL = rows_of("cards")
NOTES = rows_of("notes")
TODO = rows_of("cards", col("lane") == "todo", order_by=("rank",))
TOP = rows_of("cards", order_by=("rank",), limit=2)


class Source:
    """Rows in memory. A commit can be visible before it is heard, a read can be held back, and reads can fail."""

    def __init__(self) -> None:
        self.commit = 0
        self.rows: dict[str, dict[str, StoredRow]] = {"cards": {}, "notes": {}}
        self.reads: list[int] = []  # queries of each read
        self.snapshots: list[int] = []  # the commit of each snapshot
        self.listeners: list[CommitListener] = []
        self.gate: trio.Event | None = None
        self.opened: list[Callable[[], None]] = []  # each is done right behind the opening of a snapshot
        self.failure: Callable[[BoundQuery], Exception | None] = lambda query: None

    def subscribe_commits(self, listener: CommitListener) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    @asynccontextmanager
    async def open_snapshot(self) -> AsyncGenerator[Held]:
        await trio.lowlevel.checkpoint()
        held = Held(self, self.commit, {store: list(rows.values()) for store, rows in self.rows.items()})
        self.snapshots.append(held.commit)
        for act in self.opened[:1]:
            self.opened.remove(act)
            act()
        yield held

    async def hear_others(self) -> None:
        await trio.lowlevel.checkpoint()

    def put(self, store: str, id: str, *, heard: bool = True, **values: Scalar) -> CommitDelta:
        return self.write({(store, id): dict(values)}, heard=heard)

    def delete(self, store: str, id: str, *, heard: bool = True) -> CommitDelta:
        return self.write({(store, id): None}, heard=heard)

    def write(self, changes: dict[tuple[str, str], dict[str, Scalar] | None], *, heard: bool = True) -> CommitDelta:
        self.commit += 1
        net: dict[str, dict[str, BeforeAfter]] = {}
        for (store, id), values in changes.items():
            old = self.rows[store].pop(id, None)
            new = None
            if values is not None:
                image = {"lane": "todo", "rank": 0, **(old.image if old else {}), **values}
                new = self.rows[store][id] = StoredRow(id, old.version + 1 if old else 1, 0, "main", image)
            net.setdefault(store, {})[id] = (old, new)
        change = CommitDelta(self.commit, net)
        if heard:
            self.tell(change)
        return change

    def tell(self, change: CommitDelta) -> None:
        for listener in list(self.listeners):
            listener(change)


@dataclass
class Held:
    """The rows as they were at one commit."""

    source: Source
    commit: int
    tables: dict[str, list[StoredRow]]

    async def answer(self, queries: Sequence[Question]) -> Sequence[QueryResult]:
        await trio.lowlevel.checkpoint()
        self.source.reads.append(len(queries))
        asked = [query for query in queries if isinstance(query, BoundQuery)]
        for query in asked:
            if error := self.source.failure(query):
                raise error
        if self.source.gate is not None:
            await self.source.gate.wait()
        meta = ExecutionMeta(commit=self.commit)
        return [QueryResult(tuple(map(reread, evaluate(query, self.tables))), meta=meta) for query in asked]


def reread(row: StoredRow) -> StoredRow:
    return StoredRow(row.id, row.version, row.seq, row.scope, dict(row.image))


class Follower:
    """Reads a live query in a task of its own and keeps the result."""

    def __init__(self) -> None:
        self.rows: tuple[StoredRow, ...] = ()
        self.batches: list[LiveBatch[StoredRow]] = []
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        self.pause: trio.Event | None = None

    async def run(self, live: LiveQueries, query: BoundQuery) -> None:
        with self.scope:
            try:
                async with live.open_live(query) as batches:
                    async for each in batches:
                        batch = cast("LiveBatch[StoredRow]", each)
                        self.batches.append(batch)
                        self.rows = apply_batch(self.rows, batch)
                        if self.pause is not None:
                            await self.pause.wait()
            except (StoreError, QueryError) as error:
                self.error = error

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]

    @property
    def commits(self) -> list[int]:
        return [batch.commit for batch in self.batches]


class Room:
    """A source, its live queries and followers."""

    def __init__(self, source: Source, live: LocalLiveQueries, nursery: trio.Nursery) -> None:
        self.source = source
        self.live = live
        self._nursery = nursery

    async def follow(self, query: BoundQuery = ALL, *, settled: bool = True) -> Follower:
        follower = Follower()
        self._nursery.start_soon(follower.run, self.live, query)
        if settled:
            await settle()
        return follower


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def open_room(
    *,
    buffer: int = 64,
    least_tier: int = 0,
    completeness: CompletenessBoard | None = None,
    clock: Callable[[], float] = trio.current_time,
) -> AsyncGenerator[Room]:
    source = Source()
    source.put("cards", "a", rank=1)
    source.put("cards", "b", rank=2)
    async with trio.open_nursery() as nursery:
        live_queries = open_live_queries(
            source, SCHEMA, buffer=buffer, completeness=completeness, least_tier=least_tier, clock=clock
        )
        async with live_queries as live:
            yield Room(source, live, nursery)
        assert source.listeners == []
        nursery.cancel_scope.cancel()


async def test_the_first_batch_is_a_reset_and_each_commit_one_batch() -> None:
    async with open_room() as room:
        assert isinstance(room.live, LiveQueries)
        follower = await room.follow()
        room.source.put("cards", "c")
        await settle()
        room.source.put("cards", "a", lane="done")
        room.source.put("notes", "n")
        await settle()
        kinds = [[type(change) for change in batch.changes] for batch in follower.batches]
        assert kinds == [[Reset], [Insert], [Update]]
        assert follower.commits == [2, 3, 5]
        assert follower.ids == ["a", "b", "c"]


async def test_a_commit_between_subscribing_and_the_snapshot_is_not_lost() -> None:
    async with open_room() as room:
        room.source.gate = trio.Event()
        follower = await room.follow()
        room.source.put("cards", "c")  # the snapshot without it is already read
        assert follower.batches == []
        room.source.gate.set()
        await settle()
        assert follower.ids == ["a", "b", "c"]
        assert [type(change) for change in follower.batches[0].changes] == [Reset]


async def test_a_result_is_not_called_complete_before_it_has_the_rows_that_make_it_so() -> None:
    partial = Completeness("partial", ("main",))
    known = CompletenessBoard(SCHEMA, frozenset({"cards"}))
    known.show({"main": partial})
    async with open_room(completeness=known) as room:
        whole, other = await room.follow(), await room.follow(NOTES)
        room.source.gate = trio.Event()
        first = await room.follow(TODO)  # is read at commit 2
        room.source.put("cards", "c")
        known.show({"main": COMPLETE})  # because of commit 3
        room.source.gate.set()
        await settle()
        for follower in (whole, first):
            rows: tuple[StoredRow, ...] = ()
            for batch in follower.batches:
                rows = apply_batch(rows, batch)
                assert batch.completeness == (COMPLETE if len(rows) == 3 else partial)
            assert len(rows) == 3
        assert [batch.completeness for batch in other.batches] == [COMPLETE], "nobody replicates this store"


async def test_another_completeness_is_told_even_when_no_row_is_another() -> None:
    known = CompletenessBoard(SCHEMA, frozenset({"cards"}))
    known.show({"main": COMPLETE})
    stale = Completeness("stale", ("main",), 7)
    async with open_room(completeness=known, buffer=1) as room:
        follower, idle = await room.follow(), await room.follow()
        idle.pause = trio.Event()
        known.show({"main": stale})
        await settle()
        known.show({"main": stale, "second": COMPLETE})  # a query of one scope is not told of another
        await settle()
        assert follower.batches[1:] == [LiveBatch(2, (), stale)]
        known.show({"main": COMPLETE})
        await settle()
        assert follower.batches[2:] == [LiveBatch(2, (), COMPLETE)]
        room.source.put("cards", "c")
        await settle()
        idle.pause.set()
        await settle()
        assert (idle.ids, idle.batches[-1].completeness) == (["a", "b", "c"], COMPLETE)


async def test_commits_between_two_rounds_are_taken_together() -> None:
    async with open_room() as room:
        follower = await room.follow()
        room.source.put("cards", "c")
        await settle()
        for name in "defg":
            room.source.put("cards", name)
        room.source.put("cards", "d", rank=5)
        room.source.delete("cards", "e")
        await settle()
        assert follower.commits == [2, 3, 9]
        assert follower.ids == ["a", "b", "c", "d", "f", "g"]
        assert room.source.reads == [1]


async def test_a_query_is_shared_and_unchanged_rows_stay_the_same_objects() -> None:
    async with open_room() as room:
        one, other = await room.follow(), await room.follow(rows_of("cards"))  # the same once its order is total
        before = one.rows
        room.source.put("cards", "a", rank=7)
        await settle()
        assert (one.rows[1] is before[1], one.rows[0] is before[0]) == (True, False)
        assert all(mine is theirs for mine, theirs in zip(one.rows, other.rows, strict=True))
        assert one.batches[1] is other.batches[1]
        assert room.source.reads == [1]
        (stats,) = room.live.stats()
        assert (stats.subscribers, stats.rows, stats.evaluations, stats.reads) == (2, 2, 2, 1)


async def test_a_late_subscriber_of_a_shared_query_sees_every_commit_before_it() -> None:
    async with open_room() as room:
        await room.follow()
        room.source.put("notes", "n")
        late = await room.follow()
        assert (late.commits, late.ids) == ([3], ["a", "b"])  # clean: no query was run, and the rows stand at commit 3
        assert room.source.reads == [1]
        room.source.gate = trio.Event()
        await room.follow(NOTES)  # a round that reads holds the one back that would take the next commit
        room.source.put("cards", "c")
        later = await room.follow()
        assert later.batches == []  # what it would see now is older than the commit before it
        room.source.gate.set()
        await settle()
        assert (later.commits, later.ids) == ([4], ["a", "b", "c"])
        room.source.put("cards", "d")
        await settle()
        assert [type(change) for change in later.batches[1].changes] == [Insert]


async def test_queries_that_a_commit_cannot_touch_are_not_even_evaluated() -> None:
    async with open_room() as room:
        queries = [
            TODO,
            TOP,
            by_ids("cards", ("a", "zz")),
            rows_of("cards", col("lane").in_(("done", "doing"))),
            rows_of("cards", order_by=("-rank",), limit=0),
            rows_of("cards", order_by=("rank",), after=(2, "b")),
        ]
        followers = [await room.follow(query) for query in queries]
        ran = len(room.source.reads)
        room.source.put("cards", "c", lane="later", rank=2)  # behind the window, in which it is kept; behind the cursor
        await settle()
        assert [stats.evaluations for stats in room.live.stats()] == [1, 2, 1, 1, 1, 2]
        assert [len(follower.batches) for follower in followers] == [1, 1, 1, 1, 1, 2]
        assert followers[5].ids == ["c"]
        room.source.put("cards", "c", lane="done", rank=0)
        await settle()
        assert (followers[1].ids, followers[3].ids, followers[5].ids) == (["c", "a"], ["c"], [])
        skipped = [stats.skipped for stats in room.live.stats()]
        assert skipped == [2, 0, 2, 1, 2, 0]
        assert room.source.reads[ran:] == []  # nothing had to be read


async def test_all_queries_stand_at_one_commit() -> None:
    async with open_room() as room:
        todo, everything, notes = await room.follow(TODO), await room.follow(), await room.follow(NOTES)
        # the snapshot that a new query reads stands at commit 4, which nobody has heard yet and which concerns another one
        unheard = [room.source.put("cards", "c", heard=False), room.source.put("notes", "n", heard=False)]
        room.source.opened.append(lambda: room.source.tell(unheard[0]))
        fresh = await room.follow(TOP)
        assert [len(each.batches) for each in (todo, everything, notes, fresh)] == [1, 1, 1, 0]  # nobody goes ahead
        room.source.tell(unheard[1])
        await settle()
        assert (todo.commits, everything.commits, notes.commits) == ([2, 4], [2, 4], [2, 4])
        assert fresh.commits == [4]
        assert room.source.snapshots[-1] == 4


async def test_a_commit_of_somebody_else_is_waited_for_a_moment_only() -> None:
    async with open_room() as room:
        cards, notes = await room.follow(), await room.follow(NOTES)
        began = trio.current_time()
        room.source.put("cards", "c", heard=False)
        room.source.put("notes", "n", heard=False)  # never heard: another program wrote them
        await room.follow(TOP, settled=False)
        await settle()
        await trio.sleep(1.1)
        assert (cards.ids, notes.ids) == (["a", "b", "c"], ["n"])
        assert (cards.commits, notes.commits) == ([2, 4], [2, 4])
        assert trio.current_time() - began == pytest.approx(1.1)


async def test_a_gap_in_the_commits_runs_every_query() -> None:
    async with open_room() as room:
        cards, notes = await room.follow(), await room.follow(NOTES)
        room.source.put("notes", "n", heard=False)
        room.source.put("cards", "c", heard=False)
        room.source.write({("cards", "d"): {}})
        await settle()
        assert (cards.ids, notes.ids) == (["a", "b", "c", "d"], ["n"])


async def test_a_stream_of_commits_does_not_keep_results_back() -> None:
    async with open_room(least_tier=2) as room:
        cards, notes = await room.follow(), await room.follow(NOTES)
        number = 0

        def another() -> None:  # every snapshot is overtaken by a commit that concerns the query that is not read
            nonlocal number
            number += 1
            if number < 50:
                room.source.put(("notes", "cards")[number % 2], f"x{number:02}")
                room.source.opened.append(another)

        room.source.opened.append(another)
        room.source.put("cards", "c")
        await settle()
        assert len(cards.ids) + len(notes.ids) == 2 + 1 + 49
        assert len(cards.batches) + len(notes.batches) > 40


async def test_what_is_refetched_is_read_where_the_changes_end() -> None:
    async with open_room() as room:
        for number in range(20):
            room.source.put("cards", f"x{number:02}", rank=100 + number)
        top = await room.follow(TOP)
        ids = ["a", "b", *(f"x{number:02}" for number in range(9))]
        room.source.write({("cards", id): None for id in ids})  # the window has lost all that it kept: it has to read
        unheard = room.source.put("cards", "x09", heard=False, rank=1000)
        room.source.gate = trio.Event()
        await settle()
        assert (room.source.snapshots[-1], room.source.reads[1:]) == (24, [])  # of a commit that is not heard yet
        room.source.tell(unheard)
        await settle()
        room.source.delete("cards", "x10")
        await settle()
        assert (room.source.reads[1:], top.commits) == ([1], [22])  # it is being read: what comes now is taken after it
        room.source.gate.set()
        await settle()
        assert top.commits == [22, 24, 25]
        rows: tuple[StoredRow, ...] = ()
        for batch, ids in zip(top.batches, (["a", "b"], ["x10", "x11"], ["x11", "x12"]), strict=True):
            rows = apply_batch(rows, batch)
            assert [row.id for row in rows] == ids
        assert top.ids == ["x11", "x12"]


async def test_a_slow_reader_gets_what_it_missed_as_one_reset() -> None:
    async with open_room(buffer=3) as room:
        slow, quick = await room.follow(settled=False), await room.follow(settled=False)
        slow.pause = trio.Event()
        await settle()
        for number in range(10):
            room.source.put("cards", f"x{number}")
            await settle()
        assert (len(slow.batches), len(quick.batches)) == (1, 11)
        slow.pause.set()
        await settle()
        assert [type(change) for change in slow.batches[1].changes] == [Reset]
        assert (slow.commits, slow.ids) == ([2, 12], quick.ids)
        room.source.put("cards", "y")
        await settle()
        assert (slow.commits, slow.ids) == ([2, 12, 13], quick.ids)


async def test_a_reader_within_its_buffer_misses_nothing() -> None:
    async with open_room(buffer=3) as room:
        slow = await room.follow(settled=False)
        slow.pause = trio.Event()
        await settle()
        for number in range(3):
            room.source.put("cards", f"x{number}")
            await settle()
        slow.pause.set()
        await settle()
        assert slow.commits == [2, 3, 4, 5]


async def test_a_failing_or_cancelled_subscriber_harms_nobody() -> None:
    async with open_room() as room:
        other, cancelled = await room.follow(), await room.follow()

        async def fail() -> None:
            async with room.live.open_live(ALL) as batches:
                await anext(batches)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        cancelled.scope.cancel()
        room.source.put("cards", "c")
        await settle()
        assert (other.ids, cancelled.ids) == (["a", "b", "c"], ["a", "b"])
        assert [stats.subscribers for stats in room.live.stats()] == [1]
        other.scope.cancel()
        await settle()
        assert room.live.stats() == ()
        room.source.put("cards", "d")
        await settle()
        assert room.source.reads == [1]


async def test_leaving_while_the_query_runs() -> None:
    async with open_room() as room:
        room.source.gate = trio.Event()
        follower = await room.follow()
        follower.scope.cancel()
        await settle()
        room.source.gate.set()
        again = await room.follow()
        assert (follower.batches, again.ids) == ([], ["a", "b"])


async def test_closing_ends_every_reader() -> None:
    source = Source()
    async with trio.open_nursery() as nursery:
        follower = Follower()
        async with open_live_queries(source, SCHEMA) as live:
            nursery.start_soon(follower.run, live, ALL)
            await settle()
        await settle()
        assert isinstance(follower.error, ClosedError)
        with pytest.raises(ClosedError):
            async with live.open_live(ALL):
                raise AssertionError
    assert source.listeners == []


async def test_a_database_that_closes_under_it_ends_every_reader() -> None:
    async with open_room() as room:
        follower = await room.follow()
        room.source.failure = lambda query: ClosedError("closed")
        await room.follow(NOTES)
        assert isinstance(follower.error, ClosedError)


async def test_a_query_that_fails_ends_alone() -> None:
    async with open_room() as room:
        good, bad = await room.follow(), await room.follow(TOP)
        room.source.failure = lambda query: QueryError("too deep") if query.plan.limit else None
        room.source.put("cards", "d", heard=False)
        room.source.put("cards", "A", rank=-1)  # a gap: everything is read again
        await settle()
        assert isinstance(bad.error, QueryError)
        assert (good.error, good.ids) == (None, ["A", "a", "b", "d"])
        room.source.failure = lambda query: StoreError("disk")
        notes = await room.follow(NOTES)
        assert (str(notes.error), good.error) == ("disk", None)  # nothing had to be read for the other
        room.source.put("cards", "e", heard=False)
        room.source.put("cards", "f")
        await settle()
        assert str(good.error) == "disk"
        room.source.failure = lambda query: None
        assert (await room.follow()).ids == ["A", "a", "b", "d", "e", "f"]  # a new subscription starts afresh


@pytest.mark.parametrize(
    "query",
    [
        rows_of("cards", order_by=("nope",)),
        rows_of("cards", col("nope") == 1),
        rows_of("cards", after=(1, 2, 3)),
    ],
)
async def test_a_query_that_cannot_be_followed_is_refused_at_once(query: BoundQuery) -> None:
    async with open_room() as room:
        with pytest.raises(QueryError):
            async with room.live.open_live(query):
                raise AssertionError
        with pytest.raises(UnknownStore):
            async with room.live.open_live(rows_of("nope")):
                raise AssertionError
        assert room.live.stats() == ()


async def test_the_inspector_sees_queries_as_text_and_their_cost() -> None:
    ticks = iter(range(1000))
    source = Source()
    async with open_live_queries(source, SCHEMA, clock=lambda: next(ticks) / 1e6) as live:
        assert isinstance(live, LiveInspection)
        async with live.open_live(TODO) as batches:
            await anext(batches)
            (stats,) = live.stats()
            assert (stats.store, stats.query) == ("cards", "lane = 'todo' ORDER BY rank, id")
            assert (stats.evaluations, round(stats.mean_us, 3), round(stats.last_us, 3)) == (1, 2.0, 2.0)


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_live_queries(Source(), SCHEMA):
            raise ZeroDivisionError
