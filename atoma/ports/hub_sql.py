"""Who is told of the SQL of a hub's call: whoever serves the call asks, and the database notes what it sends for it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from atoma.contracts.events import SqlBatch, SqlKind

BATCHES_MAX: Final = 32
"""Batches of one call that are told of; a group that is written one decision at a time has two for each of them."""


class SqlNotes:
    """The notes of one call about its SQL, which a database may write from any thread.

    Args:
        clock: Monotonic seconds, in any thread.
    """

    __slots__ = ("_batches", "_last", "began", "clock", "left_out")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.began = self._last = clock()
        self.left_out = 0
        self._batches: list[SqlBatch] = []

    @property
    def batches(self) -> tuple[SqlBatch, ...]:
        """What was noted."""
        return tuple(self._batches)

    def note(self, kind: SqlKind, system: str, statements: int, *, began: float, calls: int = 1) -> None:
        """Note a batch that has ended now.

        Args:
            kind: What it was for.
            system: The database.
            statements: How many there were.
            began: When, by :attr:`clock`.
            calls: How many calls had a part in it.
        """
        self._last = self.clock()
        if len(self._batches) < BATCHES_MAX:
            self._batches.append(SqlBatch(kind, system, statements, calls, began - self.began, self._last - began))
        else:
            self.left_out += 1

    def note_commit(self, system: str) -> None:
        """Note the COMMIT that came after the last batch and has ended now, with whatever else was in the transaction."""
        calls = self._batches[-1].calls if self._batches else 1
        self.note("commit", system, 1, began=self._last, calls=calls)


NOTES: ContextVar[SqlNotes | None] = ContextVar("atoma sql notes", default=None)
"""Where the SQL of the call is noted that the task is at; None where nobody asks, and nothing is measured."""
