"""The past of a device: its commits, what they changed, and its rows as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from atoma.contracts.checks import is_a
from atoma.contracts.execution import QueryResult
from atoma.contracts.history import Changeset, PastCommit
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import RowKey
from atoma.errors import QueryError, ValidationError
from atoma.ports.history import LocalHistory
from atoma.query.builder import Query
from atoma.runtime.flows import Core
from atoma.runtime.reading import Reading
from atoma.runtime.results import Page
from atoma.runtime.turning import Turning
from atoma.schema.schema import Schema

T = TypeVar("T")

COMMITS_MAX = 1_000
"""So many commits are listed at a time."""


class PastView:
    """The rows of this device as they were after a commit; only for reading. Get one with ``client.history.at(commit)``.

    Versions of past rows are 0: nothing can be written over them.

    Attributes:
        commit: The commit.
    """

    def __init__(self, core: Core, schema: Schema, history: LocalHistory, commit: int) -> None:
        async def answer(query: BoundQuery, policy: str | None) -> QueryResult:
            core.guard.check()
            return await history.read_at(commit, query)

        self.commit = commit
        self._reading = Reading(core, schema, answer)

    async def query(self, query: Query[T]) -> Page[T]:
        """The rows of ``query``, a ``select(STORE)…``, as they were; ``query.after(page.end)`` is the next page.

        Raises:
            QueryError: The query does not fit the schema, or searches for words; the commit is forgotten; more than 10,000 rows of
                what it reads have changed since.
            UnknownStore: It reads a store that is not declared.
        """
        return await self._reading.query(query, None)

    async def first(self, query: Query[T]) -> T | None:
        """The first row of ``query``, or None; see :meth:`query`."""
        return await self._reading.first(query, None)

    async def count(self, query: Query[T]) -> int:
        """How many rows ``query`` matched (limit, offset and cursor do not apply); see :meth:`query`."""
        return await self._reading.count(query, None)

    async def exists(self, query: Query[T]) -> bool:
        """Whether a row matched ``query``; see :meth:`query`."""
        return await self._reading.exists(query, None)


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

    def __init__(self, core: Core, schema: Schema, history: LocalHistory, turning: Turning) -> None:
        self._core = core
        self._schema = schema
        self._history = history
        self._turning = turning

    async def commits(self, *, before: int | None = None, limit: int = 100) -> Sequence[PastCommit]:
        """Commits that changed visible rows, the newest first.

        Args:
            before: Only those before this one: the last of a page, for the next page.
            limit: At most so many, up to 1,000.

        Raises:
            QueryError: There is no such limit.
        """
        self._core.guard.check()
        if not (is_a(limit, int) and 0 < limit <= COMMITS_MAX):
            raise QueryError(f"commits() lists 1 to {COMMITS_MAX:,} commits at a time, not {limit!r}")
        return await self._history.commits(before=before, limit=limit)

    async def floor(self) -> int:
        """The oldest commit at which the past can be read; what it changed itself is forgotten."""
        self._core.guard.check()
        return await self._history.floor()

    async def changes(self, commit: int) -> Changeset:
        """What ``commit`` did to visible rows: to look at, to export, to invert and to :meth:`apply`.

        Raises:
            QueryError: The commit is forgotten, or has not been made.
        """
        self._core.guard.check()
        return await self._history.changes(commit)

    def at(self, commit: int) -> PastView:
        """The rows as they were after ``commit``, for every query that does not search for words."""
        if not is_a(commit, int):
            raise QueryError(f"a commit is told by its number, page.meta.commit for example, not by {commit!r}")
        return PastView(self._core, self._schema, self._history, commit)

    async def apply(self, changeset: Changeset) -> tuple[RowKey, ...]:
        """Do to the rows what ``changeset`` says, as one new write on this device, which syncs; store and id of the rows.

        Every field that it changes must have the value that the changeset found it with. It may come from another device, or from
        an earlier version of the program.

        Raises:
            ConflictError: A field has another value, or a row is gone or there already; nothing was written.
            ValidationError: It does not fit the stores, or is more than one write may do.
            UnknownStore: It is about a store that is not declared.
            PolicyNotAllowed: Another machine decides the writes of a store first.
        """
        self._core.guard.check()
        if not is_a(changeset, Changeset):
            raise ValidationError(
                f"apply() takes a changeset, Changeset.from_ndjson(text) for example, not {changeset!r}"
            )
        return (await self._turning.write([changeset])).rows
