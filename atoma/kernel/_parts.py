"""The parts that compiled steps share: nodes, clock, events, and the trail's entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import trio

from atoma.contracts.events import StepFinished, StepStarted
from atoma.contracts.execution import Source, Step, StepOutcome
from atoma.kernel.events import EventDispatch
from atoma.kernel.guards import Breaker, Bulkhead
from atoma.kernel.types import DetachedResults, Execution, KernelLimits
from atoma.plugins import Node
from atoma.ports import AtomicWriter, Environment


@dataclass(slots=True, kw_only=True)
class KernelParts:
    """The parts of a kernel that the steps it compiles are given.

    Attributes:
        nodes: Every node by id.
        environment: Clock and randomness.
        events: Where events go.
        nursery: Where detached steps run.
        writer: Commits atomic segments; None without a local database.
        detached_results: Gets what detached steps bring; None drops it.
        limits: Bounds.
        synced: Stores that replicate.
        caches: Whether a step keeps query results, which changes end.
        detached_running: Places taken by detached steps.
        breakers: State of each breaker, by its settings and nodes.
        bulkheads: The same for bulkheads.
        generations: Store → how often it changed; cached results of another generation are stale.
    """

    nodes: Mapping[str, Node]
    environment: Environment
    events: EventDispatch
    nursery: trio.Nursery
    writer: AtomicWriter | None
    detached_results: DetachedResults | None
    limits: KernelLimits
    synced: frozenset[str]
    caches: bool = False
    detached_running: int = 0
    breakers: dict[tuple[object, ...], Breaker] = field(default_factory=dict[tuple[object, ...], Breaker])
    bulkheads: dict[tuple[object, ...], Bulkhead] = field(default_factory=dict[tuple[object, ...], Bulkhead])
    generations: dict[str, int] = field(default_factory=dict[str, int])

    def changed(self, stores: Iterable[str]) -> None:
        """Make cached results of ``stores`` stale."""
        for store in stores:
            self.generations[store] = self.generations.get(store, 0) + 1


def begin(events: EventDispatch, execution: Execution, node: str, now: float) -> None:
    """Tell that a node begins."""
    if events.listeners:
        events.emit(StepStarted(execution.trace_id, node, execution.attempt, at=now))


def end(
    events: EventDispatch,
    execution: Execution,
    node: str,
    outcome: StepOutcome,
    started: float,
    now: float,
    error: str = "",
    note: str = "",
    source: Source | None = None,
) -> None:
    """Enter a step into the trail and tell that it ended."""
    seconds = now - started
    if not note:
        note = execution.note
    elif execution.note:
        note = f"{execution.note}; {note}"
    execution.trail.steps.append(
        Step(node, outcome, seconds, execution.attempt, execution.budget(started), error, note)
    )
    if source is not None:
        execution.trail.source = source
    if events.listeners:
        events.emit(StepFinished(execution.trace_id, node, execution.attempt, outcome, seconds, error, at=now))
