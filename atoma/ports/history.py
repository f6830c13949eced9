"""What a device remembers of its past, as whoever asks for it sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from atoma.contracts.execution import QueryResult
from atoma.contracts.history import Changeset, PastCommit, TurnedOver, UndoStep
from atoma.contracts.query import BoundQuery


class LocalHistory(Protocol):
    """The past of an open local database."""

    async def commits(self, *, before: int | None, limit: int) -> Sequence[PastCommit]:
        """Commits that are remembered, the newest first; those before a number when it is given."""
        ...

    async def floor(self) -> int:
        """The oldest commit at which the past can be read; what it changed itself is forgotten."""
        ...

    async def changes(self, commit: int) -> Changeset:
        """What the commit did to visible rows; nothing for one that changed none.

        Raises:
            QueryError: It is forgotten, or has not been made.
        """
        ...

    async def read_at(self, commit: int, query: BoundQuery) -> QueryResult:
        """Answer ``query`` from the visible rows as they were after the commit.

        Raises:
            QueryError: The commit is forgotten, or has not been made; too many rows have changed since; the query searches.
        """
        ...

    async def steps(self, stack: str) -> Sequence[UndoStep]:
        """The groups of a stack, the newest first."""
        ...

    async def newest(self, stack: str, *, undone: bool) -> TurnedOver | None:
        """The group that is to be undone next, or the one that is to be redone next; None when there is none."""
        ...

    async def drop(self, group: str) -> None:
        """Take a group off its stack."""
        ...


@runtime_checkable
class KeepsHistory(Protocol):
    """A local database that can remember its past."""

    @property
    def history(self) -> LocalHistory | None:
        """Its past; None when it was opened without one."""
        ...


def history_of(database: object) -> LocalHistory | None:
    """The past of a local database; None when there is no database, or it remembers nothing."""
    return database.history if isinstance(database, KeepsHistory) else None
