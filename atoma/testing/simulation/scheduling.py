"""One thread, virtual time, and a scheduler whose every choice is a function of the seed."""

from __future__ import annotations

import gc
import hashlib
import importlib
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

STEPS_MAX = 1_500_000


class Trace(trio.abc.Instrument):
    """A hash of what happens, which calls back after a number of task steps.

    Attributes:
        steps: Task steps so far.
        endless: Called when there are more steps than any run needs.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.steps = 0
        self.endless: Callable[[], None] | None = None
        self._alarms: dict[int, list[Callable[[], object]]] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note which task runs."""
        self.steps += 1
        self._hash.update(task.name.encode())
        if self.steps in self._alarms:
            for alarm in self._alarms.pop(self.steps):
                alarm()
        if self.steps == STEPS_MAX and self.endless is not None:
            self.endless()

    def note(self, *what: bytes | str | int) -> None:
        """Add something that happened."""
        for item in what:
            self._hash.update(item if isinstance(item, bytes) else f"{item}|".encode())

    def after(self, steps: int, alarm: Callable[[], object]) -> None:
        """Call ``alarm`` before the task step that comes ``steps`` steps from now."""
        self._alarms.setdefault(self.steps + max(1, steps), []).append(alarm)

    @property
    def digest(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()


def run_seeded(main: Callable[[], Awaitable[object]], seed: int, trace: Trace) -> None:
    """Run ``main`` so that the order of all tasks is a function of ``seed``.

    Uses Trio's own hooks for deterministic scheduling, which are private; a test compares the traces of two processes,
    so that a Trio that changes them is noticed. Garbage collection waits until the end: it would finalize things at
    moments that no seed decides.
    """
    runner: Any = importlib.import_module("trio._core._run")
    allowed, state = runner._ALLOW_DETERMINISTIC_SCHEDULING, runner._r.getstate()
    collecting = gc.isenabled()
    gc.disable()
    runner._ALLOW_DETERMINISTIC_SCHEDULING = True
    runner._r.seed(seed)
    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[trace])
    finally:
        runner._ALLOW_DETERMINISTIC_SCHEDULING = allowed
        runner._r.setstate(state)
        if collecting:
            gc.enable()
