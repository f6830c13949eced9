"""Compiled forms of the steps that run several others concurrently: the only ones with a nursery."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic

import trio

from atoma.contracts.execution import QueryRequest, QueryResult, Source
from atoma.contracts.failures import code_of
from atoma.contracts.policy import Req, Res
from atoma.errors import AtomaError, FallbackExhausted, WriteUnknown
from atoma.kernel._parts import KernelParts, begin, end
from atoma.kernel._steps import outcome_of
from atoma.kernel.outcomes import Side, classify, translate
from atoma.kernel.types import Execution, RunNode
from atoma.ports import MergingNode
from atoma.ports.tasks import open_tasks


class _Branches(Generic[Req, Res]):
    """The branches of one request.

    Each has a trail of its own, which joins the request's at the end; that of the branch whose answer is taken joins
    last, so that the request's source is where the answer is from.
    """

    def __init__(self, request: Req, execution: Execution, steps: Sequence[RunNode[Req, Res]]) -> None:
        self.request = request
        self.execution = execution
        self.steps = steps
        self.executions = [execution.branch() for _ in steps]
        self.started = 0
        self.ended: list[int] = []
        self.results: dict[int, Res] = {}
        self.errors: dict[int, AtomaError] = {}
        self.changed = trio.Event()

    def start(self, nursery: trio.Nursery) -> None:
        """Start the next branch."""
        index = self.started
        self.started += 1

        async def run() -> None:
            try:
                self.results[index] = await self.steps[index](self.request, self.executions[index])
            except Exception as error:
                self.errors[index] = translate(error, f"branch {index + 1}", 0.0)
            self.ended.append(index)
            self.changed.set()

        nursery.start_soon(run)

    async def wait_end(self, seen: int) -> None:
        """Wait until more than ``seen`` branches have ended."""
        while len(self.ended) <= seen:
            self.changed = trio.Event()
            await self.changed.wait()

    def join(self, last: int) -> None:
        """Join the trails: the cancelled ones, the others in order of completion, ``last`` (-1: none) at the end."""
        order = [index for index in range(self.started) if index not in self.ended]
        order += [index for index in self.ended if index != last]
        for index in order if last < 0 else [*order, last]:
            self.execution.trail.join(self.executions[index].trail)

    def decisive(self, index: int, side: Side[Req, Res]) -> bool:
        """Whether the branch ended with a refusal: asking the others would only hide it."""
        error = self.errors.get(index)
        return side.refused(self.results[index]) if error is None else classify(error) == "rejected"

    def answer(self, index: int) -> Res:
        """What the branch ended with."""
        error = self.errors.get(index)
        if error is not None:
            raise error
        return self.results[index]

    def failure(self, side: Side[Req, Res]) -> AtomaError:
        """The error when every branch that was started has failed."""
        errors = [self.errors[index] for index in sorted(self.errors)]
        final = [error for error in errors if not side.goes_on(error)]
        doubtful = [error for error in final if isinstance(error, WriteUnknown)]
        return (doubtful or final or [FallbackExhausted(errors)])[0]


def run_race(side: Side[Req, Res], steps: Sequence[RunNode[Req, Res]], delay_s: float) -> RunNode[Req, Res]:
    """The first answer wins; with a delay, each further branch joins when those before it are late or have failed."""

    async def run(request: Req, execution: Execution) -> Res:
        branches = _Branches(request, execution, steps)
        winner = -1
        try:
            async with open_tasks() as nursery:
                winner = await _first_answer(branches, side, delay_s, nursery)
                nursery.cancel_scope.cancel()
        finally:
            branches.join(winner)
        if winner < 0:
            raise branches.failure(side)
        return branches.answer(winner)

    return run


async def _first_answer(
    branches: _Branches[Req, Res], side: Side[Req, Res], delay_s: float, nursery: trio.Nursery
) -> int:
    """Start branches and wait for the first that has an answer; -1 when all have failed."""
    count = len(branches.steps)
    seen, next_start = 0, -math.inf
    while True:
        may_start = branches.started < count and all(map(side.goes_on, branches.errors.values()))
        if may_start and (seen == branches.started or trio.current_time() >= next_start):
            branches.start(nursery)
            next_start = trio.current_time() + delay_s
            continue
        if seen == branches.started:
            return -1
        with trio.move_on_at(next_start if may_start else math.inf):
            await branches.wait_end(seen)
        while seen < len(branches.ended):
            index = branches.ended[seen]
            seen += 1
            if index in branches.results or branches.decisive(index, side):
                return index


def run_parallel(side: Side[Req, Res], steps: Sequence[RunNode[Req, Res]], needed: int) -> RunNode[Req, Res]:
    """Run all; the answer is that of the branch that completes the number of successes needed."""
    spare = len(steps) - needed

    async def run(request: Req, execution: Execution) -> Res:
        branches = _Branches(request, execution, steps)
        last = -1

        def complete(index: int) -> bool:
            good = sum(one in branches.results for one in branches.ended)
            return good >= needed or len(branches.errors) > spare or branches.decisive(index, side)

        try:
            last = await _run_until(branches, complete)
        finally:
            branches.join(last)
        error = branches.errors.get(last)
        if error is None:
            return branches.results[last]
        if len(steps) == 1:
            raise error
        failure = side.in_doubt(error, request)
        if failure is error:
            raise error
        raise failure from error

    return run


async def _run_until(branches: _Branches[Req, Res], complete: Callable[[int], bool]) -> int:
    """Run all branches; cancel what still runs once ``complete`` holds for one that ended, and give that one."""
    async with open_tasks() as nursery:
        for _ in branches.steps:
            branches.start(nursery)
        seen = 0
        while True:
            await branches.wait_end(seen)
            index = branches.ended[seen]
            seen += 1
            if seen == len(branches.steps) or complete(index):
                break
        nursery.cancel_scope.cancel()
    return index


def run_merge(
    parts: KernelParts,
    side: Side[QueryRequest, QueryResult],
    steps: Sequence[RunNode[QueryRequest, QueryResult]],
    by: str,
    node: MergingNode,
    tolerant: bool,
) -> RunNode[QueryRequest, QueryResult]:
    """Run all, then let the merge node make one result of theirs; it has an entry of its own in the trail."""
    events, clock = parts.events, parts.environment.clock

    def failed(error: Exception, execution: Execution, started: float) -> AtomaError:
        failure = translate(error, by, 0.0)
        end(events, execution, by, outcome_of(failure), started, clock(), code_of(failure))
        return failure

    async def run(request: QueryRequest, execution: Execution) -> QueryResult:
        try:
            asked = node.spread(request)
        except Exception as error:
            failure = failed(error, execution, clock())
            raise failure from failure.__cause__
        branches = _Branches(asked, execution, steps)

        def complete(index: int) -> bool:
            error = branches.errors.get(index)
            return error is not None and not (tolerant and side.goes_on(error))

        last = -1
        try:
            last = await _run_until(branches, complete)
        finally:
            branches.join(last)
        if complete(last):
            raise branches.errors[last]
        if not branches.results:
            raise branches.failure(side)
        order = sorted(branches.results)
        started = clock()
        begin(events, execution, by, started)
        try:
            result = node.merge(request, [branches.results[index] for index in order])
            side.judge(by, result, request)
        except Exception as error:
            failure = failed(error, execution, started)
            raise failure from failure.__cause__
        sources: set[Source] = {branches.executions[index].trail.source or "local" for index in order}
        source: Source = sources.pop() if len(sources) == 1 else "mixed"
        end(events, execution, by, "ok", started, clock(), "", f"merged {len(order)} of {len(steps)}", source)
        return result

    return run
