"""Resolving a write: asking the nodes that passed it on, and combining their answers."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from atoma.contracts.execution import Resolution, ResolveRequest
from atoma.contracts.failures import code_of
from atoma.errors import AtomaError, ExecutionError, NotResolvable, WriteUnknown
from atoma.kernel._parts import KernelParts, begin, end
from atoma.kernel._steps import outcome_of
from atoma.kernel.outcomes import classify, translate
from atoma.kernel.types import Execution
from atoma.ports import ResolvingNode


async def resolve_at(
    parts: KernelParts, ids: Sequence[str], request: ResolveRequest, execution: Execution
) -> Resolution:
    """Ask every one of ``ids``: a write that went to two authorities was abandoned only if both say so.

    Raises:
        WriteUnknown: One of them could not be asked, or its answer was lost; the answers of the others stay true.
        AtomaError: One of them refused to answer.
    """
    found: list[Resolution] = []
    for id in ids:
        try:
            found.append(await _ask(parts, id, request, execution))
        except WriteUnknown as error:
            error.nodes = tuple(ids)
            raise
    decided = [one for one in found if one.result is not None]
    done = [one for one in decided if one.result is not None and one.result.status != "rejected"]
    return (done or decided or found)[0]


async def _ask(parts: KernelParts, id: str, request: ResolveRequest, execution: Execution) -> Resolution:
    node = parts.nodes.get(id)
    if not isinstance(node, ResolvingNode):
        raise NotResolvable(request.idem, f"this client has no node {id!r} that can say what became of it")
    events, clock = parts.events, parts.environment.clock
    started = clock()
    begin(events, execution, id, started)
    try:
        answer = _judged(id, await node.resolve(request), request)
    except trio.Cancelled:
        end(events, execution, id, "cancelled", started, clock(), note="resolve")
        raise
    except Exception as error:
        now = clock()
        failure = _failed(request.idem, error, id, now - started)
        end(events, execution, id, outcome_of(failure), started, now, code_of(failure), "resolve")
        if failure is error:
            raise
        raise failure from failure.__cause__
    end(events, execution, id, "ok", started, clock(), "", "resolve", "remote")
    return answer


def _judged(id: str, answer: object, request: ResolveRequest) -> Resolution:
    if not isinstance(answer, Resolution) or answer.idem != request.idem:
        raise ExecutionError(f"{id!r} did not answer what it was asked")
    return answer


def _failed(idem: str, error: Exception, node: str, seconds: float) -> AtomaError:
    """A refusal to tell is told as it is; after anything else the write is as unknown as before."""
    ours = translate(error, node, seconds)
    foreign = type(ours) is ExecutionError
    if isinstance(ours, WriteUnknown) or (classify(ours) != "retryable" and not foreign):
        return ours
    unknown = WriteUnknown(idem, f"{code_of(ours)}: {ours}")
    unknown.__cause__ = ours
    return unknown


__all__ = ["resolve_at"]
