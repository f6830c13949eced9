"""A nursery whose errors come out as they are, not in a group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import cast

import trio


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside nested groups; the error itself when it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves(inner)
    else:
        yield error


def single_error(group: BaseException) -> BaseException:
    """The one error that ``group`` is about: cancellations around it are its echo. The group itself when there are more."""
    found = list(leaves(group))
    real = [error for error in found if not isinstance(error, trio.Cancelled)]
    if len(real) == 1:
        return real[0]
    return group if real else found[0]


@asynccontextmanager
async def open_flat_nursery() -> AsyncGenerator[trio.Nursery]:
    """``trio.open_nursery`` that raises a single error bare, so that no group leaves a public call."""
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        failure = single_error(group)
    if failure is not None:
        raise failure
