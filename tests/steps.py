"""How much the longest step of a loop does, counted in function calls: time would depend on the machine."""

from __future__ import annotations

import sys
from types import FrameType

import trio


class Steps(trio.abc.Instrument):
    """Counts the function calls of each step of a task, which take the time that the others wait."""

    def __init__(self) -> None:
        self.calls = self.most = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.calls = 0
        sys.setprofile(self._count)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        sys.setprofile(None)
        self.most = max(self.most, self.calls)

    def _count(self, frame: FrameType, event: str, arg: object) -> None:
        self.calls += event == "call"
