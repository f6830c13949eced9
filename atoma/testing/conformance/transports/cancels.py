"""Cancelling and deadlines: the caller's scope reaches the handler, at whatever moment."""

from __future__ import annotations

import trio

from atoma.errors import RemoteError
from atoma.testing.conformance.cancelling import cancel_everywhere, cancel_sampled
from atoma.testing.conformance.checks import expect, expect_equal, expect_error, open_background
from atoma.testing.conformance.stage import NOTIFY, Stage, pull, push, transport_table, write
from atoma_transports.adapters import ServiceProxy

CHECKS = transport_table()

BUDGET_S = 0.3
ROUNDING_S = 0.002
POINTS = 12
LARGE = 1024 * 1024


@CHECKS.add
async def cancelling_a_call_cancels_its_handler(stage: Stage) -> None:
    """The handler of a cancelled call sees ``Cancelled`` promptly, and the channel goes on."""
    async with stage.service() as service:
        stage.hub.on_pull = trio.sleep_forever
        async with open_background() as nursery:
            nursery.start_soon(service.pull, pull())
            await stage.until(lambda: stage.hub.active == 1, "the call did not arrive")
        began = trio.current_time()
        await stage.until(lambda: stage.hub.cancelled == 1, "the handler of a cancelled call goes on")
        if stage.virtual:
            expect(trio.current_time() - began <= 0.1, "the handler saw the cancel after more than 0.1 s")
        await stage.check_answers(service)


@CHECKS.add
async def the_callers_deadline_holds_at_the_far_end(stage: Stage) -> None:
    """The caller's deadline travels with the call: the handler has what is left of it, and is stopped when it passes."""
    async with stage.service() as service:
        stage.hub.on_pull = trio.sleep_forever
        began = trio.current_time()
        with expect_error(trio.TooSlowError, what="a call with a deadline"), trio.fail_after(BUDGET_S):
            await service.pull(pull())
        took = trio.current_time() - began
        expect(took >= BUDGET_S - ROUNDING_S, f"the call ended after {took:g} s; its deadline was {BUDGET_S:g} s away")
        if stage.virtual:
            expect(took < 2 * BUDGET_S, f"the call ended after {took:g} s")
        await stage.idle()
        (budget,) = stage.hub.budgets
        expect(0 < budget <= BUDGET_S + ROUNDING_S, f"the handler began with a budget of {budget:g} s")
        await stage.check_answers(service)


@CHECKS.add
async def a_deadline_that_both_ends_see_is_told_by_the_callers_scope(stage: Stage) -> None:
    """When the server notices the deadline first, the caller's own scope ends the call all the same.

    A TIMEOUT long before the caller's deadline, or without one, is the server's answer: a RemoteError.
    """
    async with stage.service() as service:
        stage.hub.failure = RemoteError("too late", remote_code="TIMEOUT", remote_retryable=True)
        with expect_error(trio.TooSlowError, what="a call whose deadline is near"), trio.fail_after(0.2):
            await service.pull(pull())
        for seconds in (60, float("inf")):
            with expect_error(RemoteError, what="a call whose deadline is far") as caught, trio.fail_after(seconds):
                await service.pull(pull())
            expect_equal(caught.error.remote_code, "TIMEOUT", "the code")


@CHECKS.add
async def a_deadline_in_the_past_sends_nothing(stage: Stage) -> None:
    """A call in a scope that is cancelled already raises Cancelled and reaches no handler."""
    async with stage.service() as service:
        with trio.CancelScope() as scope:
            scope.cancel()
            await service.push(push(b"x"))
            raise AssertionError("a cancelled call came back")
        expect(scope.cancelled_caught, "the cancel was swallowed")
        await stage.check_answers(service)
        expect_equal(stage.hub.applied, [], "what was applied")


@CHECKS.add
async def a_call_may_be_cancelled_at_every_await(stage: Stage) -> None:
    """Wherever a call, large or small, a stream or a connection attempt is cancelled, Cancelled alone comes out and nothing stays.

    No handler runs on, no task is left, and the next call on the same channel is answered. On a virtual clock every
    step of every task is tried; over real sockets a sample.
    """
    stage.hub.hints = 3
    async with stage.channel() as channel:
        service = ServiceProxy(channel)
        keys = iter(range(10**6))

        async def call() -> None:
            await service.write(write(f"key-{next(keys)}", "a"))

        async def large() -> None:
            await service.write(write(f"key-{next(keys)}", "a", text="x" * LARGE))
            await service.pull(pull(LARGE))

        async def stream() -> None:
            async with service.notify(NOTIFY) as hints:
                async for _ in hints:
                    pass

        async def connect() -> None:
            async with stage.channel() as other:
                await ServiceProxy(other).pull(pull())

        async def in_order() -> None:
            await stage.idle()
            await stage.check_answers(service)

        for operation in (call, large, stream, connect):
            if stage.virtual:
                hit = await cancel_everywhere(operation, in_order)
                expect(hit > 5, f"{operation.__name__} was over after {hit} steps: nothing was waited for")
            else:
                await cancel_sampled(operation, in_order, POINTS)
    async with stage.service() as afterwards:
        await stage.check_answers(afterwards)
