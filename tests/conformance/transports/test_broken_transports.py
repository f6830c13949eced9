"""A broken transport is found: one planted fault for each important promise, and the check that sees it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.sync import Hint, PullReply
from atoma.errors import ChannelBroken, Overloaded, RemoteError
from atoma.ports import Channel, ServiceHost, Transport
from atoma.testing.conformance import (
    TOKEN,
    TRANSPORT_CHECKS,
    CheckFailed,
    Faults,
    Ground,
    MemorySite,
    check_promise,
)
from atoma_transports.calls import ChannelLimits


class Honest:
    """A channel around another one."""

    def __init__(self, inner: Channel) -> None:
        self.inner = inner

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        return await self.inner.call(method, message)

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        async with self.inner.stream(method, message) as items:
            yield items


class Shielded(Honest):
    """Goes on with a call that nobody waits for any more."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        with trio.CancelScope(shield=True):
            return await self.inner.call(method, message)
        raise AssertionError("a shielded scope that nobody cancels")


class Detached(Honest):
    """Lets the caller go, and the handler run on."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        got: list[Any] = []
        done = trio.Event()

        async def ask() -> None:
            try:
                got.append(await self.inner.call(method, message))
            except Exception as error:
                got.append(error)
            done.set()

        trio.lowlevel.spawn_system_task(ask)
        await done.wait()
        if isinstance(got[0], Exception):
            raise got[0]
        return got[0]  # type: ignore[no-any-return]


class Places(Honest):
    """Has three places, and frees those of calls that came back."""

    def __init__(self, inner: Channel) -> None:
        super().__init__(inner)
        self.taken = 0

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        if self.taken == 3:
            raise Overloaded("the table of calls", 3)
        self.taken += 1
        reply = await self.inner.call(method, message)
        self.taken -= 1
        return reply


class Renames(Honest):
    """Takes a cancel for a lost connection."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        try:
            return await self.inner.call(method, message)
        except trio.Cancelled:
            raise ChannelBroken("the call was cancelled") from None


class InTurn(Honest):
    """One call at a time."""

    def __init__(self, inner: Channel) -> None:
        super().__init__(inner)
        self.lock = trio.Lock()

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        async with self.lock:
            return await self.inner.call(method, message)


class Swapped(Honest):
    """Gives each reply to the call that was made first."""

    def __init__(self, inner: Channel) -> None:
        super().__init__(inner)
        self.replies: list[msgspec.Struct] = []

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        reply = await self.inner.call(method, message)
        if isinstance(reply, PullReply):
            self.replies.append(reply)
            return self.replies[0]
        return reply


class Twice(Honest):
    """Sends everything twice, to be sure."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        await self.inner.call(method, message)
        return await self.inner.call(method, message)


class Latin(Honest):
    """Knows no letters but its own."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        reply = await self.inner.call(method, message)
        if isinstance(reply, PullReply):
            return replace(reply, scope=reply.scope.encode("ascii", "replace").decode(), stores=())
        return reply


class Optimist(Honest):
    """Says that nothing was sent."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        try:
            return await self.inner.call(method, message)
        except ChannelBroken as error:
            raise ChannelBroken(str(error), maybe_sent=False) from None


class Blunt(Honest):
    """Calls every refusal an error of its own."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        try:
            return await self.inner.call(method, message)
        except RemoteError as error:
            raise RemoteError(str(error), remote_code="INTERNAL") from None


class Groups(Honest):
    """Wraps its errors."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        try:
            return await self.inner.call(method, message)
        except RemoteError as error:
            raise ExceptionGroup("failed", [error]) from None


class Patient(Honest):
    """Does not tell the server how long the caller waits."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        got: list[msgspec.Struct] = []
        done = trio.Event()
        scope = trio.CancelScope(shield=True)

        async def ask() -> None:
            with scope:
                got.append(await self.inner.call(method, message))
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            try:
                await done.wait()
            finally:
                scope.cancel()
        return got[0]


class Greedy(Honest):
    """Reads a stream to its end before anybody asks for an item."""

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        send, receive = trio.open_memory_channel[msgspec.Struct](10**6)
        async with self.inner.stream(method, message) as items, trio.open_nursery() as nursery:

            async def read() -> None:
                with send:
                    async for item in items:
                        send.send_nowait(item)

            nursery.start_soon(read)
            yield receive
            nursery.cancel_scope.cancel()


class Skips(Honest):
    """Loses the first item of a stream."""

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        async with self.inner.stream(method, message) as items:

            async def rest() -> AsyncGenerator[msgspec.Struct]:
                async for item in items:
                    if not (isinstance(item, Hint) and item.head == 0):
                        yield item

            yield rest()


class OneStream(Honest):
    """Opens the next stream when the last one has ended."""

    def __init__(self, inner: Channel) -> None:
        super().__init__(inner)
        self.lock = trio.Lock()

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        async with self.lock, self.inner.stream(method, message) as items:
            yield items


class Mixes(Honest):
    """Gives the items of its first stream to whoever reads."""

    def __init__(self, inner: Channel) -> None:
        super().__init__(inner)
        self.open: list[AsyncIterator[msgspec.Struct]] = []

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        async with self.inner.stream(method, message) as items:
            self.open.append(items)
            try:
                yield self.open[0]
            finally:
                self.open.remove(items)


class Fragile(Honest):
    """Takes a reader who stops waiting for one who has gone."""

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        async with self.inner.stream(method, message) as items:

            async def until_cancelled() -> AsyncGenerator[msgspec.Struct]:
                async for item in items:
                    yield item  # a generator that an error has passed through is at its end

            yield until_cancelled()


class Sieve(Honest):
    """Leaves large items out."""

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        async with self.inner.stream(method, message) as items:

            async def small() -> AsyncGenerator[msgspec.Struct]:
                async for item in items:
                    if not (isinstance(item, Hint) and len(item.scope) > 100_000):
                        yield item

            yield small()


class Untraced(Honest):
    """Does not tell the server which trace a request belongs to."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        if "trace_id" in message.__struct_fields__:
            message = replace(message, trace_id="")
        return await self.inner.call(method, message)


class Impatient(Honest):
    """Gives a call five seconds, whatever its caller says."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        with trio.move_on_after(5):
            return await self.inner.call(method, message)
        raise ChannelBroken("too slow")


class Waits(Honest):
    """Keeps calls for a connection that never comes."""

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        try:
            return await self.inner.call(method, message)
        except ChannelBroken as error:
            if not error.maybe_sent:
                await trio.sleep_forever()
            raise


class Ends(Honest):
    """Takes a lost connection for the end of a stream."""

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        async with self.inner.stream(method, message) as items:

            async def until_lost() -> AsyncGenerator[msgspec.Struct]:
                try:
                    async for item in items:
                        yield item
                except ChannelBroken:
                    return

            yield until_lost()


class Retries(Honest):
    """Sends a call again over a new connection when the first was lost."""

    again: Callable[[], AbstractAsyncContextManager[Channel]]

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        try:
            return await self.inner.call(method, message)
        except ChannelBroken as error:
            await trio.sleep(0.2)
            raise ConnectionError("the retry failed as well") from error


@dataclass
class BrokenGround:
    """A memory network whose channels, token or limits are wrong."""

    inner: Any
    wrap: Callable[[Channel], Channel] = Honest
    token: str | None = None
    changed: ChannelLimits | None = None
    host: Callable[[ServiceHost], ServiceHost] = lambda host: host
    leak: bool = False
    once: bool = False
    shared: bool = False

    @property
    def faults(self) -> Faults:
        return self.inner.faults  # type: ignore[no-any-return]

    def serve(self, host: ServiceHost) -> AbstractAsyncContextManager[object]:
        return self.inner.serve(self.host(host))  # type: ignore[no-any-return]

    def transport(self, token: str, limits: ChannelLimits) -> Transport:
        if self.shared:
            token = self.token = self.token or token
        honest = self.inner.transport(self.token or token, self.changed or limits)
        return BrokenTransport(honest, self.wrap, self.leak, self.once)


@dataclass
class BrokenTransport:
    inner: Transport
    wrap: Callable[[Channel], Channel]
    leak: bool
    once: bool
    used: bool = False
    name: str = "broken"

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        assert not (self.once and self.used), "the socket is in use"
        self.used = True
        if self.leak:
            trio.lowlevel.spawn_system_task(trio.sleep, 1000)
        async with self.inner.connect() as channel:
            yield self.wrap(channel)


@dataclass(frozen=True)
class BrokenSite:
    """The memory transport with one thing wrong."""

    wrap: Callable[[Channel], Channel] = Honest
    token: str | None = None
    client: ChannelLimits | None = None
    server: ChannelLimits | None = None
    leak: bool = False
    once: bool = False
    shared: bool = False
    name: str = "broken"
    virtual: bool = True

    @asynccontextmanager
    async def open_site(self, limits: ChannelLimits) -> AsyncGenerator[Ground]:
        async with MemorySite().open_site(self.server or limits) as ground:
            yield BrokenGround(
                ground, self.wrap, self.token, self.client, leak=self.leak, once=self.once, shared=self.shared
            )


DEAF = ChannelLimits(ping_s=10**6, pong_s=10**6)
TRANSPORT_FAULTS: dict[str, tuple[BrokenSite, str]] = {
    "a cancel does not reach the handler": (BrokenSite(Shielded), "cancelling_a_call_cancels_its_handler"),
    "a cancelled call runs on behind the caller": (BrokenSite(Detached), "cancelling_a_call_cancels_its_handler"),
    "calls wait for each other": (BrokenSite(InTurn), "many_calls_come_back_to_their_callers"),
    "replies in turn hold each other up": (BrokenSite(InTurn), "replies_in_another_order_reach_their_callers"),
    "replies go to the wrong caller": (BrokenSite(Swapped), "many_calls_come_back_to_their_callers"),
    "everything is sent twice": (BrokenSite(Twice), "every_method_brings_its_reply"),
    "letters are lost": (BrokenSite(Latin), "every_method_brings_its_reply"),
    "a lost call counts as not sent": (BrokenSite(Optimist), "a_reply_lost_after_the_write_is_found_by_its_key"),
    "half a request counts as not sent": (
        BrokenSite(Optimist),
        "a_request_that_ends_inside_a_message_is_not_carried_out",
    ),
    "refusals lose their code": (BrokenSite(Blunt), "errors_are_the_same_everywhere"),
    "too large is another error": (BrokenSite(Blunt), "messages_beyond_the_limit_are_refused"),
    "errors come in groups": (BrokenSite(Groups), "errors_are_the_same_everywhere"),
    "the deadline stays with the caller": (BrokenSite(Patient), "the_callers_deadline_holds_at_the_far_end"),
    "a sleeping reader is sent everything": (BrokenSite(Greedy), "a_slow_consumer_is_throttled_and_then_closed"),
    "an item is lost": (BrokenSite(Skips), "a_stream_keeps_order_and_ends"),
    "a loss looks like the end": (BrokenSite(Ends), "a_reply_that_ends_inside_a_message_is_lost"),
    "a lost connection is another error": (BrokenSite(Retries), "a_road_that_is_cut_fails_every_call_in_flight"),
    "any token will do": (BrokenSite(token=TOKEN), "without_the_right_token_nobody_comes_in"),
    "the first token is everybody's": (BrokenSite(shared=True), "everybody_is_who_their_own_token_says"),
    "silence is never noticed": (
        BrokenSite(client=DEAF, server=DEAF),
        "a_peer_that_falls_silent_is_noticed_at_both_ends",
    ),
    "a cancelled call keeps its place": (BrokenSite(Places), "a_call_may_be_cancelled_at_every_await"),
    "a cancel comes out as a loss": (BrokenSite(Renames), "a_call_may_be_cancelled_at_every_await"),
    "the limit of calls is not kept": (
        BrokenSite(client=ChannelLimits(calls=200)),
        "more_calls_than_allowed_are_refused_before_they_are_sent",
    ),
    "streams wait for each other": (BrokenSite(OneStream), "streams_of_one_channel_keep_apart"),
    "items go to another stream": (BrokenSite(Mixes), "streams_of_one_channel_keep_apart"),
    "a cancelled wait ends the stream": (BrokenSite(Fragile), "a_wait_for_an_item_that_is_cancelled_loses_nothing"),
    "large items are lost": (BrokenSite(Sieve), "large_items_pass_and_larger_ones_end_their_stream"),
    "the trace is lost": (BrokenSite(Untraced), "direct_reads_and_writes_bring_their_results"),
    "a long call is given up": (BrokenSite(Impatient), "a_quiet_connection_stays_alive"),
    "a transport connects only once": (BrokenSite(once=True), "one_transport_connects_as_often_as_it_is_asked"),
    "a channel that was left keeps its callers": (BrokenSite(Waits), "a_channel_that_was_left_sends_nothing"),
    "a task is left behind": (BrokenSite(leak=True), "nothing_is_left_behind"),
}


@pytest.mark.virtual_time
@pytest.mark.parametrize("fault", TRANSPORT_FAULTS)
async def test_a_broken_transport_is_found(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    site, check = TRANSPORT_FAULTS[fault]
    with pytest.raises(CheckFailed) as found:
        await check_promise(site, TRANSPORT_CHECKS[check])
    assert found.value.check == check
    assert found.value.promised == TRANSPORT_CHECKS[check].promise


@pytest.mark.virtual_time
async def test_the_channel_around_another_one_breaks_nothing_itself() -> None:
    for check in {check for _, check in TRANSPORT_FAULTS.values()}:
        await check_promise(BrokenSite(), TRANSPORT_CHECKS[check])
