"""The life of connections and of a server: it stops, finishes what it has begun, and comes back."""

from __future__ import annotations

import trio

from atoma.errors import ChannelBroken, ConnectFailed, RemoteError, TransportError
from atoma.testing.conformance.checks import expect, expect_equal, expect_error
from atoma.testing.conformance.stage import NOTIFY, Stage, pull, transport_table
from atoma_transports.adapters import ServiceProxy

CHECKS = transport_table()


@CHECKS.add
async def a_server_that_restarts_can_be_reached_again(stage: Stage) -> None:
    """While nobody listens, ``connect`` is a ConnectFailed and calls of old channels fail; afterwards all is well."""
    async with stage.service() as service:
        await stage.check_answers(service)
        await stage.stop()
        with expect_error(ConnectFailed, what="connecting to nobody") as refused:
            async with stage.channel():
                raise AssertionError("nobody is there")
        expect_equal(refused.error.maybe_sent, False, "maybe_sent")
        with expect_error(ChannelBroken, what="a call on a channel to a server that has gone") as broken:
            await service.pull(pull())
        expect(broken.error.retryable, "the error does not say that a retry can help")
        await stage.start()
    async with stage.service() as service:
        await stage.check_answers(service)


@CHECKS.add
async def one_transport_connects_as_often_as_it_is_asked(stage: Stage) -> None:
    """The same transport makes several connections at once, and new ones when those have ended or were lost."""
    transport = stage.transport()
    async with transport.connect() as one, transport.connect() as two:
        await stage.check_answers(ServiceProxy(one))
        await stage.check_answers(ServiceProxy(two))
    async with transport.connect() as again:
        await stage.check_answers(ServiceProxy(again))
        await stage.stop()
        with expect_error(ConnectFailed, what="connecting to nobody"):
            async with transport.connect():
                raise AssertionError("nobody is there")
        await stage.start()
    async with transport.connect() as afterwards:
        await stage.check_answers(ServiceProxy(afterwards))


@CHECKS.add
async def a_channel_that_was_left_sends_nothing(stage: Stage) -> None:
    """After the block of ``connect``, calls and streams are a ChannelBroken at once, and certainly nothing was sent."""
    async with stage.service() as service:
        await stage.check_answers(service)
    with trio.fail_after(1 if stage.virtual else 10):
        with expect_error(ChannelBroken, what="a call on a channel that was left") as refused:
            await service.pull(pull())
        expect_equal(refused.error.maybe_sent, False, "maybe_sent of a call")
        with expect_error(ChannelBroken, what="a stream on a channel that was left") as refused:
            async with service.notify(NOTIFY) as hints:
                async for _ in hints:
                    pass
        expect_equal(refused.error.maybe_sent, False, "maybe_sent of a stream")
    expect_equal(len(stage.hub.pulled), 1, "the calls that arrived")


@CHECKS.add
async def a_server_that_stops_finishes_what_it_has_begun(stage: Stage) -> None:
    """Stopping drains: calls in flight are answered, streams end with UNAVAILABLE, and no new call reaches a service.

    A new call is refused as UNAVAILABLE, or, where it would need a connection of its own, finds nobody.
    """
    async with stage.service() as service:
        stage.hub.hints = 10**9
        replies: list[int] = []
        ends: list[tuple[str, bool]] = []
        go_on = trio.Event()
        stage.hub.on_pull = go_on.wait

        async def call() -> None:
            replies.append((await service.pull(pull())).head)

        async def listen() -> None:
            with expect_error(RemoteError, what="a stream of a server that stops") as ended:
                async with service.notify(NOTIFY) as hints:
                    async for _ in hints:
                        await trio.sleep(0.001)  # what is under way has to be read before the end is seen
            ends.append((ended.error.remote_code, ended.error.remote_retryable))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(listen)
            await stage.until(lambda: stage.hub.active == 2, "the calls did not arrive")
            nursery.start_soon(stage.stop)
            await stage.until(lambda: bool(ends), "the stream was not ended")
            with expect_error(RemoteError, TransportError, what="a new call to a server that stops") as refused:
                await service.pull(pull())
            if isinstance(refused.error, RemoteError):
                facts = (refused.error.remote_code, refused.error.remote_retryable)
                expect_equal(facts, ("UNAVAILABLE", True), "code and retryable of a new call")
            go_on.set()
        expect_equal((replies, ends), ([2], [("UNAVAILABLE", True)]), "the reply in flight, and the stream's end")
        expect_equal(len(stage.hub.pulled), 1, "the calls that a service was asked")


@CHECKS.add
async def a_server_does_not_wait_forever_for_a_handler(stage: Stage) -> None:
    """A handler that never ends is cancelled when the drain is over, and its caller gets a retryable error."""
    async with stage.service() as service:
        stage.hub.on_pull = trio.sleep_forever
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with expect_error(ChannelBroken, what="a call that never ends"):
                    await service.pull(pull())

            nursery.start_soon(call)
            await stage.until(lambda: stage.hub.active == 1, "the call did not arrive")
            with trio.fail_after(2.5 if stage.virtual else 25):
                await stage.stop()
        expect_equal(stage.hub.cancelled, 1, "handlers that were cancelled")
