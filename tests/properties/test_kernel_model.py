"""Generated policies over scripted nodes: what the kernel does equals what an interpreter written here says.

The interpreter knows no kernel code: it is a function from a policy, a script and a point in time to a result, a trail,
the events and the moments they happen at. Virtual time makes the comparison exact.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import trio
from hypothesis import assume, event, given, note, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from atoma.contracts.events import (
    BreakerChanged,
    Event,
    FallbackTaken,
    QueryFinished,
    RetryScheduled,
    StepFinished,
    StepStarted,
    WriteDispatched,
    WriteSettled,
)
from atoma.contracts.execution import (
    ExecutionMeta,
    OperationContext,
    QueryRequest,
    QueryResult,
    WriteEntry,
    WriteItemResult,
    WriteOptions,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.policy import Combinator, Policy
from atoma.contracts.query import QuerySpec, Sort
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.errors import (
    AtomaError,
    ChannelBroken,
    ConflictError,
    ConnectFailed,
    DiskFull,
    StoreBusy,
)
from atoma.kernel import (
    Backoff,
    EventDispatch,
    ExecutionKernel,
    breaker,
    explain,
    fallback,
    hedge,
    merge,
    node,
    parallel,
    race,
    retry,
    sequence,
    timeout,
)
from atoma.kernel import combinators as c
from atoma.ports import Environment
from atoma.schema import Schema, StoreSpec

JITTER = 0.5
TICK = 1e-6
"""Two things that happen closer together than this are a tie, which the example is dropped for."""


@dataclass
class Thing:
    id: str


SCHEMA = Schema(StoreSpec("things", Thing))


# ---- what is generated: a script per node, a graph, requests ---------------------------------------------------------


@dataclass(frozen=True)
class Script:
    """What a node does at its calls: ``(seconds, kind)`` each; the last one for ever after."""

    calls: tuple[tuple[float, str], ...]
    remote: bool | None

    def at(self, call: int) -> tuple[float, str]:
        return self.calls[min(call, len(self.calls) - 1)]


@dataclass(frozen=True)
class World:
    """An example: graph, scripts, and for each request the pause before it and its budget."""

    write: bool
    graph: Combinator
    scripts: dict[str, Script]
    requests: tuple[tuple[float, float], ...]


QUERY_KINDS = ["notsent", "broken", "busy", "conflict", "full", "foreign", "lie", "hang"]
WRITE_KINDS = [*QUERY_KINDS, "refused", "partial", "wrong-count"]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    write = draw(st.booleans())
    scripts: dict[str, Script] = {}
    uneven = iter(math.sqrt(prime) % 1 / 7 for prime in _primes())

    def seconds() -> float:
        return draw(st.integers(0, 6)) + next(uneven) + 0.01

    def leaf() -> Combinator:
        name = f"n{len(scripts)}"
        kinds = st.just("ok") | st.sampled_from(WRITE_KINDS if write else QUERY_KINDS)
        count = draw(st.integers(1, 3))
        calls = tuple((seconds(), draw(kinds)) for _ in range(count))
        scripts[name] = Script(calls, draw(st.sampled_from([True, False, None])))
        return node(name)

    def graph(depth: int) -> Combinator:
        if depth == 0 or len(scripts) > 6:
            return leaf()
        names = ["sequence", "fallback", "parallel", "race", "hedge", "timeout", "retry", "breaker"]
        kind = draw(st.sampled_from(names if write else [*names, "merge"]))
        if kind in ("timeout", "retry", "breaker"):
            inner = graph(depth - 1)
            if kind == "timeout":
                return timeout(inner, seconds())
            if kind == "retry":
                first_s = next(uneven) + 0.05
                return retry(inner, draw(st.integers(1, 4)), Backoff(first_s, 2.0, first_s * draw(st.integers(1, 5))))
            return breaker(inner, draw(st.integers(1, 3)), seconds() * 4, seconds() + 1)
        several = [graph(depth - 1) for _ in range(draw(st.sampled_from([2, 2, 3, 3, 1])))]
        if kind == "parallel":
            rules: list[Any] = ["first", "all", *range(1, len(several) + 1)]
            return parallel(*several, answer=draw(st.sampled_from(rules)))
        if kind == "hedge":
            return hedge(*several, delay_s=seconds())
        if kind == "merge":
            return merge(*several, tolerant=draw(st.booleans()))
        return (
            sequence(*several) if kind == "sequence" else fallback(*several) if kind == "fallback" else race(*several)
        )

    drawn = graph(draw(st.sampled_from([1, 2, 2, 3, 0])))
    budgets = st.sampled_from([math.inf, math.inf, 3.0, 9.0, 20.0])
    requests = tuple((seconds() * draw(st.integers(0, 5)), draw(budgets)) for _ in range(draw(st.integers(1, 3))))
    requests = tuple((gap, budget + next(uneven) if budget < math.inf else 500.0) for gap, budget in requests)
    return World(write, drawn, scripts, requests)


def _primes() -> Iterator[int]:
    number = 2
    while True:
        if all(number % divisor for divisor in range(2, int(math.sqrt(number)) + 1)):
            yield number
        number += 1


# ---- the interpreter -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """An error: its code, its class, whether it may be repeated, whether nothing was sent, what it asks to wait."""

    code: str
    kind: str
    again: bool = False
    unsent: bool = False
    wait: float = 0.0


@dataclass
class End:
    """How a step ended, and when: an answer (who gave it), a fault, or neither when it was cancelled."""

    time: float
    answer: tuple[str, ...] | None = None
    status: str = "confirmed"
    fault: Fault | None = None
    trail: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    source: str | None = None

    @property
    def cancelled(self) -> bool:
        return self.answer is None and self.fault is None


@dataclass
class Memory:
    """What lasts from step to step: calls made of each node, state of each breaker."""

    calls: dict[str, int] = field(default_factory=dict)
    breakers: dict[Any, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Where:
    """The circumstances of a step: when it is cancelled from outside, its deadline, attempt and reasons."""

    limit: float
    deadline: float
    caller: float
    attempt: int = 1
    note: str = ""

    def because(self, reason: str, attempt: int | None = None) -> Where:
        note_ = f"{self.note}; {reason}" if self.note else reason
        return Where(self.limit, self.deadline, self.caller, attempt or self.attempt, note_)

    def until(self, limit: float) -> Where:
        return Where(min(self.limit, limit), self.deadline, self.caller, self.attempt, self.note)


def apart(*times: float) -> None:
    """Drop the example when two of the times are a tie."""
    finite = sorted(time for time in times if time < math.inf)
    assume(all(b - a > TICK for a, b in itertools.pairwise(finite)))


class Interpreter:
    def __init__(self, world: World) -> None:
        self.world = world
        self.write = world.write

    # verdicts

    def fault(self, kind: str, remote: bool | None) -> Fault:
        if kind in ("foreign", "lie", "wrong-count"):
            if self.write and (remote or kind == "wrong-count"):
                return Fault("UNKNOWN_OUTCOME", "unknown")
            return Fault("EXECUTION", "fatal")
        if kind == "broken" and self.write:
            return Fault("UNKNOWN_OUTCOME", "unknown", again=True)
        return {
            "notsent": Fault("CONNECT_FAILED", "retryable", again=True, unsent=True),
            "broken": Fault("CHANNEL_BROKEN", "retryable", again=True),
            "busy": Fault("BUSY", "retryable", again=True),
            "conflict": Fault("CONFLICT", "rejected"),
            "full": Fault("DISK_FULL", "fatal"),
        }[kind]

    def goes_on(self, fault: Fault) -> bool:
        return fault.unsent if self.write else fault.kind == "retryable"

    def doubt(self, fault: Fault) -> Fault:
        if not self.write or fault.kind in ("rejected", "unknown"):
            return fault
        return Fault("UNKNOWN_OUTCOME", "unknown", again=fault.again, wait=fault.wait)

    def exhausted(self, faults: list[Fault]) -> Fault:
        return Fault("FALLBACK_EXHAUSTED", "retryable", again=True, unsent=all(fault.unsent for fault in faults))

    # steps

    def run(self, step: Combinator, now: float, where: Where, memory: Memory) -> End:
        name = {c.NodeStep: "node", c.SequenceStep: "sequence", c.FallbackStep: "fallback", c.ParallelStep: "parallel",
                c.RaceStep: "race", c.MergeStep: "merge", c.TimeoutStep: "timeout", c.RetryStep: "retry",
                c.BreakerStep: "breaker"}[type(step)]  # fmt: skip
        done: End = getattr(self, name)(step, now, where, memory)
        return done

    def entry(self, end: End, name: str, outcome: str, start: float, where: Where, code: str, extra: str = "") -> None:
        note_ = "; ".join(part for part in (where.note, extra) if part)
        end.trail.append((name, outcome, end.time - start, where.attempt, where.caller - start, code, note_))
        end.events.append((end.time, "finished", name, where.attempt, outcome, code))

    def node(self, step: c.NodeStep, now: float, where: Where, memory: Memory) -> End:
        script = self.world.scripts[step.id]
        seconds, kind = script.at(memory.calls.get(step.id, 0))
        memory.calls[step.id] = memory.calls.get(step.id, 0) + 1
        finish = math.inf if kind == "hang" else now + seconds
        apart(finish, where.limit)
        end = End(min(finish, where.limit), events=[(now, "started", step.id, where.attempt)])
        if finish > where.limit:
            self.entry(end, step.id, "cancelled", now, where, "")
            return end
        if kind in ("ok", "refused", "partial"):
            end.answer = (step.id,)
            end.status = {"ok": "confirmed", "refused": "rejected", "partial": "partial"}[kind]
            outcome = "rejected" if kind == "refused" else "ok"
            if outcome == "ok":
                end.source = "remote" if script.remote else "local"
            self.entry(end, step.id, outcome, now, where, "" if kind == "ok" else "CONFLICT")
            return end
        end.fault = self.fault(kind, script.remote)
        outcome = end.fault.kind if end.fault.kind in ("rejected", "unknown") else "failed"
        self.entry(end, step.id, outcome, now, where, end.fault.code)
        return end

    def after(self, done: End, more: End) -> End:
        """``more`` with what happened before it."""
        more.trail[:0] = done.trail
        more.events[:0] = done.events
        more.source = more.source or done.source
        return more

    def sequence(self, step: c.SequenceStep, now: float, where: Where, memory: Memory) -> End:
        end = self.run(step.children[0], now, where, memory)
        for child in step.children[1:]:
            if end.answer is None or end.status != "confirmed":
                break
            end = self.after(end, self.run(child, end.time, where, memory))
            if end.fault is not None:
                end.fault = self.doubt(end.fault)
        return end

    def fallback(self, step: c.FallbackStep, now: float, where: Where, memory: Memory) -> End:
        faults: list[Fault] = []
        end = End(now)
        current = where
        for place, child in enumerate(step.children):
            end = self.after(end, self.run(child, end.time, current, memory))
            if end.fault is None or not self.goes_on(end.fault):
                return end
            faults.append(end.fault)
            if place + 1 < len(step.children):
                end.events.append((end.time, "fallback", c.subject(child), end.fault.code))
                current = where.because(f"fallback: {end.fault.code}")
        end.fault = self.exhausted(faults)
        return end

    def timeout(self, step: c.TimeoutStep, now: float, where: Where, memory: Memory) -> End:
        mine = now + step.seconds
        apart(mine, where.limit)
        inside = Where(min(where.limit, mine), min(where.deadline, mine), where.caller, where.attempt, where.note)
        end = self.run(step.step, now, inside, memory)
        if end.cancelled and mine < where.limit:
            end.fault = Fault("UNKNOWN_OUTCOME", "unknown", True) if self.write else Fault("TIMEOUT", "retryable", True)
            outcome = "unknown" if self.write else "failed"
            self.entry(end, c.subject(step), outcome, now, where, end.fault.code, f"timeout {step.seconds:g} s")
        return end

    def retry(self, step: c.RetryStep, now: float, where: Where, memory: Memory) -> End:
        current, doubtful = where, False
        end = End(now)
        for attempt in range(1, step.attempts + 1):
            end = self.after(end, self.run(step.step, end.time, current, memory))
            if end.fault is None:
                return end
            if doubtful:
                end.fault = self.doubt(end.fault)
            doubtful = doubtful or end.fault.kind == "unknown"
            if attempt == step.attempts or not end.fault.again:
                return end
            grown = step.backoff.initial_s * step.backoff.factor ** (attempt - 1)
            delay = max(JITTER * min(grown, step.backoff.max_s), end.fault.wait)
            apart(end.time + delay, where.deadline, where.limit) if where.limit != where.deadline else apart(
                end.time + delay, where.deadline
            )
            if end.time + delay >= where.deadline:
                return end
            end.events.append((end.time, "retry", c.subject(step), attempt + 1, delay, end.fault.code))
            current = where.because(f"retry: {end.fault.code}", attempt + 1)
            if end.time + delay > where.limit:
                return self.after(end, End(where.limit))
            end = self.after(end, End(end.time + delay))
        raise AssertionError("unreachable")

    def breaker(self, step: c.BreakerStep, now: float, where: Where, memory: Memory) -> End:
        name = c.subject(step)
        key = (name, step.failures, step.window_s, step.cooldown_s)
        state = memory.breakers.setdefault(key, {"is": "closed", "times": [], "opened": 0.0, "probe": False})
        changes: list[tuple[Any, ...]] = []

        def move(to: str, when: float) -> None:
            state["is"] = to
            changes.append((when, "breaker", name, to))

        probe = False
        left = state["opened"] + step.cooldown_s - now
        if state["is"] != "closed":
            apart(now, now + left)
            if state["is"] == "open" and left <= 0:
                move("half-open", now)
            if state["is"] == "open" or state["probe"]:
                end = End(now, fault=Fault("CIRCUIT_OPEN", "retryable", True, True, max(left, 0.0)))
                self.entry(end, name, "skipped", now, where, "CIRCUIT_OPEN", f"breaker {state['is']}")
                end.events[:0] = changes
                return end
            probe = state["probe"] = True
        opening, changes = changes, []
        end = self.run(step.step, now, where.because("breaker half-open") if probe else where, memory)
        good = None if end.cancelled else end.answer is not None or (end.fault or Fault("", "")).kind == "rejected"
        if probe:
            state["probe"] = False
            if good:
                state["times"] = []
                move("closed", end.time)
            elif good is not None:
                state["opened"] = end.time
                move("open", end.time)
        elif state["is"] == "closed" and good is not None:
            state["times"] = [] if good else [*state["times"], end.time][-step.failures :]
            times = state["times"]
            if len(times) == step.failures and not good and times[-1] - times[0] <= step.window_s:
                state["opened"] = end.time
                move("open", end.time)
        end.events = [*opening, *end.events, *changes]
        return end

    def beside(self, starts: list[float], step: Combinator, where: Where, memory: Memory, stop: float) -> list[End]:
        """Run the children from their starts, all cancelled at ``stop``."""
        return [
            self.run(child, start, where.until(stop), memory)
            for child, start in zip(step.children, starts, strict=False)
        ]

    def together(
        self,
        step: Combinator,
        starts: list[float],
        where: Where,
        memory: Memory,
        decide: Callable[[list[tuple[int, End]]], bool],
    ) -> tuple[list[tuple[int, End]], End, bool]:
        """Children side by side until ``decide`` is content with those that ended; their trails joined."""
        free = self.beside(starts, step, where, copy.deepcopy(memory), math.inf)
        apart(*(end.time for end in free if not end.cancelled))
        order = sorted((pair for pair in enumerate(free) if not pair[1].cancelled), key=lambda pair: pair[1].time)
        stop, taken = math.inf, None
        for count in range(1, len(order) + 1):
            if decide(order[:count]):
                stop, taken = order[count - 1][1].time, order[count - 1][0]
                break
        started = [start for start in starts if start <= stop]
        ends = self.beside(started, step, where, memory, stop if taken is None else stop + 2 * TICK)
        for end in ends:  # cancelled by the decision, not after it
            if end.cancelled and taken is not None:
                _shift(end, 2 * TICK, stop)
        finished = [(index, end) for index, end in enumerate(ends) if not end.cancelled]
        finished.sort(key=lambda pair: pair[1].time)
        joined = End(where.limit if taken is None and len(finished) < len(starts) else max(e.time for e in ends))
        joined.time = stop if taken is not None else joined.time
        line = [end for end in ends if end.cancelled]
        line += [end for index, end in finished if index != taken]
        line += [ends[taken]] if taken is not None else []
        for end in line:
            joined.trail += end.trail
            joined.events += end.events
            joined.source = end.source or joined.source
        return finished, joined, taken is not None

    def race(self, step: c.RaceStep, now: float, where: Where, memory: Memory) -> End:
        starts = self.hedge_starts(step, now, where, memory) if step.delay_s else [now] * len(step.children)

        def decide(ended: list[tuple[int, End]]) -> bool:
            last = ended[-1][1]
            return last.answer is not None or (last.fault is not None and last.fault.kind == "rejected")

        finished, joined, decided = self.together(step, starts, where, memory, decide)
        return self.first_of(finished, joined, decided, len(starts))

    def first_of(self, finished: list[tuple[int, End]], joined: End, decided: bool, count: int) -> End:
        if decided:
            last = finished[-1][1]
            joined.answer, joined.status, joined.fault = last.answer, last.status, last.fault
        elif len(finished) == count:
            faults = [end.fault for _, end in sorted(finished, key=lambda pair: pair[0]) if end.fault is not None]
            final = [fault for fault in faults if not self.goes_on(fault)]
            unknown = [fault for fault in final if fault.kind == "unknown"]
            joined.fault = (unknown or final or [self.exhausted(faults)])[0]
        return joined

    def hedge_starts(self, step: c.RaceStep, now: float, where: Where, memory: Memory) -> list[float]:
        """When each branch joins: when the one before is late, or all before have failed in a way that goes on."""
        starts = [now]
        while len(starts) < len(step.children):
            ends = self.beside(starts, step, where, copy.deepcopy(memory), math.inf)
            late = starts[-1] + step.delay_s
            apart(late, where.limit, *(end.time for end in ends))
            failed = max((end.time for end in ends), default=math.inf)
            all_failed = all(end.fault is not None for end in ends)
            joins = min(late, failed) if all_failed else late
            before = [end for end in ends if end.time < joins + TICK and not end.cancelled]
            if joins > where.limit:
                break
            if any(end.fault is None or not self.goes_on(end.fault) for end in before):
                break
            starts.append(joins)
        return starts

    def parallel(self, step: c.ParallelStep, now: float, where: Where, memory: Memory) -> End:
        count = len(step.children)
        starts = [now] * count
        if step.answer in ("first", 1):
            return (
                self.race(c.RaceStep(step.children, 0.0), now, where, memory)
                if step.answer == "first"
                else (self.quorum(step, starts, where, memory, 1))
            )
        return self.quorum(step, starts, where, memory, count if step.answer == "all" else int(step.answer))

    def quorum(self, step: Combinator, starts: list[float], where: Where, memory: Memory, needed: int) -> End:
        def decide(ended: list[tuple[int, End]]) -> bool:
            last = ended[-1][1]
            refused = last.status != "confirmed" or (last.fault is not None and last.fault.kind == "rejected")
            good = sum(end.answer is not None for _, end in ended)
            return refused or good >= needed or len(ended) - good > len(starts) - needed

        finished, joined, decided = self.together(step, starts, where, memory, decide)
        if decided:
            last = finished[-1][1]
            joined.answer, joined.status, joined.fault = last.answer, last.status, last.fault
            if joined.fault is not None and len(starts) > 1:
                joined.fault = self.doubt(joined.fault)
        return joined

    def merge(self, step: c.MergeStep, now: float, where: Where, memory: Memory) -> End:
        def decide(ended: list[tuple[int, End]]) -> bool:
            last = ended[-1][1].fault
            bad = last is not None and not (step.tolerant and self.goes_on(last))
            return bad or len(ended) == len(step.children)

        starts = [now] * len(step.children)
        finished, joined, decided = self.together(step, starts, where, memory, decide)
        if not decided:
            return joined
        last = finished[-1][1]
        if last.fault is not None and not (step.tolerant and self.goes_on(last.fault)):
            joined.fault = last.fault
            return joined
        good = [end for _, end in sorted(finished, key=lambda pair: pair[0]) if end.answer is not None]
        if not good:
            joined.fault = self.exhausted([end.fault for _, end in finished if end.fault is not None])
            return joined
        joined.answer = tuple(sorted({name for end in good for name in end.answer or ()}))
        sources = {end.source for end in good}
        joined.source = sources.pop() if len(sources) == 1 else "mixed"
        joined.events.append((joined.time, "started", "merge", where.attempt))
        self.entry(joined, "merge", "ok", joined.time, where, "", f"merged {len(good)} of {len(starts)}")
        return joined


def _shift(end: End, by: float, stop: float) -> None:
    """Move what happened at a cancellation ``by`` seconds back, to the moment of the decision."""
    end.time = stop
    moved = [entry for entry in end.trail if entry[1] == "cancelled"]
    end.trail = [(*entry[:2], entry[2] - by, *entry[3:]) if entry in moved else entry for entry in end.trail]
    end.events = [(stop, *what[1:]) if what[0] > stop else what for what in end.events]


# ---- the real thing --------------------------------------------------------------------------------------------------


class ScriptedNode:
    """Does what its script says, for queries and for writes."""

    def __init__(self, name: str, script: Script) -> None:
        self._name = name
        self._script = script
        self.calls = 0
        self.idems: set[str] = set()
        if script.remote is not None:
            self.remote = script.remote

    async def query(self, request: QueryRequest) -> QueryResult:
        kind = await self._behave()
        if kind == "lie":
            return None  # type: ignore[return-value]
        return QueryResult((StoredRow(self._name, 1, 0, "main", {}),))

    async def write(self, request: WriteRequest) -> WriteResult:
        self.idems.add(request.idem)
        kind = await self._behave()
        if kind == "lie":
            return None  # type: ignore[return-value]
        row = {"from": self._name}
        good = WriteItemResult("a", True, row=dict(row))
        bad = WriteItemResult("b", False, row=dict(row), error=ErrorInfo("CONFLICT", "there already"))
        if kind == "wrong-count":
            return WriteResult("confirmed", (good,))
        if kind == "partial":
            return WriteResult("partial", (good, bad))
        return WriteResult("rejected", (bad, bad)) if kind == "refused" else WriteResult("confirmed", (good, good))

    async def _behave(self) -> str:
        seconds, kind = self._script.at(self.calls)
        self.calls += 1
        await trio.sleep(math.inf if kind == "hang" else seconds)
        errors: dict[str, Exception] = {
            "notsent": ConnectFailed("refused"),
            "broken": ChannelBroken("lost"),
            "busy": StoreBusy("held"),
            "conflict": ConflictError("moved"),
            "full": DiskFull("no space"),
            "foreign": RuntimeError("a bug"),
        }
        if kind in errors:
            raise errors[kind]
        return kind


class HalfJitter(random.Random):
    def random(self) -> float:
        return JITTER


@dataclass
class Seen:
    """What one request came to."""

    time: float
    answer: tuple[str, ...] | None = None
    status: str = "confirmed"
    code: str = ""
    meta: ExecutionMeta | None = None


async def ask(kernel: ExecutionKernel, world: World, number: int) -> Seen:
    context = OperationContext(f"t{number}", "generated")
    try:
        if not world.write:
            result = await kernel.execute_query(QueryRequest("things", QuerySpec(order=(Sort("id"),)), context))
            return Seen(trio.current_time(), tuple(row.id for row in result.rows), meta=result.meta)
        entries = (WriteEntry("things", "insert", "a"), WriteEntry("things", "insert", "b"))
        wrote = await kernel.execute_write(WriteRequest(entries, WriteOptions(), context, f"idem-{number}"))
        source = wrote.items[0].row
        assert source is not None
        return Seen(trio.current_time(), (str(source["from"]),), wrote.status, meta=wrote.meta)
    except AtomaError as error:
        return Seen(trio.current_time(), code=error.code)


def told(event_: Event) -> tuple[Any, ...] | None:
    match event_:
        case StepStarted(node=name, attempt=attempt):
            return ("started", name, attempt)
        case StepFinished(node=name, attempt=attempt, outcome=outcome, error=code):
            return ("finished", name, attempt, outcome, code)
        case RetryScheduled(node=name, attempt=attempt, delay_s=delay, error=code):
            return ("retry", name, attempt, delay, code)
        case FallbackTaken(failed=name, error=code):
            return ("fallback", name, code)
        case BreakerChanged(node=name, state=state):
            return ("breaker", name, state)
        case _:
            return None


async def real_run(world: World) -> tuple[list[Seen], list[list[Any]], list[list[Any]], dict[str, int]]:
    """The requests one after the other: what each came to, its trail, its events, and the calls of every node."""
    nodes = {name: ScriptedNode(name, script) for name, script in world.scripts.items()}
    events = EventDispatch()
    heard: list[tuple[float, Event]] = []
    events.subscribe(lambda event_: heard.append((trio.current_time(), event_)))
    seen: list[Seen] = []
    trails: list[list[Any]] = []
    happened: list[list[Any]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.deliver)
        kernel = ExecutionKernel(
            SCHEMA,
            nodes={**nodes, "local": ScriptedNode("local", Script(((1.0, "ok"),), False))},
            policies=[
                Policy("generated", None if world.write else world.graph, world.graph if world.write else None),
                Policy("start", node("local"), node("local")),
            ],
            environment=Environment(random=HalfJitter(), executor="inline"),
            events=events,
            nursery=nursery,
            default="start",
        )
        for number, (gap, budget) in enumerate(world.requests):
            await trio.sleep(gap)
            heard.clear()
            start = trio.current_time()
            outcome = Seen(math.nan)
            with trio.move_on_after(budget) as scope:
                outcome = await ask(kernel, world, number)
            if scope.cancelled_caught:
                outcome = Seen(trio.current_time(), code="CANCELLED")
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1, "only the delivery of events is left"
            seen.append(outcome)
            ends = [one for _, one in heard if isinstance(one, QueryFinished | WriteSettled)]
            begun = [one for _, one in heard if isinstance(one, WriteDispatched)]
            assert len(ends) == 1 and len(begun) == (1 if world.write else 0)
            assert ends[0].error == outcome.code
            trails.append([_row(step) for step in ends[0].path])
            if outcome.meta is not None:
                assert outcome.meta.path == ends[0].path
            happened.append([(time - start, *what) for time, one in heard if (what := told(one)) is not None])
        for scripted in nodes.values():
            assert scripted.idems <= {f"idem-{number}" for number in range(len(world.requests))}
        calls = {name: scripted.calls for name, scripted in nodes.items()}
        nursery.cancel_scope.cancel()
    return seen, trails, happened, calls


def _row(step: Any) -> tuple[Any, ...]:
    return (step.node, step.outcome, step.seconds, step.attempt, step.budget_s, step.error, step.note)


def rounded(rows: list[Any]) -> list[Any]:
    return [tuple(round(value, 4) + 0.0 if isinstance(value, float) else value for value in row) for row in rows]


@settings(max_examples=700)
@given(worlds())
def test_the_kernel_does_what_the_interpreter_says(world: World) -> None:
    note(explain(world.graph))
    expected: list[tuple[End, float]] = []
    memory = Memory()
    now = 0.0
    interpreter = Interpreter(world)
    for gap, budget in world.requests:
        now += gap
        limit = now + budget
        end = interpreter.run(world.graph, now, Where(limit, limit, limit), memory)
        expected.append((end, now))
        now = end.time
    seen, trails, happened, calls = trio.run(real_run, world, clock=MockClock(autojump_threshold=0))
    for (end, start), outcome, trail, heard in zip(expected, seen, trails, happened, strict=True):
        code = "CANCELLED" if end.cancelled else end.fault.code if end.fault is not None else ""
        event(f"{'write' if world.write else 'query'} {code or 'ok'}")
        assert rounded(trail) == rounded(end.trail)
        assert (outcome.code, outcome.answer) == (code, end.answer)
        assert abs(outcome.time - end.time) < 1e-4
        timed = [(what[0] - start, *what[1:]) for what in end.events]
        assert sorted(rounded(heard), key=repr) == sorted(rounded(timed), key=repr)
        if outcome.meta is not None:
            assert outcome.status == end.status
            assert outcome.meta.source == (end.source or "local")
            good = [step for step in outcome.meta.path if step.outcome == "ok" and step.node in world.scripts]
            if good and "merge" not in {step.node for step in outcome.meta.path}:
                last_is_remote = world.scripts[good[-1].node].remote is True
                assert (outcome.meta.source == "remote") == last_is_remote
    assert calls == {name: memory.calls.get(name, 0) for name in world.scripts}
