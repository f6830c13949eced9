"""One distinct live query: its rows, where they stand, who follows them; and the views of one store by what they need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.ports.live import LiveBatch, LiveStats, Reset
from atoma.query.describe import describe
from atoma_stores.changes import StoreDelta
from atoma_stores.reactive.diff import diff, keep_unchanged
from atoma_stores.reactive.relevance import Relevance, required_values

V = TypeVar("V")
TESTS_MAX = 20_000
"""Rows times views of one commit that are tested one by one; beyond it the views are simply run again."""


class Subscription:
    """One reader of a view: an asynchronous iterator of batches with a bounded buffer.

    Args:
        view: What it reads.
        buffer: Batches it holds for its reader; when one more comes, all are dropped and the next is a ``Reset``.
        since: The first ``Reset`` waits until the view is at this commit at least.
    """

    def __init__(self, view: View, buffer: int, since: int) -> None:
        self._view = view
        self._size = buffer
        self._since = since
        self._batches: deque[LiveBatch[StoredRow]] = deque()
        self._behind = True  # what the reader has is not the result minus the buffer: it needs a Reset
        self._error: Callable[[], Exception] | None = None
        self._readers = trio.lowlevel.ParkingLot()

    def __aiter__(self) -> Subscription:
        """The iterator is its own."""
        return self

    async def __anext__(self) -> LiveBatch[StoredRow]:
        """The next batch; waits for one. A cancelled wait loses nothing.

        Raises:
            ClosedError: The database or this subscription was closed.
            StoreError: The query could not be run; the subscription is over.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._behind and self._view.is_at(self._since):
                self._behind = False
                return LiveBatch(self._view.position, (Reset(self._view.rows),))
            if self._batches:
                return self._batches.popleft()
            if self._error is not None:
                raise self._error()
            await self._readers.park()

    def push(self, batch: LiveBatch[StoredRow] | None) -> None:
        """Take a batch (None: the first result is there) and wake the reader."""
        if batch is not None and not self._behind:
            if len(self._batches) >= self._size:
                self._batches.clear()
                self._behind = True
            else:
                self._batches.append(batch)
        self._readers.unpark()

    def end(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` for the reader once it has read what is there; the first call counts."""
        self._error = self._error or error
        self._readers.unpark_all()


class View:
    """The result of one query, kept up to date by whoever runs the query.

    Attributes:
        query: The query.
        relevance: Which commits concern it.
        rows: The result as it was read last; subscribers see none of it before the first time.
        commit: Commit the rows were read at, -1 before the first time.
        touched: Latest commit that may have changed the result.
        hits: Commits on the store that were not skipped.
        subscriptions: Who follows.
    """

    def __init__(self, query: BoundQuery, group: StoreViews) -> None:
        self.query = query
        self.relevance = Relevance(query)
        self.rows: tuple[StoredRow, ...] = ()
        self.commit = -1
        self.touched = 0
        self.subscriptions: set[Subscription] = set()
        self._group = group
        self._deltas_before = group.deltas
        self.hits = 0
        self._evaluations = 0
        self._seconds = 0.0
        self._last_s = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether the rows are the result at the latest commit heard of."""
        return self.commit >= self.touched

    @property
    def position(self) -> int:
        """The latest commit heard of at which the rows are the result."""
        return max(self.commit, self._group.heard.commit) if self.is_clean else self.commit

    def is_at(self, commit: int) -> bool:
        """Whether the rows hold every change up to ``commit``."""
        return self.commit >= 0 and (self.is_clean or self.commit >= commit)

    def touch(self, commit: int) -> None:
        """``commit`` may have changed the result."""
        self.touched = max(self.touched, commit)

    def replace(self, rows: tuple[StoredRow, ...], commit: int) -> LiveBatch[StoredRow] | None:
        """Take a new result; the batch that leads to it, None when nothing changed or it is the first one."""
        first = self.commit < 0
        previous, self.rows = self.rows, keep_unchanged(self.rows, rows)
        self.commit = max(self.commit, commit)
        changes = () if first else diff(previous, self.rows)
        return LiveBatch(commit, changes) if changes else None

    def charge(self, seconds: float) -> None:
        """Note what an evaluation cost."""
        self._evaluations += 1
        self._seconds += seconds
        self._last_s = seconds

    def stats(self) -> LiveStats:
        """The figures for the inspector."""
        return LiveStats(
            store=self.query.store,
            query=describe(self.query),
            rows=len(self.rows),
            subscribers=len(self.subscriptions),
            evaluations=self._evaluations,
            skipped=self._group.deltas - self._deltas_before - self.hits,
            mean_us=self._seconds * 1e6 / self._evaluations if self._evaluations else 0.0,
            last_us=self._last_s * 1e6,
        )

    def end(self, error: Callable[[], Exception]) -> None:
        """End every subscription with ``error()``."""
        for subscription in tuple(self.subscriptions):
            subscription.end(error)


class ValueIndex(Generic[V]):
    """Finds members by a field that must have one of a few values."""

    def __init__(self) -> None:
        self._fields: dict[str, dict[object, dict[V, None]]] = {}

    def add(self, field: str, values: Iterable[object], member: V) -> None:
        """File ``member`` under each of ``values``."""
        for value in values:
            self._fields.setdefault(field, {}).setdefault(value, {})[member] = None

    def remove(self, field: str, values: Iterable[object], member: V) -> None:
        """Take ``member`` out of every place that :meth:`add` put it."""
        for value in dict.fromkeys(values):
            by_value = self._fields[field]
            members = by_value[value]
            del members[member]
            if not members:
                del by_value[value]
            if not by_value:
                del self._fields[field]

    def find(self, row: StoredRow, found: dict[V, None]) -> None:
        """Add to ``found`` every member that ``row`` has a value for."""
        for field, by_value in self._fields.items():
            members = by_value.get(row.column(field))
            if members:
                found.update(members)


@dataclass(slots=True)
class Heard:
    """How far the commits of a database have been heard.

    Attributes:
        commit: The latest one; -1 while nothing was read or heard.
    """

    commit: int = -1


class StoreViews:
    """The views of one store.

    Args:
        heard: How far the database has been heard.

    Attributes:
        deltas: Commits that changed the store since it is followed.
    """

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.deltas = 0
        self._index: ValueIndex[View] = ValueIndex()
        self._rest: dict[View, None] = {}

    def add(self, view: View) -> None:
        """Follow the store for ``view``."""
        needs = required_values(view.query)
        if needs is None:
            self._rest[view] = None
        else:
            self._index.add(*needs, view)

    def remove(self, view: View) -> None:
        """Forget ``view``."""
        needs = required_values(view.query)
        if needs is None:
            del self._rest[view]
        else:
            self._index.remove(*needs, view)

    def touch(self, delta: StoreDelta, commit: int, evaluating: frozenset[View]) -> list[View]:
        """Mark the views whose result ``delta`` may have changed, and return them.

        Args:
            delta: What ``commit`` did to the store.
            commit: Its number.
            evaluating: Views whose rows are being read right now, so that it is not known what they stand for.
        """
        self.deltas += 1
        candidates: dict[View, None] = dict(self._rest)
        for old, new in delta.values():
            if old is not None:
                self._index.find(old, candidates)
            if new is not None:
                self._index.find(new, candidates)
        test = len(candidates) * len(delta) <= TESTS_MAX
        touched: list[View] = []
        for view in candidates:
            rows = view.rows if view.is_clean and view not in evaluating else None
            if not test or view.commit < 0 or view.relevance.touches(rows, delta):
                view.touch(commit)
                view.hits += 1
                touched.append(view)
        return touched
