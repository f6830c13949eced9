"""Cancelling at every step that a task takes, one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from atoma.testing.conformance.checks import expect

STEPS_MAX = 2_000


class _CancelAt(trio.abc.Instrument):
    """An instrument that cancels a scope before the n-th step of any task from now on; 0 leaves it alone."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self.left = at
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self.left -= 1
        if self.left == 0:
            self._scope.cancel()


async def cancelled_at(step: int, operation: Callable[[], Awaitable[object]]) -> bool:
    """Run ``operation``, cancelled before the ``step``-th step of any task (0: before it begins).

    Returns:
        False when it ended before that.

    Raises:
        AssertionError: The cancelled operation raised an error.
    """
    scope = trio.CancelScope()
    if step == 0:
        scope.cancel()
    instrument = _CancelAt(step, scope)
    trio.lowlevel.add_instrument(instrument)
    try:
        with scope:
            try:
                await operation()
            except trio.Cancelled:
                raise
            except Exception as error:
                raise AssertionError(f"cancelled at step {step}, what came out was {error!r}") from error
            instrument.left = 0
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return scope.cancel_called


async def cancel_everywhere(
    operation: Callable[[], Awaitable[object]], check_after: Callable[[], Awaitable[object]]
) -> int:
    """Cancel ``operation`` at its first step, at its second, … until it ends before; ``check_after`` each time.

    Deterministic on a virtual clock. Returns how many steps were hit.
    """
    step = 0
    while await cancelled_at(step, operation):
        await check_after()
        step += 1
        expect(step < STEPS_MAX, f"the operation was still not over after {STEPS_MAX} steps")
    await check_after()
    return step


async def cancel_sampled(
    operation: Callable[[], Awaitable[object]], check_after: Callable[[], Awaitable[object]], points: int
) -> int:
    """Cancel ``operation`` at ``points`` moments spread evenly over how long it takes; for real sockets and threads.

    Returns how often the cancel came before the end.
    """
    begun = trio.current_time()
    await operation()
    span = trio.current_time() - begun
    hit = 0
    for point in range(points):
        with trio.move_on_after(span * point / points) as scope:
            try:
                await operation()
            except trio.Cancelled:
                raise
            except Exception as error:
                raise AssertionError(f"cancelled at point {point} of {points}, what came out was {error!r}") from error
        hit += scope.cancelled_caught
        await check_after()
    return hit
