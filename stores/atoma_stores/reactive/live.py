"""Live queries over a database that tells its commits: run again what a commit may have changed, deliver the difference.

One task evaluates. It reads every affected query in one read transaction, so that all of them stand at the same commit,
and hands the batches out in one step of the loop. Commits that come in meanwhile are taken together in the next round.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, runtime_checkable

import trio

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.errors import ClosedError, Overloaded, QueryError
from atoma.ports.live import LiveBatch, LiveStats
from atoma.schema import Schema
from atoma_stores.changes import ChangeSet, CommitListener
from atoma_stores.reactive.checks import checked
from atoma_stores.reactive.view import Heard, StoreViews, Subscription, View

log = logging.getLogger("atoma.live")

BUFFER = 64
SUBSCRIPTIONS_MAX = 100_000
ROUNDS_MAX = 3
"""Rounds of "a commit slipped in between": after them every view is read, which is consistent by itself."""
HEARING_S = 1.0
"""A commit that was read is heard at once; one that is not heard for so long was made by somebody else."""


@runtime_checkable
class LiveSource(Protocol):
    """What live queries need of a database."""

    def subscribe_commits(self, listener: CommitListener) -> Callable[[], None]:
        """Call ``listener`` on the loop's thread after each COMMIT, in commit order; returns how to stop it."""
        ...

    async def read_many(self, queries: Sequence[BoundQuery]) -> Sequence[QueryResult]:
        """Answer ``queries`` in one read transaction; ``meta.commit`` is the same for all."""
        ...


class LocalLiveQueries:
    """All views of a database; implements ``LiveQueries`` and ``LiveInspection``."""

    def __init__(self, source: LiveSource, schema: Schema, buffer: int, clock: Callable[[], float]) -> None:
        self._source = source
        self._schema = schema
        self._buffer = buffer
        self._clock = clock
        self._heard = Heard()
        self._hearing = trio.lowlevel.ParkingLot()
        self._stores: dict[str, StoreViews] = {}
        self._views: dict[BoundQuery, View] = {}
        self._subscribed = 0
        self._unclean: dict[View, None] = {}
        self._evaluating: frozenset[View] = frozenset()
        self._work = trio.Event()
        self._closed = False

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
        subscription = Subscription(view, self._buffer, view.touched)
        view.subscriptions.add(subscription)
        self._subscribed += 1
        try:
            yield subscription
        finally:
            subscription.end(_left)
            view.subscriptions.discard(subscription)
            self._subscribed -= 1
            if not view.subscriptions:
                self._drop(query, view)

    def stats(self) -> tuple[LiveStats, ...]:
        """See :class:`atoma.ports.LiveInspection`."""
        return tuple(view.stats() for view in self._views.values())

    def _add(self, query: BoundQuery) -> View:
        group = self._stores.get(query.store)
        if group is None:
            group = self._stores[query.store] = StoreViews(self._heard)
        view = self._views[query] = View(query, group)
        group.add(view)
        self._unclean[view] = None
        self._work.set()
        return view

    def _drop(self, query: BoundQuery, view: View) -> None:
        if self._views.get(query) is view:
            del self._views[query]
            self._stores[query.store].remove(view)
        self._unclean.pop(view, None)

    def hear(self, change: ChangeSet) -> None:
        """A commit was made: find the views that it may have changed."""
        gap = 0 <= self._heard.commit < change.commit - 1
        self._heard.commit = max(self._heard.commit, change.commit)
        self._hearing.unpark_all()
        for store, delta in change.changes.items():
            group = self._stores.get(store)
            if group is not None and delta:
                for view in group.touch(delta, change.commit, self._evaluating):
                    self._unclean[view] = None
        if gap:  # commits are numbered without gaps: what is missing was written by another program
            for view in self._views.values():
                view.touch(change.commit)
                self._unclean[view] = None
        if self._unclean:
            self._work.set()

    async def run(self) -> None:
        """Evaluate for as long as the database is open."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            try:
                await self._round()
            except ClosedError:
                self.close()
                return
            except Exception as error:
                log.exception("live queries could not be run")
                self._fail(self._evaluating, error)
            finally:
                self._evaluating = frozenset()
            if self._unclean:
                self._work.set()

    async def _round(self) -> None:
        """Read what is unclean at one commit, and deliver."""
        views = list(self._unclean)
        for rounds in range(ROUNDS_MAX + 1):
            everything = rounds == ROUNDS_MAX
            if everything:
                views = list(self._views.values())
            self._evaluating = frozenset(views)
            started = self._clock()
            views, results = await self._read(views)
            seconds = self._clock() - started
            if not results:
                return
            commit = results[0].meta.commit
            ours = await self._caught_up(commit)
            late = [view for view in self._unclean if view not in self._evaluating and 0 < view.touched <= commit]
            if everything or (ours and not late):
                self._deliver(views, results, commit, seconds)
                return
            # the read saw a commit that may concern more views: they have to stand at one commit with these
            views = [*views, *late] if ours else list(self._views.values())

    async def _read(self, views: list[View]) -> tuple[list[View], Sequence[QueryResult]]:
        """Results of ``views`` at one commit; without the ones whose query the engine refuses, which end."""
        while views:
            try:
                return views, await self._source.read_many([view.query for view in views])
            except QueryError as error:
                if len(views) == 1:
                    self._fail(views, error)
                    break
                views = [view for view in views if await self._is_accepted(view)]
        return [], ()

    async def _is_accepted(self, view: View) -> bool:
        try:
            await self._source.read_many([view.query])
        except QueryError as error:
            self._fail([view], error)
            return False
        return True

    async def _caught_up(self, commit: int) -> bool:
        """Wait until ``commit`` was heard; False if it is not ours to hear."""
        if self._heard.commit < 0:  # the first read of all: no result stands at an earlier commit
            self._heard.commit = commit
        with trio.move_on_after(HEARING_S):
            while self._heard.commit < commit:
                await self._hearing.park()
        ours = self._heard.commit >= commit
        self._heard.commit = max(self._heard.commit, commit)
        return ours

    def _deliver(self, views: Sequence[View], results: Sequence[QueryResult], commit: int, seconds: float) -> None:
        """Hand out what changed, all in this one step of the loop."""
        share = seconds / len(views)
        ready: list[tuple[View, LiveBatch[StoredRow] | None]] = []
        for view, result in zip(views, results, strict=True):
            started = self._clock()
            first = view.commit < 0
            batch = view.replace(result.rows, commit)
            view.charge(share + self._clock() - started)
            if view.is_clean:
                self._unclean.pop(view, None)
            if first or batch is not None:
                ready.append((view, batch))
        for view, batch in ready:
            for subscription in view.subscriptions:
                subscription.push(batch)

    def _fail(self, views: Iterable[View], error: Exception) -> None:
        """End ``views``: their queries cannot be run."""
        failed = set(views)
        for query, view in list(self._views.items()):
            if view in failed:
                self._drop(query, view)
                view.end(lambda: error)

    def close(self) -> None:
        """End every subscription with ``ClosedError``."""
        self._closed = True
        for view in self._views.values():
            view.end(_closed)
        self._views.clear()
        self._stores.clear()
        self._unclean.clear()


def _closed() -> ClosedError:
    return ClosedError("the database is closed; its live queries ended with it")


def _left() -> ClosedError:
    return ClosedError("this live query was left; open it again")


@asynccontextmanager
async def open_live_queries(
    database: LiveSource, schema: Schema, *, buffer: int = BUFFER, clock: Callable[[], float] = trio.current_time
) -> AsyncGenerator[LocalLiveQueries]:
    """Follow the commits of ``database`` for as long as the block runs.

    Args:
        database: Where to read and whose commits to hear.
        schema: The declared stores.
        buffer: Batches that a subscriber may be behind before it gets one ``Reset`` instead.
        clock: Seconds, for the figures of the inspector.

    Leaving the block, or cancelling it, ends every subscription with ``ClosedError``; no task is left.
    """
    views = LocalLiveQueries(database, schema, buffer, clock)
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
