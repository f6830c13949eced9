"""Live queries: a result that follows the commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeAlias, TypeVar, Union, runtime_checkable

import msgspec

from atoma.contracts.completeness import COMPLETE, Completeness
from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.raw import Question, SqlOutline
from atoma.contracts.values import StoredRow

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

ResultRow: TypeAlias = "StoredRow | tuple[object, ...]"
"""A row of a result: of a plan of whole rows a row of its store, else a tuple, see ``QueryResult.tuples``."""
ResultKey: TypeAlias = "str | tuple[object, ...]"
"""What tells the rows of a result apart: the id of a row of a store, or a tuple where a row is made of more."""


class Reset(msgspec.Struct, Generic[T_co], frozen=True):
    """Forget the result; these are the rows now."""

    rows: tuple[T_co, ...]


class Insert(msgspec.Struct, Generic[T_co], frozen=True):
    """``row`` came in at position ``at``."""

    at: int
    row: T_co


class Remove(msgspec.Struct, Generic[T_co], frozen=True):
    """The row at position ``at`` left.

    Attributes:
        at: Where it was.
        key: Its id; where a row of the result is not a row of one store, what tells it apart instead.
    """

    at: int
    key: ResultKey


class Update(msgspec.Struct, Generic[T_co], frozen=True):
    """The row at position ``at`` is now ``row``."""

    at: int
    row: T_co


class Move(msgspec.Struct, Generic[T_co], frozen=True):
    """The row at ``start`` is taken out and put in at ``end`` (a position after taking it out), and is now ``row``."""

    start: int
    end: int
    row: T_co


Change: TypeAlias = Union[Reset[T], Insert[T], Remove[T], Update[T], Move[T]]  # noqa: UP007 - generic alias


class LiveBatch(msgspec.Struct, Generic[T_co], frozen=True):
    """The changes of one step, to be applied in order and together.

    Attributes:
        commit: Commit number that the result is at after this batch.
        changes: In order; the first batch of a subscription is one ``Reset``. None when only the completeness is another one.
        completeness: Whether the result after this batch has every row, and if not, why.
    """

    commit: int
    changes: tuple[Change[T_co], ...]
    completeness: Completeness = COMPLETE


@runtime_checkable
class LiveQueries(Protocol):
    """A keeper of results that stay up to date."""

    def open_live(self, query: BoundQuery) -> AbstractAsyncContextManager[AsyncIterator[LiveBatch[ResultRow]]]:
        """Subscribe first, then take the snapshot: the first batch is a ``Reset``, and no later commit is missed.

        One batch per commit that changes the result, and one without changes when its completeness alone has become another. A
        reader that falls behind gets what it missed as one ``Reset``;
        memory is bounded. All queries of a database are at the same commit when they deliver. Rows that did not change
        are the same objects. Leaving the block (or cancelling) ends the subscription.

        Raises:
            QueryError: The query does not fit the schema.
            ClosedError: (from the iterator) the database was closed.
        """
        ...


Ask: TypeAlias = Callable[[Question], Coroutine[object, object, QueryResult]]
"""Asks for the answer to a query, at the state of the database that the function is carried out at."""


@runtime_checkable
class LiveFunctions(Protocol):
    """A keeper of values that functions make of what they read."""

    def open_function(
        self, function: Hashable, body: Callable[[Ask], Coroutine[object, object, object]]
    ) -> AbstractAsyncContextManager[AsyncIterator[LiveBatch[ResultRow]]]:
        """Follow the value of ``body`` as a result of one row, a tuple with the value; see ``LiveQueries.open_live``.

        It is carried out again when a change concerns what it has read. A value that equals the one before is not told.

        Args:
            function: What tells it from others: those who follow the same share it.
            body: Makes its coroutine, which awaits nothing but what it asks for.

        Raises:
            Exception: (from the iterator) what the function has raised; the subscription is over.
            ClosedError: (from the iterator) the database was closed.
        """
        ...


@runtime_checkable
class LiveStatements(Protocol):
    """A keeper of the results of statements in SQL that programs wrote themselves."""

    def open_statement(self, statement: SqlOutline) -> AbstractAsyncContextManager[AsyncIterator[LiveBatch[ResultRow]]]:
        """Follow the rows of ``statement`` as tuples; see ``LiveQueries.open_live``.

        It is asked again when a change concerns a field that it reads. Of equal rows nothing is told.

        Raises:
            QueryError: (from the iterator) it takes too long, or has too many rows.
            ClosedError: (from the iterator) the database was closed.
        """
        ...


def apply_batch(rows: Sequence[T], batch: LiveBatch[T]) -> tuple[T, ...]:
    """The result after ``batch``, given the result before it; ``rows`` is left as it is.

    Rows that the batch does not name stay the same objects.

    Raises:
        IndexError: The batch does not belong to ``rows``: one before it was left out.
    """
    result = list(rows)
    for change in batch.changes:
        match change:
            case Reset(rows=fresh):
                result = list(fresh)
            case Insert(at=at, row=row):
                _check_position(at, len(result) + 1)
                result.insert(at, row)
            case Remove(at=at):
                _check_position(at, len(result))
                del result[at]
            case Update(at=at, row=row):
                _check_position(at, len(result))
                result[at] = row
            case Move(start=start, end=end, row=row):
                _check_position(start, len(result))
                _check_position(end, len(result))
                del result[start]
                result.insert(end, row)
    return tuple(result)


def _check_position(at: int, size: int) -> None:
    if not 0 <= at < size:
        raise IndexError(
            f"position {at} is outside a result of {size}; apply every batch since the last Reset, in order"
        )


class LiveStats(msgspec.Struct, frozen=True):
    """The cost of one live query; identical queries on one store are one.

    Attributes:
        store: Name of the store that is read first; ``""`` for a plan over another plan.
        query: The query as text.
        rows: Rows of the result now.
        subscribers: Open subscriptions.
        evaluations: How often it took changes, or its rows from the database.
        skipped: Commits on the store that were seen not to touch the result.
        mean_us: Mean cost of an evaluation in microseconds, reading and comparing together.
        last_us: Cost of the last one, in microseconds.
        tier: 0 is followed from the changed rows alone; of 1 what is made of changed rows is read again; 2 is asked again
            when a change may concern it.
        reason: Why, and how, in words.
        held: Rows kept in memory for it.
        bytes: What that takes, estimated.
        reads: How often rows were read from the database for it.
        question: The query itself.
    """

    store: str
    query: str
    rows: int
    subscribers: int
    evaluations: int
    skipped: int
    mean_us: float
    last_us: float
    tier: int = 2
    reason: str = ""
    held: int = 0
    bytes: int = 0
    reads: int = 0
    question: Question | None = None


@runtime_checkable
class LiveInspection(Protocol):
    """The questions of an inspector to the live queries of a database."""

    def stats(self) -> tuple[LiveStats, ...]:
        """One entry per distinct live query, in the order they were opened."""
        ...

    def explain(self, query: BoundQuery | SqlOutline) -> str:
        """How ``query`` is followed, or would be: ``tier 0: follows the changed rows in Python; …``.

        Raises:
            QueryError: It does not fit the schema, or cannot be followed.
        """
        ...
