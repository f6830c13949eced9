"""What compiled policies are made of: a request's trail and execution, the shape of a step, and what the kernel shows."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar

import msgspec
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
from atoma.errors import AtomaError

Req = TypeVar("Req", bound=QueryRequest | WriteRequest)
Res = TypeVar("Res", bound=QueryResult | WriteResult)


class Trail(msgspec.Struct):
    """The steps of one request, or of one branch of it, in order of completion.

    Attributes:
        steps: The entries.
        source: Where the last step that succeeded has its answer from; None when none has succeeded.
        answered: What a remote node answered a write, item by item; None when none has.
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
    """The trail as text, one line per step, as logs and the inspector show it."""
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
        deadline: The caller's deadline on Trio's clock.
        trail: What has happened so far; branches that run at the same time have one each.
        attempt: 1 for the first try.
        note: Why the steps below are taken, ``""`` on the main path.
    """

    trace_id: str
    deadline: float
    trail: Trail
    attempt: int = 1
    note: str = ""

    def noted(self, note: str, *, attempt: int = 0) -> Execution:
        """This execution with a reason added, and another attempt number when one is given."""
        joined = f"{self.note}; {note}" if self.note else note
        return Execution(self.trace_id, self.deadline, self.trail, attempt or self.attempt, joined)

    def branch(self) -> Execution:
        """This execution with a trail of its own, for steps that run at the same time as others."""
        return Execution(self.trace_id, self.deadline, Trail(), self.attempt, self.note)


Run: TypeAlias = Callable[[Req, Execution], Awaitable[Res]]
"""A compiled step: awaits the result or raises an ``AtomaError``."""


class DetachedResults(Protocol):
    """The receiver of what detached steps return: the caller has its answer already."""

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
        remote: Whether it says that it reaches another machine.
        owner: Id of the plugin that registered it; ``kernel`` for what is always there.
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
    """A breaker or a bulkhead as it is now.

    Attributes:
        kind: ``breaker`` or ``bulkhead``.
        node: What it guards.
        state: ``closed``, ``open`` or ``half-open`` for a breaker, ``free`` or ``full`` for a bulkhead.
        running: Calls in a bulkhead; failures in a row of a breaker.
        waiting: Calls that wait for a bulkhead.
        retry_after_s: Seconds until an open breaker lets a probe through.
    """

    kind: str
    node: str
    state: str
    running: int = 0
    waiting: int = 0
    retry_after_s: float = 0.0


class Topology(msgspec.Struct, frozen=True):
    """An account of how a client is put together.

    Attributes:
        default: The policy of requests and stores that name none.
        nodes: Every node.
        policies: Every policy, available or not.
        stores: Store name → policy name.
        synced: Stores that replicate.
        durability: Store name → what a write of its own on this device survives when the call names nothing; empty
            without a local database.
        transports: Transport name → id of the plugin that registered it.
        ports: Port name → id of the plugin that offers it; ``client`` for what the client itself does.
        guards: Breakers and bulkheads of the available policies, as they are now.
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
    """Bounds of a kernel.

    Attributes:
        detached: Detached steps that may run at once.
        cached: Query results that one ``cache`` step keeps.
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
    "Req",
    "Res",
    "Run",
    "Topology",
    "Trail",
    "describe_path",
]
