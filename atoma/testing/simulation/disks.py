"""The disk under one program's file: it is full, it fails, and with the power goes what it was never told to keep."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from atoma.errors import StoreError
from atoma.testing.simulation.encounters import Fault
from atoma.testing.simulation.files import FileCopy
from atoma.testing.simulation.memory import Memory
from atoma.testing.simulation.report import Violation
from atoma_stores.sqlite.faults import FaultPlan, Operation, fault_vfs

WRITES_MAX = 6
LOG = "-wal"


@dataclass
class Disk:
    """A disk that holds one file, with its log.

    Attributes:
        path: The file.
        vfs: The name under which SQLite knows it.
        plan: What fails.
        kept: What is known of the file as the power would leave it.
    """

    path: Path
    vfs: str
    plan: FaultPlan
    kept: Memory = field(default_factory=Memory)
    _struck_before: int = 0
    _doubtful_before: int = 0
    _synced: bool = False
    _dirty: set[str] = field(default_factory=set[str])
    _contents: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def struck(self) -> bool:
        """Whether something has failed, or may, since the program was opened last: it may say so, and end."""
        return self.plan.operation is not None or self.plan.failed.total() > self._struck_before

    @property
    def doubtful(self) -> bool:
        """Whether it has failed since: a program that cannot know what its file holds has to be opened again."""
        return self.plan.failed["io"] > self._doubtful_before

    def begin(self, memory: Memory | None = None) -> None:
        """A program is about to be opened on the file: what lies there counts as kept, with what is known of it."""
        if memory is not None:
            self.kept = memory.copy()
        self._struck_before, self._doubtful_before = self.plan.failed.total(), self.plan.failed["io"]
        self._synced = False
        self._dirty.clear()
        self._contents = {str(path): path.read_bytes() for path in self._files() if path.exists()}

    def strike(self, fault: Fault, dice: random.Random) -> None:
        """Let it be full, or fail, from one of its next operations on."""
        if fault in (Fault.DISK_FULL, Fault.HUB_DISK_FULL):
            self.plan.fail("write", failure="full", skip=dice.randrange(WRITES_MAX))
        else:
            operation: Operation = dice.choice(("write", "sync"))
            self.plan.fail(operation, failure="io", skip=dice.randrange(WRITES_MAX), once=dice.random() < 0.5)

    def noted(self, operation: Operation, path: str) -> None:
        """Something was done to one of its files."""
        if operation == "sync":
            self._dirty.discard(path)
            self._contents[path] = Path(path).read_bytes()
            self._synced = True
        else:
            self._dirty.add(path)

    def observed(self, before: Memory, memory: Memory) -> None:
        """A commit was looked at: what is known of the file goes with the last sync; it came before this commit, or with it."""
        self._synced = False
        self.kept = before if str(self._log) in self._dirty else memory.copy()

    @property
    def is_synced(self) -> bool:
        """Whether it was told to keep something, and nobody has looked at that yet."""
        return self._synced

    def remains(self, memory: Memory) -> tuple[FileCopy, Memory]:
        """The file, should the power go now, and what is known of it then.

        Raises:
            Violation: I1: a write that was told durable is not in it.
        """
        if self._synced:
            self.kept = memory.copy()
        known = self.kept.copy()
        if gone := sorted(memory.promised - known.tokens.keys()):
            raise Violation("I1", self.path.name, f"told durable, and gone with the power: {gone}")
        return self.left(), replace(known, promised=set(memory.promised))

    def left(self) -> FileCopy:
        """The file and its log as the power would leave them, should it go now."""
        main, log = (self._contents.get(str(path)) for path in self._files())
        return FileCopy(main, log, FileCopy.take(self.path).beside)

    @property
    def has_tail(self) -> bool:
        """Whether something was written that it was not told to keep."""
        return bool(self._dirty)

    @property
    def _log(self) -> Path:
        return self.path.with_name(self.path.name + LOG)

    def _files(self) -> tuple[Path, Path]:
        return self.path, self._log


@contextmanager
def disk(path: Path) -> Generator[Disk]:
    """A disk for the file at ``path``, for the block."""
    with fault_vfs(f"simulated {path}") as plan:
        made = Disk(path, f"simulated {path}", plan)
        plan.after = made.noted
        yield made


def is_of_a_disk(error: BaseException) -> bool:
    """Whether a program has ended because of its disk, and says so."""
    if not isinstance(error, BaseExceptionGroup):
        return isinstance(error, StoreError)
    several = cast("BaseExceptionGroup[BaseException]", error)
    return all(is_of_a_disk(each) for each in several.exceptions)
