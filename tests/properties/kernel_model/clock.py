"""Virtual time for the interpreter: tasks are generators, time passes when all of them wait, causes are remembered.

What happens at the same instant without one being the cause of the other has no order. Where an order would matter it is
either *chosen* (and the caller tries the other choices too) or the example is dropped as a :class:`Tie`.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

TICK = 1e-6
"""Two things that happen closer together than this happen at the same instant."""


class Tie(Exception):
    """Two things happen at the same instant, and it is not said which comes first."""


class Stopped(Exception):
    """Thrown into what waits in a scope that was stopped."""


@dataclass(eq=False)
class Scope:
    """What can be stopped as a whole."""

    parent: Scope | None = None
    stopped: bool = False

    def over(self) -> bool:
        """Whether it, or one around it, was stopped."""
        return self.stopped or (self.parent is not None and self.parent.over())

    def inside(self, other: Scope) -> bool:
        """Whether it is ``other`` or inside it."""
        return self is other or (self.parent is not None and self.parent.inside(other))


@dataclass(eq=False)
class Flag:
    """Set once; remembers what led to it."""

    isset: bool = False
    waiting: list[tuple[Task, int]] = field(default_factory=list)
    past: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Sleep:
    """Wait until a time; those with the same group may end at the same instant, and are told apart by their labels."""

    until: float
    group: object = None
    label: object = None


@dataclass(frozen=True)
class Either:
    """Wait for a flag, at most until a time."""

    flag: Flag
    until: float


Wait: TypeAlias = "Flag | Sleep | Either"
Guide: TypeAlias = Callable[[float, list[object]], int]
Body: TypeAlias = Generator[Wait, None, Any]


@dataclass(eq=False)
class Task:
    """A generator at work."""

    body: Body
    scope: Scope
    past: set[int]
    done: Flag = field(default_factory=Flag)
    shield: int = 0
    started: bool = False
    woke: float = -1.0
    stopping: bool = False
    ready: bool = True
    turn: int = 0


class Clock:
    """Runs tasks.

    Args:
        choices: Which way to go at each choice; 0 where it says nothing.
        guide: Says which of those that end at the same instant is the first, by their labels; None makes it a choice.
    """

    def __init__(self, choices: list[int], guide: Guide | None = None) -> None:
        self._guide = guide
        self.now = 0.0
        self.over = False
        self.offered: list[int] = []
        self.current: Task
        self.tasks: list[Task] = []
        self._choices = choices
        self._ready: list[tuple[Task, bool]] = []
        self._timers: list[tuple[float, int, Sleep | None, Task | None, int, Callable[[], None] | None]] = []
        self._count = itertools.count()
        self._touched: dict[object, tuple[float, int]] = {}

    def choose(self, ways: int) -> int:
        """One of so many ways."""
        if ways == 1:
            return 0
        place = len(self.offered)
        self.offered.append(ways)
        return self._choices[place] if place < len(self._choices) else 0

    def mark(self) -> int:
        """A number for what the current task does now; those in its past are its causes."""
        number = next(self._count)
        self.current.past.add(number)
        return number

    def touch(self, what: object) -> None:
        """Say that the order matters in which tasks come here."""
        if self.over:
            return  # what is left of an example that was dropped
        before = self._touched.get(what)
        if before is not None and self.now - before[0] < TICK and before[1] not in self.current.past:
            raise Tie
        self._touched[what] = (self.now, self.mark())

    def apart(self, time: float) -> None:
        """Say that the order of now and ``time`` matters."""
        if abs(time - self.now) < TICK:
            raise Tie

    def spawn(self, body: Body, scope: Scope, past: set[int] | None = None) -> Task:
        """Start a task inside ``scope``."""
        task = Task(body, scope, set(self.current.past if past is None else past))
        self.tasks.append(task)
        self._ready.append((task, False))
        return task

    def call_at(self, time: float, call: Callable[[], None]) -> None:
        """Have something done from outside."""
        heapq.heappush(self._timers, (time, next(self._count), None, None, 0, call))

    def hoist(self, flag: Flag) -> None:
        """Set a flag and wake who waits for it."""
        flag.isset = True
        flag.past |= self.current.past
        for task, turn in flag.waiting:
            if task.turn == turn and not task.done.isset:
                task.past |= flag.past
                self._wake(task)
        flag.waiting = []

    def stop(self, scope: Scope, past: set[int]) -> None:
        """Stop everything in ``scope`` that is not shielded."""
        scope.stopped = True
        for task in self.tasks:
            if not task.done.isset and task.scope.inside(scope) and not task.stopping:
                self._hit(task, past)

    def _hit(self, task: Task, past: set[int]) -> None:
        if not task.started:
            return  # it runs up to where it waits first, as every task does
        if task.ready or self.now - task.woke < TICK:
            raise Tie
        if not task.shield:
            task.past |= past
            self._wake(task, stopped=True)

    def _wake(self, task: Task, *, stopped: bool = False) -> None:
        task.turn += 1
        task.ready = True
        task.stopping = task.stopping or stopped
        self._ready.append((task, stopped))

    def run(self, until: float = math.inf) -> None:
        """Let everything happen up to a time."""
        while True:
            while self._ready:
                self._resume(*self._ready.pop(0))
            while self._timers and self._stale():
                heapq.heappop(self._timers)
            if not self._timers or self._timers[0][0] > until:
                return
            self._strike()

    def _stale(self) -> bool:
        _, _, _, task, turn, _ = self._timers[0]
        return task is not None and (task.done.isset or task.turn != turn)

    def _strike(self) -> None:
        self.now = self._timers[0][0]
        due = []
        while self._timers and self._timers[0][0] - self.now < TICK:
            if self._stale():
                heapq.heappop(self._timers)
            else:
                due.append(heapq.heappop(self._timers))
        groups = [one[2].group if one[2] is not None else None for one in due]
        if len(due) > 1 and (groups[0] is None or any(group is not groups[0] for group in groups)):
            raise Tie
        pinned: set[int] = set()
        while due:
            _, _, _, task, _, call = due.pop(self._first_of([one[2].label if one[2] else None for one in due]))
            if task is None:
                assert call is not None
                call()
            else:
                task.past |= pinned
                self._wake(task)
                self._resume(*self._ready.pop())
                pinned |= task.past

    def _first_of(self, labels: list[object]) -> int:
        if len(labels) == 1 or self._guide is None:
            return self.choose(len(labels))
        return self._guide(self.now, labels)

    def _resume(self, task: Task, stopped: bool) -> None:
        self.current = task
        task.ready = False
        if task.started:
            task.woke = self.now
        task.started = True
        try:
            wait = task.body.throw(Stopped()) if stopped else next(task.body)
        except (StopIteration, Stopped):
            self.hoist(task.done)
            return
        self._park(task, wait)

    def _park(self, task: Task, wait: Wait) -> None:
        if task.scope.over() and not task.shield:
            self._wake(task, stopped=True)
            return
        if isinstance(wait, Flag):
            if wait.isset:
                task.past |= wait.past
                self._wake(task)
            else:
                wait.waiting.append((task, task.turn))
            return
        if isinstance(wait, Either):
            if wait.flag.isset:
                task.past |= wait.flag.past
                self._wake(task)
                return
            wait.flag.waiting.append((task, task.turn))
        if wait.until <= self.now:
            self._wake(task)
            return
        until = wait.until
        sleep = wait if isinstance(wait, Sleep) else None
        if until < math.inf:
            heapq.heappush(self._timers, (until, next(self._count), sleep, task, task.turn, None))
