"""Calls and their replies: what travels arrives as it was, and goes to who asked."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import trio

from atoma.contracts.sync import OpenRequest, SnapshotRequest
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ConflictError,
    Overloaded,
    ProtocolError,
    QueryError,
    RemoteError,
    StoreCorrupt,
    ValidationError,
)
from atoma.schema.expressions import col
from atoma.testing.conformance.checks import expect, expect_equal, expect_error, open_background
from atoma.testing.conformance.hosts import OTHER_SUBJECT, OTHER_TOKEN, SUBJECT
from atoma.testing.conformance.notes import ask
from atoma.testing.conformance.stage import NOTIFY, Stage, pull, push, resolve, transport_table, write
from atoma.testing.queries import count_of, rows_of
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits

CHECKS = transport_table()

MIB = 1024 * 1024
AT_ONCE = 100


@CHECKS.add
async def every_method_brings_its_reply(stage: Stage) -> None:
    """Each unary method of the protocol is answered, and values of every kind arrive exactly as they were sent."""
    async with stage.service() as service:
        opened = await service.open(OpenRequest(b"c", 1, 1, b"", ("main",), tail_mid=7))
        expect_equal((opened.principal, opened.last_mid), (SUBJECT, 7), "the answer to open")
        pushed = await service.push(push(b"b", b""))
        expect_equal([outcome.mid for outcome in pushed.outcomes], [1, 2], "the outcomes of a push")
        page = (await service.pull(pull(scope="räume/☃\n'\""))).stores[0]
        expect_equal(page.rows, ((1, "id", "üüüüü", b"\x00\xff", 1.5, None, -(2**63)),), "the rows of a page")
        expect_equal(page.deletes, ((2, "gone"),), "the deletes of a page")
        expect_equal(stage.hub.pulled, ["räume/☃\n'\""], "the scope that the service was asked for")
        expect_equal((await service.snapshot(SnapshotRequest("main", b"c", b"t"))).token, b"t+", "a snapshot's token")


@CHECKS.add
async def direct_reads_and_writes_bring_their_results(stage: Stage) -> None:
    """Queries, writes and questions about a key are answered item by item, with predicates, bytes and trace intact."""
    async with stage.service() as service:
        written = await service.write(write("key", "a", "b"))
        expect_equal((written.status, [item.id for item in written.items]), ("confirmed", ["a", "b"]), "the result")
        expect_equal((written.meta.source, written.meta.trace_id), ("remote", "trace-1"), "source and trace of a write")
        where = (col("blob") != b"\x01") & col("text").in_(("x", None, "1")) & col("text").like("%")
        asked = rows_of("notes", where, order_by=("blob",), after=(b"k", "1"))
        found = await service.query(ask(asked))
        expect_equal([row.image for row in found.rows], [{"text": "ß", "blob": b"\x00"}] * 2, "the rows of a query")
        expect_equal((found.meta.source, found.meta.cursor), ("remote", "next"), "source and cursor of a query")
        expect_equal((await service.query(ask(count_of("notes")))).tuples, ((2,),), "a count")
        resolved = await service.resolve(resolve("key"))
        expect(resolved.result is not None, "the key of a write that was carried out is called abandoned")
        if resolved.result is not None:
            expect_equal(resolved.result.items, written.items, "what a resolved key answers")
        expect((await service.resolve(resolve("never"))).abandoned, "a key that nobody wrote under is not abandoned")
        expect_equal(stage.hub.traces, ["trace-1"] * 5, "the trace ids that the service was told")


@CHECKS.add
async def large_messages_pass(stage: Stage) -> None:
    """A reply of three megabytes and a push of one arrive whole."""
    async with stage.service() as service:
        page = (await service.pull(pull(3 * MIB))).stores[0]
        expect(page.rows[0][2] == "ü" * (3 * MIB // 2), "the text of a large page is another one")
        reply = await service.push(push(b"x" * MIB))
        expect_equal(reply.last_mid, 1, "the last mutation of a large push")


@CHECKS.add
async def messages_beyond_the_limit_are_refused(stage: Stage) -> None:
    """A reply or a request over the limit is refused as TOO_LARGE, not carried out, and harms no other call."""
    async with stage.service() as service:
        for attempt in (lambda: service.pull(pull(5 * MIB)), lambda: service.push(push(b"x" * (5 * MIB)))):
            with expect_error(RemoteError, what="a message over the limit") as caught:
                await attempt()
            expect_equal(caught.error.remote_code, "TOO_LARGE", "the code")
        expect_equal(stage.hub.applied, [], "what was applied")
        await stage.check_answers(service)


@CHECKS.add
async def many_calls_come_back_to_their_callers(stage: Stage) -> None:
    """A hundred calls in flight at once on one channel are worked on together, and each caller gets its own reply."""
    async with stage.service() as service:
        gate = trio.Event()
        stage.hub.on_pull = gate.wait
        got: dict[str, str] = {}

        async def call(scope: str) -> None:
            got[scope] = (await service.pull(pull(scope=scope))).scope

        async with trio.open_nursery() as nursery:
            for number in range(AT_ONCE):
                nursery.start_soon(call, f"scope-{number}")
            await stage.until(lambda: stage.hub.active == AT_ONCE, "the calls were not all worked on at once")
            gate.set()
        expect_equal(got, {scope: scope for scope in got}, "who got which reply")
        expect_equal((len(got), stage.hub.active), (AT_ONCE, 0), "replies, and handlers left")


@CHECKS.add
async def replies_in_another_order_reach_their_callers(stage: Stage) -> None:
    """The server answers in the opposite order of the requests: each caller gets its reply as soon as it is there."""
    async with stage.service() as service:
        gates = [trio.Event() for _ in range(10)]
        order: list[str] = []

        async def in_turn() -> None:
            await gates[len(stage.hub.pulled) - 1].wait()

        async def call(scope: str) -> None:
            order.append((await service.pull(pull(scope=scope))).scope)

        stage.hub.on_pull = in_turn
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(call, str(number))
                await stage.until(partial(_has, stage.hub.pulled, number + 1), "a call did not arrive")
            for answered, gate in enumerate(reversed(gates), 1):
                gate.set()
                await stage.until(partial(_has, order, answered), "a reply had to wait for another")
        expect_equal(order, stage.hub.pulled[::-1], "the order of the replies")


def _has(items: list[str], count: int) -> bool:
    return len(items) == count


@CHECKS.add
async def a_method_the_protocol_does_not_have_is_not_sent(stage: Stage) -> None:
    """Calling a method that does not exist, or a stream as a call, is a ProtocolError, and certainly nothing was sent."""
    async with stage.channel() as channel:
        for method, message in (("nonsense", pull()), ("notify", NOTIFY)):
            with expect_error(ProtocolError, what=f"a call of {method!r}") as caught:
                await channel.call(method, message)
            expect_equal(caught.error.maybe_sent, False, "maybe_sent")
        with expect_error(ProtocolError, what="a stream of 'pull'"):
            async with channel.stream("pull", pull()) as items:
                async for _ in items:
                    pass
        expect_equal(stage.hub.pulled, [], "what the service was asked")
        await stage.check_answers(ServiceProxy(channel))


@CHECKS.add
async def more_calls_than_allowed_are_refused_before_they_are_sent(stage: Stage) -> None:
    """Calls beyond ``limits.calls`` raise Overloaded at once; those in flight go on, and places become free again."""
    async with stage.service(limits=ChannelLimits(calls=3)) as service:
        stage.hub.on_pull = trio.sleep_forever
        async with open_background() as nursery:
            for _ in range(3):
                nursery.start_soon(service.pull, pull())
            await stage.until(lambda: stage.hub.active == 3, "three calls were not worked on")
            with expect_error(Overloaded, what="the fourth call"):
                await service.pull(pull())
            expect_equal(stage.hub.active, 3, "handlers that run")
        await stage.idle()
        await stage.check_answers(service)
        expect_equal(len(stage.hub.pulled), 4, "the calls that arrived")


def failures() -> list[tuple[Exception, tuple[type[AtomaError], str, bool, float, dict[str, str]]]]:
    """What a service raises, and what its caller gets: type, code, retryable, seconds to wait, facts."""
    limited = RemoteError(
        "later", remote_code="RATE_LIMITED", remote_retryable=True, retry_after_s=1.5, info={"a": "ß"}
    )
    gone = RemoteError("no", remote_code="CURSOR_TOO_OLD", remote_retryable=True)
    moved = ConflictError("it möved", store="notes", id="a")
    wrong = ValidationError("too long", store="notes", field="text", value="secret")
    group = ExceptionGroup("many", [QueryError("alone in a group")])
    long = RemoteError("x" * 100_000, remote_code="BUSY", info={str(number): "y" * 1000 for number in range(100)})
    strange = RemoteError(
        "half of a pair: \ud800", remote_code="QUOTA", retry_after_s=float("inf"), info={"\udfff": "\n\0"}
    )
    return [
        (limited, (RemoteError, "RATE_LIMITED", True, 1.5, {"a": "ß"})),
        (gone, (RemoteError, "CURSOR_TOO_OLD", True, 0, {})),
        (QueryError("no field 'x'"), (RemoteError, "QUERY", False, 0, {})),
        (moved, (RemoteError, "CONFLICT", False, 0, {"store": "notes", "id": "a"})),
        (wrong, (RemoteError, "INVALID", False, 0, {"store": "notes", "field": "text"})),
        (AuthenticationError("expired"), (AuthenticationError, "UNAUTHENTICATED", False, 0, {})),
        (ProtocolError("mid 3 after mid 1"), (ProtocolError, "MALFORMED", False, 0, {})),
        (StoreCorrupt("near 'SELECT secret': no such table"), (RemoteError, "CORRUPT", False, 0, {})),
        (RuntimeError("near 'SELECT secret'"), (RemoteError, "INTERNAL", True, 0, {})),
        (group, (RemoteError, "QUERY", False, 0, {})),
        (long, (RemoteError, "BUSY", True, 0, {})),
        (strange, (RemoteError, "QUOTA", False, (2**31 - 1) / 1000, {"?": "\n\0"})),
    ]


@CHECKS.add
async def errors_are_the_same_everywhere(stage: Stage) -> None:
    """What a service raises comes out of calls and streams as the same type with the same code, facts and waiting time.

    Nothing of the server's inside is told: no SQL, no path, no trace. What no message can hold, or is too long for one,
    harms no other call.
    """
    async with stage.service() as service:
        with unlogged():
            for failure, (kind, code, retryable, wait_s, info) in failures():
                stage.hub.failure = failure
                with expect_error(kind, what=f"a call whose service raised {failure!r}") as caught:
                    await service.pull(pull())
                check_failure(caught.error, (kind, code, retryable, wait_s, info))
                with expect_error(kind, what=f"a stream whose service raised {failure!r}") as caught:
                    async with service.notify(NOTIFY) as hints:
                        async for _ in hints:
                            raise AssertionError("a hint from nowhere")
                check_failure(caught.error, (kind, code, retryable, wait_s, info))
        stage.hub.failure = None
        await stage.check_answers(service)


@contextmanager
def unlogged() -> Generator[None]:
    """Keep what a server logs about its services' failures to itself: they are meant."""
    logger = logging.getLogger("atoma.transports")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_failure(error: AtomaError, wanted: tuple[type[AtomaError], str, bool, float, dict[str, str]]) -> None:
    """Fail the check unless ``error`` is what the table says."""
    kind, code, retryable, wait_s, info = wanted
    expect(type(error) is kind, f"the error is a {type(error).__name__}, not a {kind.__name__}")
    for secret in ("SELECT", "Traceback", ".py"):
        expect(secret not in str(error), f"the message tells of the server's inside: {error}")
    if isinstance(error, RemoteError):
        facts = (error.remote_code, error.remote_retryable, error.retry_after_s, error.info)
        expect_equal(facts, (code, retryable, wait_s, info), "code, retryable, wait and facts")


@CHECKS.add
async def an_answer_that_cannot_be_sent_fails_its_own_call(stage: Stage) -> None:
    """A service's answer that no message can hold is INTERNAL for its caller, and calls that travel with it are answered."""
    stage.hub.unsayable = "bad"
    got: dict[str, str] = {}
    async with stage.service() as service:

        async def call(scope: str) -> None:
            try:
                got[scope] = (await service.pull(pull(scope=scope))).scope
            except RemoteError as error:
                got[scope] = error.remote_code

        with unlogged():
            async with trio.open_nursery() as nursery:
                for scope in ("good", "bad", "fine"):
                    nursery.start_soon(call, scope)
        await stage.check_answers(service)
    expect_equal(got, {"good": "good", "bad": "INTERNAL", "fine": "fine"}, "what the callers got")


@CHECKS.add
async def without_the_right_token_nobody_comes_in(stage: Stage) -> None:
    """A wrong or missing token is an AuthenticationError of ``connect``, and no service is asked anything.

    So is a text that is not a token: more than a line of printable ASCII characters, or than 16 KiB of them.
    """
    for text in ("ü", "two\nlines", " padded", "half of a pair: \ud800", "x" * 100_000):
        with expect_error(AuthenticationError, what=f"connecting with {text[:20]!r} as token"):
            async with stage.channel(token=text):
                raise AssertionError("came in")
    for token in ("", "wrong", "x" * 1000):
        with expect_error(AuthenticationError, what=f"connecting with the token {token[:10]!r}") as caught:
            async with stage.channel(token=token):
                raise AssertionError("came in")
        expect("not known" in str(caught.error), f"the host's own words are lost: {caught.error}")
    expect_equal((stage.hub.active, stage.hub.pulled), (0, []), "what the service was asked")
    async with stage.service() as service:
        await stage.check_answers(service)


@CHECKS.add
async def everybody_is_who_their_own_token_says(stage: Stage) -> None:
    """Two connections with two tokens, used in turn, are two principals; one that ends leaves the other as it is."""
    request = OpenRequest(b"c", 1, 1, b"", ("main",))
    async with stage.service() as alice:
        async with stage.service(OTHER_TOKEN) as bob:
            for _ in range(3):
                names = [(await service.open(request)).principal for service in (alice, bob)]
                expect_equal(names, [SUBJECT, OTHER_SUBJECT], "who the two connections are for the hub")
        expect_equal((await alice.open(request)).principal, SUBJECT, "who the connection is that is left")


@CHECKS.add
async def errors_in_the_block_of_a_connection_come_out_bare(stage: Stage) -> None:
    """An error in the block of ``connect`` or of a stream comes out as itself, without a group around it."""
    with expect_error(KeyError, what="the block of a connection"):
        async with stage.channel():
            raise KeyError("mine")
    stage.hub.hints = 10**9
    with expect_error(LookupError, what="the block of a stream"):
        async with stage.service() as service, service.notify(NOTIFY) as hints:
            async for _ in hints:
                raise LookupError
    await stage.idle()


@CHECKS.add
async def nothing_is_left_behind(stage: Stage) -> None:
    """After a channel is closed no task of it lives on, at neither end, and no handler runs."""
    async with stage.service() as service:
        await stage.check_answers(service)
    before = await settled_tasks(stage)
    stage.hub.hints = 10**9
    for _ in range(3):
        async with stage.service() as service, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(service.pull, pull())
            async with service.notify(NOTIFY) as hints:
                async for hint in hints:
                    if hint.head == 20:
                        break
    await stage.until(
        lambda: trio.lowlevel.current_statistics().tasks_living <= before, "tasks of closed channels live on", 3
    )
    await stage.idle()


async def settled_tasks(stage: Stage) -> int:
    """Tasks that live while nothing happens: what a closed connection leaves for a moment has ended."""
    fewest = trio.lowlevel.current_statistics().tasks_living
    for _ in range(20):
        await trio.sleep(0.01 if not stage.virtual else 0.1)
        fewest = min(fewest, trio.lowlevel.current_statistics().tasks_living)
    return fewest
