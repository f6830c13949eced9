"""Live queries over a database that tells its commits: each takes what concerns it, and all are told at one commit.

A commit is heard on the loop before its writer goes on; only an index is asked then. One task does the rest, in rounds.
A round takes every change up to one commit and then tells the results, all of them at that commit. Where something has
to be read, a snapshot is opened first, and its commit is the one that the round goes up to: what is read and what was
told are the same state. ``docs/adr/0090-live-queries-take-changes.md`` has the proof.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.errors import ClosedError, Overloaded, QueryError
from atoma.ports.live import LiveStats
from atoma.schema import Schema
from atoma_stores.changes import ChangeSet, StoreDelta
from atoma_stores.live.delivery import Position, Subscription
from atoma_stores.live.planner import asked_again, checked, plan_view
from atoma_stores.live.source import LiveSource, Snapshot, SnapshotMoved
from atoma_stores.live.stores import Found, Hits, StoreViews
from atoma_stores.live.view import View

log = logging.getLogger("atoma.live")

BUFFER = 64
SUBSCRIPTIONS_MAX = 100_000
HEARING_S = 1.0
"""A commit that was read is heard at once; one that is not heard for so long was made by somebody else."""
ROWS_AT_ONCE = 256
"""A commit with more rows in a store is looked at later, in steps, so that its writer does not wait for it."""
TESTS_AT_ONCE = 2_000
"""Rows times views that are looked at before the writer goes on."""
QUEUED_MAX = 50_000
"""Changed rows that wait for a round; beyond it the results are read again instead."""
STEP_S = 0.002
"""How long the loop is kept at a time."""
TOGETHER = 256
"""Views that are read, or readers that are told, in one step."""
MEMORY = 64 * 1024 * 1024
"""Bytes, estimated, that the views of a database may keep beside their results."""


@dataclass(slots=True)
class Told:
    """A commit that a round has to take.

    Attributes:
        commit: Its number.
        hits: The views that it concerns, with what concerns them.
        later: What was too much to be looked at when it was heard.
        unknown: Whether commits up to this one were made that nobody has told.
        rows: How many changed rows it keeps in memory.
    """

    commit: int
    hits: Hits
    later: ChangeSet | None = None
    unknown: bool = False
    rows: int = 0


class LocalLiveQueries:
    """All views of a database; implements ``LiveQueries`` and ``LiveInspection``.

    Args:
        source: The database.
        schema: The declared stores.
        buffer: Batches that a subscriber may be behind before it gets one ``Reset`` instead.
        clock: Seconds.
        memory: Bytes that the views may keep beside their results.
        least_tier: The lowest tier that a view may be followed at.
    """

    def __init__(
        self,
        source: LiveSource,
        schema: Schema,
        buffer: int,
        clock: Callable[[], float],
        memory: int = MEMORY,
        least_tier: int = 0,
    ) -> None:
        self._source = source
        self._schema = schema
        self._buffer = buffer
        self._clock = clock
        self._memory = memory
        self._least_tier = least_tier
        self._position = Position()
        self._hearing = trio.lowlevel.ParkingLot()
        self._stores: dict[str, StoreViews] = {}
        self._views: dict[BoundQuery, View] = {}
        self._subscribed = 0
        self._queue: deque[Told] = deque()
        self._queued = 0
        self._lacking: dict[View, None] = {}  # something has to be read for them
        self._taken: dict[View, None] = {}  # they have taken something that is not told yet
        self._work = trio.Event()
        self._step_began = 0.0
        self._kept = 0  # bytes that the views keep beside their results
        self._closed = False

    # what subscribers and inspectors call

    @asynccontextmanager
    async def open_live(self, query: BoundQuery) -> AsyncGenerator[Subscription]:
        """See :class:`atoma.ports.LiveQueries`."""
        query = checked(query, self._schema)
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise _closed()
        if self._subscribed >= SUBSCRIPTIONS_MAX:
            raise Overloaded("the list of live subscriptions", SUBSCRIPTIONS_MAX)
        view = self._views.get(query) or self._add(query)
        subscription = Subscription(view, self._position, self._buffer, view.touched)
        view.subscriptions[subscription] = None
        self._subscribed += 1
        try:
            yield subscription
        finally:
            subscription.end(_left)
            view.subscriptions.pop(subscription, None)
            self._subscribed -= 1
            if not view.subscriptions:
                self._drop(query, view)

    def stats(self) -> tuple[LiveStats, ...]:
        """See :class:`atoma.ports.LiveInspection`."""
        return tuple(view.stats(self._commits(view)) for view in self._views.values())

    def explain(self, query: BoundQuery) -> str:
        """See :class:`atoma.ports.LiveInspection`."""
        query = checked(query, self._schema)
        view = self._views.get(query)
        planned = view.planned if view is not None else plan_view(query, self._schema, self._least_tier)
        return f"tier {planned.tier}: {planned.reason}"

    def _commits(self, view: View) -> int:
        return sum(self._stores[name].commits for name in view.planned.needs)

    def _add(self, query: BoundQuery) -> View:
        planned = plan_view(query, self._schema, self._least_tier)
        groups = [self._stores.setdefault(name, StoreViews(name)) for name in planned.needs]
        view = self._views[query] = View(query, planned, self._position, sum(group.commits for group in groups))
        for group in groups:
            group.add(view)
        self._lacking[view] = None
        self._work.set()
        return view

    def _drop(self, query: BoundQuery, view: View) -> None:
        if self._views.get(query) is view:
            del self._views[query]
            self._unfile(view)
            self._kept -= view.weight
        self._lacking.pop(view, None)
        self._taken.pop(view, None)

    def _unfile(self, view: View) -> None:
        for name in view.planned.needs:
            self._stores[name].remove(view)

    # hearing: on the loop, while the writer waits

    def hear(self, change: ChangeSet) -> None:
        """A commit was made: find the views that it may concern."""
        told = Told(change.commit, {}, unknown=0 <= self._position.heard < change.commit - 1)
        self._position.heard = max(self._position.heard, change.commit)
        self._hearing.unpark_all()
        followed = [(group, delta) for name, delta in change.changes.items() if (group := self._stores.get(name))]
        for group, _ in followed:
            group.commits += 1
        if told.unknown:  # commits are numbered without gaps: what is missing was written by another program
            told.hits = {}
        elif sum(len(delta) for _, delta in followed) > ROWS_AT_ONCE or not self._look(followed, told.hits):
            told.later, told.hits = change, {}
            for view in [view for group, _ in followed for view in group]:
                view.touch(change.commit)
        if told.hits or told.unknown or told.later is not None:
            self._enqueue(told)

    def _look(self, followed: Sequence[tuple[StoreViews, StoreDelta]], hits: Hits) -> bool:
        """Find what ``followed`` concerns; False when that is too much for now."""
        tests = 0
        for group, delta in followed:
            found: Found = {}
            for id, change in delta.items():
                tests += group.find(id, change, found)
            if tests > TESTS_AT_ONCE:
                return False
            for view, changes in found.items():
                group.judge(view, changes, hits)
        return True

    def _enqueue(self, told: Told) -> None:
        for view in self._views.values() if told.unknown else told.hits:
            view.touch(told.commit)
        told.rows = sum([len(delta) for deltas in told.hits.values() for delta in deltas.values()])
        if told.later is not None:
            told.rows += sum(map(len, told.later.changes.values()))
        self._queue.append(told)
        self._queued += told.rows
        if self._queued > QUEUED_MAX and len(self._queue) > 1:
            self._queue.clear()
            self._queued = 0
            self._enqueue(Told(told.commit, {}, unknown=True))
        self._work.set()

    # rounds

    async def run(self) -> None:
        """Work for as long as the database is open."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            self._step_began = self._clock()
            try:
                await self._round()
            except SnapshotMoved:
                self._work.set()
            except ClosedError:
                self.close()
                return
            except Exception as error:
                log.exception("live queries could not be run")
                self._fail([*self._lacking, *({} if self._lacking else self._taken)], error)
                self._work.set()

    async def _round(self) -> None:
        """Take every change up to one commit, read what is lacking right there, and tell."""
        commit = self._position.heard
        await self._take(commit)
        if self._lacking:
            async with self._source.open_snapshot() as snapshot:
                commit = snapshot.commit
                if not await self._caught_up(commit):
                    self._forget(commit)
                await self._take(commit)
                await self._read(snapshot)
        await self._tell(commit)
        self._keep_to_memory()
        if self._queue or any(view.since <= self._position.heard for view in self._lacking):
            self._work.set()

    async def _caught_up(self, commit: int) -> bool:
        """Wait until ``commit`` was heard; False if it is not ours to hear."""
        if self._position.heard < 0:  # the first read of all: no result stands at an earlier commit
            self._position.heard = commit
        with trio.move_on_after(HEARING_S):
            while self._position.heard < commit:
                await self._hearing.park()
        ours = self._position.heard >= commit
        self._position.heard = max(self._position.heard, commit)
        return ours

    def _forget(self, commit: int) -> None:
        """Every result has to be read again: commits up to ``commit`` were made that nobody has told."""
        for view in self._views.values():
            if view.at < commit and view.since <= commit:
                view.touch(commit)
                view.forget()
                self._lacking[view] = self._taken[view] = None

    async def _take(self, commit: int) -> None:
        """Let the views take what was told up to ``commit``."""
        while self._queue and self._queue[0].commit <= commit:
            told = self._queue.popleft()
            self._queued -= told.rows
            if told.unknown:
                self._forget(told.commit)
            if told.later is not None:
                await self._look_later(told, told.later)
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
                    await self._breathe()

    async def _look_later(self, told: Told, change: ChangeSet) -> None:
        """Find what a large commit concerns, without keeping the loop."""
        for name, delta in change.changes.items():
            group = self._stores.get(name)
            if group is None:
                continue
            found: Found = {}
            for id, row_change in delta.items():
                group.find(id, row_change, found)
                await self._breathe()
            for view, changes in found.items():
                group.judge(view, changes, told.hits)
                await self._breathe()
            for view in group:  # also those that it does not concern stand at this commit then
                if view.at < told.commit and not view.lacks:
                    self._taken[view] = None

    async def _read(self, snapshot: Snapshot) -> None:
        """Read what views lack, until nothing is lacking; all of it in one state of the database."""
        while views := [view for view in self._lacking if view.since <= snapshot.commit][:TOGETHER]:
            queries = [tuple(view.reads()) for view in views]
            started = self._clock()
            answers = await self._answers(snapshot, views, queries)
            seconds = (self._clock() - started) / len(views)
            for view, results in answers:
                if not self._is_open(view):
                    continue
                self._taken[view] = None
                try:
                    view.load(results, seconds, self._clock)
                except Exception as error:
                    self._end_one(view, error)
                if not view.lacks:
                    self._lacking.pop(view, None)
                await self._breathe()

    async def _answers(
        self, snapshot: Snapshot, views: Sequence[View], queries: Sequence[Sequence[BoundQuery]]
    ) -> list[tuple[View, Sequence[QueryResult]]]:
        """What each of ``views`` has asked; without those whose query the engine refuses, which end."""
        try:
            results = iter(await snapshot.answer([query for each in queries for query in each]))
            return [(view, [next(results) for _ in each]) for view, each in zip(views, queries, strict=True)]
        except QueryError as error:
            if len(views) == 1:
                self._fail(views, error)
                return []
        return [
            found
            for view, each in zip(views, queries, strict=True)
            for found in await self._answers(snapshot, [view], [each])
        ]

    async def _tell(self, commit: int) -> None:
        """Hand out what has changed: first into the buffers, then all of it is shown in one step, then readers wake."""
        taken = [view for view in self._taken if not view.lacks]
        ready: list[Subscription] = []
        for view in taken:
            if view not in self._taken:  # it was left meanwhile
                continue
            del self._taken[view]
            try:
                batch = view.collect(commit)
            except Exception as error:
                self._end_one(view, error)
                continue
            self._kept += view.weigh()
            for subscription in view.subscriptions:
                if batch is not None:
                    subscription.push(batch)
                ready.append(subscription)
            await self._breathe()
        self._position.shown = max(self._position.shown, commit)
        for subscription in ready:
            subscription.wake()
            await self._breathe()

    def _keep_to_memory(self) -> None:
        """Ask the largest results again from now on where all together keep too much."""
        while self._kept > self._memory:
            largest = max(self._views.values(), key=lambda view: view.weight)
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
        """End ``view``, which failed, and nobody else."""
        log.error("a live query of %s could not be followed", view.query.store, exc_info=error)
        self._fail([view], error)

    async def _breathe(self) -> None:
        """Let others run when the loop was kept long enough."""
        if self._clock() - self._step_began > STEP_S:
            await trio.lowlevel.checkpoint()
            self._step_began = self._clock()

    def _fail(self, views: Iterable[View], error: Exception) -> None:
        """End ``views``: their queries cannot be run."""
        for view in views:
            self._drop(view.query, view)
            view.end(lambda: error)

    def close(self) -> None:
        """End every subscription with ``ClosedError``."""
        self._closed = True
        for view in self._views.values():
            view.end(_closed)
        self._views.clear()
        self._stores.clear()
        self._queue.clear()
        self._lacking.clear()
        self._taken.clear()


def _closed() -> ClosedError:
    return ClosedError("the database is closed; its live queries ended with it")


def _left() -> ClosedError:
    return ClosedError("this live query was left; open it again")


@asynccontextmanager
async def open_live_queries(
    database: LiveSource,
    schema: Schema,
    *,
    buffer: int = BUFFER,
    clock: Callable[[], float] = trio.current_time,
    memory: int = MEMORY,
    least_tier: int = 0,
) -> AsyncGenerator[LocalLiveQueries]:
    """Follow the commits of ``database`` for as long as the block runs.

    Args:
        database: Where to read and whose commits to hear.
        schema: The declared stores.
        buffer: Batches that a subscriber may be behind before it gets one ``Reset`` instead.
        clock: Seconds, for what is measured.
        memory: Bytes, estimated, that the views may keep beside their results; the largest are asked again beyond it.
        least_tier: The lowest tier that a view may be followed at: 2 asks every query again, to compare with.

    Leaving the block, or cancelling it, ends every subscription with ``ClosedError``; no task is left.
    """
    views = LocalLiveQueries(database, schema, buffer, clock, memory, least_tier)
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(views.run)
            undo = database.subscribe_commits(views.hear)
            try:
                yield views
            except Exception as error:  # kept out of the nursery, which would wrap it in a group
                failure = error
            finally:
                undo()
                views.close()
                nursery.cancel_scope.cancel()
    finally:
        if failure is not None:
            raise failure
