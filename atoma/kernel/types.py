"""What compiled policies are made of: the frame of a request, the shape of a compiled step, and what the kernel tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from atoma.contracts.execution import Durability, QueryRequest, QueryResult, WriteRequest, WriteResult
from atoma.errors import AtomaError
from atoma.kernel.trail import Trail

Req = TypeVar("Req", bound=QueryRequest | WriteRequest)
Res = TypeVar("Res", bound=QueryResult | WriteResult)


class Frame:
    """Where a request stands in its policy: one per request, and one more per retry, alternative or branch.

    Attributes:
        trace_id: The request's trace id.
        deadline: The caller's deadline on Trio's clock.
        trail: What has happened so far; branches that run at the same time have one each.
        attempt: 1 for the first try.
        note: Why the steps below are taken, ``""`` on the main path.
    """

    __slots__ = ("attempt", "deadline", "note", "trace_id", "trail")

    def __init__(self, trace_id: str, deadline: float, trail: Trail, attempt: int = 1, note: str = "") -> None:
        self.trace_id = trace_id
        self.deadline = deadline
        self.trail = trail
        self.attempt = attempt
        self.note = note

    def noted(self, note: str, *, attempt: int = 0) -> Frame:
        """This frame with a reason added, and another attempt number when one is given."""
        joined = f"{self.note}; {note}" if self.note else note
        return Frame(self.trace_id, self.deadline, self.trail, attempt or self.attempt, joined)

    def branch(self) -> Frame:
        """This frame with a trail of its own, for steps that run at the same time as others."""
        return Frame(self.trace_id, self.deadline, Trail(), self.attempt, self.note)


Run: TypeAlias = Callable[[Req, Frame], Awaitable[Res]]
"""A compiled step: awaits the result or raises an ``AtomaError``."""


class DetachedResults(Protocol):
    """What becomes of the results of detached steps: the caller has its answer already."""

    async def query_answered(self, request: QueryRequest, result: QueryResult) -> None:
        """A detached query was answered (write it back into a cache, for instance)."""
        ...

    async def write_settled(self, request: WriteRequest, result: WriteResult | None, error: AtomaError | None) -> None:
        """A detached write has its verdict: a result, or the error it ended with."""
        ...


@dataclass(frozen=True, slots=True)
class NodeInfo:
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


@dataclass(frozen=True, slots=True)
class PolicyInfo:
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


@dataclass(frozen=True, slots=True)
class GuardInfo:
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


@dataclass(frozen=True, slots=True)
class Topology:
    """How a client is put together.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLimits:
    """Bounds of a kernel.

    Attributes:
        detached: Detached steps that may run at once.
        cached: Query results that one ``cache`` step keeps.
    """

    detached: int = 64
    cached: int = 256


__all__ = [
    "DetachedResults",
    "Frame",
    "GuardInfo",
    "KernelLimits",
    "NodeInfo",
    "PolicyInfo",
    "Req",
    "Res",
    "Run",
    "Topology",
]
