"""Scripts: database work as batches of statements, which are sent by the owner of the connection.

A script is a generator. It yields a batch, statements that do not need one another's results, and is sent a list of rows
for each of them. A driver may send a batch as one pipeline or run it in order, in a thread or in a task: a script itself
never waits, so it is written once for all databases.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar, cast

from atoma.contracts.values import Scalar

T = TypeVar("T")

Row: TypeAlias = tuple[Scalar, ...]
Value: TypeAlias = Scalar | Sequence[Scalar]
"""The value that is bound to a place, or a list of values if the dialect has lists."""


@dataclass(frozen=True, slots=True)
class Execute:
    """A statement that is run once.

    Attributes:
        sql: Its text, with numbered places.
        values: The values of these places, in order.
        enough: Called with every row as it is read; the rows end before the first one for which it is true. None reads all rows.
        store: The store that it writes to, whose rows a constraint may refuse; ``""`` for none.
    """

    sql: str
    values: Sequence[Value] = ()
    enough: Callable[[Row], bool] | None = None
    store: str = ""


@dataclass(frozen=True, slots=True)
class ExecuteMany:
    """A statement that is run for each of many rows and returns nothing.

    Attributes:
        sql: Its text. If the dialect has lists, a place takes a column of ``rows``, otherwise a value of one row.
        rows: The rows; at least one.
        store: As in :class:`Execute`.
    """

    sql: str
    rows: Sequence[Row]
    store: str = ""


Batch: TypeAlias = Sequence[Execute | ExecuteMany]
Results: TypeAlias = Sequence[Sequence[Row]]
"""The rows of each statement of a batch."""
Script: TypeAlias = Generator[Batch, Results, T]
"""A generator that yields batches, is sent their results, and returns its own result."""


class RowRefused(Exception):
    """A refusal of a store's row by the database, thrown into the script in place of the results of its batch.

    Args:
        store: The store.
        unique: Whether another row has a value that must be unique.
    """

    def __init__(self, store: str, *, unique: bool) -> None:
        what = f"another {store} row has a value that must be unique" if unique else ""
        super().__init__(what or f"the database refuses a value of {store}")


def resumed(script: Script[T], batch: Batch, around: Callable[[Batch], AbstractContextManager[object]]) -> Script[T]:
    """Continue ``script`` from ``batch``, which it has yielded; each batch is sent within ``around(batch)``."""
    try:
        while True:
            try:
                with around(batch):
                    results = yield batch
            except Exception as error:
                advance = partial(script.throw, error)
            else:
                advance = partial(script.send, results)
            try:
                batch = advance()
            except StopIteration as end:
                return cast("T", end.value)
    finally:
        script.close()


def run_in_order(script: Script[T], execute: Callable[[Execute | ExecuteMany], Sequence[Row]]) -> T:
    """Drive ``script`` with a connection that runs one statement after the other.

    Args:
        script: The script.
        execute: Runs a statement; raises :class:`RowRefused` if the database refuses a row.
    """
    try:
        batch = next(script)
        while True:
            try:
                results = [execute(statement) for statement in batch]
            except RowRefused as refused:
                batch = script.throw(refused)
            else:
                batch = script.send(results)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        script.close()
