"""How complete each scope is, judged from what the lanes show: the one place that knows what "complete" means."""

from __future__ import annotations

import math

import trio

from atoma.contracts.completeness import COMPLETE, Completeness
from atoma.errors import QueryError
from atoma.ports.completeness import CompletenessBoard, Narrowed, Part
from atoma.ports.environment import Environment
from atoma.query.shapes import Shapes
from atoma.query.walk import conjuncts
from atoma.sync.status import PartProgress, ScopeProgress, StatusBoard, SyncStatus
from atoma.sync.wake import Bell

GRACE_S = 1.0
"""So long a scope may be behind, or without the hub, and is complete all the same: news is always on its way for a while."""


class ScopeJudge:
    """Shows on a completeness board how complete every scope is.

    A scope is *current* while a session is open and the base is at the highest sequence that the hub has told of. It is complete
    while it is current and for :data:`GRACE_S` longer, then stale since it was current last. One whose first snapshot has not
    been swapped in is partial, however many of its rows are here.

    Args:
        board: What the lanes show.
        shown: Where the judgement is shown.
        shapes: What parts of scopes take in.
        environment: Both clocks.
        hears: Whether a lane runs here that hears of the hub's news.
    """

    def __init__(
        self,
        board: StatusBoard,
        shown: CompletenessBoard,
        shapes: Shapes,
        environment: Environment,
        *,
        hears: bool,
    ) -> None:
        self._board = board
        self._shown = shown
        self._shapes = shapes
        self._environment = environment
        self._left_one = Bell()
        self._hears = hears
        self._judged_last: SyncStatus | None = None
        self._states: dict[str, Completeness] = {}
        self._current: set[str] = set()
        self._left: dict[str, tuple[float, int]] = {}  # when a scope was current last, by either clock

    async def run(self) -> None:
        """Judge again whenever a grace ends, until cancelled; changes of the status are judged as they are shown."""
        undo = self._board.subscribe(self.judge)
        try:
            while True:
                moved = self._left_one.next
                with trio.move_on_after(self._grace_left()) as grace:
                    await moved.wait()
                if grace.cancelled_caught:
                    self._judge_all(self._board.current)
        finally:
            undo()

    def judge(self, status: SyncStatus) -> None:
        """Show how complete the scopes of ``status`` are; of those that are as they were nothing but the time can change it."""
        before, self._judged_last = self._judged_last, status
        if before is None or before.state != status.state or len(before.scopes) != len(status.scopes):
            self._judge_all(status)
        elif before.scopes is not status.scopes:
            moved = [new for old, new in zip(before.scopes, status.scopes, strict=True) if new is not old]
            if not all(new.scope in self._states for new in moved):
                self._judge_all(status)
            else:
                self._show({**self._states, **{new.scope: self._in_parts(status, new) for new in moved}})

    def _judge_all(self, status: SyncStatus) -> None:
        here = {progress.scope for progress in status.scopes}
        self._current &= here  # a scope that was dropped begins anew when it comes again
        self._left = {scope: left for scope, left in self._left.items() if scope in here}
        self._show({progress.scope: self._in_parts(status, progress) for progress in status.scopes})

    def _show(self, states: dict[str, Completeness]) -> None:
        self._states = states
        self._shown.show(states)

    def _in_parts(self, status: SyncStatus, progress: ScopeProgress) -> Completeness:
        """How complete a scope is; where parts of it are here only, how complete those are."""
        judged = self._judged(status, progress)
        if not progress.narrowed:
            return judged
        parts = (self._part(each) for each in progress.parts if each.here)
        return Narrowed("partial", (progress.scope,), 0, tuple(filter(None, parts)), judged)

    def _part(self, part: PartProgress) -> Part | None:
        try:
            taken = self._shapes.read(part.shape)
        except QueryError:  # of a shape that this program does not know nobody can tell what it takes in
            return None
        return Part(taken.store, conjuncts(taken.where))

    def _judged(self, status: SyncStatus, progress: ScopeProgress) -> Completeness:
        scope = progress.scope
        if self._hears and is_current(status, progress):
            self._current.add(scope)
            self._left.pop(scope, None)
            return COMPLETE
        if scope in self._current:
            self._current.remove(scope)
            self._left[scope] = self._environment.clock(), self._environment.wall_ms()
            self._left_one.ring()
        if progress.state != "live" and not progress.cursor:
            return Completeness("partial", (scope,))
        clock, wall_ms = self._left.get(scope, (-math.inf, 0))
        if self._environment.clock() < clock + GRACE_S:
            return COMPLETE
        return Completeness("stale", (scope,), wall_ms)

    def _grace_left(self) -> float:
        """Seconds until the next grace ends, ``math.inf`` when there is none."""
        now = self._environment.clock()
        ends = [clock + GRACE_S for clock, _ in self._left.values()]
        return min((end - now for end in ends if end > now), default=math.inf)


def is_current(status: SyncStatus, progress: ScopeProgress) -> bool:
    """Whether the base of a scope is where the hub is, as far as the hub has told in an open session."""
    following = status.state == "online" and progress.state == "live" and progress.error is None
    return following and progress.cursor >= progress.head
