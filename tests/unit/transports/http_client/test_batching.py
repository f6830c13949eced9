"""The batch engine on virtual time: what is joined, what is refused, what a cancellation does, what an end leaves."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from atoma.contracts.codec import decode, encode
from atoma.contracts.survey import VALUES_MAX
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ChannelBroken, ConfigurationError, Overloaded, ProtocolError
from atoma_transports.http.client import BatchRules, LaneRules
from atoma_transports.http.client.engine import BatchEngine, open_engine
from atoma_transports.http.envelope import pack_record
from tests.unit.transports.http_client.script import END, Exchange, Script, echo, item

pytestmark = pytest.mark.virtual_time
SIZE_MAX = 100_000


@asynccontextmanager
async def engine_over(script: Script, **rules: LaneRules) -> AsyncGenerator[BatchEngine]:
    async with open_engine(script, rules=BatchRules(**rules), size_max=SIZE_MAX, random=random.Random(1)) as engine:
        yield engine


class Calls:
    """Calls in tasks of their own, and what became of them."""

    def __init__(self, engine: BatchEngine, nursery: trio.Nursery) -> None:
        self.engine = engine
        self.nursery = nursery
        self.ended: dict[str, Any] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    def start(self, *names: str, method: str = "write") -> None:
        for name in names:
            self.nursery.start_soon(self._call, name, method)

    async def _call(self, name: str, method: str) -> None:
        with trio.CancelScope() as self.scopes[name]:
            try:
                answer = await self.engine.call(method, encode(name))
            except AtomaError as error:
                self.ended[name] = error
            else:
                self.ended[name] = answer if isinstance(answer, ErrorInfo) else decode(answer, str)
        if name not in self.ended:
            self.ended[name] = "cancelled"

    def cancel(self, *names: str) -> None:
        for name in names:
            self.scopes[name].cancel()


@asynccontextmanager
async def calls_over(script: Script, **rules: LaneRules) -> AsyncGenerator[Calls]:
    async with trio.open_nursery() as nursery, engine_over(script, **rules) as engine:
        yield Calls(engine, nursery)


settled = trio.testing.wait_all_tasks_blocked


def names(count: int, prefix: str = "n") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


async def test_writes_of_one_moment_are_one_request() -> None:
    script = Script(echo)
    async with calls_over(script) as calls:
        calls.start(*names(20))
        await settled()
        assert script.paths() == ["/v1/batch"]
        assert sorted(script.exchanges[0].calls.values(), key=str) == sorted(names(20))
        assert calls.ended == {name: name for name in names(20)}


async def test_a_call_that_is_alone_needs_no_envelope() -> None:
    script = Script(echo)
    async with calls_over(script) as calls:
        for name in names(3):
            calls.start(name)
            await settled()
        assert script.paths() == ["/v1/write"] * 3
        assert calls.ended == {name: name for name in names(3)}


async def test_lanes_are_joined_apart_and_a_slow_page_does_not_stand_before_a_query() -> None:
    async def slow_pages(exchange: Exchange) -> None:
        if exchange.path != "/v1/pull":
            await echo(exchange)

    script = Script(slow_pages)
    async with calls_over(script, sync=LaneRules(requests=1)) as calls:
        calls.start("page", method="pull")
        await settled()
        calls.start("next page", "and one more", method="pull")
        calls.start("w1", "w2")
        calls.start("q1", "q2", "q3", method="query")
        calls.start("outcome", method="resolve")
        await settled()
        assert sorted(len(exchange.calls) for exchange in script.exchanges) == [1, 2, 4]
        assert sorted(calls.ended) == ["outcome", "q1", "q2", "q3", "w1", "w2"]
        script.on_request = echo
        script.exchanges[0].send(encode("page"), b"")
        await settled()
        assert len(calls.ended) == 9
        assert script.paths()[-1] == "/v1/batch"  # what has waited meanwhile is joined


async def test_a_request_holds_no_more_values_than_a_server_takes() -> None:
    script = Script(echo)
    answers: list[int] = []
    async with engine_over(script, write=LaneRules(requests=1)) as engine:

        async def call(values: int) -> None:
            answer = await engine.call("write", encode([1] * values))
            assert isinstance(answer, bytes)
            answers.append(len(decode(answer, list[int])))

        async with trio.open_nursery() as nursery:
            for values in (1, *[30_000] * 7, 90_000, 10):
                nursery.start_soon(call, values)
    sizes = [sorted(len(call) for call in exchange.calls.values()) for exchange in script.exchanges]  # type: ignore[arg-type]
    assert sorted(answers) == sorted(size for sizes_of_one in sizes for size in sizes_of_one)
    assert max(map(sum, sizes)) <= VALUES_MAX
    assert len(sizes) <= 6, "calls are still joined"


async def test_requests_calls_and_bytes_have_bounds() -> None:
    script = Script()
    async with calls_over(script, write=LaneRules(requests=2, calls=3)) as calls:
        calls.start(*names(10))
        await settled()
        assert [len(exchange.calls) for exchange in script.exchanges] == [3, 3]
        await echo(script.exchanges[1])
        await settled()
        assert [len(exchange.calls) for exchange in script.exchanges] == [3, 3, 3]
        script.on_request = echo
        await echo(script.exchanges[0])
        await echo(script.exchanges[2])
        await settled()
        assert [len(exchange.calls) for exchange in script.exchanges] == [3, 3, 3, 1]
        assert script.peak == 2
        assert calls.ended == {name: name for name in names(10)}
    script = Script(echo)
    async with calls_over(script, write=LaneRules(bytes=2000)) as calls:
        calls.start("a" * 900, "b" * 900, "c" * 5000, "d" * 900)
        await settled()
        assert sum(len(exchange.calls) for exchange in script.exchanges) == 4
        for exchange in script.exchanges:
            assert len(exchange.calls) == 1 or sum(len(str(call)) for call in exchange.calls.values()) < 2000
        assert len(calls.ended) == 4


async def test_a_full_queue_refuses_the_newcomer_and_drops_nobody() -> None:
    script = Script()
    async with calls_over(script, write=LaneRules(requests=1, queue=3)) as calls:
        calls.start("first")
        await settled()
        calls.start("a", "b", "c")
        await settled()
        with pytest.raises(Overloaded, match="lane 'write' is full"):
            await calls.engine.call("write", encode("d"))
        calls.start("q", method="query")  # the other lanes have queues of their own
        await settled()
        assert script.paths() == ["/v1/write", "/v1/query"]
        script.on_request = echo
        await echo(script.exchanges[0])
        await echo(script.exchanges[1])
        await settled()
        assert calls.ended == {name: name for name in ("first", "a", "b", "c", "q")}
    script = Script()
    async with calls_over(script, write=LaneRules(requests=1, queue_bytes=1000)) as calls:
        calls.start("first")
        await settled()
        calls.start("x" * 5000)  # the only one that waits may be large
        await settled()
        with pytest.raises(Overloaded, match="bytes in the lane"):
            await calls.engine.call("write", encode("d"))


async def test_each_reply_is_given_as_soon_as_it_is_there() -> None:
    script = Script()
    async with calls_over(script) as calls:
        calls.start("a", "b", "c")
        await settled()
        (exchange,) = script.exchanges
        ids = {str(name): id for id, name in exchange.calls.items()}
        exchange.answer(ids["c"])
        exchange.send(pack_record("p"))
        await settled()
        assert calls.ended == {"c": "c"}
        whole = item(ids["a"], "a")
        exchange.send(whole[:3], whole[3:8])
        await settled()
        assert calls.ended == {"c": "c"}
        refusal = ErrorInfo("RATE_LIMITED", "later", True, 1500, {"a": "b"})
        exchange.send(whole[8:] + item(ids["b"], error=refusal))
        await settled()
        assert calls.ended == {"c": "c", "a": "a", "b": refusal}
        exchange.finish()
        await settled()
        assert exchange.finished


async def test_a_cancelled_call_that_was_not_sent_is_withdrawn() -> None:
    script = Script()
    async with calls_over(script, write=LaneRules(requests=1)) as calls:
        calls.start("first")
        await settled()
        calls.start("a", "b", "c")
        await settled()
        calls.cancel("a", "c")
        await settled()
        script.on_request = echo
        await echo(script.exchanges[0])
        await settled()
        assert script.paths() == ["/v1/write", "/v1/write"]
        assert calls.ended == {"first": "first", "a": "cancelled", "b": "b", "c": "cancelled"}


async def test_a_cancelled_call_that_travels_alone_ends_its_request() -> None:
    script = Script()
    async with calls_over(script) as calls:
        calls.start("a")
        await settled()
        calls.cancel("a")
        await settled()
        assert script.exchanges[0].cancelled
        assert script.paths() == ["/v1/write"]
        script.on_request = echo
        calls.start("b")
        await settled()
        assert calls.ended == {"a": "cancelled", "b": "b"}


async def test_a_cancelled_call_in_company_is_cancelled_by_name_and_the_others_go_on() -> None:
    async def take_cancels(exchange: Exchange) -> None:
        if exchange.path == "/v1/cancel":
            await echo(exchange)

    script = Script(take_cancels)
    async with calls_over(script) as calls:
        calls.start("a", "b", "c", "d")
        await settled()
        (exchange,) = script.exchanges
        ids = {str(name): id for id, name in exchange.calls.items()}
        calls.cancel("a")
        await settled()
        assert script.paths() == ["/v1/batch"]  # the other side may not know the batch yet
        calls.cancel("b")
        exchange.begin()
        await settled()
        assert script.paths() == ["/v1/batch", "/v1/cancel"]
        assert sorted(script.exchanges[1].calls) == sorted([ids["a"], ids["b"]])
        assert exchange.batch.encode() in script.exchanges[1].request.body
        exchange.answer(ids["b"], ids["c"])  # too late to be cancelled: nobody is there for it
        await settled()
        assert calls.ended == {"a": "cancelled", "b": "cancelled", "c": "c"}
        calls.cancel("d")
        await settled()
        assert exchange.cancelled  # nobody is left: the request itself is given up
        assert script.paths() == ["/v1/batch", "/v1/cancel"]


async def test_calls_cancelled_before_their_batch_was_made_are_not_in_it() -> None:
    script = Script(echo)
    async with calls_over(script) as calls:
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def impatient() -> None:
                with scope:
                    await calls.engine.call("write", encode("impatient"))

            nursery.start_soon(impatient)
            calls.start("patient")
            await trio.lowlevel.checkpoint()
            scope.cancel()
        await settled()
        assert calls.ended == {"patient": "patient"}
        assert all("impatient" not in exchange.calls.values() for exchange in script.exchanges)


async def test_a_cancellation_that_cannot_be_delivered_disturbs_nobody() -> None:
    async def lose_cancels(exchange: Exchange) -> None:
        if exchange.path == "/v1/cancel":
            exchange.lose(sent=True)
        else:
            exchange.begin()

    script = Script(lose_cancels)
    async with calls_over(script) as calls:
        calls.start("a", "b")
        await settled()
        calls.cancel("a")
        await settled()
        (exchange,) = [exchange for exchange in script.exchanges if exchange.batch]
        exchange.answer(*[id for id, name in exchange.calls.items() if name == "b"])
        exchange.finish()
        await settled()
        assert calls.ended == {"a": "cancelled", "b": "b"}


@pytest.mark.parametrize("sent", [True, False])
async def test_a_lost_connection_says_of_every_call_whether_it_may_have_been_seen(sent: bool) -> None:
    async def lose(exchange: Exchange) -> None:
        exchange.lose(sent=sent)

    script = Script(lose)
    async with calls_over(script) as calls:
        calls.start("a", "b")
        calls.start("q", method="query")
        await settled()
        assert sorted(calls.ended) == ["a", "b", "q"]
        assert len({id(error) for error in calls.ended.values()}) == 3
        for error in calls.ended.values():
            assert type(error) is ChannelBroken
            assert error.maybe_sent is sent
            assert str(error).count("unknown" if sent else "was not sent") == 1
        script.on_request = echo  # the engine goes on
        calls.start("again")
        await settled()
        assert calls.ended["again"] == "again"


TRUNCATED = item(1, "x" * 100)
NONSENSE: dict[str, tuple[list[bytes | Exception], type[AtomaError]]] = {
    "cut between records": ([b""], ChannelBroken),
    "cut inside a record": ([TRUNCATED[:50], b""], ChannelBroken),
    "no records": ([b"<html>", b""], ProtocolError),
    "too large": ([b"i" + (2**31).to_bytes(4, "big")], ProtocolError),
    "unknown kind": ([b"?\0\0\0\0", b""], ProtocolError),
    "no reply in the record": ([pack_record("i", b"\xc1")], ProtocolError),
    "a call that never was": ([item(99, "x")], ProtocolError),
    "an end too early": ([END, b""], ProtocolError),
    "bytes after the end": ([END, b"x" * 10_000], ProtocolError),
    "broken inside": ([ChannelBroken("the wire broke")], ChannelBroken),
}


async def test_a_second_reply_to_one_call_is_nonsense_too() -> None:
    script = Script()
    async with calls_over(script) as calls:
        calls.start("a", "b")
        await settled()
        (exchange,) = script.exchanges
        first, *_ = exchange.calls
        exchange.answer(first, first)
        await settled()
        assert sorted(type(outcome).__name__ for outcome in calls.ended.values()) == ["ProtocolError", "str"]


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_in_a_reply_fails_what_is_open_with_a_typed_error(name: str) -> None:
    parts, kind = NONSENSE[name]
    script = Script()
    async with calls_over(script) as calls:
        calls.start("a", "b")
        await settled()
        (exchange,) = script.exchanges
        pairs: list[tuple[int, object]] = list(exchange.calls.items())
        answered, left = pairs
        exchange.answer(answered[0])
        for part in parts:
            exchange.send(part)
        await settled()
        assert calls.ended[str(answered[1])] == answered[1]
        error = calls.ended[str(left[1])]
        assert (type(error), error.maybe_sent) == (kind, True)
        script.on_request = echo
        calls.start("again")
        await settled()
        assert calls.ended["again"] == "again"


async def test_an_error_record_ends_the_rest_of_a_batch() -> None:
    script = Script()
    async with calls_over(script) as calls:
        calls.start("a", "b")
        await settled()
        info = ErrorInfo("UNAVAILABLE", "going down", True)
        script.exchanges[0].send(pack_record("e", encode(info)), b"")
        await settled()
        assert calls.ended == {"a": info, "b": info}


async def test_an_error_status_is_the_answer_to_every_call() -> None:
    info = ErrorInfo("OVERLOADED", "later", True, 250)

    async def refuse(exchange: Exchange) -> None:
        exchange.begin(503, "application/vnd.msgpack")
        exchange.send(encode({"error": info}), b"")

    script = Script(refuse)
    async with calls_over(script) as calls:
        calls.start("a", "b")
        calls.start("q", method="query")
        await settled()
        assert calls.ended == {"a": info, "b": info, "q": info}


async def test_a_bug_below_is_an_error_of_the_calls_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def explode(exchange: Exchange) -> None:
        raise KeyError("a bug")

    script = Script(explode)
    async with calls_over(script) as calls:
        calls.start("a", "b")
        await settled()
        assert [type(error) for error in calls.ended.values()] == [ChannelBroken] * 2
        script.on_request = echo
        calls.start("again")
        await settled()
        assert calls.ended["again"] == "again"
    assert "a request failed" in caplog.text


async def test_a_reply_that_goes_on_after_everything_is_answered_is_given_up() -> None:
    script = Script()
    async with calls_over(script) as calls:
        calls.start("a", "b")
        await settled()
        (exchange,) = script.exchanges
        exchange.answer(*exchange.calls)
        for _ in range(20):
            exchange.send(pack_record("p"))
            await trio.sleep(0.1)
        assert exchange.cancelled
        assert calls.ended == {"a": "a", "b": "b"}


async def test_budgets_are_of_the_call_and_shrink_while_it_waits() -> None:
    script = Script()
    async with calls_over(script, write=LaneRules(requests=1)) as calls:
        calls.start("first")
        await settled()

        async def hurried(name: str, seconds: float) -> None:
            with trio.move_on_after(seconds), contextlib.suppress(ChannelBroken):
                await calls.engine.call("write", encode(name), "trace-1")

        calls.nursery.start_soon(hurried, "one", 5)
        calls.nursery.start_soon(hurried, "two", 10)
        await trio.sleep(2)
        await echo(script.exchanges[0])
        await settled()
        envelope = decode(script.exchanges[1].request.body, dict)
        budgets = {call["message"]: (call["budget_ms"], call["trace_id"]) for call in envelope["calls"]}
        assert budgets == {"one": (3000, "trace-1"), "two": (8000, "trace-1")}
        assert script.exchanges[0].request.budget_ms == -1
        await trio.sleep(3.5)  # the first gives up in time, and is cancelled by name
        script.exchanges[1].begin()
        await settled()
        assert script.paths()[-1] == "/v1/cancel"


async def test_closing_ends_what_waits_and_what_travels_and_leaves_no_task() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    script = Script()
    async with trio.open_nursery() as nursery:
        async with engine_over(script, write=LaneRules(requests=1, calls=2)) as engine:
            calls = Calls(engine, nursery)
            calls.start(*names(5))
            await settled()
            calls.cancel(script_name := str(next(iter(script.exchanges[0].calls.values()))))
            await settled()
        await settled()
        assert len(calls.ended) == 5
        travelling = {str(name) for name in script.exchanges[0].calls.values()} - {script_name}
        for name, error in calls.ended.items():
            if name != script_name:
                assert type(error) is ChannelBroken
                assert error.maybe_sent is (name in travelling)
        with pytest.raises(ChannelBroken, match="closed") as refused:
            await engine.call("write", encode("late"))
        assert refused.value.maybe_sent is False
        assert script.open == 0
    assert trio.lowlevel.current_statistics().tasks_living == before


def test_bounds_are_positive() -> None:
    with pytest.raises(ConfigurationError, match="queue"):
        LaneRules(queue=0)
