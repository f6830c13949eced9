"""A nursery at a public border: its block raises one plain error, never an exception group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import cast

import trio


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside nested groups; the error itself when it is not a group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves(inner)
    else:
        yield error


def single_error(group: BaseException) -> BaseException:
    """The one error that ``group`` is about.

    Cancellations beside a real error are its echo; an interrupt comes before everything; of several errors it is the
    first, with the others in its notes.
    """
    found = list(leaves(group))
    real = [error for error in found if not isinstance(error, trio.Cancelled)] or found[:1]
    urgent = [error for error in real if not isinstance(error, Exception)]
    first = (urgent or real)[0]
    for other in real:
        if other is not first:
            first.add_note(f"also failed: {type(other).__name__}: {other}")
    return first


@asynccontextmanager
async def open_tasks() -> AsyncGenerator[trio.Nursery]:
    """A nursery for the tasks behind a public context manager.

    Leaving the block waits for its tasks, as every nursery does; an error in the block or in a task cancels the rest
    and is raised as itself.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        failure = single_error(group)
    if failure is not None:
        raise failure  # outside the except block, so that the group does not become its context
