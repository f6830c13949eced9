"""Planted faults: a disk, SQLite or the product that does not do what it says, for the cuts to find.

What SQLite and the disk do wrong is planted into the notes of a story, what the product does wrong into the product. More
of the latter, in its source, is in ``tests.campaigns.plants.durability``.
"""

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import pytest

from atoma_stores.sqlite._threads import Job
from atoma_stores.sqlite._writer import Body, Writer
from tests.power.disk import Note, is_log
from tests.power.platter import Ignores

Plant: TypeAlias = Callable[[pytest.MonkeyPatch], None]
LATE = 40


def is_database(note: Note) -> bool:
    """Whether it is about a database file."""
    return note.name.endswith(".db")


DEAF: Mapping[str, Ignores] = {
    "the disk lies about every sync": lambda _note: True,
    "no log is synced": lambda note: note.event == "sync" and is_log(note),
    "a checkpoint does not sync the database": lambda note: note.event == "sync" and is_database(note),
    "the folder of a new file is not synced": lambda note: note.event == "sync folder",
    "every third sync of a log is left out": lambda note: note.event == "sync" and is_log(note) and note.at % 3 == 0,
}
"""Syncs that are not carried out."""


def begun_anew_too_early(notes: Sequence[Note]) -> tuple[list[Note], list[int]]:
    """The log begins anew, or is truncated, before the database that it was copied into is synced.

    Returns:
        The notes in that order, and the moments in between.
    """
    found, between = list(notes), list[int]()
    for place in reversed([place for place, note in enumerate(notes) if note.event == "sync" and is_database(note)]):
        log = f"{notes[place].name}-wal"
        anew = (at for at in range(place, len(notes)) if notes[at].name == log and _begins_anew(notes[at]))
        begun = next(anew, place)
        late = min(begun + LATE, len(notes) - 1)
        found.insert(late, found.pop(place))
        between += range(begun, late)
    return found, between


def _begins_anew(note: Note) -> bool:
    return note.event in ("truncate", "delete") or (note.event == "write" and note.at == 0)


def syncs_late(patch: pytest.MonkeyPatch) -> None:
    """A transaction is acknowledged before the sync, which comes with the next one."""
    begin = Writer._begin
    owed: set[Writer] = set()

    def begin_unsynced(writer: Writer, full: bool, may_wait: bool) -> None:
        if writer in owed:
            begin(writer, True, may_wait)
            writer._touch()
            writer.connection.execute("COMMIT")
            owed.discard(writer)
        begin(writer, False, may_wait)
        if full:
            owed.add(writer)

    patch.setattr(Writer, "_begin", begin_unsynced)


def commits_late(patch: pytest.MonkeyPatch) -> None:
    """A transaction of the device is acknowledged before its COMMIT, which comes when somebody reads or writes."""
    begin, commit = Writer._begin, Writer._commit

    def make_up_for_it(writer: Writer) -> None:
        if writer.connection.in_transaction:
            commit(writer, [])

    def begin_after_all(writer: Writer, full: bool, may_wait: bool) -> None:
        make_up_for_it(writer)
        begin(writer, full, may_wait)

    def acknowledge(writer: Writer, done: list[Job[Body]]) -> None:
        if not writer.path.endswith("a.db") or writer.commits < 4:
            commit(writer, done)
        writer.commits += 1

    def looked_at(writer: Writer) -> str | None:  # by every read
        make_up_for_it(writer)
        found: str | None = vars(writer).get("_poison")
        return found

    patch.setattr(Writer, "_begin", begin_after_all)
    patch.setattr(Writer, "_commit", acknowledge)
    poison = property(looked_at, lambda writer, value: vars(writer).__setitem__("_poison", value))
    patch.setattr(Writer, "poison", poison, raising=False)


PLANTED: Mapping[str, Plant] = {
    "acknowledged before the sync": syncs_late,
    "acknowledged before the commit": commits_late,
}
