"""Steps that continue after the answer: supervised, bounded, reported by events, cancelled with the client."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias

from msgspec.structs import replace

from atoma.contracts.events import QueryFinished, WriteSettled
from atoma.contracts.execution import QueryRequest, QueryResult, WriteRequest, WriteResult, note_path
from atoma.contracts.failures import code_of
from atoma.contracts.policy import Req, Res
from atoma.errors import AtomaError, Overloaded, WriteUnknown
from atoma.kernel._parts import KernelParts, end
from atoma.kernel.outcomes import Side
from atoma.kernel.reach import note_nodes
from atoma.kernel.types import Execution, RunNode, Trail

_log = logging.getLogger("atoma.kernel")


Settle: TypeAlias = Callable[[KernelParts, Req, Res | None, AtomaError | None, Execution], Awaitable[None]]
"""A function that is called at the end of a detached run, with either a result or an error."""


class Detached(Generic[Req, Res]):
    """The compiled form of ``detach(step)`` inside a sequence.

    Args:
        parts: The kernel's.
        side: Query or write.
        step: What runs.
        what: The nodes in it.
        settle: What is done with its end.
        required: Whether the whole request is refused if there is no place (writes), instead of being answered without the step.
    """

    __slots__ = ("_parts", "_required", "_settle", "_side", "_step", "_what")

    def __init__(
        self,
        parts: KernelParts,
        side: Side[Req, Res],
        step: RunNode[Req, Res],
        what: str,
        settle: Settle[Req, Res],
        *,
        required: bool,
    ) -> None:
        self._parts = parts
        self._side = side
        self._step = step
        self._what = what
        self._settle = settle
        self._required = required

    def reserve(self, execution: Execution) -> bool:
        """Take a place for a run; False when the request is to be answered without it.

        Raises:
            Overloaded: All places are taken and the request cannot do without.
        """
        parts = self._parts
        if parts.detached_running < parts.limits.detached:
            parts.detached_running += 1
            return True
        now = parts.environment.clock()
        end(parts.events, execution, self._what, "skipped", now, now, Overloaded.code, "no place to run detached")
        if self._required:
            raise Overloaded("the place for detached steps", parts.limits.detached)
        return False

    def release(self) -> None:
        """Give a place back that was taken and not used."""
        self._parts.detached_running -= 1

    def start(self, request: Req, execution: Execution) -> None:
        """Start a run, whose place is taken, in the client's nursery; it has no deadline of the caller's."""
        parts = self._parts
        now = parts.environment.clock()
        end(parts.events, execution, self._what, "detached", now, now)
        own = Execution(execution.trace_id, math.inf, Trail(), 1, "detached")
        later = self._side.until(request, math.inf)

        async def run() -> None:
            await self._supervise(later, own)

        parts.nursery.start_soon(run, name=f"detached {self._what}")

    async def _supervise(self, request: Req, execution: Execution) -> None:
        try:
            result, failure = None, None
            try:
                result = await self._step(request, execution)
            except AtomaError as error:
                failure = error
            await self._settle(self._parts, request, result, failure, execution)
        except Exception:
            _log.exception("a detached step of %s could not be settled", self._what)
        finally:
            self.release()


@dataclass(frozen=True, slots=True)
class Later(Generic[Req, Res]):
    """A later element of a sequence: a step to wait for, or one to detach."""

    step: RunNode[Req, Res] | None = None
    detached: Detached[Req, Res] | None = None


async def settle_query(
    parts: KernelParts,
    request: QueryRequest,
    result: QueryResult | None,
    error: AtomaError | None,
    execution: Execution,
) -> None:
    """Tell how a detached query ended and hand its rows on."""
    code = code_of(error) if error is not None else ""
    path = tuple(execution.trail.steps)
    now = parts.environment.clock()
    parts.events.emit(QueryFinished(execution.trace_id, request.store, request.context.policy, code, path, at=now))
    if result is not None and parts.detached_results is not None:
        told = replace(result, meta=execution.trail.meta(request.context, result.meta))
        await parts.detached_results.query_answered(request, told)


async def settle_write(
    parts: KernelParts,
    request: WriteRequest,
    result: WriteResult | None,
    error: AtomaError | None,
    execution: Execution,
) -> None:
    """Tell how a detached write ended and hand its verdict on."""
    parts.changed({entry.store for entry in request.entries})
    path = tuple(execution.trail.steps)
    if error is not None:
        note_path(error, path)
    if isinstance(error, WriteUnknown):
        note_nodes(error, path, parts.nodes)
    code = code_of(error) if error is not None else ""
    status = result.status if result is not None else None
    now = parts.environment.clock()
    parts.events.emit(
        WriteSettled(execution.trace_id, request.idem, request.context.policy, status, code, path, at=now)
    )
    if parts.detached_results is not None:
        if result is not None:
            result = replace(result, meta=execution.trail.meta(request.context, result.meta))
        await parts.detached_results.write_settled(request, result, error)


__all__ = ["Detached", "Later", "Settle", "settle_query", "settle_write"]
