"""A disk that notes what it is asked for: every write, truncation, sync, creation and deletion, in order.

The VFS passes everything on to real files, which hold what the operating system would show. ``tests.power.platter`` makes
from the notes what lies on the disk when the power goes.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportIncompatibleMethodOverride=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import apsw

Event: TypeAlias = Literal["create", "write", "truncate", "sync", "sync folder", "delete"]
LOGS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was asked of the disk.

    Attributes:
        event: What.
        name: Path of the file below the disk's folder.
        inode: Which of the files that have had this name.
        at: Offset of a write, new size of a truncation, how many notes there were when a sync began.
        data: What was written.
    """

    event: Event
    name: str
    inode: int
    at: int = 0
    data: bytes = b""


def is_log(note: Note) -> bool:
    """Whether it is about a write-ahead log."""
    return note.name.endswith("-wal")


@dataclass(slots=True)
class Disk:
    """What was asked of the files below one folder.

    Attributes:
        folder: The folder.
        notes: Everything, in order.
        beside: Files that are written without SQLite, and never synced; looked at whenever the disk is asked for something.
        before_sync: Called with the name of a file before it is synced.
    """

    folder: Path
    notes: list[Note] = field(default_factory=list)
    beside: tuple[str, ...] = ()
    before_sync: Callable[[str], None] = lambda _name: None
    _inodes: dict[str, int] = field(default_factory=dict[str, int])
    _seen: dict[str, bytes] = field(default_factory=dict[str, bytes])
    _made: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, event: Event, name: str, inode: int, at: int = 0, data: bytes = b"") -> None:
        """Take a note."""
        with self._lock:
            for other in self.beside:
                self._look_at(other)
            self.notes.append(Note(event, name, inode, at, data))

    def _look_at(self, name: str) -> None:
        path = self.folder / name
        found = path.read_bytes() if path.exists() else None
        if found is None or found == self._seen.get(name):
            return
        if name not in self._seen:
            self.notes.append(Note("create", name, self.created(name)))
        self._seen[name] = found
        self.notes.append(Note("write", name, self._inodes[name], 0, found))

    def created(self, name: str) -> int:
        """The number of a file that is new."""
        self._made += 1
        self._inodes[name] = self._made
        return self._made

    def knows(self, name: str) -> bool:
        """Whether a file of that name has been noted; an empty one that was made otherwise counts as new."""
        return name in self._inodes

    def inode(self, name: str) -> int:
        """The number of the file that has the name now."""
        return self._inodes[name]


class _File(apsw.VFSFile):
    """A file of a noted disk."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        is_new = bool(path) and not (os.path.exists(path) and disk.knows(os.path.relpath(path, disk.folder)))
        super().__init__("", name, flags)
        self._disk = disk
        self._name = os.path.relpath(path, disk.folder) if path else ""
        # SQLite's own files sync the folder with the first sync of a log that they may have made
        self._tells_folder = bool(flags[0] & LOGS) and bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        self._inode = 0
        if self._name and is_new:
            self._inode = disk.created(self._name)
            disk.note("create", self._name, self._inode)
        elif self._name:
            self._inode = disk.inode(self._name)

    def xWrite(self, data: Any, offset: int) -> None:
        super().xWrite(data, offset)
        if self._name:
            self._disk.note("write", self._name, self._inode, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        if self._name:
            self._disk.note("truncate", self._name, self._inode, newsize)

    def xSync(self, flags: int) -> None:
        self._disk.before_sync(self._name)
        began = len(self._disk.notes)
        super().xSync(flags)
        self._disk.note("sync", self._name, self._inode, began)
        if self._tells_folder:
            self._tells_folder = False
            self._disk.note("sync folder", os.path.dirname(self._name), 0)


class _System(apsw.VFS):
    """The VFS of a noted disk."""

    def __init__(self, name: str, disk: Disk) -> None:
        self._disk = disk
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        name = os.path.relpath(filename, self._disk.folder)
        self._disk.note("delete", name, self._disk.inode(name))
        if syncdir:
            self._disk.note("sync folder", os.path.dirname(name), 0)


@contextmanager
def noted_disk(name: str, folder: Path, *, beside: tuple[str, ...] = ()) -> Generator[Disk]:
    """Register the VFS ``name`` for the block; what databases below ``folder`` that use it ask for is noted."""
    disk = Disk(folder, beside=beside)
    system = _System(name, disk)
    try:
        yield disk
    finally:
        system.unregister()
