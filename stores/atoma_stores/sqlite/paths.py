"""Where a file's reads and writes run: on the loop's thread, or in another one. Here alone it is chosen.

Which way a call takes depends on how long it takes and on who is at work beside it, so a test that passes has seen one way
by chance. :func:`forced_paths` has every call take the same way.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, TypeAlias

ReadPath: TypeAlias = Literal["quick", "loop", "moved", "pool"]
"""``quick``: on the loop's thread, and anew in the pool when that takes long; scans in the pool. Forced: all on the loop's
thread; begun there and anew in the pool; in the pool."""
Writes: TypeAlias = Literal["quick", "loop", "thread"]
"""``quick``: short ones that need no fsync on the loop's thread while nobody else writes, all others in the writer's
thread. Forced: all on the loop's thread, as long as nobody else writes; in the thread."""

LOOP_READ_S = 0.0005
PROGRESS_STEPS = 2_000
"""After so many of its steps SQLite asks whether it is to go on."""
MOVED_STEPS = 7


@dataclass(frozen=True, slots=True)
class Paths:
    """The choice of where work runs.

    Attributes:
        reads: See :data:`ReadPath`.
        writes: See :data:`Writes`.
    """

    reads: ReadPath = "quick"
    writes: Writes = "quick"

    def reads_on_loop(self, *, scan: bool) -> bool:
        """Whether a read begins on the loop's thread; a ``scan`` is expected to take long."""
        return self.reads == "loop" or (self.reads != "pool" and not scan)

    def writes_on_loop(self, *, full: bool, bulk: bool) -> bool:
        """Whether a write may be committed on the loop's thread when nobody is in the way."""
        return self.writes == "loop" or (self.writes == "quick" and not full and not bulk)

    @property
    def patience_s(self) -> float:
        """How long a read may keep the loop, in seconds."""
        match self.reads:
            case "loop":
                return math.inf
            case "moved":
                return -math.inf
            case _:
                return LOOP_READ_S

    @property
    def steps(self) -> int:
        """After so many of SQLite's steps a read is asked how long it has taken."""
        return MOVED_STEPS if self.reads == "moved" else PROGRESS_STEPS


_forced: ContextVar[Paths | None] = ContextVar("atoma_forced_paths", default=None)


@contextmanager
def forced_paths(paths: Paths) -> Generator[None]:
    """Have every file that is opened inside the block take ``paths``; for tests.

    Files are opened as they are in production, also on virtual time: with a connection per reader, the writer's thread and
    the pool. What threads do is then done in steps on the loop's thread, because virtual time jumps while a thread works.
    """
    token = _forced.set(paths)
    try:
        yield
    finally:
        _forced.reset(token)


def current_paths() -> Paths | None:
    """What is forced here, None for nothing."""
    return _forced.get()
