"""The ports through which live queries see a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from atoma.contracts.execution import QueryResult
from atoma.contracts.raw import Question
from atoma_stores.changes import CommitListener


class SnapshotMoved(Exception):
    """A lost snapshot: the database could not keep its state; nothing was read, and a new one has to be opened."""


class Snapshot(Protocol):
    """The state of the database right after one commit, whatever is committed meanwhile."""

    @property
    def commit(self) -> int:
        """The number of that commit."""
        ...

    async def answer(self, queries: Sequence[Question]) -> Sequence[QueryResult]:
        """Answer ``queries`` in their order.

        Raises:
            SnapshotMoved: The state is lost.
            QueryError: The engine refuses one of them.
            StoreError: The engine failed.
        """
        ...


@runtime_checkable
class LiveSource(Protocol):
    """A database that reports its commits, and can be read as of one of them."""

    def subscribe_commits(self, listener: CommitListener) -> Callable[[], None]:
        """Call ``listener`` on the loop's thread after each COMMIT, in commit order; return a function that ends this."""
        ...

    async def hear_others(self) -> None:
        """Report to the listeners what other programs have committed so far.

        Raises:
            StoreError: The engine failed.
        """
        ...

    def open_snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Hold the latest commit for the block; a commit of this program has been reported, or soon will be."""
        ...
