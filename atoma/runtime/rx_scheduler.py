"""A reactivex scheduler on Trio's clock: no thread, and virtual time wherever Trio's time is virtual."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import trio
from reactivex import abc, typing
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from atoma.errors import ClosedError, Overloaded
from atoma.ports.environment import Environment
from atoma.ports.loops import lifetime

log = logging.getLogger("atoma.rx")

S = TypeVar("S")
ACTIONS_MAX = 100_000
TURN = 64
"""Actions in a row before other tasks get their turn."""


class _Action:
    """Something to be run once, unless it is disposed before."""

    __slots__ = ("_owner", "_result", "_run")

    def __init__(self, owner: TrioScheduler, run: Callable[[], abc.DisposableBase]) -> None:
        self._owner = owner
        self._result = SingleAssignmentDisposable()
        self._run: Callable[[], abc.DisposableBase] | None = run

    @property
    def is_waiting(self) -> bool:
        return self._run is not None

    def handle(self) -> abc.DisposableBase:
        return CompositeDisposable(self._result, Disposable(self.cancel))

    def cancel(self) -> None:
        if self._run is not None:
            self._run = None
            self._owner.forget()

    def invoke(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            self._result.disposable = run()
        except Exception:
            log.exception("an action of the reactivex scheduler failed; the others go on")


class TrioScheduler(PeriodicScheduler):
    """A scheduler that runs every action in one task, in the order of time; made by :func:`open_rx_scheduler`.

    Give it to each operator that deals with time (``debounce``, ``sample``, ``interval`` …) or to ``subscribe``: without
    one reactivex starts threads. Use it from the tasks of one ``trio.run`` only. An action that raises is logged and
    harms no other.
    """

    def __init__(self, epoch: datetime, limit: int) -> None:
        super().__init__()
        self._epoch = epoch  # wall-clock time at which Trio's clock reads 0
        self._limit = limit
        self._due: deque[_Action] = deque()
        self._timed: list[tuple[float, int, _Action]] = []
        self._order = itertools.count()
        self._waiting = 0
        self._wake = trio.Event()
        self._closed = False

    @property
    def now(self) -> datetime:
        """The wall clock, as it runs on Trio's time."""
        return self._epoch + timedelta(seconds=trio.current_time())

    @property
    def held(self) -> int:
        """Actions in memory: those that wait, and disposed ones that were not cleared away yet."""
        return len(self._due) + len(self._timed)

    def schedule(self, action: abc.ScheduledAction[S], state: S | None = None) -> abc.DisposableBase:
        """Run ``action`` soon; never before this returns.

        Raises:
            ClosedError: The scheduler is closed.
            Overloaded: Too many actions wait.
        """
        return self._add(action, state, -math.inf)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: abc.ScheduledAction[S], state: S | None = None
    ) -> abc.DisposableBase:
        """Run ``action`` after ``duetime`` seconds of Trio's clock. Raises as :meth:`schedule`."""
        seconds = self.to_seconds(duetime)
        return self._add(action, state, trio.current_time() + seconds if seconds > 0 else -math.inf)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: abc.ScheduledAction[S], state: S | None = None
    ) -> abc.DisposableBase:
        """Run ``action`` when :attr:`now` is ``duetime``. Raises as :meth:`schedule`."""
        return self._add(action, state, (self.to_datetime(duetime) - self._epoch).total_seconds())

    def _add(self, action: abc.ScheduledAction[S], state: S | None, at: float) -> abc.DisposableBase:
        if self._closed:
            raise ClosedError("the reactivex scheduler is closed")
        if self._waiting >= self._limit:
            raise Overloaded("the reactivex scheduler", self._limit)
        item = _Action(self, lambda: self.invoke_action(action, state))
        self._waiting += 1
        if at == -math.inf:
            self._due.append(item)
        else:
            heapq.heappush(self._timed, (at, next(self._order), item))
        self._wake.set()
        return item.handle()

    def forget(self) -> None:
        """An action was disposed: drop the disposed ones when they are the most."""
        self._waiting -= 1
        if len(self._timed) > 2 * self._waiting + TURN:
            self._timed = [entry for entry in self._timed if entry[2].is_waiting]
            heapq.heapify(self._timed)

    async def run(self) -> None:
        """Run actions until cancelled."""
        while True:
            for _ in range(min(TURN, len(self._due))):
                item = self._due.popleft()
                if item.is_waiting:
                    self._waiting -= 1
                    item.invoke()
            now = trio.current_time()
            while self._timed and self._timed[0][0] <= now:
                self._due.append(heapq.heappop(self._timed)[2])
            if self._due:
                await trio.lowlevel.checkpoint()
                continue
            self._wake = trio.Event()
            with trio.CancelScope(deadline=self._timed[0][0] if self._timed else math.inf):
                await self._wake.wait()

    def close(self) -> None:
        """Forget every action; nothing can be scheduled any more."""
        self._closed = True
        self._due.clear()
        self._timed.clear()


@lifetime
async def open_rx_scheduler(environment: Environment, *, limit: int = ACTIONS_MAX) -> AsyncGenerator[TrioScheduler]:
    """A scheduler that works for as long as the block runs; what is left then is forgotten.

    Args:
        environment: Tells what the wall clock shows.
        limit: Actions that may wait at a time.
    """
    wall = datetime.fromtimestamp(environment.wall_ms() / 1000, UTC)
    scheduler = TrioScheduler(wall - timedelta(seconds=trio.current_time()), limit)
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scheduler.run)
            try:
                yield scheduler
            except Exception as error:  # kept out of the nursery, which would wrap it in a group
                failure = error
            finally:
                scheduler.close()
                nursery.cancel_scope.cancel()
    finally:
        if failure is not None:
            raise failure
