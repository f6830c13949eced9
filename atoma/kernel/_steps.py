"""Compiled forms of the steps that run others one after the other; none of them needs a nursery."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio

from atoma.contracts.events import FallbackTaken, RetryScheduled
from atoma.contracts.execution import (
    QueryRequest,
    Source,
    Step,
    StepOutcome,
    WriteRequest,
    WriteResult,
    as_receipt,
    status_of,
)
from atoma.contracts.failures import code_of, retry_after_s
from atoma.contracts.policy import Req, Res, RunnableCombinator
from atoma.contracts.receipts import await_verdicts
from atoma.errors import AtomaError, FallbackExhausted, PolicyNotAllowed, WriteUnknown
from atoma.kernel._detached import Detached, Later
from atoma.kernel._parts import KernelParts, begin, end
from atoma.kernel.combinators import RetryStep
from atoma.kernel.outcomes import Side, classify, repeatable, translate
from atoma.kernel.types import Execution, RunNode
from atoma.ports import AtomicWriter, Staging


def run_node(
    parts: KernelParts, side: Side[Req, Res], id: str, call: Callable[[Req], Awaitable[Res]], remote: bool | None
) -> RunNode[Req, Res]:
    """Run one node: translate what it raises, judge what it returns, enter both into the trail.

    Args:
        parts: The kernel's.
        side: Query or write.
        id: The node's id.
        call: What to await.
        remote: What the node says about itself; None believes its results.
    """
    events, clock, judge = parts.events, parts.environment.clock, side.judge
    far = bool(remote)
    fixed: Source | None = None if remote is None else "remote" if remote else "local"

    async def run(request: Req, execution: Execution) -> Res:
        started = clock()
        if events.listeners:
            begin(events, execution, id, started)
        try:
            result = await call(request)
            outcome, code = judge(id, result, request)
        except trio.Cancelled:
            end(events, execution, id, "cancelled", started, clock())
            raise
        except Exception as error:
            now = clock()
            failure = side.failed(error, id, far, now - started, request)
            end(events, execution, id, outcome_of(failure), started, now, code_of(failure))
            if failure is error:
                raise
            raise failure from failure.__cause__
        source = result.meta.source if fixed is None else fixed
        if source == "remote" and isinstance(result, WriteResult):
            execution.trail.answered = result.items
        if events.listeners:
            end(events, execution, id, outcome, started, clock(), code, "", source if outcome == "ok" else None)
            return result
        # The same without an event: this is every read's and write's path.
        trail = execution.trail
        budget = math.inf if execution.deadline is None else execution.deadline - started
        trail.steps.append(Step(id, outcome, clock() - started, execution.attempt, budget, code, execution.note))
        if outcome == "ok":
            trail.source = source
        return result

    return run


def run_atomic(
    parts: KernelParts,
    side: Side[WriteRequest, WriteResult],
    writer: AtomicWriter,
    stages: Sequence[tuple[str, Staging]],
) -> RunNode[WriteRequest, WriteResult]:
    """Commit all stages by one call to the engine; each leaves an entry in the trail, with the same duration."""
    events, clock = parts.events, parts.environment.clock
    ids = tuple(id for id, _ in stages)
    staging = tuple(stage for _, stage in stages)

    async def run(request: WriteRequest, execution: Execution) -> WriteResult:
        started = clock()
        for id in ids:
            begin(events, execution, id, started)

        def ended(outcome: StepOutcome, code: str = "") -> None:
            now = clock()
            source: Source | None = "local" if outcome == "ok" else None
            for id in ids:
                end(events, execution, id, outcome, started, now, code, "atomic", source)

        try:
            result = await writer.commit(request, staging)
            outcome, code = side.judge("+".join(ids), result, request)
        except trio.Cancelled:
            ended("cancelled")
            raise
        except Exception as error:
            failure = side.failed(error, "+".join(ids), False, clock() - started, request)
            ended(outcome_of(failure), code_of(failure))
            if failure is error:
                raise
            raise failure from failure.__cause__
        ended(outcome, code)
        return result

    return run


def outcome_of(error: AtomaError) -> StepOutcome:
    """How the trail calls a failure."""
    kind = classify(error)
    return "rejected" if kind == "rejected" else "unknown" if kind == "unknown" else "failed"


def run_sequence(side: Side[Req, Res], first: RunNode[Req, Res], rest: Sequence[Later[Req, Res]]) -> RunNode[Req, Res]:
    """One after the other; what is detached is given a place before anything runs, and started in its turn."""
    detached = [later.detached for later in rest if later.detached is not None]

    async def walk(request: Req, execution: Execution, places: set[Detached[Req, Res]]) -> Res:
        result = await first(request, execution)
        for later in rest:
            if side.refused(result):
                break
            if later.step is None:
                if later.detached in places:
                    places.discard(later.detached)
                    later.detached.start(request, execution)
                continue
            try:
                result = await later.step(request, execution)
            except AtomaError as error:
                failure = side.in_doubt(error, request)
                if failure is error:
                    raise
                raise failure from error
        return result

    async def run(request: Req, execution: Execution) -> Res:
        places: set[Detached[Req, Res]] = set()
        try:
            for one in detached:
                if one.reserve(execution):
                    places.add(one)
            return await walk(request, execution, places)
        finally:
            for one in places:
                one.release()

    async def plain(request: Req, execution: Execution) -> Res:
        return await walk(request, execution, set())

    return run if detached else plain


def run_fallback(
    parts: KernelParts, side: Side[Req, Res], steps: Sequence[RunNode[Req, Res]], subjects: Sequence[str]
) -> RunNode[Req, Res]:
    """The next alternative after a failure that allows it; every fallback is in the trail and told by an event."""
    events = parts.events

    async def run(request: Req, execution: Execution) -> Res:
        errors: list[AtomaError] = []
        current = execution
        for step, failed in zip(steps, subjects, strict=True):
            try:
                return await step(request, current)
            except AtomaError as error:
                if not side.goes_on(error):
                    raise
                errors.append(error)
            if len(errors) < len(steps):
                code = code_of(errors[-1])
                current = execution.noted(f"fallback: {code}")
                if events.listeners:
                    events.emit(FallbackTaken(execution.trace_id, failed, code))
        raise FallbackExhausted(errors) from errors[-1]

    return run


def run_timeout(
    parts: KernelParts, side: Side[Req, Res], step: RunNode[Req, Res], what: str, seconds: float
) -> RunNode[Req, Res]:
    """Cancel the step when its budget is spent; the caller's own deadline, when earlier, passes through."""
    events, clock = parts.events, parts.environment.clock

    async def run(request: Req, execution: Execution) -> Res:
        started = clock()
        deadline = started + seconds
        inside = side.until(request, deadline) if deadline < request.context.deadline else request
        with trio.move_on_after(seconds):
            return await step(inside, execution)
        failure = side.timed_out(what, seconds, request)
        end(events, execution, what, outcome_of(failure), started, clock(), code_of(failure), f"timeout {seconds:g} s")
        raise failure from failure.__cause__

    return run


def run_retry(
    parts: KernelParts, side: Side[Req, Res], step: RunNode[Req, Res], what: str, spec: RetryStep
) -> RunNode[Req, Res]:
    """Try again while the failure allows it, the attempts last, and the wait fits into the budget."""
    events, clock, random, backoff = parts.events, parts.environment.clock, parts.environment.random, spec.backoff

    async def run(request: Req, execution: Execution) -> Res:
        current, doubt = execution, False
        tries = 0
        while True:
            tries += 1
            try:
                return await step(request, current)
            except AtomaError as error:
                failure = side.in_doubt(error, request) if doubt else error
            doubt = doubt or isinstance(failure, WriteUnknown)
            if tries >= spec.attempts or not repeatable(failure):
                raise failure
            delay = backoff.wait_s(tries, random, retry_after_s(failure))
            if clock() + delay >= request.context.deadline:
                raise failure
            code = code_of(failure)
            if events.listeners:
                events.emit(RetryScheduled(execution.trace_id, what, tries + 1, delay, code))
            current = execution.noted(f"retry: {code}", attempt=tries + 1)
            await trio.sleep(delay)

    return run


def run_verdict(
    parts: KernelParts, side: Side[WriteRequest, WriteResult], step: RunNode[WriteRequest, WriteResult], what: str
) -> RunNode[WriteRequest, WriteResult]:
    """Wait until the receipts of what a strict write wrote have their verdicts."""
    events, clock = parts.events, parts.environment.clock

    async def run(request: WriteRequest, execution: Execution) -> WriteResult:
        result = await step(request, execution)
        if request.options.confirm != "strict" or not any(map(as_receipt, result.receipts)):
            return result
        started = clock()
        try:
            items = await await_verdicts(result.items, result.receipts)
        except trio.Cancelled:
            end(events, execution, what, "cancelled", started, clock(), "", "verdict")
            raise
        except Exception as error:  # the write is queued, only the waiting failed
            failure = side.in_doubt(translate(error, what, clock() - started), request)
            end(events, execution, what, outcome_of(failure), started, clock(), code_of(failure), "verdict")
            raise failure from error
        final = msgspec.structs.replace(result, status=status_of(items), items=items)
        outcome, code = side.judge(what, final, request)
        end(events, execution, what, outcome, started, clock(), code, "verdict")
        return final

    return run


def run_refuse(side: Side[Req, Res], reason: str) -> RunNode[Req, Res]:
    """Refuse; the kernel does so before it starts a write, so only queries come this far."""
    del side  # it says which types are meant

    async def run(request: Req, execution: Execution) -> Res:
        store = request.store if isinstance(request, QueryRequest) else request.entries[0].store
        raise PolicyNotAllowed(request.context.policy, store, reason)

    return run


def run_custom(
    side: Side[Req, Res], combinator: RunnableCombinator, steps: Sequence[RunNode[Req, Res]]
) -> RunNode[Req, Res]:
    """A combinator of a user's own.

    What it makes of its steps' ends is its business; that a write may have been done already is not forgotten over it.
    """

    async def run(request: Req, execution: Execution) -> Res:
        doubt = False

        def bound(step: RunNode[Req, Res]) -> Callable[[Req], Awaitable[Res]]:
            async def call(inner: Req) -> Res:
                nonlocal doubt
                sure = False
                try:
                    result = await step(inner, execution)
                    sure = isinstance(result, WriteResult) and result.status == "rejected"
                    return result
                except AtomaError as error:
                    sure = not isinstance(error, WriteUnknown)
                    raise
                finally:  # done, in doubt, or cancelled on the way
                    doubt = doubt or not sure

            return call

        try:
            result = await combinator.run(request, [bound(step) for step in steps])
            side.judge(combinator.label, result, request)
            return result
        except Exception as error:
            failure = translate(error, combinator.label, 0.0)
            if doubt:
                failure = side.in_doubt(failure, request)
            if failure is error:
                raise
            raise failure from failure.__cause__

    return run
