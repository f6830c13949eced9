"""Frames: for transports that move whole messages, what the server does with good, bad and repeated ones."""

from __future__ import annotations

import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.sync import NotifyRequest
from atoma.contracts.values import ErrorInfo
from atoma.testing.conformance.checks import expect, expect_equal, expect_error
from atoma.testing.conformance.hosts import TOKEN
from atoma.testing.conformance.stage import NOTIFY, Stage, pull, transport_table
from atoma_transports.frames import MessagePipe
from atoma_transports.frames.envelope import Auth, Frame, decode_frame, encode_frame

CHECKS = transport_table()

ENDS = (trio.EndOfChannel, trio.BrokenResourceError)
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
_DELETE = {"index": 1, "name": "delete", "store": "s"}
_LIST_VALUE = {"index": 0, "name": "insert", "store": "s", "values": {"a": [1]}}
BAD_REQUESTS = {
    "no such method": ("nonsense", encode(pull()), "UNIMPLEMENTED"),
    "a stream called": ("notify", encode(NotifyRequest(("a",))), "UNIMPLEMENTED"),
    "no message": ("pull", b"", "MALFORMED"),
    "another message": ("pull", encode(NotifyRequest(("a",))), "MALFORMED"),
    "two queries": ("query", encode({"ops": [], "trace_id": ""}), "MALFORMED"),
    "not numbered": ("write", encode({"ops": [_DELETE], "idem": "k", "options": {}}), "MALFORMED"),
    "not a value": ("write", encode({"ops": [_LIST_VALUE], "idem": "k", "options": {}}), "MALFORMED"),
}


async def welcome(pipe: MessagePipe) -> None:
    """Come in."""
    await pipe.send(encode_frame("auth", payload=encode(Auth(TOKEN))))
    expect_equal(decode_frame(await pipe.receive(), 10**6).kind, "welcome", "the answer to the token")


async def next_frame(pipe: MessagePipe) -> Frame:
    """The next frame that is not a ping."""
    while True:
        frame = decode_frame(await pipe.receive(), 10**7)
        if frame.kind != "ping":
            return frame


async def check_hung_up(pipe: MessagePipe, name: str) -> None:
    """Fail the check unless the server ends the connection now."""
    with expect_error(*ENDS, what=f"the connection after {name}"):
        await next_frame(pipe)


@CHECKS.add
async def the_server_enforces_the_deadline_on_its_own(stage: Stage) -> None:
    """A budget in a frame is held by the server's clock, whatever the client does."""
    async with stage.open_pipe() as pipe:
        await welcome(pipe)
        stage.hub.on_pull = trio.sleep_forever
        await pipe.send(encode_frame("call", 1, encode(pull()), method="pull", budget_ms=100))
        frame = await next_frame(pipe)
        expect_equal(
            (frame.kind, frame.id, decode(frame.payload, ErrorInfo).code), ("error", 1, "TIMEOUT"), "the answer"
        )


@CHECKS.add
async def the_first_frame_brings_the_token(stage: Stage) -> None:
    """Whatever else a connection begins with is answered with an error and ends it; no service is asked."""
    first_frames = {
        "a call": encode_frame("call", 1, encode(pull()), method="pull"),
        "a token in disguise": encode_frame("ping", payload=encode(Auth(TOKEN))),
        "a huge token": encode_frame("auth", payload=encode(Auth("x" * 100_000))),
        "nothing": b"",
        "no msgpack": b"\xc1",
        "garbage": b"x" * 100_000,
    }
    for name, first in first_frames.items():
        async with stage.open_pipe() as pipe:
            await pipe.send(first)
            expect_equal((await next_frame(pipe)).kind, "error", f"the answer to {name}")
            await check_hung_up(pipe, name)
    expect_equal(stage.hub.pulled, [], "what the service was asked")
    expect_equal(stage.hub.peers, [], "what the host was asked")


@CHECKS.add
async def who_says_nothing_is_shown_out(stage: Stage) -> None:
    """A connection without a token ends after ``handshake_s``, with UNAUTHENTICATED."""
    async with stage.open_pipe() as pipe:
        frame = await next_frame(pipe)
        expect_equal(decode(frame.payload, ErrorInfo).code, "UNAUTHENTICATED", "the code")
        await check_hung_up(pipe, "silence")


@CHECKS.add
async def a_broken_frame_ends_its_connection_and_no_other(stage: Stage) -> None:
    """A frame that cannot be read is answered with MALFORMED and ends its connection; others go on undisturbed."""
    async with stage.service() as other:
        for name, data in BROKEN_FRAMES.items():
            async with stage.open_pipe() as pipe:
                await welcome(pipe)
                with expect_error(*ENDS, what=f"a connection with a frame that is {name}"):
                    await pipe.send(data)
                    frame = await next_frame(pipe)
                    info = decode(frame.payload, ErrorInfo)
                    expect_equal((frame.kind, frame.id, info.code), ("error", 0, "MALFORMED"), f"the answer: {name}")
                    expect("Traceback" not in info.message, "a trace is told")
                    await next_frame(pipe)
            await stage.check_answers(other)
        await stage.idle()


@CHECKS.add
async def a_bad_request_in_a_good_frame_is_an_error_of_that_call(stage: Stage) -> None:
    """A request that does not fit its method fails alone; the connection goes on and nothing was applied."""
    async with stage.open_pipe() as pipe:
        await welcome(pipe)
        for number, (name, (method, payload, code)) in enumerate(BAD_REQUESTS.items(), 1):
            await pipe.send(encode_frame("call", number, payload, method=method))
            frame = await next_frame(pipe)
            expect_equal((frame.kind, frame.id), ("error", number), f"the answer to a request with {name}")
            expect_equal(decode(frame.payload, ErrorInfo).code, code, f"the code of a request with {name}")
        await pipe.send(encode_frame("call", 99, encode(pull()), method="pull"))
        expect_equal((await next_frame(pipe)).kind, "reply", "the answer to a good request")
        expect_equal(stage.hub.applied, [], "what was applied")


@CHECKS.add
async def the_server_bounds_the_calls_of_a_client_that_does_not(stage: Stage) -> None:
    """Calls beyond the server's limit are refused as OVERLOADED; a cancel frame frees a place and is not answered."""
    calls = stage.limits.calls
    async with stage.open_pipe() as pipe:
        await welcome(pipe)
        stage.hub.on_pull = trio.sleep_forever
        for number in range(1, calls + 2):
            await pipe.send(encode_frame("call", number, encode(pull()), method="pull"))
        frame = await next_frame(pipe)
        info = decode(frame.payload, ErrorInfo)
        expect_equal(
            (frame.id, info.code, info.retryable), (calls + 1, "OVERLOADED", True), "the answer to one too many"
        )
        expect_equal(stage.hub.active, calls, "handlers that run")
        await pipe.send(encode_frame("cancel", 7))
        await pipe.send(encode_frame("cancel", 10**6))  # of a call that never was: nothing to do
        await stage.until(lambda: stage.hub.active == calls - 1, "the cancelled call goes on")
        await pipe.send(encode_frame("ping"))
        expect_equal((await next_frame(pipe)).kind, "pong", "what comes after a call was cancelled")


@CHECKS.add
async def a_frame_that_comes_twice_counts_once(stage: Stage) -> None:
    """A call whose frame comes again while it is worked on is carried out once and answered once."""
    gate = trio.Event()
    stage.hub.on_pull = gate.wait
    async with stage.open_pipe() as pipe:
        await welcome(pipe)
        for _ in range(2):
            await pipe.send(GOOD_CALL)
        await pipe.send(encode_frame("ping"))
        expect_equal((await next_frame(pipe)).kind, "pong", "what comes while the call is worked on")
        gate.set()
        frame = await next_frame(pipe)
        expect_equal((frame.kind, frame.id), ("reply", 1), "the first answer")
        await pipe.send(encode_frame("call", 2, encode(pull()), method="pull"))
        frame = await next_frame(pipe)
        expect_equal((frame.kind, frame.id), ("reply", 2), "the next answer")
        expect_equal(len(stage.hub.pulled), 2, "the calls that the service was asked")


@CHECKS.add
async def frames_in_another_order_are_taken_as_they_come(stage: Stage) -> None:
    """A cancel or a credit that overtakes its call, and calls in falling order of ids, disturb nothing."""
    async with stage.open_pipe() as pipe:
        await welcome(pipe)
        stage.hub.hints = 2
        await pipe.send(encode_frame("cancel", 3))
        await pipe.send(encode_frame("credit", 1, credit=2))
        await pipe.send(encode_frame("call", 3, encode(pull()), method="pull"))
        expect_equal((await next_frame(pipe)).id, 3, "the first answer")
        await pipe.send(encode_frame("call", 2, encode(pull()), method="pull"))
        expect_equal((await next_frame(pipe)).id, 2, "the second answer")
        await pipe.send(encode_frame("stream", 1, encode(NOTIFY), method="notify", credit=5))
        kinds = [(await next_frame(pipe)).kind for _ in range(3)]
        expect_equal(kinds, ["item", "item", "end"], "the frames of a stream")
