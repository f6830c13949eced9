"""What every channel does: the same calls, the same results, the same errors, whatever carries the bytes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.testing

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import OperationContext, QueryRequest, WriteEntry, WriteOptions, WriteRequest
from atoma.contracts.query import And, Compare, In, Like, Not, QuerySpec, Sort
from atoma.contracts.sync import Cursor, Mutation, NotifyRequest, OpenRequest, PullRequest, PushRequest, SnapshotRequest
from atoma.contracts.values import ErrorInfo
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ChannelBroken,
    ConflictError,
    ConnectFailed,
    Overloaded,
    ProtocolError,
    QueryError,
    RemoteError,
    StoreCorrupt,
    TransportError,
    ValidationError,
)
from atoma_transports._channel.frames import Auth, Frame, decode_frame, encode_frame
from atoma_transports.adapters import ChannelLimits, MessagePipe, ServiceProxy
from atoma_transports.protocol import METHODS

TOKEN = "a-secret"
OpenWire = Callable[[], AbstractAsyncContextManager[Any]]
SOON_S = 1.0


def pull(size: int = 10, scope: str = "main") -> PullRequest:
    return PullRequest(scope, Cursor(b"e", 1, b"h"), b"client", max_bytes=size)


def write(idem: str, *ids: str) -> WriteRequest:
    entries = tuple(WriteEntry("notes", "insert", id, "main", {"text": "ß", "blob": b"\x00"}) for id in ids)
    return WriteRequest(entries, WriteOptions(), OperationContext("trace-1"), idem)


def query(**fields: Any) -> QueryRequest:
    return QueryRequest("notes", QuerySpec(**fields), OperationContext("trace-1"))


async def until(condition: Callable[[], bool], seconds: float = SOON_S) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


async def test_every_method_brings_its_reply(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        service = ServiceProxy(channel)
        opened = await service.open(OpenRequest(b"c", 1, 1, b"", ("main",), tail_mid=7))
        assert (opened.principal, opened.last_mid) == ("alice", 7)
        pushed = await service.push(PushRequest(b"c", 1, (Mutation(1, b"b", b"d"), Mutation(2, b"", b"")), b""))
        assert [outcome.mid for outcome in pushed.outcomes] == [1, 2]
        page = (await service.pull(pull(scope="räume/☃"))).stores[0]
        assert page.rows == ((1, "id", "üüüüü", b"\x00\xff", 1.5, None, -(2**63)),)
        assert page.deletes == ((2, "gone"),)
        assert wire.hub.pulled == ["räume/☃"]
        assert (await service.snapshot(SnapshotRequest("main", b"c", b"t"))).token == b"t+"
        written = await service.write(write("key", "a", "b"))
        assert (written.status, [item.id for item in written.items]) == ("confirmed", ["a", "b"])
        assert (written.meta.source, written.meta.trace_id, written.receipts) == ("remote", "trace-1", (None, None))
        where = And((Not(Compare("eq", "blob", b"\x01")), In("text", ("x", None, 1)), Like("text", "%")))
        found = await service.query(query(where=where, order=(Sort("id"),), after=(b"k", 1.0)))
        assert [row.image for row in found.rows] == [{"text": "ß", "blob": b"\x00"}] * 2
        assert (found.meta.source, found.meta.cursor) == ("remote", "next")
        assert (await service.query(query(count=True))).total == 2
        wire.hub.hints = 3
        async with service.notify(NotifyRequest(("main",))) as hints:
            assert [hint.head async for hint in hints] == [0, 1, 2]


async def test_large_messages_pass_and_too_large_ones_are_refused(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        service = ServiceProxy(channel)
        page = (await service.pull(pull(3 * 1024 * 1024))).stores[0]
        assert page.rows[0][2] == "ü" * (3 * 512 * 1024)
        with pytest.raises(RemoteError, match="ask for less") as refused:
            await service.pull(pull(5 * 1024 * 1024))
        assert refused.value.remote_code == "TOO_LARGE"
        huge = PushRequest(b"c", 1, (Mutation(1, b"x" * (5 * 1024 * 1024), b""),), b"")
        with pytest.raises(RemoteError, match="nothing was sent") as refused:
            await service.push(huge)
        assert refused.value.remote_code == "TOO_LARGE"
        assert wire.hub.applied == []
        assert (await service.pull(pull())).head == 2  # the connection is as good as before


async def test_a_stream_keeps_order_and_leaving_it_stops_its_handler(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        wire.hub.hints = 500
        async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
            assert [hint.head async for hint in hints] == list(range(500))
        wire.hub.hints = 10**9
        async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
            async for hint in hints:
                if hint.head == 40:
                    break
            assert wire.hub.active == 1
        await until(lambda: wire.hub.active == 0)
        assert (await ServiceProxy(channel).pull(pull())).head == 2


async def test_cancelling_a_call_cancels_its_handler(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        wire.hub.on_pull = trio.sleep_forever
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ServiceProxy(channel).pull, pull())
            await until(lambda: wire.hub.active == 1)
            nursery.cancel_scope.cancel()
        began = trio.current_time()
        await until(lambda: wire.hub.cancelled == 1)
        assert trio.current_time() - began < SOON_S
        assert wire.hub.deadlines == [math.inf]


async def test_the_callers_deadline_holds_at_the_far_end(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        wire.hub.on_pull = trio.sleep_forever
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.3):
            await ServiceProxy(channel).pull(pull())
        assert 0.3 <= trio.current_time() - began < 0.6
        await until(lambda: wire.hub.active == 0)
        assert wire.hub.deadlines[0] == pytest.approx(began + 0.3, abs=0.1)


async def test_a_deadline_that_both_ends_see_is_told_by_the_callers_own_scope(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        wire.hub.failure = RemoteError("too late", remote_code="TIMEOUT", remote_retryable=True)
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.2):
            await ServiceProxy(channel).pull(pull())
        with pytest.raises(RemoteError, match="TIMEOUT"), trio.fail_after(10):
            await ServiceProxy(channel).pull(pull())
        with pytest.raises(RemoteError, match="TIMEOUT"):
            await ServiceProxy(channel).pull(pull())


async def welcome(pipe: MessagePipe) -> None:
    await pipe.send(encode_frame("auth", payload=encode(Auth(TOKEN))))
    assert decode_frame(await pipe.receive(), 10**6).kind == "welcome"


async def next_frame(pipe: MessagePipe) -> Frame:
    """The next frame that is no ping."""
    while True:
        frame = decode_frame(await pipe.receive(), 10**6)
        if frame.kind != "ping":
            return frame


async def test_the_server_enforces_the_deadline_on_its_own(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.raw_pipe() as pipe:
        await welcome(pipe)
        wire.hub.on_pull = trio.sleep_forever
        with trio.fail_after(SOON_S):
            await pipe.send(encode_frame("call", 1, encode(pull()), method="pull", budget_ms=100))
            frame = await next_frame(pipe)
        assert (frame.kind, frame.id, decode(frame.payload, ErrorInfo).code) == ("error", 1, "TIMEOUT")


FAILURES = [
    # what the service raises; what the caller gets: type, code, retryable, seconds to wait, facts
    (
        RemoteError("later", remote_code="RATE_LIMITED", remote_retryable=True, retry_after_s=1.5, info={"a": "b"}),
        (RemoteError, "RATE_LIMITED", True, 1.5, {"a": "b"}),
    ),
    (
        RemoteError("no", remote_code="CURSOR_TOO_OLD", remote_retryable=True),
        (RemoteError, "CURSOR_TOO_OLD", True, 0, {}),
    ),
    (QueryError("no field 'x'"), (RemoteError, "QUERY", False, 0, {})),
    (
        ConflictError("it moved", store="notes", id="a"),
        (RemoteError, "CONFLICT", False, 0, {"store": "notes", "id": "a"}),
    ),
    (
        ValidationError("too long", store="notes", field="text", value="secret"),
        (RemoteError, "INVALID", False, 0, {"store": "notes", "field": "text"}),
    ),
    (AuthenticationError("expired"), (AuthenticationError, None, False, 0, None)),
    (ProtocolError("mid 3 after mid 1"), (ProtocolError, None, False, 0, None)),
    (StoreCorrupt("near 'SELECT secret': no such table"), (RemoteError, "CORRUPT", False, 0, {})),
    (RuntimeError("near 'SELECT secret'"), (RemoteError, "INTERNAL", True, 0, {})),
    (ExceptionGroup("many", [QueryError("alone in a group")]), (RemoteError, "QUERY", False, 0, {})),
]


async def test_errors_are_the_same_everywhere(open_wire: OpenWire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")
    async with open_wire() as wire, wire.transport().connect() as channel:
        for failure, (kind, code, retryable, wait_s, info) in FAILURES:
            wire.hub.failure = failure
            with pytest.raises(AtomaError) as caught:
                await ServiceProxy(channel).pull(pull())
            error = caught.value
            assert type(error) is kind
            assert "SELECT" not in str(error)
            if isinstance(error, RemoteError):
                facts = (error.remote_code, error.remote_retryable, error.retry_after_s, error.info)
                assert facts == (code, retryable, wait_s, info)
            with pytest.raises(kind):
                async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
                    async for _ in hints:
                        raise AssertionError("a hint from nowhere")


async def test_without_the_right_token_nobody_comes_in(open_wire: OpenWire) -> None:
    async with open_wire() as wire:
        for token in ("", "wrong", "x" * 1000):
            with pytest.raises(AuthenticationError, match="not known"):
                async with wire.transport(token=token).connect():
                    raise AssertionError("came in")
        assert wire.hub.active == 0
        long = encode_frame("auth", payload=encode(Auth("x" * 100_000)))
        in_disguise = encode_frame("ping", payload=encode(Auth(TOKEN)))
        for first in (
            encode_frame("call", 1, encode(pull()), method="pull"),
            in_disguise,
            long,
            b"",
            b"\xc1",
            b"x" * 100_000,
        ):
            async with wire.raw_pipe() as pipe:
                await pipe.send(first)
                assert (await next_frame(pipe)).kind == "error"
                with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                    await pipe.receive()
        assert wire.hub.pulled == []
        assert len(wire.hub.peers) == 3  # of those, only the three tokens were looked at


async def test_who_says_nothing_is_shown_out(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.raw_pipe() as pipe:
        with trio.fail_after(8):
            frame = await next_frame(pipe)
            assert decode(frame.payload, ErrorInfo).code == "UNAUTHENTICATED"
            with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                await pipe.receive()


GOOD_CALL = encode_frame("call", 1, encode(pull()), method="pull")
BROKEN_FRAMES = {
    "empty": b"",
    "not msgpack": b"\xc1",
    "truncated": GOOD_CALL[:-3],
    "with a tail": GOOD_CALL + b"\x00",
    "another shape": encode({"kind": "call"}),
    "too few fields": encode([1]),
    "too many fields": encode([1, "call", 1, "pull", -1, "", 0, b"", "more"]),
    "wrong type": encode([1, "call", "1", "pull"]),
    "another version": encode([2, "call", 1, "pull", -1, "", 0, encode(pull())]),
    "unknown kind": encode([1, "teleport", 1]),
    "a server's kind": encode_frame("reply", 1),
    "a second auth": encode_frame("auth"),
    "a call without id": encode_frame("call", 0, encode(pull()), method="pull"),
    "negative id": encode([1, "call", -1, "pull"]),
    "huge id": encode([1, "call", 2**63, "pull"]),
    "huge credit": encode([1, "credit", 1, "", -1, "", 10**9]),
    "deep": b"\x91" * 100_000,
    "long name": encode([1, "call", 1, "p" * 100]),
    "too large": encode_frame("call", 1, b"x" * (4 * 1024 * 1024 + 64 * 1024), method="pull"),
}


async def test_a_broken_frame_ends_its_connection_and_no_other(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as other:
        for name, data in BROKEN_FRAMES.items():
            async with wire.raw_pipe() as pipe:
                await welcome(pipe)
                await pipe.send(data)
                with trio.fail_after(SOON_S), pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                    frame = await next_frame(pipe)
                    info = decode(frame.payload, ErrorInfo)
                    assert (frame.kind, frame.id, info.code) == ("error", 0, "MALFORMED"), name
                    assert "Traceback" not in info.message
                    await next_frame(pipe)
            assert (await ServiceProxy(other).pull(pull())).head == 2
        assert wire.hub.active == 0


async def test_a_bad_request_in_a_good_frame_is_an_error_of_that_call(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.raw_pipe() as pipe:
        await welcome(pipe)
        requests = {
            "no such method": ("nonsense", encode(pull()), "UNIMPLEMENTED"),
            "a stream called": ("notify", encode(NotifyRequest(("a",))), "UNIMPLEMENTED"),
            "no message": ("pull", b"", "MALFORMED"),
            "another message": ("pull", encode(NotifyRequest(("a",))), "MALFORMED"),
            "two queries": ("query", encode({"ops": [], "trace_id": ""}), "MALFORMED"),
            "not numbered": (
                "write",
                encode({"ops": [{"index": 1, "name": "delete", "store": "s"}], "idem": "k", "options": {}}),
                "MALFORMED",
            ),
            "not a value": (
                "write",
                encode(
                    {
                        "ops": [{"index": 0, "name": "insert", "store": "s", "values": {"a": [1]}}],
                        "idem": "k",
                        "options": {},
                    }
                ),
                "MALFORMED",
            ),
        }
        for number, (name, (method, payload, code)) in enumerate(requests.items(), 1):
            await pipe.send(encode_frame("call", number, payload, method=method))
            frame = await next_frame(pipe)
            assert (frame.kind, frame.id) == ("error", number), name
            assert decode(frame.payload, ErrorInfo).code == code, name
        await pipe.send(encode_frame("call", 99, encode(pull()), method="pull"))
        assert (await next_frame(pipe)).kind == "reply"
        assert wire.hub.applied == []


async def test_a_method_the_protocol_does_not_have_is_not_sent(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        with pytest.raises(ProtocolError, match="no call") as caught:
            await channel.call("nonsense", pull())
        assert caught.value.maybe_sent is False
        assert "notify" in METHODS
        with pytest.raises(ProtocolError, match="no call"):
            await channel.call("notify", NotifyRequest(("main",)))


async def test_a_server_that_restarts_fails_calls_and_can_be_reached_again(open_wire: OpenWire) -> None:
    async with open_wire() as wire:
        async with wire.transport().connect() as channel:
            assert (await ServiceProxy(channel).pull(pull())).head == 2
            await wire.stop()
            with pytest.raises(ConnectFailed) as refused:
                async with wire.transport().connect():
                    raise AssertionError("nobody is there")
            assert refused.value.maybe_sent is False
            with pytest.raises(ChannelBroken) as broken:
                await ServiceProxy(channel).pull(pull())
            assert broken.value.retryable
            await wire.start()
        async with wire.transport().connect() as channel:
            assert (await ServiceProxy(channel).pull(pull())).head == 2


@pytest.mark.parametrize("moment", ["before_apply", "after_apply"])
async def test_a_lost_reply_leaves_the_outcome_open_and_the_key_resolves_it(open_wire: OpenWire, moment: str) -> None:
    async with open_wire() as wire:

        async def cut_once() -> None:
            setattr(wire.hub, moment, trio.lowlevel.checkpoint)
            await wire.cut()
            await trio.sleep(0.05)

        setattr(wire.hub, moment, cut_once)
        async with wire.transport().connect() as channel:
            with pytest.raises(ChannelBroken) as broken:
                await ServiceProxy(channel).write(write("key-1", "a"))
            assert broken.value.maybe_sent
        assert wire.hub.applied == ([] if moment == "before_apply" else ["a"])
        with pytest.raises(ConnectFailed):
            async with wire.transport().connect():
                raise AssertionError("the wire is cut")
        await wire.mend()
        async with wire.transport().connect() as channel:
            result = await ServiceProxy(channel).write(write("key-1", "a"))
            assert result.status == "confirmed"
        assert wire.hub.applied == ["a"]


async def test_a_peer_that_falls_silent_is_noticed_at_both_ends(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        wire.hub.on_pull = trio.sleep_forever
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ChannelBroken, match="does not answer"):
                    await ServiceProxy(channel).pull(pull())
                assert 1.4 <= trio.current_time() - began < 4

            nursery.start_soon(ask)
            await until(lambda: wire.hub.active == 1)
            await wire.mute()
        await until(lambda: wire.hub.active == 0)
        assert wire.hub.cancelled == 1
        with pytest.raises(ConnectFailed, match=r"did not (greet|answer)"):
            async with wire.transport().connect():
                raise AssertionError("the wire is mute")
        await wire.mend()
        wire.hub.on_pull = trio.lowlevel.checkpoint
        async with wire.transport().connect() as again:
            assert (await ServiceProxy(again).pull(pull())).head == 2


async def test_a_quiet_connection_stays_alive(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        await trio.sleep(2.0)
        assert (await ServiceProxy(channel).pull(pull())).head == 2


async def test_a_slow_consumer_is_throttled_and_then_closed(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        wire.hub.hints = 10**9
        async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
            await until(lambda: wire.hub.sent_hints > ChannelLimits().window)
            await trio.sleep(0.2)
            assert wire.hub.sent_hints == ChannelLimits().window + 1  # one is in the handler's hand
            await until(lambda: wire.hub.active == 0, 2 * SOON_S)
            with pytest.raises(RemoteError) as closed:
                async for hint in hints:
                    assert hint.head < ChannelLimits().window
            assert closed.value.remote_code == "SLOW_CONSUMER"
            assert closed.value.remote_retryable
        assert (await ServiceProxy(channel).pull(pull())).head == 2


async def test_a_server_that_stops_finishes_what_it_has_begun(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        wire.hub.hints = 10**9
        replies: list[int] = []
        ends: list[str] = []
        go_on = trio.Event()
        wire.hub.on_pull = go_on.wait

        async def call() -> None:
            replies.append((await ServiceProxy(channel).pull(pull())).head)

        async def listen() -> None:
            try:
                async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
                    async for _ in hints:
                        await trio.sleep(0.01)
            except RemoteError as error:
                ends.append(error.remote_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(listen)
            await until(lambda: wire.hub.active == 2)
            nursery.start_soon(wire.stop)
            await until(lambda: bool(ends))
            with pytest.raises((RemoteError, TransportError)) as refused:
                await ServiceProxy(channel).pull(pull())
            assert isinstance(refused.value, RemoteError)
            assert (refused.value.remote_code, refused.value.remote_retryable) == ("UNAVAILABLE", True)
            go_on.set()
        assert (replies, ends) == ([2], ["UNAVAILABLE"])
        await until(lambda: not channel.is_open)


async def test_a_server_does_not_wait_forever_for_a_handler(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        wire.hub.on_pull = trio.sleep_forever
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(ChannelBroken):
                    await ServiceProxy(channel).pull(pull())

            nursery.start_soon(call)
            await until(lambda: wire.hub.active == 1)
            with trio.fail_after(2.5):
                await wire.stop()
        assert wire.hub.cancelled == 1


async def test_many_calls_at_once_come_back_to_the_right_callers(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport().connect() as channel:
        gate = trio.Event()
        wire.hub.on_pull = gate.wait
        heads: dict[str, str] = {}

        async def call(scope: str) -> None:
            heads[scope] = (await ServiceProxy(channel).pull(pull(scope=scope))).scope

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(call, f"scope-{number}")
            await until(lambda: wire.hub.active == 200, 5)
            gate.set()
        assert heads == {f"scope-{number}": f"scope-{number}" for number in range(200)}
        assert wire.hub.active == 0


async def test_more_calls_than_allowed_are_refused_before_they_are_sent(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.transport(limits=ChannelLimits(calls=3)).connect() as channel:
        wire.hub.on_pull = trio.sleep_forever
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ServiceProxy(channel).pull, pull())
            await until(lambda: wire.hub.active == 3)
            with pytest.raises(Overloaded):
                await ServiceProxy(channel).pull(pull())
            nursery.cancel_scope.cancel()
        await until(lambda: wire.hub.active == 0)
        wire.hub.on_pull = trio.lowlevel.checkpoint
        assert (await ServiceProxy(channel).pull(pull())).head == 2
        assert len(wire.hub.pulled) == 4


async def test_the_server_bounds_the_calls_of_a_client_that_does_not(open_wire: OpenWire) -> None:
    async with open_wire() as wire, wire.raw_pipe() as pipe:
        await welcome(pipe)
        wire.hub.on_pull = trio.sleep_forever
        for number in range(1, 252):
            await pipe.send(encode_frame("call", number, encode(pull()), method="pull"))
        frame = await next_frame(pipe)
        info = decode(frame.payload, ErrorInfo)
        assert (frame.id, info.code, info.retryable) == (251, "OVERLOADED", True)
        assert wire.hub.active == 250
        await pipe.send(encode_frame("cancel", 7))
        await pipe.send(encode_frame("cancel", 10**6))  # of a call that never was: nothing to do
        await until(lambda: wire.hub.active == 249)


async def test_nothing_is_left_behind(open_wire: OpenWire) -> None:
    async with open_wire() as wire:
        await trio.testing.wait_all_tasks_blocked(0.02)
        before = trio.lowlevel.current_statistics().tasks_living
        wire.hub.hints = 10**9
        for _ in range(3):
            async with wire.transport().connect() as channel, trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ServiceProxy(channel).pull, pull())
                async with ServiceProxy(channel).notify(NotifyRequest(("main",))) as hints:
                    async for hint in hints:
                        if hint.head == 20:
                            break
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
        assert wire.hub.active == 0


async def test_errors_in_the_block_of_a_connection_come_out_bare(open_wire: OpenWire) -> None:
    async with open_wire() as wire:
        with pytest.raises(KeyError, match="mine"):
            async with wire.transport().connect():
                raise KeyError("mine")
        with pytest.raises(LookupError):
            async with (
                wire.transport().connect() as channel,
                ServiceProxy(channel).notify(NotifyRequest(("main",))),
            ):
                raise LookupError
