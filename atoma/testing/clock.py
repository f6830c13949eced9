"""Virtual time for a test, with any runner of tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import ParamSpec

import trio
from trio.testing import MockClock

from atoma.ports.tasks import single_error

P = ParamSpec("P")


def virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Make an ``async`` test a plain one that runs under Trio on virtual time.

    Nothing sleeps: the clock jumps to the next deadline as soon as every task waits. The test keeps its arguments, so
    fixtures and parameters work as ever, and a failure in it is raised as itself and not in an exception group.
    """

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        failure: BaseException | None = None
        try:
            trio.run(partial(test, *args, **kwargs), clock=MockClock(autojump_threshold=0))
        except BaseExceptionGroup as group:
            failure = single_error(group)
        if failure is not None:
            raise failure

    return run
