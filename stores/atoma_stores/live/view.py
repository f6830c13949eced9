"""One distinct live query: its operator, where it stands, who follows it, what it costs."""

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
from atoma_stores.live.operators.operator import Deltas, Surrounded
from atoma_stores.live.planner import Planned

CUT_OVER_MIN = 8
"""Fewer changed rows than this are never worth a read."""
ROW_S = 2e-6
"""What taking one changed row costs, in seconds, until it was measured."""
TEST_S = 2e-6
"""What it costs to see whether one changed row concerns a result, in seconds, until it was measured."""
TESTED = 0.3
"""The part of what a read costs that may be spent on seeing whether it is needed."""
MEASURED = 0.2
"""The weight of the latest measurement."""
ROW_BYTES = 250
"""What is kept of a row beside itself: its sort key, and its places in the list and by its id."""
CELL_BYTES = 40
"""A value within a row of columns."""


class Called(msgspec.Struct, frozen=True):
    """A function that is followed instead of a query.

    Attributes:
        function: What tells it from others.
        store: ``""``: it may read any.
    """

    function: Hashable
    store: str = ""

    def __str__(self) -> str:
        return str(getattr(self.function, "__qualname__", self.function))


class View:
    """The result of one query, kept up to date.

    Attributes:
        query: The query.
        planned: How it is kept up.
        at: Commit that the result stands at, -1 before the first time.
        touched: Latest commit that may have changed it.
        since: What was heard when it was opened: no earlier state may be shown.
        busy: Whether changes were taken that are not told yet, so that the rows stand between two commits.
        hits: Commits on its stores that were not skipped.
        subscriptions: Who follows.
        weight: What it keeps beside its result, in bytes, as it was weighed last.
        completeness: How complete the result is, as was told last.
        family: What it shares with others, which is kept for as long as one of them is there.
        beside: By the names of stores whose rows only stand beside its own, where these find it.
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

    # what its subscriptions ask

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """The result."""
        return self._operator.rows

    @property
    def is_clean(self) -> bool:
        """Whether the rows are the result at the latest commit heard of."""
        return self.at >= self.touched and self.at >= self._position.unseen

    @property
    def position(self) -> int:
        """The latest commit heard of at which the rows are the result."""
        return max(self.at, self._position.heard) if self.is_clean else self.at

    def is_at(self, commit: int) -> bool:
        """Whether the rows may be read, and hold every change up to ``commit``."""
        return not self.busy and 0 <= self.at <= self._position.shown and (self.is_clean or self.at >= commit)

    # what the dispatcher asks

    @property
    def lacks(self) -> bool:
        """Whether something has to be read before the result is known."""
        return self._operator.lacks

    def concerns(self, store: str, delta: StoreDelta, clock: Callable[[], float]) -> Deltas:
        """Those changes of a store that may concern the result; empty when there are none.

        Where to see that costs too much of what reading the result does, it is all of them: it is read then. So it is where
        a row cannot be tested: taking it fails as well, and ends this result and no other.
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
        """``commit`` may have changed the result."""
        self.touched = max(self.touched, commit)
        if self.at < self.touched:
            self._loosen()

    def take(self, deltas: Deltas, clock: Callable[[], float]) -> None:
        """Take changes, or decide that reading the result again costs less."""
        self._stir()
        if self._operator.stale:
            return  # what is read will hold them
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
        """Read the result again before it is told next."""
        self._stir()
        self._operator.forget()

    def reads(self) -> Sequence[Question]:
        """What it lacks."""
        return self._operator.reads()

    def load(self, results: Sequence[QueryResult], seconds: float, clock: Callable[[], float]) -> None:
        """Take what it lacked, which took ``seconds`` to read."""
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
        """The result stands at ``commit`` now: the batch that leads there, None when it is the first or nothing changed.

        Args:
            commit: Where it stands.
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
        """The result is the same at ``commit``: the batch that says how complete it is, None when that is the same too."""
        if self.at < 0 or self.busy or not self._judge(states):
            return None
        self.at = max(self.at, commit)
        return LiveBatch(commit, (), self.completeness)

    def _judge(self, states: States) -> bool:
        """Whether the result is complete in another way while the scopes are in ``states``."""
        if states is self._states:
            return False
        before, self._states = self.completeness, states
        self.completeness = self._sight.under(states)
        return self.completeness != before

    def demote(self, planned: Planned) -> None:
        """Be kept up in another way from now on."""
        self.planned, self._operator = planned, planned.operator
        self._stir()

    def weigh(self) -> int:
        """Weigh what is kept in memory beside the rows of the result; by how many bytes that is more than before."""
        before, self.weight = self.weight, 0
        if self.planned.tier < 2:
            held = self._operator.held
            self.weight = held * ROW_BYTES + (held - self._operator.shown) * self._row_bytes
        return self.weight - before

    def _stir(self) -> None:
        """The rows stand between two commits from now on."""
        self.busy = True
        self._loosen()

    def _loosen(self) -> None:
        for beside in self.beside.values():
            beside.loosen(self)

    def _settle(self) -> None:
        """Say which rows it has to those places where others find it by them."""
        if not self.beside or self.at < self.touched:
            return
        moved = self._operator.moved() if isinstance(self._operator, Surrounded) else dict[str, bool]()
        for beside in self.beside.values():
            beside.settle(self, moved)

    def _charge(self, seconds: float) -> None:
        self._evaluations += 1
        self._seconds += seconds
        self._last_s = seconds

    def stats(self, commits: int) -> LiveStats:
        """The figures for the inspector; ``commits`` were made on its stores since they are followed."""
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
            held=self._operator.held,
            bytes=self.weight + self._operator.shown * self._row_bytes,
            reads=self._reads,
            question=None if isinstance(self.query, Called) else self.query,
        )

    def end(self, error: Callable[[], Exception]) -> None:
        """End every subscription with ``error()``."""
        for subscription in tuple(self.subscriptions):
            subscription.end(error)


def _size_of(results: Sequence[QueryResult]) -> int:
    """Bytes of a row, told by the first one."""
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
