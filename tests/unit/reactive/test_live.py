"""Live queries over a database whose timing the test decides: what is read when, and when a commit is heard."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from atoma.contracts.execution import ExecutionMeta, QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import Scalar, StoredRow
from atoma.errors import ClosedError, QueryError, StoreError, UnknownStore
from atoma.ports import Insert, LiveBatch, LiveInspection, LiveQueries, Reset, Update, apply_batch
from atoma.query.evaluate import evaluate
from atoma.query.plans import by_ids
from atoma.schema import Schema, StoreSpec
from atoma.schema.expressions import col
from atoma.testing.queries import count_of, rows_of
from atoma_stores.changes import ChangeSet, CommitListener, RowChange
from atoma_stores.reactive.live import LocalLiveQueries, open_live_queries

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
        self.reads: list[int] = []  # queries of each read transaction
        self.listeners: list[CommitListener] = []
        self.gate: trio.Event | None = None
        self.after_read: list[Callable[[], None]] = []
        self.failure: Callable[[BoundQuery], Exception | None] = lambda query: None

    def subscribe_commits(self, listener: CommitListener) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    async def read_many(self, queries: Sequence[BoundQuery]) -> Sequence[QueryResult]:
        await trio.lowlevel.checkpoint()
        self.reads.append(len(queries))
        for query in queries:
            if error := self.failure(query):
                raise error
        meta = ExecutionMeta(commit=self.commit)
        tables = {store: list(rows.values()) for store, rows in self.rows.items()}
        results = [QueryResult(tuple(evaluate(query, tables)), meta=meta) for query in queries]
        if self.gate is not None:
            await self.gate.wait()
        for act in self.after_read[:1]:
            self.after_read.remove(act)
            act()
        return [QueryResult(tuple(map(reread, result.rows)), meta=result.meta) for result in results]

    def put(self, store: str, id: str, *, heard: bool = True, **values: Scalar) -> ChangeSet:
        return self.write({(store, id): dict(values)}, heard=heard)

    def delete(self, store: str, id: str) -> ChangeSet:
        return self.write({(store, id): None})

    def write(self, changes: dict[tuple[str, str], dict[str, Scalar] | None], *, heard: bool = True) -> ChangeSet:
        self.commit += 1
        net: dict[str, dict[str, RowChange]] = {}
        for (store, id), values in changes.items():
            old = self.rows[store].pop(id, None)
            new = None
            if values is not None:
                image = {"lane": "todo", "rank": 0, **(old.image if old else {}), **values}
                new = self.rows[store][id] = StoredRow(id, old.version + 1 if old else 1, 0, "main", image)
            net.setdefault(store, {})[id] = (old, new)
        change = ChangeSet(self.commit, net)
        if heard:
            self.tell(change)
        return change

    def tell(self, change: ChangeSet) -> None:
        for listener in list(self.listeners):
            listener(change)


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
                    async for batch in batches:
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
async def open_room(*, buffer: int = 64) -> AsyncGenerator[Room]:
    source = Source()
    source.put("cards", "a", rank=1)
    source.put("cards", "b", rank=2)
    async with trio.open_nursery() as nursery:
        async with open_live_queries(source, SCHEMA, buffer=buffer) as live:
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


async def test_commits_during_a_run_are_conflated() -> None:
    async with open_room() as room:
        follower = await room.follow()
        room.source.gate = trio.Event()
        for name in "cdefg":
            room.source.put("cards", name)
            await settle()
        room.source.gate.set()
        await settle()
        assert follower.commits == [2, 3, 7]
        assert len(follower.batches[2].changes) == 4


async def test_a_query_is_shared_and_unchanged_rows_stay_the_same_objects() -> None:
    async with open_room() as room:
        one, other = await room.follow(), await room.follow(rows_of("cards"))  # the same once its order is total
        before = one.rows
        room.source.put("cards", "a", rank=7)
        await settle()
        assert (one.rows[1] is before[1], one.rows[0] is before[0]) == (True, False)
        assert all(mine is theirs for mine, theirs in zip(one.rows, other.rows, strict=True))
        assert one.batches[1] is other.batches[1]
        assert room.source.reads == [1, 1]
        (stats,) = room.live.stats()
        assert (stats.subscribers, stats.rows, stats.evaluations) == (2, 2, 2)


async def test_a_late_subscriber_of_a_shared_query_sees_every_commit_before_it() -> None:
    async with open_room() as room:
        await room.follow()
        room.source.put("notes", "n")
        late = await room.follow()
        assert (late.commits, late.ids) == ([3], ["a", "b"])  # clean: no query was run, and the rows stand at commit 3
        assert room.source.reads == [1]
        room.source.gate = trio.Event()
        room.source.put("cards", "c")
        later = await room.follow()
        assert later.batches == []  # what it would see now is older than the commit before it
        room.source.gate.set()
        await settle()
        assert (later.commits, later.ids) == ([4], ["a", "b", "c"])
        room.source.put("cards", "d")
        await settle()
        assert [type(change) for change in later.batches[1].changes] == [Insert]


async def test_queries_that_a_commit_cannot_touch_are_not_run() -> None:
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
        room.source.put("cards", "c", lane="later", rank=2)  # behind the window, behind the cursor: it is in that one
        await settle()
        assert room.source.reads[ran:] == [1]
        assert followers[5].ids == ["c"]
        room.source.put("cards", "c", lane="done", rank=0)
        await settle()
        assert (followers[1].ids, followers[3].ids, followers[5].ids) == (["c", "a"], ["c"], [])
        skipped = [stats.skipped for stats in room.live.stats()]
        assert skipped == [2, 1, 2, 1, 2, 0]
        assert room.source.reads[ran + 1 :] == [3]


async def test_all_queries_stand_at_one_commit() -> None:
    async with open_room() as room:
        todo, everything, notes = await room.follow(TODO), await room.follow(), await room.follow(NOTES)
        # the read for commit 3 already sees commit 4, which nobody has heard yet and which concerns another query
        unheard: list[ChangeSet] = []
        first = room.source.put("cards", "c", heard=False)
        unheard.append(room.source.put("notes", "n", heard=False))
        room.source.tell(first)
        await settle()
        assert (len(todo.batches), len(everything.batches), len(notes.batches)) == (1, 1, 1)  # nobody goes ahead
        room.source.tell(unheard[0])
        await settle()
        assert (todo.commits, everything.commits, notes.commits) == ([2, 4], [2, 4], [2, 4])
        assert room.source.reads[-2:] == [2, 3]


async def test_a_commit_of_somebody_else_is_waited_for_a_moment_only() -> None:
    async with open_room() as room:
        cards, notes = await room.follow(), await room.follow(NOTES)
        began = trio.current_time()
        room.source.put("cards", "c")
        room.source.put("notes", "n", heard=False)  # never heard: another program wrote it
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
    async with open_room() as room:
        cards, notes = await room.follow(), await room.follow(NOTES)
        number = 0

        def another() -> None:  # every read is overtaken by a commit that concerns the query that was not read
            nonlocal number
            number += 1
            if number < 50:
                room.source.put(("notes", "cards")[number % 2], f"x{number:02}")
                room.source.after_read.append(another)

        room.source.after_read.append(another)
        room.source.put("cards", "c")
        await settle()
        assert len(cards.ids) + len(notes.ids) == 2 + 1 + 49
        assert len(cards.batches) > 5


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
        assert room.source.reads == [1, 1]


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
        room.source.put("cards", "c")
        await settle()
        assert isinstance(follower.error, ClosedError)


async def test_a_query_that_fails_ends_alone() -> None:
    async with open_room() as room:
        good, bad = await room.follow(), await room.follow(TOP)
        room.source.failure = lambda query: QueryError("too deep") if query.plan.limit else None
        room.source.put("cards", "A", rank=-1)
        await settle()
        assert isinstance(bad.error, QueryError)
        assert (good.error, good.ids) == (None, ["A", "a", "b"])
        room.source.failure = lambda query: StoreError("disk")
        room.source.put("cards", "d")
        await settle()
        assert str(good.error) == "disk"
        room.source.failure = lambda query: None
        assert (await room.follow()).ids == ["A", "a", "b", "d"]  # a new subscription starts afresh


@pytest.mark.parametrize(
    "query",
    [
        count_of("cards"),
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
