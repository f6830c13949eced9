"""The semantic core: what reading and writing mean, over ports; it knows no node, no protocol and no file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from atoma.contracts.checks import is_a
from atoma.contracts.events import Event
from atoma.contracts.execution import Resolution
from atoma.contracts.policy import WriteReach
from atoma.errors import ConfigurationError, PluginError, WriteUnknown
from atoma.ports.environment import Environment
from atoma.ports.execution import QueryPort, ResolvePort, WritePort
from atoma.ports.live import LiveQueries
from atoma.ports.loops import LoopGuard
from atoma.runtime.by_query import WritesByQuery
from atoma.runtime.core import Core
from atoma.runtime.flows import ReadFlow, Recall, ResolveFlow, WriteCommitFlow, WriteFlow
from atoma.runtime.optimism import LayeredWrites
from atoma.runtime.reading import Reading
from atoma.runtime.registry import PolicyNames
from atoma.runtime.store import Store
from atoma.runtime.transaction import Transaction
from atoma.runtime.writeback import WriteBack
from atoma.schema.ids import TraceIds
from atoma.schema.spec import Schema, StoreSpec

T = TypeVar("T")


class Runtime:
    """Stores and transactions over the execution ports.

    Args:
        schema: The declared stores.
        query: Carries queries out.
        write: Carries writes out.
        writeback: Keeps remote answers of unsynced stores.
        live: Live queries; None when there is no local database.
        names: Chooses policies.
        environment: Draws ids.
        synced: Stores that replicate.
        nursery: Where Observables run, and where the authority is asked about what is shown already.
        guard: Refuses calls from other loops.
        reach: How far the writes of a policy go; None when every write is answered by the port.
        emit: Tells the listeners.
        resolve: Finds out what became of writes; None when nobody can be asked.
        recall: Tells of the writes that lie or lay in the outbox; None without a local database.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        query: QueryPort,
        write: WritePort,
        writeback: WriteBack,
        live: LiveQueries | None,
        names: PolicyNames,
        environment: Environment,
        synced: frozenset[str],
        nursery: trio.Nursery,
        guard: LoopGuard,
        reach: Callable[[str], WriteReach] | None = None,
        emit: Callable[[Event], None] = lambda event: None,
        resolve: ResolvePort | None = None,
        recall: Recall | None = None,
    ) -> None:
        self.schema = schema
        layered: LayeredWrites | None = None
        if reach is not None and writeback.apply is not None:
            layered = LayeredWrites(
                write,
                writeback.apply,
                reach=reach,
                synced=synced,
                nursery=nursery,
                environment=environment,
                emit=emit,
                settled=writeback.freshness.settled,
            )
            writeback.layered = layered
        traces = environment.traces or TraceIds(environment.ids)
        self._resolves = None if resolve is None else ResolveFlow(resolve, recall, layered, traces)
        commit = WriteCommitFlow(write, writeback, layered)
        self.core = Core(
            guard=guard,
            read_flow=ReadFlow(query, names, traces, writeback),
            write_flow=WriteFlow(commit, names, environment.ids, traces, schema),
            names=names,
            synced=synced,
            nursery=nursery,
            live_queries=live,
        )
        self.reading = Reading(self.core, schema)
        self.by_query = WritesByQuery(self.core, schema, lambda policy: reach is None or reach(policy) == "local")

    def store(self, spec: StoreSpec[T]) -> Store[T]:
        """The store of ``spec``.

        Raises:
            ConfigurationError: What was passed is no declaration.
            UnknownStore: The schema does not hold this very declaration.
        """
        if not is_a(spec, StoreSpec):
            raise ConfigurationError(f"a store is asked for by its declaration, the StoreSpec(…), not by {spec!r}")
        if self.schema.store(spec.name) is not spec:
            raise PluginError(f"the schema declares another store named {spec.name!r}")
        return Store(self.core, spec, self.reading)

    async def resolve(self, write: WriteUnknown | str, policy: str | None = None) -> Resolution:
        """What became of a write whose answer was lost; see :meth:`atoma.Client.resolve`."""
        self.core.guard.check()
        if self._resolves is None:
            raise PluginError("this runtime was made without a way to resolve writes")
        return await self._resolves.resolve(write, policy)

    def transaction(self, policy: str | None = None) -> Transaction:
        """A transaction over several stores; use it with ``async with``."""
        return Transaction(self.core, policy)
