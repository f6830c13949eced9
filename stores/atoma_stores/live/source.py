"""What live queries need of a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from atoma.contracts.execution import QueryResult
from atoma.contracts.raw import Question
from atoma_stores.changes import CommitListener


class SnapshotMoved(Exception):
    """The database could not keep its state for the snapshot; nothing was read, and a new one has to be opened."""


class Snapshot(Protocol):
    """The database as it stands right behind one commit, whatever is committed meanwhile."""

    @property
    def commit(self) -> int:
        """The number of that commit."""
        ...

    async def answer(self, queries: Sequence[Question]) -> Sequence[QueryResult]:
        """Answer ``queries``, in their order.

        Raises:
            SnapshotMoved: The state is lost.
            QueryError: The engine refuses one of them.
            StoreError: The engine failed.
        """
        ...


@runtime_checkable
class LiveSource(Protocol):
    """A database that tells its commits, and lets one of them be looked at."""

    def subscribe_commits(self, listener: CommitListener) -> Callable[[], None]:
        """Call ``listener`` on the loop's thread after each COMMIT, in commit order; returns how to stop it."""
        ...

    async def hear_others(self) -> None:
        """Tell the listeners what other programs have committed until now.

        Raises:
            StoreError: The engine failed.
        """
        ...

    def open_snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Hold the latest commit for as long as the block runs; those of this program are told before or soon."""
        ...
