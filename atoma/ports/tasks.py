"""A nursery at a public border: its block raises one plain error, never an exception group."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


def single_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a nursery's group stands for: the only one, or the first with the others named in its notes."""
    first, *others = group.exceptions
    for other in others:
        first.add_note(f"also failed: {type(other).__name__}: {other}")
    return first


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """A nursery for the tasks behind a public context manager.

    Leaving the block waits for its tasks, as every nursery does; an error in the block or in a task cancels the rest
    and is raised as itself.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        error = single_error(group)
        raise error from error.__cause__
