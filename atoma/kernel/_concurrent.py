"""Compiled forms of the steps that run several others at the same time: the only ones with a nursery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

import trio

from atoma.contracts.execution import QueryRequest, QueryResult, Source
from atoma.errors import AtomaError, FallbackExhausted, WriteUnknown
from atoma.kernel._parts import Parts, begin, end
from atoma.kernel._steps import outcome_of
from atoma.kernel.merge import Merging
from atoma.kernel.outcomes import Side, classify, code_of, translate
from atoma.kernel.types import Frame, Req, Res, Run


class _Branches(Generic[Req, Res]):
    """The branches of one request: each has a trail of its own, which joins the request's when the branch has ended.

    The trail of the branch that completes the answer joins last, so that the request's source is that answer's.
    """

    def __init__(self, request: Req, frame: Frame, steps: Sequence[Run[Req, Res]]) -> None:
        self.request = request
        self.frame = frame
        self.steps = steps
        self.frames = [frame.branch() for _ in steps]
        self.ended: list[int] = []
        self.results: dict[int, Res] = {}
        self.errors: dict[int, AtomaError] = {}
        self.changed = trio.Event()

    async def run(self, index: int) -> None:
        """Run one branch to its end; only cancellation leaves it as an exception."""
        try:
            self.results[index] = await self.steps[index](self.request, self.frames[index])
        except Exception as error:
            self.errors[index] = translate(error, f"branch {index + 1}", 0.0)
        self.ended.append(index)
        self.changed.set()

    async def next_end(self, seen: int) -> None:
        """Wait until more than ``seen`` branches have ended."""
        while len(self.ended) <= seen:
            self.changed = trio.Event()
            await self.changed.wait()

    def join(self, last: int | None = None) -> None:
        """Join the trails, in order of completion, those that were cancelled before them, ``last`` at the end."""
        order = [index for index in range(len(self.steps)) if index not in self.ended]
        order += [index for index in self.ended if index != last]
        for index in order if last is None else [*order, last]:
            self.frame.trail.join(self.frames[index].trail)

    def failure(self, side: Side[Req, Res]) -> AtomaError:
        """The error when every branch has failed."""
        errors = [self.errors[index] for index in sorted(self.errors)]
        for error in errors:
            if isinstance(error, WriteUnknown):
                return error
        for error in errors:
            if not side.goes_on(error):
                return side.in_doubt(error, self.request) if len(errors) > 1 else error
        return FallbackExhausted(errors)


def run_race(side: Side[Req, Res], steps: Sequence[Run[Req, Res]], delay_s: float) -> Run[Req, Res]:
    """The first good answer, or the first refusal; with a delay, the next joins when those before it are late."""
    count = len(steps)

    async def run(request: Req, frame: Frame) -> Res:
        branches = _Branches(request, frame, steps)
        winner: int | None = None
        try:
            async with trio.open_nursery() as nursery:
                started = count if not delay_s else 1
                for index in range(started):
                    nursery.start_soon(branches.run, index)
                seen = 0
                while winner is None and seen < count:
                    wait_s = delay_s if started < count else float("inf")
                    with trio.move_on_after(wait_s):
                        await branches.next_end(seen)
                    while winner is None and seen < len(branches.ended):
                        index = branches.ended[seen]
                        seen += 1
                        if index in branches.results or classify(branches.errors[index]) == "rejected":
                            winner = index
                    if winner is None and seen == started and not all(map(side.goes_on, branches.errors.values())):
                        break
                    if winner is None and started < count and (seen == started or wait_s):
                        nursery.start_soon(branches.run, started)
                        started += 1
                nursery.cancel_scope.cancel()
        finally:
            branches.join(winner)
        if winner is None:
            raise branches.failure(side)
        if winner in branches.errors:
            raise branches.errors[winner]
        return branches.results[winner]

    return run
