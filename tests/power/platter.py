"""What lies on a disk when the power goes: all that was synced, and of the rest whatever chance keeps.

What was written since the last sync of a file survives sector by sector, in any order; names that were made or taken away
since the last sync of their folder are there or not. The disk does not touch a byte that nobody wrote (SQLite relies on
that), but a sector that it was writing may hold anything where it was written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from tests.power.disk import Note

SECTOR = 512
TORN = 0.02
Survivors: TypeAlias = Literal["nothing", "everything", "some", "first", "last", "window"]
"""What survives of what was not synced: ``some`` keeps any of it, ``first``, ``last`` and ``window`` a part of the order."""
SURVIVORS: tuple[Survivors, ...] = get_args(Survivors)
Files: TypeAlias = dict[str, bytes]
Ignores: TypeAlias = Callable[[Note], bool]


@dataclass(slots=True)
class _Content:
    """A file: what is safe, and what was asked since."""

    safe: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, Note]] = field(default_factory=list)


class Platter:
    """The disk as it is at one moment of the notes.

    Args:
        notes: All notes.
        ignores: Syncs that the disk does not carry out: planted faults.
    """

    def __init__(self, notes: Sequence[Note], ignores: Ignores = lambda _note: False) -> None:
        self._notes = notes
        self._ignores = ignores
        self._files: dict[int, _Content] = {}
        self._names: dict[str, list[int | None]] = {}
        self.at = 0

    def advance(self, to: int) -> None:
        """Go on to the moment at which ``to`` notes have been taken."""
        while self.at < to:
            self._take(self._notes[self.at])
            self.at += 1

    def _take(self, note: Note) -> None:
        match note.event:
            case "create":
                self._files[note.inode] = _Content()
                self._names.setdefault(note.name, [None]).append(note.inode)
            case "delete":
                self._names[note.name].append(None)
            case "write" | "truncate":
                self._files[note.inode].since.append((self.at, note))
            case "sync" if not self._ignores(note):
                content = self._files[note.inode]
                for when, one in content.since:
                    if when < note.at:
                        _apply(content.safe, one)
                content.since = [(when, one) for when, one in content.since if when >= note.at]
            case "sync folder" if not self._ignores(note):
                for name, entries in self._names.items():
                    if name.rpartition("/")[0] == note.name:
                        del entries[:-1]
            case _:
                pass

    @property
    def unsynced(self) -> int:
        """How many writes and truncations would be at the mercy of a cut now."""
        return sum(len(content.since) for content in self._files.values())

    def cut(self, machine: str, dice: random.Random, survivors: Survivors) -> Files:
        """The files of ``machine`` after its power has gone now, those of every other one as they are."""
        found: Files = {}
        keep = dice.choice((0.1, 0.5, 0.9)) if survivors == "some" else 1.0
        for name, entries in self._names.items():
            hit = name.startswith(f"{machine}/")
            inode = _entry(entries, dice, survivors) if hit else entries[-1]
            if inode is None:
                continue
            content = self._files[inode]
            data = bytearray(content.safe)
            since = [note for _, note in content.since]
            for piece in _kept(since, keep, dice, survivors) if hit else since:
                _apply(data, piece)
            found[name] = bytes(data)
        return found


def _entry(entries: Sequence[int | None], dice: random.Random, survivors: Survivors) -> int | None:
    if survivors == "nothing":
        return entries[0]
    return entries[-1] if survivors == "everything" else dice.choice(entries)


def _apply(data: bytearray, note: Note) -> None:
    if note.event == "truncate":
        del data[note.at :]
        data.extend(bytes(note.at - len(data)))
        return
    data.extend(bytes(max(0, note.at - len(data))))
    data[note.at : note.at + len(note.data)] = note.data


def _kept(since: Sequence[Note], keep: float, dice: random.Random, survivors: Survivors) -> Iterator[Note]:
    if survivors == "nothing":
        return
    first, last = sorted(dice.randrange(len(since) + 1) for _ in range(2))
    begin = first if survivors in ("last", "window") else 0
    end = last if survivors in ("first", "window") else len(since)
    for note in since[begin:end]:
        if survivors == "everything":
            yield note
            continue
        for piece in _sectors(note):
            if keep == 1.0 or dice.random() < keep:
                yield _torn(piece, dice) if dice.random() < TORN else piece


def _sectors(note: Note) -> Iterator[Note]:
    """The parts of a write that are written on their own: no sector is divided."""
    if note.event != "write":
        yield note
        return
    start, end = note.at, note.at + len(note.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield Note("write", note.name, note.inode, start, note.data[start - note.at : stop - note.at])
        start = stop


def _torn(piece: Note, dice: random.Random) -> Note:
    if piece.event != "write":
        return piece
    good = dice.randrange(len(piece.data) + 1)
    data = piece.data[:good] + dice.randbytes(len(piece.data) - good)
    return Note("write", piece.name, piece.inode, piece.at, data)


def lay_down(files: Files, folder: Path) -> None:
    """Write ``files`` below ``folder``."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
