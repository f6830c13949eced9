"""A program that can crash at any moment, with the file it leaves behind, or that is put in the place of that file."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from atoma.ports import Environment
from atoma.schema.ids import IdSource
from atoma.testing.simulation.files import FileCopy

WALL_START_MS = 1_700_000_000_000


@dataclass
class Mortal:
    """A program that can crash at any moment.

    Attributes:
        name: What it is called.
        path: Its database file.
        user: Whose token it shows; a copy of a device is used by the same person.
        scope: Cancelled by a crash, None while it is down.
        wreck: What it has left, until that is put back.
        doom: The next crash is at its next commit.
        jump_ms: How far its wall clock is off.
        replacement: Puts another file in the place of what it has left, once it is gone.
        on_death: Called when it crashes.
    """

    name: str
    path: Path
    user: str = ""
    scope: trio.CancelScope | None = None
    wreck: FileCopy | None = None
    doom: bool = False
    jump_ms: int = 0
    replacement: Callable[[], None] | None = None
    on_death: Callable[[], None] = lambda: None

    @property
    def down(self) -> bool:
        """Whether it does not run."""
        return self.scope is None or self.dead

    @property
    def dead(self) -> bool:
        """Whether it has crashed and is on its way down: what it does now will not have happened."""
        return self.wreck is not None

    def crash(self) -> None:
        """End it at its next await, with its file as it is now; it has to be running."""
        assert self.scope is not None
        self.wreck = FileCopy.take(self.path)
        self.on_death()
        self.scope.cancel()

    def replace(self, put: Callable[[], None]) -> None:
        """End it if it runs, and let ``put`` put another file in the place of its own once it is gone."""
        if self.scope is not None and not self.dead:
            self.crash()
        self.replacement = put
        if self.scope is None:
            self.bury()

    def bury(self) -> None:
        """After it is gone: leave what the crash has left, or what was put in its place."""
        if self.wreck is not None:
            self.wreck.put(self.path)
            self.wreck = None
        if self.replacement is not None:
            self.replacement()
            self.replacement = None


def outside(life: Mortal, dice: random.Random) -> Environment:
    """The outside world of one program: seeded, on virtual time, with a wall clock that jumps."""
    source = random.Random(dice.getrandbits(64))

    def wall_ms() -> int:
        return WALL_START_MS + life.jump_ms + int(trio.current_time() * 1000)

    ids = IdSource(wall_ms, random.Random(source.getrandbits(64)))
    return Environment(wall_ms=wall_ms, ids=ids, random=source, executor="inline")
