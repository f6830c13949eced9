"""Random calls, cancellations, replies and failures: every call gets its own reply or a typed error, bounds hold.

The model knows nothing of the engine: it is what a caller may expect of any such thing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import hypothesis
import pytest
import trio
from hypothesis import strategies as st

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ChannelBroken, Overloaded, ProtocolError
from atoma_transports.http.client import BatchRules, LaneRules
from atoma_transports.http.client.engine import BatchEngine, open_engine
from atoma_transports.http.envelope import pack_record
from tests.unit.transports.http_client.script import END, Exchange, Script, echo, item

pytestmark = pytest.mark.virtual_time
RULES = LaneRules(requests=2, calls=3, bytes=400, queue=5, queue_bytes=600)
METHODS = {"query": "query", "resolve": "query", "write": "write", "pull": "sync", "push": "sync"}


@dataclass
class Caller:
    """One call: what it sends, and what came back."""

    name: str
    method: str
    patience_s: float | None
    outcome: object = None
    began: bool = False


@dataclass
class World:
    """A server that does as a random source says, and keeps account."""

    rng: random.Random
    script: Script = field(init=False)
    seen: list[str] = field(default_factory=list)
    answered: dict[str, str] = field(default_factory=dict)
    per_lane: dict[str, int] = field(default_factory=dict)
    cancels: list[tuple[str, int]] = field(default_factory=list)
    batches: dict[str, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.script = Script(self.serve)

    async def serve(self, exchange: Exchange) -> None:
        if exchange.path == "/v1/cancel":
            batch = decode(exchange.request.body, dict)["batch"]
            self.cancels.extend((batch, id) for id in exchange.calls)
            return await self._answer_cancel(exchange)
        lane = self._lane(exchange)
        assert len(exchange.calls) <= RULES.calls
        if len(exchange.calls) > 1:
            assert sum(len(encode(call)) for call in exchange.calls.values()) <= RULES.bytes
        self.per_lane[lane] = self.per_lane.get(lane, 0) + 1
        assert self.per_lane[lane] <= RULES.requests
        self.seen.extend(str(call) for call in exchange.calls.values())
        self.batches[exchange.batch] = set(exchange.calls)
        try:
            await self._treat(exchange)
        finally:
            self.per_lane[lane] -= 1

    def _lane(self, exchange: Exchange) -> str:
        if not exchange.batch:
            return METHODS[exchange.path.removeprefix("/v1/")]
        methods = {METHODS[call["method"]] for call in decode(exchange.request.body, dict)["calls"]}
        assert len(methods) == 1, "lanes were mixed"
        return methods.pop()

    async def _answer_cancel(self, exchange: Exchange) -> None:
        await trio.sleep(self.rng.choice([0, 0, 0.5, 100]))
        if self.rng.random() < 0.3:
            exchange.lose(sent=True)
        else:
            await echo(exchange)

    async def _treat(self, exchange: Exchange) -> None:
        """Everything a reply can be: all of it at once here, since the engine reads it as it comes anyway."""
        await trio.sleep(self.rng.choice([0, 0, 0.1, 1, 30]))
        fate = self.rng.choice(["good"] * 6 + ["lost", "unsent", "refused", "cut", "nonsense"])
        if fate in ("lost", "unsent"):
            exchange.lose(sent=fate == "lost")
        elif fate == "refused":
            exchange.begin(503, "application/vnd.msgpack")
            exchange.send(encode({"error": ErrorInfo("UNAVAILABLE", "later", True)}), b"")
        elif not exchange.batch:
            self.answered[str(exchange.calls[0])] = "reply"
            exchange.send(encode(exchange.calls[0]), b"")
        else:
            self._reply(exchange, fate)

    def _reply(self, exchange: Exchange, fate: str) -> None:
        order = list(exchange.calls)
        self.rng.shuffle(order)
        if fate in ("cut", "nonsense"):
            order = order[: len(order) // 2]
        for id in order:
            name = str(exchange.calls[id])
            if self.rng.random() < 0.2:
                self.answered[name] = "error"
                exchange.send(item(id, error=ErrorInfo("CONFLICT", name)))
            else:
                self.answered[name] = "reply"
                exchange.send(item(id, name))
            if self.rng.random() < 0.3:
                exchange.send(pack_record("p"))
        exchange.send({"cut": b"", "nonsense": b"\xff" * 9}.get(fate, END), b"")


async def make(caller: Caller, engine: BatchEngine) -> None:
    caller.began = True
    with trio.CancelScope() as scope:
        if caller.patience_s is not None:
            scope.deadline = trio.current_time() + caller.patience_s
        try:
            answer = await engine.call(caller.method, encode(caller.name))
        except AtomaError as error:
            caller.outcome = error
        else:
            caller.outcome = answer if isinstance(answer, ErrorInfo) else decode(answer, str)
    if scope.cancelled_caught:
        caller.outcome = "cancelled"


def check(caller: Caller, world: World) -> None:
    outcome = caller.outcome
    assert outcome is not None, "a call without an end"
    assert world.seen.count(caller.name) <= 1, "a call was sent twice"
    if isinstance(outcome, str) and outcome != "cancelled":
        assert outcome == caller.name
        assert world.answered[caller.name] == "reply"
    elif isinstance(outcome, ErrorInfo):
        assert outcome.code == "UNAVAILABLE" or (outcome.code, outcome.message) == ("CONFLICT", caller.name)
    elif isinstance(outcome, Overloaded):
        assert caller.name not in world.seen
    elif isinstance(outcome, ChannelBroken):
        assert outcome.maybe_sent or caller.name not in world.answered
    else:
        assert outcome == "cancelled" or isinstance(outcome, ProtocolError)


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.integers(0, 2**32), st.booleans())
async def test_every_call_gets_its_own_reply_or_a_typed_error(seed: int, close_early: bool) -> None:
    rng = random.Random(seed)
    world = World(random.Random(seed + 1))
    tasks = trio.lowlevel.current_statistics().tasks_living
    callers: list[Caller] = []
    async with trio.open_nursery() as nursery:
        rules = BatchRules(query=RULES, write=RULES, sync=RULES)
        async with open_engine(world.script, rules=rules, size_max=1000, random=random.Random(2)) as engine:
            for moment in range(rng.randrange(1, 8)):
                for number in range(rng.choice([1, 1, 2, 5, 12])):
                    patience = rng.choice([None, None, 0, 0.05, 0.5, 5])
                    name = f"{moment}-{number}-" + "x" * rng.choice([1, 50, 150, 500])
                    caller = Caller(name, rng.choice(list(METHODS)), patience)
                    callers.append(caller)
                    nursery.start_soon(make, caller, engine)
                await trio.sleep(rng.choice([0, 0, 0.05, 0.3, 2]))
            if not close_early:
                with trio.fail_after(10_000):
                    while any(caller.outcome is None for caller in callers):
                        await trio.sleep(1)
        # leaving the block has ended every call
    for caller in callers:
        check(caller, world)
    for batch, id in world.cancels:
        assert id in world.batches[batch], "a cancellation of what was never sent"
    assert world.script.open == 0
    assert trio.lowlevel.current_statistics().tasks_living == tasks
