"""Scripts: what is done with a database, as batches of statements; whoever has the connection sends them.

A script is a generator. It yields a batch, statements that do not need one another's results, and is sent a list of rows
for each of them. A driver may send a batch as one pipeline or run it in order, in a thread or in a task: nothing of a script
waits, so it is written once for every database.
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
"""What is bound to a place: a value, or a list of them where the dialect has lists."""


@dataclass(frozen=True, slots=True)
class Execute:
    """A statement, run once.

    Attributes:
        sql: Its text, with numbered places.
        values: What is bound to them, in order.
        enough: Is called with every row as it is read; the rows end before the one for which it says yes. None reads them all.
        store: The store that it writes to, whose rows a constraint may refuse; ``""`` for none.
    """

    sql: str
    values: Sequence[Value] = ()
    enough: Callable[[Row], bool] | None = None
    store: str = ""


@dataclass(frozen=True, slots=True)
class ExecuteMany:
    """A statement that returns nothing, for each of many rows.

    Attributes:
        sql: Its text. Where the dialect has lists a place takes a column of ``rows``, else a value of one row.
        rows: The rows, at least one.
        store: As in :class:`Execute`.
    """

    sql: str
    rows: Sequence[Row]
    store: str = ""


Batch: TypeAlias = Sequence[Execute | ExecuteMany]
Results: TypeAlias = Sequence[Sequence[Row]]
"""The rows of each statement of a batch."""
Script: TypeAlias = Generator[Batch, Results, T]
"""Batches out, their results in, and what it was for at the end."""


class RowRefused(Exception):
    """The database refuses a row of a store; thrown into the script in place of the results of its batch.

    Args:
        store: The store.
        unique: Whether another row has a value that must be unique.
    """

    def __init__(self, store: str, *, unique: bool) -> None:
        what = f"another {store} row has a value that must be unique" if unique else ""
        super().__init__(what or f"the database refuses a value of {store}")


def resumed(script: Script[T], batch: Batch, around: Callable[[Batch], AbstractContextManager[object]]) -> Script[T]:
    """``script`` from ``batch`` on, which it has yielded; each batch is sent within ``around`` of it."""
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
        execute: Runs a statement; raises :class:`RowRefused` where that is what the database says.
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
