"""Losses: what a caller is told when the road fails, and how it finds out what became of its write.

The outcome table, the same on every transport. *resolve* is what the method ``resolve`` says afterwards.

| what happens | the caller gets | maybe_sent | resolve |
|---|---|---|---|
| nobody listens, or the road is cut | ``ConnectFailed`` of ``connect`` | no | – |
| the road is mute while connecting | ``ConnectFailed`` of ``connect`` | no | – |
| reply lost before the server applied | ``ChannelBroken`` | yes | abandoned; a late copy is refused |
| reply lost after it applied | ``ChannelBroken`` | yes | the answer that was lost |
| request ends inside a message | ``ChannelBroken`` | yes | abandoned; nothing was applied |
| reply ends inside a message | ``ChannelBroken`` | yes | the answer that was lost |
| the peer falls silent | ``ChannelBroken`` within the pulse | yes | whatever happened |
| the same key twice | the same answer twice | – | that answer |
| the road is slow | the answer, later | – | – |
| a call after the connection was lost | ``ChannelBroken`` | no; see below | – |

A call after a loss: a transport that dials anew for a call (HTTP) cannot know whether a peer who hangs up at once has read,
and says yes.
"""

from __future__ import annotations

from typing import Literal

import trio

from atoma.errors import ChannelBroken, ConnectFailed
from atoma.testing.conformance.checks import expect, expect_equal, expect_error
from atoma.testing.conformance.stage import NOTIFY, Stage, pull, push, resolve, transport_table, write

CHECKS = transport_table()

TRUNCATED_AFTER = 50_000
LARGE = 400_000


async def _lost_reply(stage: Stage, moment: Literal["before_apply", "after_apply"]) -> None:
    """Write, and cut the road when the hub is at ``moment``; then repair it."""
    faults = stage.faults

    async def cut_once() -> None:
        setattr(stage.hub, moment, trio.lowlevel.checkpoint)
        await faults.cut()
        await trio.sleep(0.05)

    setattr(stage.hub, moment, cut_once)
    async with stage.service() as service:
        with expect_error(ChannelBroken, what="a call whose reply was lost") as broken:
            await service.write(write("key-1", "a"))
        expect_equal((broken.error.maybe_sent, broken.error.retryable), (True, True), "maybe_sent and retryable")
    with expect_error(ConnectFailed, what="connecting while the road is cut") as refused:
        async with stage.channel():
            raise AssertionError("came through a road that is cut")
    expect_equal(refused.error.maybe_sent, False, "maybe_sent of a connection that was refused")
    await faults.repair()
    await stage.idle()


@CHECKS.add
async def a_reply_lost_before_the_write_leaves_nothing(stage: Stage) -> None:
    """The connection breaks before the server applied a write: ChannelBroken, maybe sent; asked, it says abandoned.

    Abandoned is a promise: a copy of the write that comes later is refused and changes nothing.
    """
    await _lost_reply(stage, "before_apply")
    expect_equal(stage.hub.applied, [], "what was applied")
    async with stage.service() as service:
        resolution = await service.resolve(resolve("key-1"))
        expect(resolution.abandoned, f"the key resolves to {resolution.result!r}")
        late = await service.write(write("key-1", "a"))
        expect_equal(late.status, "rejected", "a late copy of an abandoned write")
        codes = [item.error.code for item in late.items if item.error is not None]
        expect_equal(codes, ["ABANDONED"], "why it is refused")
    expect_equal(stage.hub.applied, [], "what was applied in the end")


@CHECKS.add
async def a_reply_lost_after_the_write_is_found_by_its_key(stage: Stage) -> None:
    """The connection breaks after the server applied a write: ChannelBroken, maybe sent; its key brings the answer."""
    await _lost_reply(stage, "after_apply")
    expect_equal(stage.hub.applied, ["a"], "what was applied")
    async with stage.service() as service:
        resolution = await service.resolve(resolve("key-1"))
        expect(resolution.result is not None, "the key is called abandoned, and the write was applied")
        again = await service.write(write("key-1", "a"))
        if resolution.result is not None:
            expect_equal(resolution.result.items, again.items, "what the key resolves to")
        expect_equal(again.status, "confirmed", "the same write once more")
    expect_equal(stage.hub.applied, ["a"], "what was applied in the end")


@CHECKS.add
async def a_retry_after_a_lost_reply_is_applied_once(stage: Stage) -> None:
    """Whether the reply was lost before or after: the same request under the same key is applied exactly once."""
    await _lost_reply(stage, "before_apply")
    async with stage.service() as service:
        expect_equal((await service.write(write("key-1", "a"))).status, "confirmed", "the write, sent again")
        expect_equal((await service.write(write("key-1", "a"))).status, "confirmed", "the write, sent a third time")
    expect_equal(stage.hub.applied, ["a"], "what was applied")


@CHECKS.add
async def the_same_key_twice_at_once_is_answered_twice(stage: Stage) -> None:
    """Two copies of one request in flight together are both answered, with the same answer, and applied once."""
    async with stage.service() as service:
        results: list[object] = []

        async def send() -> None:
            results.append((await service.write(write("key", "a", "b"))).items)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(send)
        expect(results[0] == results[1], f"the answers differ: {results}")
    expect_equal(stage.hub.applied, ["a", "b"], "what was applied")


@CHECKS.add
async def a_request_that_ends_inside_a_message_is_not_carried_out(stage: Stage) -> None:
    """The connection ends when part of a request has passed: ChannelBroken, maybe sent, and no handler ever sees it."""
    async with stage.service() as service:
        await stage.check_answers(service)
        await stage.faults.truncate("to-server", TRUNCATED_AFTER)
        with expect_error(ChannelBroken, what="a call whose request was cut off") as broken:
            await service.write(write("key", "a", text="x" * LARGE))
        expect_equal(broken.error.maybe_sent, True, "maybe_sent")
    await stage.faults.repair()
    expect_equal(stage.hub.applied, [], "what was applied")
    async with stage.service() as service:
        expect((await service.resolve(resolve("key"))).abandoned, "the key is not abandoned")
        await stage.check_answers(service)


@CHECKS.add
async def a_reply_that_ends_inside_a_message_is_lost(stage: Stage) -> None:
    """The connection ends when part of a reply has passed: ChannelBroken, maybe sent, never half a reply.

    The same in a stream: items that came whole are there, then ChannelBroken.
    """
    async with stage.service() as service:
        await stage.check_answers(service)
        await stage.faults.truncate("to-client", TRUNCATED_AFTER)
        with expect_error(ChannelBroken, what="a call whose reply was cut off") as broken:
            await service.write(write("key", "a", text="x" * LARGE))
        expect_equal(broken.error.maybe_sent, True, "maybe_sent")
    expect_equal(stage.hub.applied, ["a"], "what was applied")
    stage.hub.hints, stage.hub.hint_letters = 10**9, 1000
    async with stage.service() as service:
        expect((await service.resolve(resolve("key"))).result is not None, "the key of an applied write is abandoned")
        await stage.faults.truncate("to-client", TRUNCATED_AFTER)
        heads: list[int] = []
        with expect_error(ChannelBroken, what="a stream that was cut off"):
            async with service.notify(NOTIFY) as hints:
                async for hint in hints:
                    heads.append(hint.head)
        expect_equal(heads, list(range(len(heads))), "the items that came before")
    await stage.idle()


@CHECKS.add
async def a_peer_that_falls_silent_is_noticed_at_both_ends(stage: Stage) -> None:
    """A half-open connection: after ``ping_s`` + ``pong_s`` of silence the caller gets ChannelBroken, the handler stops.

    New connections fail with ConnectFailed within ``handshake_s``; after the repair everything works again.
    """
    pulse = stage.limits.ping_s + stage.limits.pong_s
    faults = stage.faults

    async def connect() -> None:
        with expect_error(ConnectFailed, what="connecting over a mute road"):
            async with stage.channel():
                raise AssertionError("came through a road that is mute")

    async with stage.service() as service, trio.open_nursery() as nursery:
        stage.hub.on_pull = trio.sleep_forever
        began = trio.current_time()

        async def ask() -> None:
            with expect_error(ChannelBroken, what="a call to a silent peer") as broken:
                await service.pull(pull())
            expect_equal(broken.error.maybe_sent, True, "maybe_sent")
            took = trio.current_time() - began
            expect(took > 0.5 * pulse, f"the connection was given up after {took:g} s")
            expect(took < (2.5 if stage.virtual else 20) * pulse, f"the silence was noticed after {took:g} s")

        nursery.start_soon(ask)
        await stage.until(lambda: stage.hub.active == 1, "the call did not arrive")
        await faults.mute()
        nursery.start_soon(connect)
        await stage.until(lambda: stage.hub.active == 0, "the handler of a silent client goes on", 5)
        expect_equal(stage.hub.cancelled, 1, "handlers that were cancelled")
    await faults.repair()
    async with stage.service() as again:
        await stage.check_answers(again)


@CHECKS.add
async def a_road_that_is_cut_fails_every_call_in_flight(stage: Stage) -> None:
    """A lost connection fails every call and stream in flight with ChannelBroken, and stops every handler."""
    stage.hub.on_pull = trio.sleep_forever
    ends: list[str] = []
    async with stage.service() as service:

        async def call() -> None:
            with expect_error(ChannelBroken, what="a call in flight"):
                await service.pull(pull())
            ends.append("call")

        async def listen() -> None:
            with expect_error(ChannelBroken, what="a stream in flight"):
                async with service.notify(NOTIFY) as hints:
                    async for _ in hints:
                        await trio.sleep(0.01)
            ends.append("stream")

        stage.hub.hints = 10**9
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
            nursery.start_soon(listen)
            await stage.until(lambda: stage.hub.active == 6, "the calls did not arrive")
            await stage.faults.cut()
        expect_equal(sorted(ends), ["call"] * 5 + ["stream"], "what ended")
        await stage.idle()
        with expect_error(ChannelBroken, what="a call after the connection was lost"):
            await service.push(push(b"x"))
    expect_equal(stage.hub.applied, [], "what was applied")
    await stage.faults.repair()


@CHECKS.add
async def a_slow_road_delays_and_loses_nothing(stage: Stage) -> None:
    """Bytes that are late, but keep coming, break nothing: calls and streams arrive whole and in order."""
    async with stage.service() as service:
        await stage.faults.slow(0.05)
        stage.hub.hints = 20
        async with service.notify(NOTIFY) as hints:
            expect_equal([hint.head async for hint in hints], list(range(20)), "the items of a stream")
        expect_equal((await service.write(write("key", "a"))).status, "confirmed", "a write")
        page = (await service.pull(pull(LARGE))).stores[0]
        expect(page.rows[0][2] == "ü" * (LARGE // 2), "the text of a large page is another one")
        await stage.faults.repair()
        await stage.check_answers(service)


@CHECKS.add
async def a_quiet_connection_stays_alive(stage: Stage) -> None:
    """A channel on which nothing is said for longer than a pulse is still good, and so is a call that takes that long.

    On a virtual clock for forty pulses: a call takes as long as its caller waits.
    """
    pause_s = (40 if stage.virtual else 1.1) * (stage.limits.ping_s + stage.limits.pong_s)
    async with stage.service() as quiet, stage.service() as busy, trio.open_nursery() as nursery:

        async def think() -> None:
            await trio.sleep(pause_s)

        async def ask() -> None:
            expect_equal((await busy.pull(pull())).head, 2, "the head that a long call got")

        stage.hub.on_pull = think
        nursery.start_soon(ask)
        await trio.sleep(pause_s)
        await stage.check_answers(quiet)
