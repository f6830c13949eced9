"""A VFS that fails on command: full disks, failing writes, failing and slow fsyncs, for any test that needs them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportIncompatibleMethodOverride=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import apsw

Operation: TypeAlias = Literal["write", "sync", "truncate"]
DiskFailure: TypeAlias = Literal["full", "io"]


@dataclass(slots=True)
class FaultPlan:
    """A plan of what fails next, with an account of what has happened.

    Attributes:
        operation: Which operation fails; None while everything works.
        failure: How: the disk is full, or the device fails.
        skip: How many of these operations still succeed.
        once: Whether only one of them fails.
        on_sync: Called before each fsync, by the thread that waits for it; for a disk that is slow.
        after: Called with each operation that has worked, and the path of its file.
        done: Operations so far, failed ones too.
        failed: How many have failed, and how.
    """

    operation: Operation | None = None
    failure: DiskFailure = "full"
    skip: int = 0
    once: bool = False
    on_sync: Callable[[], None] | None = None
    after: Callable[[Operation, str], None] = lambda _operation, _path: None
    done: Counter[Operation] = field(default_factory=Counter)
    failed: Counter[DiskFailure] = field(default_factory=Counter)

    def fail(self, operation: Operation, failure: DiskFailure, *, skip: int = 0, once: bool = False) -> None:
        """Let ``operation`` fail after ``skip`` more of them, from then on or ``once``."""
        self.operation, self.failure, self.skip, self.once = operation, failure, skip, once

    def heal(self) -> None:
        """Let everything work again."""
        self.operation = None

    def before(self, operation: Operation) -> None:
        """Count the operation, and fail it if it is its turn.

        Raises:
            apsw.FullError: The disk is "full".
            apsw.IOError: The device "failed".
        """
        self.done[operation] += 1
        if operation != self.operation:
            return
        if self.skip > 0:
            self.skip -= 1
            return
        if self.once:
            self.operation = None
        self.failed[self.failure] += 1
        if self.failure == "full":
            raise apsw.FullError("planned: no space left")
        error = apsw.IOError("planned: the device failed")
        vars(error)["extendedresult"] = apsw.SQLITE_IOERR_FSYNC if operation == "sync" else apsw.SQLITE_IOERR_WRITE
        raise error


class _File(apsw.VFSFile):
    def __init__(self, plan: FaultPlan, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._plan = plan
        self._path: str = (name.filename() if isinstance(name, apsw.URIFilename) else name) or ""

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - apsw's name
        self._plan.before("write")
        super().xWrite(data, offset)
        self._plan.after("write", self._path)

    def xSync(self, flags: int) -> None:  # noqa: N802 - apsw's name
        self._plan.before("sync")
        if self._plan.on_sync is not None:
            self._plan.on_sync()
        super().xSync(flags)
        self._plan.after("sync", self._path)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - apsw's name
        self._plan.before("truncate")
        super().xTruncate(newsize)
        self._plan.after("truncate", self._path)


class _System(apsw.VFS):
    def __init__(self, name: str, plan: FaultPlan) -> None:
        self._plan = plan
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - apsw's name
        return _File(self._plan, name, flags)


@contextmanager
def fault_vfs(name: str) -> Generator[FaultPlan]:
    """Register the VFS ``name`` for the block; databases opened with ``vfs=name`` obey the plan it gives."""
    plan = FaultPlan()
    system = _System(name, plan)
    try:
        yield plan
    finally:
        system.unregister()
