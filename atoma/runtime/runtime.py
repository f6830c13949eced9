"""The semantic core: what reading and writing mean, over ports; it knows no node, no protocol and no file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from atoma.contracts.events import Event
from atoma.contracts.policy import WriteReach
from atoma.errors import PluginError
from atoma.ports.environment import Environment
from atoma.ports.execution import QueryPort, WritePort
from atoma.ports.live import LiveQueries
from atoma.runtime.core import Core
from atoma.runtime.flows.commit import WriteCommitFlow
from atoma.runtime.flows.optimism import LayeredWrites
from atoma.runtime.flows.read import ReadFlow
from atoma.runtime.flows.write import WriteFlow
from atoma.runtime.flows.writeback import WriteBack
from atoma.runtime.registry import PolicyNames
from atoma.runtime.store import Store
from atoma.runtime.transaction import Transaction
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
        reach: How far the writes of a policy go; None when every write is answered by the port.
        emit: Tells the listeners.
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
        reach: Callable[[str], WriteReach] | None = None,
        emit: Callable[[Event], None] = lambda event: None,
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
        commit = WriteCommitFlow(write, writeback, layered)
        self.core = Core(
            reads=ReadFlow(query, names, traces, writeback),
            writes=WriteFlow(commit, names, environment.ids, traces, schema, synced),
            names=names,
            synced=synced,
            nursery=nursery,
            live_queries=live,
        )

    def store(self, spec: StoreSpec[T]) -> Store[T]:
        """The store of ``spec``.

        Raises:
            UnknownStore: The schema does not hold this very declaration.
        """
        if self.schema.store(spec.name) is not spec:
            raise PluginError(f"the schema declares another store named {spec.name!r}")
        return Store(self.core, spec)

    def transaction(self, policy: str | None = None) -> Transaction:
        """A transaction over several stores; use it with ``async with``."""
        return Transaction(self.core, policy)
