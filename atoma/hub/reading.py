"""What the reads of one principal may take of a hub, and which of them need no turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields

import trio

from atoma.contracts.checks import is_a
from atoma.contracts.functions import COMPARISONS
from atoma.contracts.limits import BOUNDS, Bounds
from atoma.contracts.query import BoundQuery, Call, Col, Expr
from atoma.errors import ConfigurationError, Overloaded, RemoteError
from atoma.ports.hub_queries import Fences, ReadAllowance
from atoma.ports.principals import PerPrincipal
from atoma.ports.rate import PAUSE_S, Meter
from atoma.query.plans import ids_of, looks_at_one_store
from atoma.query.scope import Stores
from atoma.query.walk import conjuncts

LOOKUP_IDS_MAX = 100
LOOKUP_SCOPES_MAX = 16
LOOKUP_CONDITIONS_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBudget:
    """The budget for the direct queries and snapshots of one principal, over all its connections.

    A query that finds its rows by id or by an index is not counted if it takes at most half a millisecond; otherwise it waits for
    a turn like the others.

    Attributes:
        readers: Maximum number of reads at the same time; further ones wait.
        waiting: Maximum number of reads that wait; further ones are refused with ``OVERLOADED``.
        seconds_per_s: Reading time per second, in seconds, in the long run. A principal who exceeds it waits, and is refused with
            ``RATE_LIMITED`` once the wait would be longer than a second.
        query_s: Seconds after which one read is stopped and answered with ``TIMEOUT``.
        bounds: Maximum size of a query. Devices are told of lower bounds than the defaults, and do not ask for more.

    Raises:
        ConfigurationError: A value is not a number above zero.
    """

    readers: int = 2
    waiting: int = 64
    seconds_per_s: float = 1.0
    query_s: float = 5.0
    bounds: Bounds = BOUNDS

    def __post_init__(self) -> None:
        for each in fields(self):
            value: object = getattr(self, each.name)
            if each.name == "bounds":
                if not is_a(value, Bounds):
                    raise ConfigurationError(f"ReadBudget(bounds=…) must be a Bounds(…), not {value!r}")
            elif not isinstance(value, (int, float)) or not value > 0:
                raise ConfigurationError(f"ReadBudget({each.name}=…) must be a number above 0, not {value!r}")


@dataclass(slots=True, eq=False)
class _Reads:
    """The reads of one principal, running and done."""

    places: trio.Semaphore
    meter: Meter
    asked: int = 0


class Readers:
    """A queue that gives every principal its turns."""

    def __init__(self, budget: ReadBudget) -> None:
        self.budget = budget
        self._reads = PerPrincipal(
            lambda: _Reads(trio.Semaphore(budget.readers), Meter(budget.seconds_per_s)),
            lambda reads: not reads.asked and not reads.meter.debt_s(),
        )

    def __len__(self) -> int:
        """How many principals are remembered."""
        return len(self._reads)

    @asynccontextmanager
    async def turn(self, subject: str) -> AsyncGenerator[ReadAllowance]:
        """A turn of ``subject``, as long as the block runs; waits for it.

        Raises:
            Overloaded: Too many reads of this principal wait.
            RemoteError: ``RATE_LIMITED``: this principal has read too much.
        """
        reads, budget = self._reads.of(subject), self.budget
        if reads.asked >= budget.readers + budget.waiting:
            raise Overloaded("a principal's queue of reads", budget.waiting)
        debt_s = reads.meter.debt_s()
        if debt_s > PAUSE_S:
            text = f"one principal may read for {budget.seconds_per_s:g} seconds per second, and this is more"
            raise RemoteError(text, remote_code="RATE_LIMITED", retry_after_s=debt_s)
        reads.asked += 1
        try:
            async with reads.places:
                if reads.meter.debt_s():
                    await reads.meter.pause()
                yield ReadAllowance(budget.query_s, reads.meter.count)
        finally:
            reads.asked -= 1


def is_lookup(query: BoundQuery, stores: Stores, fences: Fences) -> bool:
    """Whether ``query`` is small and should find its rows by their ids or by an index, so that it needs no turn."""
    if not looks_at_one_store(query.plan):
        return False
    if not all(type(each.expr) is Col for each in query.plan.order):
        return False  # what is computed for a row is not interrupted
    store, scopes = stores(query.store), fences[query.store].scopes
    ids = ids_of(query)
    if ids is not None:
        return len(ids) <= LOOKUP_IDS_MAX
    if scopes is None or len(scopes) > LOOKUP_SCOPES_MAX:
        return False  # an index of a hub begins with the scope
    parts = conjuncts(query.plan.where)
    if len(parts) > LOOKUP_CONDITIONS_MAX or not all(map(_is_comparison, parts)):
        return False
    firsts = [index.keys[0].expr for index in store.indexes if index.where is None]
    entries = {"id", *(first.name for first in firsts if isinstance(first, Col))}
    return any(_is_equality(part, entries) for part in parts)


def _is_comparison(part: Expr) -> bool:
    return isinstance(part, Call) and part.fn in COMPARISONS and isinstance(part.args[0], Col)


def _is_equality(part: Expr, fields: Collection[str]) -> bool:
    assert isinstance(part, Call)
    return part.fn == "eq" and isinstance(part.args[0], Col) and part.args[0].name in fields
