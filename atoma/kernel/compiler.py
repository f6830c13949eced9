"""The compiler: turns a policy graph into nested coroutine functions, once, when a client opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from atoma.contracts.execution import QueryRequest, QueryResult, WriteRequest, WriteResult
from atoma.contracts.policy import Combinator, Req, Res, RunnableCombinator
from atoma.kernel._concurrent import run_merge, run_parallel, run_race
from atoma.kernel._detached import Detached, Later, Settle, settle_query, settle_write
from atoma.kernel._guarded import run_breaker, run_bulkhead, run_cache
from atoma.kernel._parts import KernelParts
from atoma.kernel._steps import (
    run_atomic,
    run_custom,
    run_fallback,
    run_node,
    run_refuse,
    run_retry,
    run_sequence,
    run_timeout,
    run_verdict,
)
from atoma.kernel.combinators import (
    AtomicStep,
    BreakerStep,
    BulkheadStep,
    CacheStep,
    DetachStep,
    FallbackStep,
    MergeStep,
    NodeStep,
    ParallelStep,
    RaceStep,
    RefuseStep,
    RetryStep,
    SequenceStep,
    SyncedStep,
    TimeoutStep,
    VerdictStep,
    subject,
)
from atoma.kernel.outcomes import QuerySide, Side, WriteSide
from atoma.kernel.policy import remote_of
from atoma.kernel.types import Execution, RunNode
from atoma.ports import MergingNode, QueryNode, Staging, WriteNode


def compile_query(step: Combinator, parts: KernelParts) -> RunNode[QueryRequest, QueryResult]:
    """Return the coroutine function for a query graph that passed the topology check."""
    side = QuerySide()
    match step:
        case NodeStep(id=id):
            node = parts.nodes[id]
            assert isinstance(node, QueryNode)
            return run_node(parts, side, id, node.query, remote_of(id, node))
        case SequenceStep():
            return _compile_sequence(step, parts, side, compile_query, settle_query, required=False)
        case SyncedStep():
            return _compile_synced(step, parts, compile_query, lambda request: request.store in parts.synced)
        case MergeStep(by=by, tolerant=tolerant):
            node = parts.nodes[by]
            assert isinstance(node, MergingNode)
            return run_merge(parts, side, [compile_query(child, parts) for child in step.children], by, node, tolerant)
        case CacheStep():
            parts.caches = True
            return run_cache(parts, compile_query(step.step, parts), subject(step), step)
        case _:
            return _compile(step, [compile_query(child, parts) for child in step.children], parts, side)


def compile_write(step: Combinator, parts: KernelParts) -> RunNode[WriteRequest, WriteResult]:
    """Return the coroutine function for a write graph that passed the topology check."""
    side = WriteSide()
    match step:
        case NodeStep(id=id):
            node = parts.nodes[id]
            if isinstance(node, WriteNode):
                return run_node(parts, side, id, node.write, remote_of(id, node))
            assert isinstance(node, Staging)
            return _compile_atomic((id,), parts, side)
        case VerdictStep():
            return run_verdict(parts, side, compile_write(step.step, parts), subject(step))
        case AtomicStep(ids=ids):
            return _compile_atomic(ids, parts, side)
        case SequenceStep():
            return _compile_sequence(step, parts, side, compile_write, settle_write, required=True)
        case SyncedStep():
            synced = parts.synced
            return _compile_synced(
                step, parts, compile_write, lambda request: any(entry.store in synced for entry in request.entries)
            )
        case _:
            return _compile(step, [compile_write(child, parts) for child in step.children], parts, side)


def _compile_sequence(
    step: SequenceStep,
    parts: KernelParts,
    side: Side[Req, Res],
    compiled: Callable[[Combinator, KernelParts], RunNode[Req, Res]],
    settle: Settle[Req, Res],
    *,
    required: bool,
) -> RunNode[Req, Res]:
    """A sequence of either side; what is detached in it runs behind the answer, where there is a place for it."""
    first, *later = step.children
    rest = [
        Later(None, Detached(parts, side, compiled(child.step, parts), subject(child), settle, required=required))
        if isinstance(child, DetachStep)
        else Later(compiled(child, parts))
        for child in later
    ]
    return run_sequence(side, compiled(first, parts), rest)


def _compile_synced(
    step: SyncedStep,
    parts: KernelParts,
    compiled: Callable[[Combinator, KernelParts], RunNode[Req, Res]],
    replicates: Callable[[Req], bool],
) -> RunNode[Req, Res]:
    """A choice of either side between stores that replicate and others; none where nothing replicates."""
    if not parts.synced:
        return compiled(step.otherwise, parts)
    synced, otherwise = (compiled(child, parts) for child in step.children)

    async def choose(request: Req, execution: Execution) -> Res:
        return await (synced if replicates(request) else otherwise)(request, execution)

    return choose


def _compile_atomic(ids: tuple[str, ...], parts: KernelParts, side: WriteSide) -> RunNode[WriteRequest, WriteResult]:
    assert parts.writer is not None
    return run_atomic(parts, side, parts.writer, [(id, cast("Staging", parts.nodes[id])) for id in ids])


def _compile(
    step: Combinator, steps: Sequence[RunNode[Req, Res]], parts: KernelParts, side: Side[Req, Res]
) -> RunNode[Req, Res]:
    match step:
        case FallbackStep():
            return run_fallback(parts, side, steps, [subject(child) for child in step.children])
        case ParallelStep(answer="first"):
            return run_race(side, steps, 0.0)
        case ParallelStep(answer=answer):
            return run_parallel(side, steps, answer if isinstance(answer, int) else len(steps))
        case RaceStep(delay_s=delay_s):
            return run_race(side, steps, delay_s)
        case TimeoutStep(seconds=seconds):
            return run_timeout(parts, side, steps[0], subject(step), seconds)
        case RetryStep():
            return run_retry(parts, side, steps[0], subject(step), step)
        case BreakerStep():
            return run_breaker(parts, steps[0], subject(step), step)
        case BulkheadStep():
            return run_bulkhead(parts, steps[0], subject(step), step)
        case RefuseStep(reason=reason):
            return run_refuse(side, reason)
        case _:
            assert isinstance(step, RunnableCombinator)
            return run_custom(side, step, steps)
