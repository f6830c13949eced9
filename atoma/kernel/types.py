"""The types of compiled policies: a request's trail and execution, compiled steps, and what the kernel shows of itself."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec
import trio
from msgspec.structs import replace

from atoma.contracts.execution import (
    Durability,
    ExecutionMeta,
    OperationContext,
    QueryRequest,
    QueryResult,
    Source,
    Step,
    WriteItemResult,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.policy import Req, Res
from atoma.errors import AtomaError


class Trail(msgspec.Struct):
    """The steps of one request, or of one branch of it, in order of completion.

    Attributes:
        steps: The entries.
        source: The source of the last successful step's answer; None if no step has succeeded.
        answered: A remote node's answer to a write, item by item; None if there is none.
    """

    steps: list[Step] = []
    source: Source | None = None
    answered: tuple[WriteItemResult, ...] | None = None

    def join(self, branch: Trail) -> None:
        """Add what happened in a branch that has ended."""
        self.steps.extend(branch.steps)
        if branch.source is not None:
            self.source = branch.source
        if branch.answered is not None:
            self.answered = branch.answered

    def meta(self, context: OperationContext, inner: ExecutionMeta) -> ExecutionMeta:
        """The meta data of a result that came about like this; position and cursor are those of ``inner``."""
        source = self.source or "local"
        return replace(inner, source=source, path=tuple(self.steps), trace_id=context.trace_id, policy=context.policy)


def describe_path(path: Sequence[Step]) -> str:
    """Return the trail as text, one line per step, as logs and the inspector show it."""
    return "\n".join(_line(step) for step in path)


def _line(step: Step) -> str:
    parts = [f"{step.node}: {step.outcome} in {step.seconds * 1000:.3g} ms"]
    if step.attempt > 1:
        parts.append(f"attempt {step.attempt}")
    if step.error:
        parts.append(step.error)
    if step.budget_s != math.inf:
        parts.append(f"budget {step.budget_s:.3g} s")
    if step.note:
        parts.append(step.note)
    return ", ".join(parts)


class Execution(msgspec.Struct):
    """The standing of a request in its policy: one per request, and one more per retry, alternative or branch.

    Attributes:
        trace_id: The request's trace id.
        deadline: The caller's deadline on Trio's clock; None while nobody has asked for it.
        trail: What has happened so far; branches that run at the same time have one each.
        attempt: Number of the attempt, from 1.
        note: Why the steps below are taken; ``""`` on the main path.
    """

    trace_id: str
    deadline: float | None
    trail: Trail
    attempt: int = 1
    note: str = ""

    def budget(self, started: float) -> float:
        """Seconds that were left until the deadline at ``started``."""
        if self.deadline is None:
            self.deadline = trio.current_effective_deadline()
        return self.deadline - started

    def noted(self, note: str, *, attempt: int = 0) -> Execution:
        """This execution with a reason added, and another attempt number when one is given."""
        joined = f"{self.note}; {note}" if self.note else note
        return Execution(self.trace_id, self.deadline, self.trail, attempt or self.attempt, joined)

    def branch(self) -> Execution:
        """This execution with a trail of its own, for steps that run at the same time as others."""
        return Execution(self.trace_id, self.deadline, Trail(), self.attempt, self.note)


RunNode: TypeAlias = Callable[[Req, Execution], Awaitable[Res]]
"""A compiled step: a coroutine function that returns the result or raises an ``AtomaError``."""


class DetachedResults(Protocol):
    """The receiver of the results of detached steps, whose caller already has its answer."""

    async def query_answered(self, request: QueryRequest, result: QueryResult) -> None:
        """A detached query was answered (write it back into a cache, for instance)."""
        ...

    async def write_settled(self, request: WriteRequest, result: WriteResult | None, error: AtomaError | None) -> None:
        """A detached write has its verdict: a result, or the error it ended with."""
        ...


class NodeInfo(msgspec.Struct, frozen=True):
    """One registered node as ``topology()`` shows it.

    Attributes:
        id: Its id.
        roles: What it can do: ``query``, ``write``, ``stage``, ``merge``.
        remote: Whether it declares that it reaches another machine.
        owner: Id of the plugin that registered it; ``kernel`` for built-in nodes.
        database: The database it stages into, ``""`` when it stages into none.
    """

    id: str
    roles: tuple[str, ...]
    remote: bool
    owner: str
    database: str = ""


class PolicyInfo(msgspec.Struct, frozen=True):
    """One policy as ``topology()`` shows it.

    Attributes:
        name: Its name.
        owner: Id of the plugin that registered it; ``kernel`` for the ready-made ones.
        unavailable: Why it cannot be selected (``needs …``), ``""`` when it can.
        query: Its query graph as text, ``""`` when it has none.
        write: Its write graph as text, ``""`` when it has none.
    """

    name: str
    owner: str
    unavailable: str
    query: str
    write: str


class GuardInfo(msgspec.Struct, frozen=True):
    """The present state of a breaker or a bulkhead.

    Attributes:
        kind: ``breaker`` or ``bulkhead``.
        node: The nodes that it guards.
        state: ``closed``, ``open`` or ``half-open`` for a breaker, ``free`` or ``full`` for a bulkhead.
        running: Number of calls in a bulkhead, or of failures in a row of a breaker.
        waiting: Number of calls that wait for a bulkhead.
        retry_after_s: Seconds until an open breaker admits a probe.
    """

    kind: str
    node: str
    state: str
    running: int = 0
    waiting: int = 0
    retry_after_s: float = 0.0


class Topology(msgspec.Struct, frozen=True):
    """A description of a client's composition.

    Attributes:
        default: The policy of requests and stores that name none.
        nodes: Every node.
        policies: Every policy, available or not.
        stores: Store name → policy name.
        synced: Stores that replicate.
        durability: Store name → the durability of its writes on this device if a call names none; empty
            without a local database.
        transports: Transport name → id of the plugin that registered it.
        ports: Port name → id of the plugin that offers it; ``client`` for the client's own ports.
        guards: The present state of the breakers and bulkheads of the available policies.
    """

    default: str
    nodes: tuple[NodeInfo, ...]
    policies: tuple[PolicyInfo, ...]
    stores: dict[str, str]
    synced: frozenset[str]
    durability: dict[str, Durability]
    transports: dict[str, str]
    ports: dict[str, str]
    guards: tuple[GuardInfo, ...] = ()


class KernelLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a kernel.

    Attributes:
        detached: Maximum number of detached steps that run at once.
        cached: Maximum number of query results that one ``cache`` step keeps.
    """

    detached: int = 64
    cached: int = 256


__all__ = [
    "DetachedResults",
    "Execution",
    "GuardInfo",
    "KernelLimits",
    "NodeInfo",
    "PolicyInfo",
    "RunNode",
    "Topology",
    "Trail",
    "describe_path",
]
