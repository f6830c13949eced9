"""The same world in the real kernel: scripted nodes, a scripted writer, overlapping requests, virtual time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from atoma import kernel as kernel_package
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
    Step,
    WriteItemResult,
    WriteOptions,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.mutations import Op
from atoma.contracts.policy import Combinator, Policy
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.errors import (
    AtomaError,
    ChannelBroken,
    ConflictError,
    ConnectFailed,
    DiskFull,
    RemoteError,
    StoreBusy,
    WriteRejected,
)
from atoma.ports import Environment, Staging
from atoma.query.plans import every_row
from atoma.schema import Schema, StoreSpec
from tests.properties.kernel_model.faults import AGAIN
from tests.properties.kernel_model.telling import JITTER
from tests.properties.kernel_model.worlds import INF, STAGES, Ask, Call, Graph, Script, Tell, World


@dataclass
class Thing:
    id: str


SCHEMA = Schema(StoreSpec("things", Thing), StoreSpec("notes", Thing))
LIMITS = (None, 50)


@dataclass
class Seen:
    """What one request came to."""

    time: float
    code: str = ""
    rows: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    by: str = ""
    status: str = ""
    meta: ExecutionMeta | None = None
    receipts: int = 0


@dataclass
class Observed:
    """All that could be seen of a run, as the interpreter says it."""

    seen: list[Seen] = field(default_factory=list)
    told: list[tuple[float, tuple[Any, ...]]] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    ends: list[tuple[float, tuple[int, str]]] = field(default_factory=list)
    commits: list[tuple[Any, ...]] = field(default_factory=list)
    handed: list[tuple[Any, ...]] = field(default_factory=list)
    guards: dict[str, list[Any]] = field(default_factory=dict)
    remaining: int = 0
    left: int = 0


def number_of(trace: str) -> int:
    return int(trace.removeprefix("t"))


class Receipt:
    """Follows a write to a verdict that comes at a given time."""

    state = "queued"
    meta = None

    def __init__(self, due: float, kind: str) -> None:
        self._due = due
        self._kind = kind

    async def moved(self, since: str) -> None:
        await trio.sleep_forever()

    async def wait(self, *, observed: bool) -> int:
        assert not observed
        await trio.sleep_until(INF if self._kind == "hang" else self._due)
        if self._kind == "rejected":
            raise WriteRejected("no", reason="DENIED")
        if self._kind == "broken":
            raise ChannelBroken("lost")
        return 1


class Scripted:
    """What a script says, call by call."""

    def __init__(self, name: str, script: Script, observed: Observed) -> None:
        self.name = name
        self.script = script
        self.observed = observed
        self.counts: dict[int, int] = {}

    def next_call(self, context: OperationContext) -> Call:
        number = number_of(context.trace_id)
        count = self.counts.get(number, 0)
        self.counts[number] = count + 1
        return self.script.at(number, count)

    def raise_if(self, kind: str) -> None:
        errors: dict[str, Exception] = {
            "notsent": ConnectFailed("refused"),
            "broken": ChannelBroken("lost"),
            "busy": StoreBusy("held"),
            "later": RemoteError("later", remote_code="OVERLOADED", remote_retryable=True, retry_after_s=AGAIN),
            "unavailable": RemoteError("down", remote_code="UNAVAILABLE", remote_retryable=True),
            "slow": trio.TooSlowError(),
            "conflict": ConflictError("moved"),
            "denied": RemoteError("no", remote_code="DENIED"),
            "full": DiskFull("no space"),
            "foreign": RuntimeError("a bug"),
        }
        if kind in errors:
            raise errors[kind]

    def answer(self, request: WriteRequest, call: Call) -> WriteResult:
        row = {"from": self.name}
        conflict = ErrorInfo("CONFLICT", "there already")
        items = [WriteItemResult(entry.id, True, row=dict(row)) for entry in request.entries]
        for place in range(len(items)):
            if call.kind == "refused" or (call.kind == "partial" and place == len(items) - 1):
                items[place] = WriteItemResult(items[place].id, False, row=dict(row), error=conflict)
        status = status_of(tuple(items))
        if call.kind == "wrong-count":
            items.append(items[0])
        now = trio.current_time()
        receipts = tuple(None if said is None else Receipt(now + said[0], said[1]) for said in call.verdicts)
        says: Any = self.script.says
        return WriteResult(
            "rejected" if call.kind == "wrong-status" else status,
            tuple(items), ExecutionMeta(says), receipts[: len(request.entries)],
        )  # fmt: skip


class ScriptedNode(Scripted):
    """A node for queries and for writes."""

    def __init__(self, name: str, script: Script, observed: Observed) -> None:
        super().__init__(name, script, observed)
        if script.remote is not None:
            self.remote = script.remote

    async def query(self, request: QueryRequest) -> QueryResult:
        call = await self._behave(request.context)
        if call.kind == "lie":
            return None  # type: ignore[return-value]
        says: Any = self.script.says
        return QueryResult((StoredRow(self.name, 1, 0, "main", {}),), (), ExecutionMeta(says))

    async def write(self, request: WriteRequest) -> WriteResult:
        assert request.idem == f"idem-{number_of(request.context.trace_id)}"
        call = await self._behave(request.context)
        if call.kind == "lie":
            return None  # type: ignore[return-value]
        return self.answer(request, call)

    async def _behave(self, context: OperationContext) -> Call:
        call = self.next_call(context)
        self.observed.calls.append((number_of(context.trace_id), self.name, trio.current_time(), context.deadline))
        await trio.sleep(INF if call.kind == "hang" else call.seconds)
        self.observed.ends.append((trio.current_time(), (number_of(context.trace_id), self.name)))
        self.raise_if(call.kind)
        return call


class Stage:
    """A node that only stages; the writer does its work."""

    database = "db"

    def __init__(self, name: str) -> None:
        self.name = name

    def stage(self, tx: object, request: WriteRequest) -> None:
        raise AssertionError("the writer below does not ask")


class Writer:
    """Commits as scripted; notices cancellation before and after only."""

    database = "db"

    def __init__(self, world: World, observed: Observed) -> None:
        self._scripts = {
            name: Scripted(name, script, observed) for name, script in world.scripts.items() if name[0] in "loe"
        }
        self._observed = observed

    async def commit(self, request: WriteRequest, stages: Sequence[Staging]) -> WriteResult:
        name = "+".join(stage.name for stage in stages if isinstance(stage, Stage))
        scripted = self._scripts[name]
        call = scripted.next_call(request.context)
        await trio.lowlevel.checkpoint()
        with trio.CancelScope(shield=True):
            await trio.sleep(call.seconds)
            scripted.raise_if(call.kind)
        context = request.context
        self._observed.commits.append((number_of(context.trace_id), name, trio.current_time(), context.deadline))
        await trio.lowlevel.checkpoint()
        return scripted.answer(request, call)


class HalfJitter(random.Random):
    def random(self) -> float:
        return JITTER


def build(graph: Graph, words: ModuleType) -> Combinator:
    """The graph in the words of the kernel."""
    several = [build(child, words) for child in graph.children]
    match graph.kind:
        case "node":
            made = words.node(graph.ids[0])
        case "atomic":
            made = words.atomic(*graph.ids)
        case "refuse":
            made = words.refuse(graph.ids[0])
        case "parallel":
            made = words.parallel(*several, answer=graph.answer)
        case "hedge":
            made = words.hedge(*several, delay_s=graph.seconds)
        case "merge":
            made = words.merge(*several, tolerant=graph.flag)
        case "timeout":
            made = words.timeout(several[0], graph.seconds)
        case "retry":
            made = words.retry(several[0], graph.count, words.Backoff(*graph.backoff))
        case "breaker":
            made = words.breaker(several[0], graph.count, graph.seconds, graph.cooldown)
        case "bulkhead":
            made = words.bulkhead(several[0], graph.count, graph.queue)
        case "cache":
            made = words.cache(several[0], graph.seconds, (lambda request: "any") if graph.flag else None)
        case "synced":
            made = words.when_synced(*several)
        case _:
            made = getattr(words, graph.kind)(*several)
    combinator: Combinator = made
    return combinator


def row_of(step: Step) -> tuple[Any, ...]:
    return (step.node, step.outcome, step.seconds, step.attempt, step.budget_s, step.error, step.note)


def rows_of_path(path: Sequence[Step]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(row_of, path))


def told(event: Event) -> tuple[Any, ...]:
    """An event as the interpreter tells it."""
    match event:
        case StepStarted(trace_id=trace, node=name, attempt=attempt):
            return ("started", number_of(trace), name, attempt)
        case StepFinished(trace_id=trace, node=name, attempt=attempt, outcome=outcome, error=code, seconds=seconds):
            return ("finished", number_of(trace), name, attempt, outcome, code, seconds)
        case RetryScheduled(trace_id=trace, node=name, attempt=attempt, delay_s=delay, error=code):
            return ("retry", number_of(trace), name, attempt, delay, code)
        case FallbackTaken(trace_id=trace, failed=name, error=code):
            return ("fallback", number_of(trace), name, code)
        case BreakerChanged(node=name, state=state):
            return ("breaker", name, state)
        case WriteDispatched(trace_id=trace, idem=idem, policy="generated"):
            assert idem == f"idem-{number_of(trace)}"
            return ("dispatched", number_of(trace))
        case WriteSettled(trace_id=trace, status=status, error=code, path=path, policy="generated"):
            return ("settled", number_of(trace), status, code, rows_of_path(path))
        case QueryFinished(trace_id=trace, error=code, path=path, policy="generated"):
            return ("settled", number_of(trace), "", code, rows_of_path(path))
        case _:
            return ("unexpected", event)


class Handed:
    """Notes what detached steps hand on."""

    def __init__(self, observed: Observed) -> None:
        self._notes = observed.handed

    def _note(self, trace: str, said: tuple[str, ...], code: str, meta: ExecutionMeta | None) -> None:
        source, path = ("", None) if meta is None else (meta.source, rows_of_path(meta.path))
        self._notes.append((number_of(trace), trio.current_time(), said, code, source, path))

    async def query_answered(self, request: QueryRequest, result: QueryResult) -> None:
        self._note(request.context.trace_id, tuple(row.id for row in result.rows), "", result.meta)

    async def write_settled(self, request: WriteRequest, result: WriteResult | None, error: AtomaError | None) -> None:
        said = () if result is None else codes_of(result)
        code = "" if error is None else error.remote_code if isinstance(error, RemoteError) else error.code
        self._note(request.context.trace_id, said, code, result.meta if result is not None else None)


def codes_of(result: WriteResult) -> tuple[str, ...]:
    return tuple(item.error.code if item.error is not None else "" for item in result.items)


async def ask(kernel: Any, one: Ask, number: int, seen: Seen) -> None:
    context = OperationContext(f"t{number}", "generated", staged=one.staged)
    try:
        if not one.write:
            result = await kernel.execute_query(QueryRequest(every_row(one.store, LIMITS[one.variant]), context))
            seen.rows, seen.meta = tuple(row.id for row in result.rows), result.meta
            return
        entries = tuple(Op("create", one.store, id) for id in "ab"[: one.entries])
        options = WriteOptions(confirm="strict" if one.strict else "optimistic")
        wrote = await kernel.execute_write(WriteRequest(entries, options, context, f"idem-{number}"))
        seen.items, seen.status, seen.meta = codes_of(wrote), wrote.status, wrote.meta
        seen.receipts = len(wrote.receipts)
    except RemoteError as error:
        seen.code = error.remote_code
    except AtomaError as error:
        seen.code = error.code


async def caller(kernel: Any, one: Ask, number: int, seen: Seen) -> None:
    """Ask, and give up when the budget is spent or when the caller changes its mind."""
    async with trio.open_nursery() as nursery:
        scope = trio.move_on_after(one.budget) if one.budget < INF else trio.CancelScope()

        async def change_mind() -> None:
            await trio.sleep(one.cancel)
            scope.cancel()

        nursery.start_soon(change_mind)
        with scope:
            await ask(kernel, one, number, seen)
        if scope.cancelled_caught:
            seen.code = "CANCELLED"
        seen.time = trio.current_time()
        nursery.cancel_scope.cancel()


async def run_real(world: World, words: ModuleType = kernel_package) -> Observed:
    """Run the world in a kernel, which may be another one than the project's."""
    observed = Observed()
    events = words.EventDispatch()
    if world.heard:
        events.subscribe(lambda event: observed.told.append((trio.current_time(), told(event))))
    names = [name for name in world.scripts if name[0] in "qw"]
    nodes: dict[str, Any] = {name: ScriptedNode(name, world.scripts[name], observed) for name in names}
    nodes |= {name: Stage(name) for name in STAGES}
    local = ScriptedNode("start", Script((Call(1.0, "ok"),), False), observed)
    synced = frozenset({"notes"}) if world.synced else frozenset[str]()
    start = words.atomic("local-write", "outbox")
    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        outer.start_soon(events.deliver)
        kernel = words.ExecutionKernel(
            SCHEMA,
            nodes={**nodes, "start": local},
            policies=[
                Policy("generated", build(world.query, words), build(world.write, words)),
                Policy("start", words.node("start"), start),
            ],
            environment=Environment(random=HalfJitter(), executor="inline"),
            events=events,
            nursery=nursery,
            writer=Writer(world, observed),
            synced=synced,
            default="start",
            detached=Handed(observed),
            limits=words.KernelLimits(detached=world.detached, cached=world.cached),
        )
        async with trio.open_nursery() as callers:
            for one in world.schedule:
                await trio.sleep_until(one.at)
                if isinstance(one, Tell):
                    kernel.invalidate([one.store])
                    continue
                observed.seen.append(Seen(0.0))
                callers.start_soon(caller, kernel, one, len(observed.seen) - 1, observed.seen[-1])
        await trio.sleep_until(world.close)
        await wait_all_tasks_blocked()
        observed.remaining = len(nursery.child_tasks)
        for guard in kernel.guards():
            observed.guards.setdefault(guard.kind, []).append((guard.node, guard.state, guard.running, guard.waiting))
        nursery.cancel_scope.cancel()
        await wait_closed(nursery)
        events.flush()
        observed.left = len(nursery.child_tasks)
        outer.cancel_scope.cancel()
    return observed


async def wait_closed(nursery: trio.Nursery) -> None:
    """Until the tasks of a nursery that was cancelled have ended."""
    with trio.CancelScope(shield=True):
        while nursery.child_tasks:
            await trio.sleep(0.5)


def observe(world: World, words: ModuleType = kernel_package) -> Observed:
    """What can be seen of a real run, on virtual time."""
    return trio.run(run_real, world, words, clock=MockClock(autojump_threshold=0))
