"""History and undo, for blocking calls; made by ``python -m atoma.bindings.generate``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import atoma.runtime.history
import atoma.runtime.undo
from atoma.bindings.blocking.host import run
from atoma.bindings.portal import Portal
from atoma.contracts.history import Changeset, PastCommit, UndoStep
from atoma.contracts.values import RowKey
from atoma.query.builder import Query
from atoma.runtime.results import Page
from atoma.runtime.undo import Undone

T = TypeVar("T")


class PastView:
    """The rows of this device as they were after a commit; only for reading. Get one with ``client.history.at(commit)``.

    Versions of past rows are 0: nothing can be written over them.

    Attributes:
        commit: The commit.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.history.PastView) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    @property
    def commit(self) -> int:
        """The commit."""
        return self._native.commit

    def query(self, query: Query[T]) -> Page[T]:
        """The rows of ``query``, a ``select(STORE)…``, as they were; ``query.after(page.end)`` is the next page.

        Raises:
            QueryError: The query does not fit the schema, or searches for words; the commit is forgotten; more than 10,000 rows of
                what it reads have changed since.
            UnknownStore: It reads a store that is not declared.
        """
        return run(self._portal, lambda: self._native.query(query))

    def first(self, query: Query[T]) -> T | None:
        """The first row of ``query``, or None; see :meth:`query`."""
        return run(self._portal, lambda: self._native.first(query))

    def count(self, query: Query[T]) -> int:
        """How many rows ``query`` matched (limit, offset and cursor do not apply); see :meth:`query`."""
        return run(self._portal, lambda: self._native.count(query))

    def exists(self, query: Query[T]) -> bool:
        """Whether a row matched ``query``; see :meth:`query`."""
        return run(self._portal, lambda: self._native.exists(query))


class CommitHistory:
    """The past that this device remembers, its own writes and the hub's pages alike; get it with ``client.history``.

    It goes back to a floor. Below that everything is forgotten: it was too old or too much, a snapshot or a very large commit has
    replaced it, or a program has written to the file that keeps no history. Rows that must not be here any more go from it at once.

    Args:
        core: What the stores of the client share.
        schema: The declared stores.
        history: The device's past.
        turning: Writes changesets.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.history.CommitHistory) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    def commits(self, *, before: int | None = None, limit: int = 100) -> Sequence[PastCommit]:
        """Commits that changed visible rows, the newest first.

        Args:
            before: Only those before this one: the last of a page, for the next page.
            limit: At most so many, up to 1,000.

        Raises:
            QueryError: There is no such limit.
        """
        return run(self._portal, lambda: self._native.commits(before=before, limit=limit))

    def floor(self) -> int:
        """The oldest commit at which the past can be read; what it changed itself is forgotten."""
        return run(self._portal, self._native.floor)

    def changes(self, commit: int) -> Changeset:
        """What ``commit`` did to visible rows: to look at, to export, to invert and to :meth:`apply`.

        Raises:
            QueryError: The commit is forgotten, or has not been made.
        """
        return run(self._portal, lambda: self._native.changes(commit))

    def at(self, commit: int) -> PastView:
        """The rows as they were after ``commit``, for every query that does not search for words."""
        return PastView(self._portal, self._native.at(commit))

    def apply(self, changeset: Changeset) -> tuple[RowKey, ...]:
        """Do to the rows what ``changeset`` says, as one new write on this device, which syncs; store and id of the rows.

        Every field that it changes must have the value that the changeset found it with. It may come from another device, or from
        an earlier version of the program.

        Raises:
            ConflictError: A field has another value, or a row is gone or there already; nothing was written.
            ValidationError: It does not fit the stores, or is more than one write may do.
            UnknownStore: It is about a store that is not declared.
            PolicyNotAllowed: Another machine decides the writes of a store first.
        """
        return run(self._portal, lambda: self._native.apply(changeset))


class UndoStack:
    """Groups of writes that can be undone and redone; get one with ``client.undo``.

    It lies in the file, so it is there after a restart. The last 100 groups are kept, as far back as the history goes.

    Args:
        core: What the stores of the client share.
        history: The device's past.
        turning: Writes what turns a group over.
        ids: Draws keys of groups.
        name: Which stack.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.undo.UndoStack) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    def scope(self, name: str) -> UndoStack:
        """Another stack, beside this one: of a document, a window, a tool."""
        return UndoStack(self._portal, self._native.scope(name))

    def group(self, label: str) -> AbstractContextManager[None]:
        """Put what is written in the block, and in the tasks that it starts, on the stack as one group.

        A group within a group of the same stack is a part of that one. The first write of a new group ends what could be redone.
        What another machine decides first is in no group, as is what the hub sends.

        Args:
            label: What the user calls it: ``Move card``.
        """
        return self._native.group(label)

    def undo(self) -> Undone | None:
        """Take the newest group back, as one new write on this device; None when there is nothing to undo.

        Every field that the group has changed must still have the group's value; other fields do not count. All of it is written,
        or nothing. What the authority had refused of the group is left out, and told.

        Raises:
            ConflictError: A field has another value by now, or a row is gone or there again; nothing was written, and the group
                stays where it is. :meth:`discard` takes it off.
            ValidationError: It has more rows of one scope than a write may have.
            PolicyNotAllowed: Another machine decides the writes of a store first.
        """
        return run(self._portal, self._native.undo)

    def redo(self) -> Undone | None:
        """Bring back what was undone last; None when there is nothing to redo. The same rules as for :meth:`undo`."""
        return run(self._portal, self._native.redo)

    def discard(self) -> UndoStep | None:
        """Take the newest group that can be undone off the stack, and leave its rows as they are; None when there is none."""
        return run(self._portal, self._native.discard)

    def steps(self) -> Sequence[UndoStep]:
        """The groups on the stack, the newest first; what is ``undone`` can be redone."""
        return run(self._portal, self._native.steps)
