"""Streams: in order, stopped from either end, bounded."""

from __future__ import annotations

from functools import partial

import trio

from atoma.contracts.sync import NotifyRequest
from atoma.errors import RemoteError
from atoma.testing.conformance.checks import expect, expect_equal, expect_error
from atoma.testing.conformance.stage import NOTIFY, Stage, transport_table

CHECKS = transport_table()

LETTERS = 16 * 1024
MIB = 1024 * 1024
ITEMS_UNDER_WAY_MAX = 4_000
"""Items of 16 KiB that a reader who sleeps may be sent: what sockets and buffers hold, and far from everything."""


@CHECKS.add
async def a_stream_keeps_order_and_ends(stage: Stage) -> None:
    """Every item arrives once, in order, and the end of the service's items is the end of the stream."""
    async with stage.service() as service:
        for count in (0, 3, 500):
            stage.hub.hints = count
            async with service.notify(NOTIFY) as hints:
                expect_equal([hint.head async for hint in hints], list(range(count)), "the items of a stream")
        await stage.idle()


@CHECKS.add
async def leaving_a_stream_stops_its_handler(stage: Stage) -> None:
    """Leaving the block of a stream half-way cancels the handler at the far end; the channel goes on."""
    async with stage.service() as service:
        stage.hub.hints = 10**9
        async with service.notify(NOTIFY) as hints:
            async for hint in hints:
                if hint.head == 40:
                    break
            expect_equal(stage.hub.active, 1, "handlers that run while the block is open")
        with expect_error(trio.ClosedResourceError, what="an item after the block was left"):
            await anext(hints)
        await stage.idle()
        await stage.check_answers(service)


@CHECKS.add
async def a_stream_that_fails_tells_after_what_it_has_brought(stage: Stage) -> None:
    """Items that were sent before the service failed arrive before its error does, and a caller that asks on gets it again."""
    stage.hub.hints = 5
    stage.hub.failure = RemoteError("enough", remote_code="BUSY", remote_retryable=True)
    heads: list[int] = []
    async with stage.service() as service:
        async with service.notify(NOTIFY) as hints:
            with expect_error(RemoteError, what="the stream") as caught:
                async for hint in hints:
                    heads.append(hint.head)
            with expect_error(RemoteError, what="the stream, asked again"):
                await anext(hints)
        expect_equal((heads, caught.error.remote_code), (list(range(5)), "BUSY"), "the items, and the error after them")


@CHECKS.add
async def streams_and_calls_do_not_wait_for_each_other(stage: Stage) -> None:
    """Calls are answered while a stream on the same channel is open and its reader reads nothing."""
    async with stage.service() as service:
        stage.hub.hints = 10**9
        stage.hub.hint_letters = LETTERS
        async with service.notify(NOTIFY) as hints:
            first = await anext(hints)
            for _ in range(5):
                with trio.fail_after(stage.limits.slow_s):
                    await stage.check_answers(service)
        expect_equal(first.head, 0, "the first item")


@CHECKS.add
async def a_wait_for_an_item_that_is_cancelled_loses_nothing(stage: Stage) -> None:
    """A caller that stops waiting for an item may wait again: the stream goes on, and every item and its end arrive."""
    stage.hub.hints = 10
    stage.hub.on_hint = partial(trio.sleep, 0.05)
    heads: list[int] = []
    stopped = 0
    async with stage.service() as service, service.notify(NOTIFY) as hints:
        with trio.fail_after(30):
            while len(heads) < stage.hub.hints:
                with trio.move_on_after(0.02) as patience:
                    heads.append((await anext(hints)).head)
                stopped += patience.cancelled_caught
            expect_equal([hint.head async for hint in hints], [], "the items after the last one")
    expect_equal(heads, list(range(stage.hub.hints)), "the items of a stream")
    expect(stopped > 0, "no wait was cancelled")


@CHECKS.add
async def streams_of_one_channel_keep_apart(stage: Stage) -> None:
    """Two streams on a channel bring each reader its own items; neither waits for the other or ends with it."""
    async with stage.service() as service:
        stage.hub.hints = 10**9
        with trio.fail_after(10):
            async with service.notify(NotifyRequest(("one",))) as ones:
                async with service.notify(NotifyRequest(("two",))) as twos:
                    for number in range(20):
                        for scope, hints in (("one", ones), ("two", twos)):
                            hint = await anext(hints)
                            expect_equal((hint.scope, hint.head), (scope, number), f"an item of stream {scope!r}")
                await stage.until(lambda: stage.hub.active == 1, "the handler of the stream that was left goes on")
                for number in range(20, 300):
                    expect_equal((await anext(ones)).head, number, "an item after the other stream was left")


@CHECKS.add
async def large_items_pass_and_larger_ones_end_their_stream(stage: Stage) -> None:
    """Items of three megabytes arrive whole; one over the limit ends its stream as TOO_LARGE, and the channel goes on."""
    async with stage.service() as service:
        stage.hub.hints, stage.hub.hint_letters = 2, 3 * MIB
        async with service.notify(NOTIFY) as hints:
            expect_equal([len(hint.scope) async for hint in hints], [3 * MIB] * 2, "the letters of large items")
        stage.hub.hint_letters = 5 * MIB
        with expect_error(RemoteError, what="a stream with an item over the limit") as caught:
            async with service.notify(NOTIFY) as hints:
                async for hint in hints:
                    raise AssertionError(f"an item with {len(hint.scope)} letters came")
        expect_equal(caught.error.remote_code, "TOO_LARGE", "the code")
        await stage.check_answers(service)


@CHECKS.add
async def a_slow_consumer_is_throttled_and_then_closed(stage: Stage) -> None:
    """A reader who reads nothing holds the service up; after ``slow_s`` its stream, and nothing else, is closed.

    What was sent before still arrives, then a retryable RemoteError, ``SLOW_CONSUMER``.
    """
    async with stage.service() as service:
        stage.hub.hints = ITEMS_UNDER_WAY_MAX + 1
        stage.hub.hint_letters = LETTERS
        async with service.notify(NOTIFY) as hints:
            await stage.until(lambda: stage.hub.sent_hints > 8, "nothing was sent")
            await stage.until(lambda: stage.hub.active == 0, "the stream of a sleeping reader is never closed", 5)
            sent = stage.hub.sent_hints
            expect(sent < ITEMS_UNDER_WAY_MAX, f"{sent} items of 16 KiB were sent to a reader who reads nothing")
            heads: list[int] = []
            with expect_error(RemoteError, what="the stream of a slow reader") as caught:
                async for hint in hints:
                    heads.append(hint.head)
            expect_equal(heads, list(range(len(heads))), "the items that still arrived")
            facts = (caught.error.remote_code, caught.error.remote_retryable)
            expect_equal(facts, ("SLOW_CONSUMER", True), "code and retryable")
        await stage.check_answers(service)
