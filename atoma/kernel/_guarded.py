"""Compiled forms of the steps with state between requests: breaker, bulkhead and cache."""

from __future__ import annotations

from collections.abc import Hashable

import trio

from atoma.contracts.execution import QueryRequest, QueryResult, Source
from atoma.contracts.failures import code_of
from atoma.contracts.policy import Req, Res
from atoma.errors import AtomaError, CircuitOpen, Overloaded
from atoma.kernel._parts import KernelParts, end
from atoma.kernel._steps import outcome_of
from atoma.kernel.combinators import BreakerStep, BulkheadStep, CacheStep
from atoma.kernel.guards import Breaker, Bulkhead
from atoma.kernel.outcomes import classify, translate
from atoma.kernel.types import Execution, RunNode
from atoma.query.walk import stores_of


def run_breaker(parts: KernelParts, step: RunNode[Req, Res], what: str, spec: BreakerStep) -> RunNode[Req, Res]:
    """Refuse calls while the breaker is open."""
    key = (what, spec.failures, spec.window_s, spec.cooldown_s)
    breaker = parts.breakers.setdefault(key, Breaker(what, spec, parts.events))
    events, clock = parts.events, parts.environment.clock

    async def run(request: Req, execution: Execution) -> Res:
        now = clock()
        try:
            probe = breaker.enter(now)
        except CircuitOpen as error:
            end(events, execution, what, "skipped", now, now, error.code, f"breaker {breaker.state}")
            raise
        good: bool | None = None
        try:
            result = await step(request, execution.noted("breaker half-open") if probe else execution)
            good = True
        except AtomaError as error:
            if not isinstance(error, (CircuitOpen, Overloaded)):  # else nobody was asked
                good = classify(error) == "rejected"
            raise
        finally:
            breaker.leave(clock(), probe=probe, good=good)
        return result

    return run


def run_bulkhead(parts: KernelParts, step: RunNode[Req, Res], what: str, spec: BulkheadStep) -> RunNode[Req, Res]:
    """Bound concurrent calls and those that wait."""
    bulkhead = parts.bulkheads.setdefault((what, spec.limit, spec.queue), Bulkhead(what, spec))
    events, clock = parts.events, parts.environment.clock

    async def run(request: Req, execution: Execution) -> Res:
        try:
            await bulkhead.enter()
        except Overloaded as error:
            now = clock()
            end(events, execution, what, "skipped", now, now, error.code, "bulkhead full")
            raise
        try:
            return await step(request, execution)
        finally:
            bulkhead.leave()

    return run


class _Entry:
    """A result, or one on its way."""

    __slots__ = ("done", "error", "expires", "result", "source")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.expires = 0.0
        self.result: QueryResult | None = None
        self.source: Source = "local"
        self.error: AtomaError | None = None


def run_cache(
    parts: KernelParts, step: RunNode[QueryRequest, QueryResult], what: str, spec: CacheStep
) -> RunNode[QueryRequest, QueryResult]:
    """Share recent and running results; a change of the store makes them stale at once."""
    entries: dict[Hashable, _Entry] = {}
    events, clock, generations = parts.events, parts.environment.clock, parts.generations

    async def lead(key: Hashable, request: QueryRequest, execution: Execution) -> QueryResult:
        entry = entries[key] = _Entry()
        if len(entries) > parts.limits.cached:
            entries.pop(next(iter(entries)))
        try:
            entry.result = await step(request, execution)
            entry.expires = clock() + spec.ttl_s
            entry.source = execution.trail.source or "local"
            return entry.result
        except AtomaError as error:
            entry.error = error
            raise
        finally:
            if entry.result is None and entries.get(key) is entry:
                del entries[key]
            entry.done.set()

    def key_of(request: QueryRequest, execution: Execution) -> Hashable:
        generation = sum(generations.get(store, 0) for store in set(stores_of(request.query.plan)))  # they only rise
        if spec.key is None:
            return (generation, request.query)
        try:
            key = (request.store, generation, spec.key(request))
            hash(key)
        except Exception as error:
            failure, now = translate(error, f"the key of the cache of {what}", 0.0), clock()
            end(events, execution, what, outcome_of(failure), now, now, code_of(failure), "key")
            raise failure from failure.__cause__
        return key

    async def run(request: QueryRequest, execution: Execution) -> QueryResult:
        key = key_of(request, execution)
        started = clock()
        note = "cached"
        while True:
            entry = entries.get(key)
            if entry is None or (entry.result is not None and clock() >= entry.expires):
                return await lead(key, request, execution)
            if not entry.done.is_set():
                note = "shared"
                await entry.done.wait()
            if entry.result is not None:
                end(events, execution, what, "ok", started, clock(), "", note, entry.source)
                return entry.result
            if entry.error is not None:
                end(events, execution, what, "failed", started, clock(), code_of(entry.error), note)
                raise entry.error.with_traceback(None)
            # its leader was cancelled: whoever wakes first leads now

    return run
