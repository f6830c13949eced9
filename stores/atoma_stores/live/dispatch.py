"""Live queries over a database that reports its commits: each takes the changes that concern it, and all report together.

A commit is reported on the loop before its writer continues; at that point only an index is searched. One task does the rest
in rounds, or a reader that would otherwise wait for a short one. A round takes every change up to one commit and then reports
the results, all of them as of that commit. If something has to be read, a snapshot is opened first, and its commit is the one
that the round goes up to: rows and changes belong to one state. ``docs/adr/0090-live-queries-take-changes.md`` has the proof.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import TypeAlias

import trio

from atoma.contracts.execution import QueryResult
from atoma.contracts.limits import LIVE_SQL_S
from atoma.contracts.query import BoundQuery
from atoma.contracts.raw import Question, SqlOutline, SqlQuery
from atoma.errors import ClosedError, Overloaded, QueryError
from atoma.ports.completeness import CompletenessBoard, Sight, States
from atoma.ports.live import Ask, LiveStats
from atoma.schema import Schema
from atoma_stores.changes import CommitDelta, StoreDelta
from atoma_stores.live.delivery import LivePosition, Subscription, closed, left
from atoma_stores.live.family import Families
from atoma_stores.live.planner import Planned, asked_again, plan_function, plan_statement
from atoma_stores.live.source import LiveSource, Snapshot, SnapshotMoved
from atoma_stores.live.stores import ConcernedViews, Hits, PendingCommit, StoreViews
from atoma_stores.live.view import Called, View

log = logging.getLogger("atoma.live")

BUFFER = 64
SUBSCRIPTIONS_MAX = 100_000
HEARING_S = 1.0
"""Seconds to wait for the report of a commit that was read; after that, it is not going to come."""
ROWS_AT_ONCE = 256
"""A commit with more rows in a store is examined later, in steps, so that its writer does not wait for that."""
TESTS_AT_ONCE = 2_000
"""Rows times views that are examined before the writer continues."""
QUEUED_MAX = 50_000
"""Number of changed rows that may wait for a round; beyond that the results are read again instead."""
STEP_S = 0.002
"""Seconds for which the loop is held at a time."""
STEPS_AT_ONCE = 16
"""Number of changed rows, and of commits, up to which a reader runs the round itself instead of waiting for the task."""
TOGETHER = 256
"""Number of views that are read, or of readers that are notified, in one step."""
MEMORY = 64 * 1024 * 1024
"""Estimated bytes that the views of a database may keep in addition to their results."""


class LocalLiveQueries:
    """All views of a database; implements ``LiveQueries`` and ``LiveInspection``.

    Args:
        source: The database.
        schema: The declared stores.
        buffer: Number of batches that a subscriber may lag behind before it gets one ``Reset`` instead.
        completeness: The completeness of the rows, as far as it is known.
        clock: A clock, in seconds.
        memory: Bytes that the views may keep in addition to their results.
        least_tier: The lowest tier that a view may be followed at.
    """

    def __init__(
        self,
        source: LiveSource,
        schema: Schema,
        buffer: int,
        completeness: CompletenessBoard,
        clock: Callable[[], float],
        memory: int = MEMORY,
        least_tier: int = 0,
    ) -> None:
        self._source = source
        self._schema = schema
        self._buffer = buffer
        self._completeness = completeness
        self._states = completeness.states
        self._clock = clock
        self._memory = memory
        self._families = Families(schema, least_tier)
        self._position = LivePosition()
        self._hearing = trio.lowlevel.ParkingLot()
        self._stores: dict[str, StoreViews] = {}
        self._views: dict[Question | Called, View] = {}
        self._subscribed = 0
        self._queue: deque[PendingCommit] = deque()
        self._queued = 0
        self._lacking: dict[View, None] = {}  # views for which something has to be read
        self._taken: dict[View, None] = {}  # views that have taken changes which are not reported yet
        self._asking: tuple[View, trio.CancelScope] | None = None  # the view that a statement is running for
        self._work = trio.Event()
        self._step_began = 0.0
        self._in_round = False
        self._kept = 0  # bytes that the views keep in addition to their results
        self._closed = False

    # for subscribers and inspectors

    @asynccontextmanager
    async def open_live(self, query: BoundQuery) -> AsyncGenerator[Subscription]:
        """See :class:`atoma.ports.LiveQueries`."""
        query = self._families.checked(query)
        await trio.lowlevel.checkpoint()
        self._check_room()
        view = self._views.get(query)
        if view is None:
            planned, family = self._families.plan(query)
            view = self._add(query, planned, self._completeness.sight(query))
            view.family = family
        async with self._subscribed_to(view) as subscription:
            yield subscription

    @asynccontextmanager
    async def open_function(
        self, function: Hashable, body: Callable[[Ask], Coroutine[object, object, object]]
    ) -> AsyncGenerator[Subscription]:
        """See :class:`atoma.ports.LiveFunctions`."""
        key = Called(function)
        await trio.lowlevel.checkpoint()
        self._check_room()
        view = self._views.get(key) or self._add(key, plan_function(body, self._schema), Sight())
        async with self._subscribed_to(view) as subscription:
            yield subscription

    @asynccontextmanager
    async def open_statement(self, statement: SqlOutline) -> AsyncGenerator[Subscription]:
        """See :class:`atoma.ports.LiveStatements`."""
        await trio.lowlevel.checkpoint()
        self._check_room()
        view = self._views.get(statement.query)
        if view is None:
            sight = self._completeness.sight_of(statement.reads)
            view = self._add(statement.query, self._planned(statement), sight)
        async with self._subscribed_to(view) as subscription:
            yield subscription

    def _planned(self, statement: SqlOutline) -> Planned:
        return plan_statement(statement.query, statement.reads, self._schema)

    @asynccontextmanager
    async def _subscribed_to(self, view: View) -> AsyncGenerator[Subscription]:
        subscription = Subscription(
            view, self._position, self._buffer, max(view.touched, self._position.unseen), self.advance
        )
        view.subscriptions[subscription] = None
        self._subscribed += 1
        try:
            yield subscription
        finally:
            subscription.end(left)
            view.subscriptions.pop(subscription, None)
            self._subscribed -= 1
            if not view.subscriptions:
                self._drop(view.query, view)

    def stats(self) -> tuple[LiveStats, ...]:
        """See :class:`atoma.ports.LiveInspection`."""
        return tuple(view.stats(self._commits(view)) for view in self._views.values())

    def explain(self, query: BoundQuery | SqlOutline) -> str:
        """See :class:`atoma.ports.LiveInspection`."""
        if isinstance(query, SqlOutline):
            planned = self._planned(query)
        else:
            query = self._families.checked(query)
            view = self._views.get(query)
            planned = view.planned if view is not None else self._families.plan(query)[0]
        return f"tier {planned.tier}: {planned.reason}"

    def _commits(self, view: View) -> int:
        return sum(self._stores[name].commits for name in view.planned.needs)

    def _check_room(self) -> None:
        if self._closed:
            raise closed()
        if self._subscribed >= SUBSCRIPTIONS_MAX:
            raise Overloaded("the list of live subscriptions", SUBSCRIPTIONS_MAX)

    def _add(self, query: Question | Called, planned: Planned, sight: Sight) -> View:
        groups = [self._stores.setdefault(name, StoreViews(name)) for name in planned.needs]
        commits = sum(group.commits for group in groups)
        view = self._views[query] = View(query, planned, sight, self._position, commits)
        for group in groups:
            group.add(view)
        self._lacking[view] = None
        self._work.set()
        return view

    def _drop(self, query: Question | Called, view: View) -> None:
        if self._views.get(query) is view:
            del self._views[query]
            self._unfile(view)
            self._kept -= view.weight
        self._lacking.pop(view, None)
        self._taken.pop(view, None)
        if self._asking is not None and self._asking[0] is view:
            self._asking[1].cancel()  # nobody waits for it any more

    def _unfile(self, view: View) -> None:
        for name in view.planned.needs:
            self._stores[name].remove(view)

    # reports of commits: on the loop, while the writer waits

    def hear(self, change: CommitDelta) -> None:
        """Find the views that a new commit may concern."""
        before = change.commit - 1 if change.before is None else change.before
        heard = self._position.heard
        self._position.heard = max(heard, change.commit)
        if self._hearing:
            self._hearing.unpark_all()
        if not self._views:
            return  # the case of most writes: nobody follows anything
        told = PendingCommit(change.commit, {}, unknown=0 <= heard < before, first=heard + 1)
        told.written = [group for name in change.unknown if (group := self._stores.get(name))]
        followed = [(group, delta) for name, delta in change.changes.items() if (group := self._stores.get(name))]
        for group in {*(group for group, _ in followed), *told.written}:
            group.commits += 1
        rows = sum(len(delta) for _, delta in followed)
        # numbers have no gaps: nothing is known of what is missing, so everything will be read
        if not told.unknown and (rows > ROWS_AT_ONCE or not self._look(followed, told.hits)):
            told.later, told.hits = change, {}
            if followed:
                self._position.unseen = change.commit
        if told.hits or told.unknown or told.written or told.later is not None:
            self._enqueue(told)

    def _look(self, followed: Sequence[tuple[StoreViews, StoreDelta]], hits: Hits) -> bool:
        """Find what ``followed`` concerns; False if that is too much work for now."""
        tests, every = 0, self._position.unseen >= 0
        for group, delta in followed:
            found: ConcernedViews = {}
            for id, change in delta.items():
                tests += group.find(id, change, found, every=every)
            if tests > TESTS_AT_ONCE:
                return False
            for view, changes in found.items():
                group.judge(view, changes, hits, self._clock)
        return True

    def _enqueue(self, told: PendingCommit) -> None:
        for view in self._views.values() if told.unknown else [*told.hits, *chain(*told.written)]:
            view.touch(told.commit)
        told.rows = sum([len(delta) for deltas in told.hits.values() for delta in deltas.values()])
        if told.later is not None:
            told.rows += sum(map(len, told.later.changes.values()))
        self._queue.append(told)
        self._queued += told.rows
        if self._queued > QUEUED_MAX and len(self._queue) > 1:
            first = self._queue[0].first
            self._queue.clear()
            self._queued, self._position.unseen = 0, -1
            self._enqueue(PendingCommit(told.commit, {}, unknown=True, first=first))
        self._work.set()

    def judge(self) -> None:
        """Have a round report that the completeness of the rows has changed."""
        self._work.set()

    # rounds

    async def run(self) -> None:
        """Work for as long as the database is open."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            self._step_began = self._clock()
            self._in_round = True
            try:
                await self._round()
            except SnapshotMoved:
                self._work.set()
            except ClosedError:
                self.close()
                return
            except Exception as error:
                self._fail_round(error)
            finally:
                self._in_round = False

    def advance(self) -> None:
        """Run a round at once for a reader that would wait for it, if it is short: few changes, and nothing to read."""
        if self._in_round or self._lacking or not 0 < self._queued <= STEPS_AT_ONCE or len(self._queue) > STEPS_AT_ONCE:
            return
        states = self._completeness.states
        if states is not self._states or not all(told.is_known for told in self._queue):
            return
        commit = self._position.heard
        try:
            deque(self._taking(commit), maxlen=0)
            if self._lacking:
                return  # the task reads and reports it
            deque(self._telling(commit, states), maxlen=0)
            self._keep_to_memory()
        except Exception as error:
            self._fail_round(error)

    def _fail_round(self, error: Exception) -> None:
        log.error("live queries could not be run", exc_info=error)
        self._fail([*self._lacking, *({} if self._lacking else self._taken)], error)
        self._work.set()

    async def _round(self) -> None:
        """Take every change up to one commit, read what is missing as of that commit, and report."""
        states = self._completeness.states  # read first: whatever led to them has been committed and reported by now
        commit = self._position.heard
        await self._in_steps(self._taking(commit))
        if self._lacking:
            async with self._source.open_snapshot() as snapshot:
                commit = snapshot.commit
                if not await self._caught_up(commit):
                    self._forget(commit, self._views.values())
                await self._in_steps(self._taking(commit))
                await self._read(snapshot)
        await self._in_steps(self._telling(commit, states))
        self._keep_to_memory()
        if self._queue or any(view.since <= self._position.heard for view in self._lacking):
            self._work.set()

    async def _caught_up(self, commit: int) -> bool:
        """Wait until ``commit`` was reported; False if it will not be, as another program made it."""
        if self._position.heard < 0:  # the very first read: no result is at an earlier commit
            self._position.heard = commit
        if self._position.heard < commit:
            await self._source.hear_others()
        if self._position.heard < commit:
            with trio.move_on_after(HEARING_S):
                while self._position.heard < commit:
                    await self._hearing.park()
        ours = self._position.heard >= commit
        self._position.heard = max(self._position.heard, commit)
        return ours

    def _forget(self, commit: int, views: Iterable[View]) -> None:
        """Have ``views`` read again, as the changes of some commits up to ``commit`` are unknown."""
        for view in views:
            if view.at < commit and view.since <= commit:
                view.touch(commit)
                view.forget()
                self._lacking[view] = self._taken[view] = None

    def _taking(self, commit: int) -> Iterator[None]:
        """Let the views take the changes that were reported up to ``commit``, step by step."""
        while self._queue and self._queue[0].commit <= commit:
            told = self._queue.popleft()
            self._queued -= told.rows
            if told.unknown:
                self._forget(told.commit, self._views.values())
            for group in told.written:
                self._forget(told.commit, group)
            if told.later is not None:
                yield from self._looking_later(told, told.later)
            for view, deltas in told.hits.items():
                if view.at < told.commit and self._is_open(view):
                    view.hits += 1
                    self._taken[view] = None
                    try:
                        view.take(deltas, self._clock)
                    except Exception as error:
                        self._end_one(view, error)
                    if view.lacks and self._is_open(view):
                        self._lacking[view] = None
                    yield
        if self._queue and self._queue[0].unknown and self._queue[0].first <= commit:
            self._forget(commit, self._views.values())  # some of the unknown changes belong to it

    def _looking_later(self, told: PendingCommit, change: CommitDelta) -> Iterator[None]:
        """Find what a large commit concerns, step by step."""
        for name, delta in change.changes.items():
            group = self._stores.get(name)
            if group is None:
                continue
            found: ConcernedViews = {}
            for id, row_change in delta.items():
                group.find(id, row_change, found, every=True)
                yield
            for view, changes in found.items():
                group.judge(view, changes, told.hits, self._clock)
                yield
        for view in told.hits:
            view.touch(told.commit)
        if self._position.unseen == told.commit:
            self._position.unseen = -1

    async def _read(self, snapshot: Snapshot) -> None:
        """Read what the views lack until nothing is missing, all of it in one state of the database."""
        while views := [view for view in self._lacking if view.since <= snapshot.commit][:TOGETHER]:
            asked = self._asked_by(views)
            started = self._clock()
            answers = await self._answers(snapshot, [each for each in asked if not _is_sql(each)])
            await self._load(answers, self._clock() - started)
            for each in filter(_is_sql, asked):
                started = self._clock()
                answers = await self._rows_of_statement(snapshot, each)
                await self._load(answers, self._clock() - started)

    def _asked_by(self, views: Sequence[View]) -> list[_Asked]:
        """Return what each view lacks, and end the views that fail to say it."""
        asked: list[_Asked] = []
        for view in views:
            try:
                asked.append((view, tuple(view.reads())))
            except Exception as error:
                self._end_one(view, error)
        return asked

    async def _load(self, answers: Sequence[_Answered], seconds: float) -> None:
        """Let views take the answers, all of which took ``seconds`` to read."""
        for view, results in answers:
            if not self._is_open(view):
                continue
            self._taken[view] = None
            try:
                view.load(results, seconds / len(answers), self._clock)
            except Exception as error:
                self._end_one(view, error)
            if not view.lacks:
                self._lacking.pop(view, None)
            await self._breathe()

    async def _answers(self, snapshot: Snapshot, asked: Sequence[_Asked]) -> list[_Answered]:
        """Answer what each view has asked, and end the views whose query the engine refuses."""
        try:
            results = iter(await snapshot.answer([question for _, each in asked for question in each]) if asked else ())
            return [(view, [next(results) for _ in each]) for view, each in asked]
        except QueryError as error:
            if len(asked) == 1:
                self._fail([asked[0][0]], error)
                return []
        return [found for each in asked for found in await self._answers(snapshot, [each])]

    async def _rows_of_statement(self, snapshot: Snapshot, asked: _Asked) -> list[_Answered]:
        """Answer a program's own SQL for a view, within the time that it may take and while somebody follows it."""
        view = asked[0]
        with trio.move_on_after(LIVE_SQL_S) as scope:
            self._asking = (view, scope)
            try:
                return await self._answers(snapshot, [asked]) if self._is_open(view) else []
            finally:
                self._asking = None
        if self._is_open(view):
            late = f"sql(): a statement that is followed may take {LIVE_SQL_S:g} seconds: the other live results wait for it"
            self._fail([view], QueryError(late))
        return []

    def _telling(self, commit: int, states: States) -> Iterator[None]:
        """Hand out the changes step by step: first into the buffers, then all become visible at once, then readers are woken."""
        taken = [view for view in self._taken if not view.lacks]
        ready: list[View] = []
        for view in taken:
            if view not in self._taken:  # its last reader has left meanwhile
                continue
            del self._taken[view]
            try:
                batch = view.collect(commit, states)
            except Exception as error:
                self._end_one(view, error)
                continue
            self._kept += view.weigh()
            if batch is not None:
                for subscription in view.subscriptions:
                    subscription.push(batch)
            ready.append(view)
            yield
        if states is not self._states:
            yield from self._telling_completeness(commit, states, ready)
        self._position.shown = max(self._position.shown, commit)
        woken = list(chain.from_iterable([view.subscriptions for view in ready]))  # also those that have just come
        if self._position.unseen < 0:  # results that nothing was done to are current as well
            woken += self._position.waiting
            self._position.waiting.clear()
        for subscription in woken:
            subscription.wake()
            yield

    def _telling_completeness(self, commit: int, states: States, ready: list[View]) -> Iterator[None]:
        """Hand out the completeness of the results that have not changed."""
        self._states = states
        for view in tuple(self._views.values()):
            batch = view.follow(commit, states) if view not in self._taken and not view.lacks else None
            if batch is not None:
                for subscription in view.subscriptions:
                    subscription.push(batch)
                ready.append(view)
            yield

    def _keep_to_memory(self) -> None:
        """Run the queries of the largest results again from now on, if all views together keep too much."""
        while self._kept > self._memory:
            largest = max(self._views.values(), key=lambda view: view.weight)
            assert isinstance(largest.query, BoundQuery), "a function keeps nothing beside its value"
            self._unfile(largest)
            largest.demote(asked_again(largest.query, "the memory for live queries is used up", largest.rows))
            self._kept += largest.weigh()
            for name in largest.planned.needs:
                self._stores[name].add(largest)
            self._lacking[largest] = None
            log.warning(
                "a live query of %s keeps too much in memory and is asked again from now on", largest.query.store
            )

    # ends

    def _is_open(self, view: View) -> bool:
        return self._views.get(view.query) is view

    def _end_one(self, view: View, error: Exception) -> None:
        """End ``view``, which failed, and no other."""
        log.error("a live query of %s could not be followed", view.query.store, exc_info=error)
        self._fail([view], error)

    async def _in_steps(self, steps: Iterator[None]) -> None:
        for _ in steps:
            await self._breathe()

    async def _breathe(self) -> None:
        """Let others run once the loop was held long enough."""
        if self._clock() - self._step_began > STEP_S:
            await trio.lowlevel.checkpoint()
            self._step_began = self._clock()

    def _fail(self, views: Iterable[View], error: Exception) -> None:
        """End ``views``, whose queries cannot be run."""
        for view in views:
            self._drop(view.query, view)
            view.end(lambda: error)

    def close(self) -> None:
        """End every subscription with ``ClosedError``."""
        self._closed = True
        for view in self._views.values():
            view.end(closed)
        self._views.clear()
        self._stores.clear()
        self._queue.clear()
        self._lacking.clear()
        self._taken.clear()


_Asked: TypeAlias = tuple[View, Sequence[Question]]
"""A view and the questions that it has."""
_Answered: TypeAlias = tuple[View, Sequence[QueryResult]]
"""A view and the answers to its questions."""


def _is_sql(asked: _Asked) -> bool:
    return any(isinstance(question, SqlQuery) for question in asked[1])


@asynccontextmanager
async def open_live_queries(
    database: LiveSource,
    schema: Schema,
    *,
    buffer: int = BUFFER,
    completeness: CompletenessBoard | None = None,
    clock: Callable[[], float] = trio.current_time,
    memory: int = MEMORY,
    least_tier: int = 0,
) -> AsyncGenerator[LocalLiveQueries]:
    """Follow the commits of ``database`` for as long as the block runs.

    Args:
        database: The database to read from, whose commits are followed.
        schema: The declared stores.
        buffer: Number of batches that a subscriber may lag behind before it gets one ``Reset`` instead.
        completeness: The completeness of the rows, as far as it is known; None if no other machine has any rows.
        clock: A clock in seconds, for measurements.
        memory: Estimated bytes that the views may keep in addition to their results; beyond that, the largest are run again.
        least_tier: The lowest tier that a view may be followed at; with 2 every query is run again, for comparison.

    Leaving the block, or cancelling it, ends every subscription with ``ClosedError``; no task is left.
    """
    known = completeness or CompletenessBoard(schema, frozenset())
    views = LocalLiveQueries(database, schema, buffer, known, clock, memory, least_tier)
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(views.run)
            undo = [database.subscribe_commits(views.hear), known.subscribe(views.judge)]
            try:
                yield views
            except Exception as error:  # not raised in the nursery, which would wrap it in a group
                failure = error
            finally:
                for take_back in undo:
                    take_back()
                views.close()
                nursery.cancel_scope.cancel()
    finally:
        if failure is not None:
            raise failure
