"""One distinct live query: its operator, its position, its subscribers and its cost."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import cast

import msgspec

from atoma.contracts.completeness import COMPLETE
from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.raw import Question
from atoma.contracts.values import StoredRow
from atoma.ports.completeness import Sight, States
from atoma.ports.live import LiveBatch, LiveStats, ResultRow
from atoma.query.describe import describe
from atoma_stores.changes import StoreDelta
from atoma_stores.live.delivery import LivePosition, Subscription
from atoma_stores.live.index import Beside
from atoma_stores.live.operators.operator import Deltas, Operator, Surrounded
from atoma_stores.live.planner import Planned

CUT_OVER_MIN = 8
"""Fewer changed rows than this are never worth a read."""
ROW_S = 2e-6
"""The assumed cost of taking one changed row, in seconds, until it has been measured."""
TEST_S = 2e-6
"""The assumed cost of testing whether one changed row concerns a result, in seconds, until it has been measured."""
TESTED = 0.3
"""The part of a read's cost that may be spent on testing whether the read is needed."""
MEASURED = 0.2
"""The weight of the latest measurement."""
ROW_BYTES = 250
"""Bytes that are kept for a row in addition to the row: its sort key, and its places in the list and by its id."""
CELL_BYTES = 40
"""Bytes that are kept for a value within a row of columns."""


class Called(msgspec.Struct, frozen=True):
    """A function that is followed instead of a query.

    Attributes:
        function: The identity of the function.
        store: ``""``, as it may read any store.
    """

    function: Hashable
    store: str = ""

    def __str__(self) -> str:
        return str(getattr(self.function, "__qualname__", self.function))


class View:
    """The result of one query, kept up to date.

    Attributes:
        query: The query.
        planned: The way in which it is kept up to date.
        at: Commit that the result corresponds to; -1 before the first time.
        touched: Latest commit that may have changed it.
        since: The latest commit known when it was opened; no earlier state may be shown.
        busy: Whether it has taken changes that are not reported yet, so that the rows are between two commits.
        hits: Number of commits on its stores that were not skipped.
        subscriptions: Its subscribers.
        weight: Bytes that it keeps in addition to its result, as last estimated.
        completeness: The completeness of the result, as last reported.
        family: What it shares with similar queries, kept for as long as one of them is followed.
        beside: The index entries by which rows of other stores, shown beside its own, find it, by the name of the store.
    """

    def __init__(
        self, query: Question | Called, planned: Planned, sight: Sight, position: LivePosition, commits: int
    ) -> None:
        self.query = query
        self.planned = planned
        self.completeness = COMPLETE
        self.family: Hashable = None
        self.beside: dict[str, Beside[View]] = {}
        self._sight = sight
        self._states: States | None = None
        self.at = -1
        self.touched = self.since = max(position.heard, 0)
        self.busy = True
        self.hits = 0
        self.subscriptions: dict[Subscription, None] = {}
        self._operator = planned.operator
        self._surrounded = _surrounded(planned.operator)
        self._position = position
        self._commits_before = commits
        self._row_s, self._test_s = ROW_S, TEST_S
        self._load_s = 0.0
        self._row_bytes = 0
        self.weight = 0
        self._reads = 0
        self._evaluations = 0
        self._seconds = 0.0
        self._last_s = 0.0

    # for its subscriptions

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """The result."""
        return self._operator.rows

    @property
    def is_clean(self) -> bool:
        """Whether the rows are the result at the latest known commit."""
        return self.at >= self.touched and self.at >= self._position.unseen

    @property
    def position(self) -> int:
        """The latest known commit at which the rows are the result."""
        return max(self.at, self._position.heard) if self.is_clean else self.at

    def is_at(self, commit: int) -> bool:
        """Whether the rows may be read and contain every change up to ``commit``."""
        return not self.busy and 0 <= self.at <= self._position.shown and (self.is_clean or self.at >= commit)

    # for the dispatcher

    @property
    def lacks(self) -> bool:
        """Whether something has to be read before the result is known."""
        return self._operator.lacks

    def concerns(self, store: str, delta: StoreDelta, clock: Callable[[], float]) -> Deltas:
        """Return the changes of a store that may concern the result; empty if there are none.

        If testing them costs too much compared to reading the result, all of them are returned, and the result is read.
        The same holds if a row cannot be tested: taking it fails as well, which ends this result and no other.
        """
        count, settled = len(delta), self.is_clean and not self.busy
        if count <= CUT_OVER_MIN:
            found = self._tested(store, delta, settled=settled)
            return {store: found} if found else {}
        if count * self._test_s > TESTED * self._load_s and count * self._row_s > self._load_s:
            return {store: delta}
        started = clock()
        found = self._tested(store, delta, settled=settled)
        self._test_s += MEASURED * ((clock() - started) / count - self._test_s)
        return {store: found} if found else {}

    def _tested(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        try:
            return self._operator.concerns(store, delta, settled=settled)
        except Exception:
            return delta

    def touch(self, commit: int) -> None:
        """Note that ``commit`` may have changed the result."""
        self.touched = max(self.touched, commit)
        if self.at < self.touched:
            self._loosen()

    def take(self, deltas: Deltas, clock: Callable[[], float]) -> None:
        """Take changes, or decide that reading the result again costs less."""
        self._stir()
        if self._operator.stale:
            return  # the rows that will be read contain them
        count = sum(map(len, deltas.values()))
        if count > CUT_OVER_MIN and count * self._row_s > self._load_s:
            self._operator.forget()
            return
        started = clock()
        self._operator.apply(deltas)
        seconds = clock() - started
        self._charge(seconds)
        if count:
            self._row_s += MEASURED * (seconds / count - self._row_s)

    def forget(self) -> None:
        """Have the result read again before it is next reported."""
        self._stir()
        self._operator.forget()

    def reads(self) -> Sequence[Question]:
        """Return the questions whose answers it lacks."""
        return self._operator.reads()

    def load(self, results: Sequence[QueryResult], seconds: float, clock: Callable[[], float]) -> None:
        """Take the answers that it lacked, which took ``seconds`` to read."""
        self._stir()
        whole = self._operator.stale
        started = clock()
        self._operator.load(results)
        seconds += clock() - started
        self._charge(seconds)
        self._reads += 1
        if whole:
            self._load_s = seconds
            self._row_bytes = _size_of(results)

    def collect(self, commit: int, states: States) -> LiveBatch[ResultRow] | None:
        """Move the result to ``commit`` and return the batch that leads there; None at first, or if nothing changed.

        Args:
            commit: The commit that the result now corresponds to.
            states: The states of the scopes at this commit or before.
        """
        first = self.at < 0
        changes = self._operator.collect()
        self.at = max(self.at, commit)
        self.busy = False
        self._settle()
        other = self._judge(states)
        return LiveBatch(commit, changes, self.completeness) if (changes or other) and not first else None

    def follow(self, commit: int, states: States) -> LiveBatch[ResultRow] | None:
        """Move the unchanged result to ``commit``; return a batch if its completeness has changed, else None."""
        if self.at < 0 or self.busy or not self._judge(states):
            return None
        self.at = max(self.at, commit)
        return LiveBatch(commit, (), self.completeness)

    def _judge(self, states: States) -> bool:
        """Whether the completeness of the result changes with the scopes in ``states``."""
        if states is self._states:
            return False
        before, self._states = self.completeness, states
        self.completeness = self._sight.under(states)
        return self.completeness != before

    def demote(self, planned: Planned) -> None:
        """Keep the result up to date in another way from now on."""
        self.planned, self._operator = planned, planned.operator
        self._surrounded = _surrounded(planned.operator)
        self._stir()

    @property
    def _beside(self) -> int:
        return 0 if self._surrounded is None else self._surrounded.beside

    def weigh(self) -> int:
        """Estimate the memory kept in addition to the rows of the result; return by how many bytes it has grown."""
        before, self.weight = self.weight, 0
        if self.planned.tier < 2:
            held = self._operator.held
            self.weight = (held + self._beside) * ROW_BYTES + (held - self._operator.shown) * self._row_bytes
        return self.weight - before

    def _stir(self) -> None:
        """Note that the rows are between two commits from now on."""
        self.busy = True
        self._loosen()

    def _loosen(self) -> None:
        for beside in self.beside.values():
            beside.loosen(self)

    def _settle(self) -> None:
        """Report its rows to the index entries by which other rows find it."""
        if not self.beside or self.at < self.touched:
            return
        moved = self._surrounded.moved() if self._surrounded is not None else dict[str, bool]()
        for beside in self.beside.values():
            beside.settle(self, moved)

    def _charge(self, seconds: float) -> None:
        self._evaluations += 1
        self._seconds += seconds
        self._last_s = seconds

    def stats(self, commits: int) -> LiveStats:
        """Return the figures for the inspector; ``commits`` were made on its stores since they were first followed."""
        return LiveStats(
            store=self.query.store,
            query=describe(self.query) if isinstance(self.query, BoundQuery) else str(self.query),
            rows=self._operator.shown,
            subscribers=len(self.subscriptions),
            evaluations=self._evaluations,
            skipped=commits - self._commits_before - self.hits,
            mean_us=self._seconds * 1e6 / self._evaluations if self._evaluations else 0.0,
            last_us=self._last_s * 1e6,
            tier=self.planned.tier,
            reason=self.planned.reason,
            held=self._operator.held + self._beside,
            bytes=self.weight + self._operator.shown * self._row_bytes,
            reads=self._reads,
            question=None if isinstance(self.query, Called) else self.query,
        )

    def end(self, error: Callable[[], Exception]) -> None:
        """End every subscription with ``error()``."""
        for subscription in tuple(self.subscriptions):
            subscription.end(error)


def _surrounded(operator: Operator) -> Surrounded | None:
    return operator if isinstance(operator, Surrounded) else None


def _size_of(results: Sequence[QueryResult]) -> int:
    """Estimate the bytes of a row from the first one."""
    for result in results:
        for row in (result.rows or result.tuples)[:1]:
            return _bytes_of(row)
    return 0


def _bytes_of(cell: object) -> int:
    if isinstance(cell, StoredRow):
        return ROW_BYTES + sum(map(_bytes_of, cell.image.values()))
    if isinstance(cell, tuple):
        return CELL_BYTES * len(cast("tuple[object, ...]", cell)) + sum(
            map(_bytes_of, cast("tuple[object, ...]", cell))
        )
    return len(cell) if isinstance(cell, (str, bytes)) else 0
