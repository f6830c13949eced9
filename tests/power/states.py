"""Every state that a database file has had after a commit, read from what was written into its log.

This reads SQLite's documented format and nothing of the product: a commit is a frame that says so, the state after it is
every page as it was written last. A file that is found after a power cut holds one of these states to the byte, or it is
corrupt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.power.disk import Note

HEADER, FRAME = 32, 24


@dataclass(slots=True)
class States:
    """The states of one database file.

    Args:
        notes: What the disk was asked for.
        name: The database file, below the folder of the disk.

    Attributes:
        commits: How many notes had been taken when each commit was written.
    """

    notes: Sequence[Note]
    name: str
    commits: list[int] = field(default_factory=list)
    _numbers: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    _pages: dict[int, int] = field(default_factory=dict[int, int])
    _sum: int = 0
    _log: bytearray = field(default_factory=bytearray)
    _frames: int = 0

    def __post_init__(self) -> None:
        log = f"{self.name}-wal"
        for number, note in enumerate(self.notes, 1):
            if note.name == log:
                self._take(note, number)

    def numbers(self, content: bytes) -> list[int]:
        """After which commits, counted from 1, the file was ``content``; nothing when it never was."""
        size = int.from_bytes(content[16:18], "big")
        pages = (content[start : start + size] for start in range(0, len(content), size))
        return self._numbers.get(sum(_digest(number, page) for number, page in enumerate(pages, 1)), [])

    def _take(self, note: Note, number: int) -> None:
        if note.event in ("create", "delete"):
            self._log, self._frames = bytearray(), 0
        elif note.event == "truncate":
            del self._log[note.at :]
        elif note.event == "write":
            self._log.extend(bytes(max(0, note.at - len(self._log))))
            self._log[note.at : note.at + len(note.data)] = note.data
            if note.at == 0:
                self._frames = 0  # a log begins anew with its header
            elif (note.at - HEADER - FRAME) % self._step == 0:
                self._end_frame((note.at - HEADER - FRAME) // self._step + 1, number)

    @property
    def _step(self) -> int:
        return FRAME + int.from_bytes(self._log[8:12], "big")

    def _end_frame(self, last: int, number: int) -> None:
        head, _ = self._frame(last)
        size = int.from_bytes(head[4:8], "big")
        if not size:
            return
        for place in range(self._frames + 1, last + 1):
            head, page = self._frame(place)
            self._put(int.from_bytes(head[:4], "big"), page)
        for page_number in [one for one in self._pages if one > size]:
            self._sum -= self._pages.pop(page_number)
        assert len(self._pages) == size, "every page has been in the log"
        self._frames = last
        self.commits.append(number)
        self._numbers.setdefault(self._sum, []).append(len(self.commits))

    def _frame(self, place: int) -> tuple[bytes, bytes]:
        start = HEADER + (place - 1) * self._step
        return bytes(self._log[start : start + FRAME]), bytes(self._log[start + FRAME : start + self._step])

    def _put(self, number: int, page: bytes) -> None:
        digest = _digest(number, page)
        self._sum += digest - self._pages.get(number, 0)
        self._pages[number] = digest


def _digest(number: int, page: bytes) -> int:
    # a sum of these tells states apart, and one page can be taken out of it
    return int.from_bytes(hashlib.blake2b(page, digest_size=16, salt=number.to_bytes(8, "big")).digest(), "big")
