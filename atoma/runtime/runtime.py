"""The semantic core: what reading and writing mean, over ports; it knows no node, no protocol and no file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from atoma.contracts.checks import is_a
from atoma.contracts.events import Event
from atoma.contracts.execution import Resolution, WriteRequest, WriteResult
from atoma.contracts.policy import WriteReach
from atoma.contracts.values import RowImage
from atoma.errors import ConfigurationError, NotResolvable, PluginError, WriteUnknown
from atoma.ports.environment import Environment
from atoma.ports.execution import QueryPort, ResolvePort, WritePort
from atoma.ports.history import LocalHistory
from atoma.ports.live import LiveQueries
from atoma.ports.loops import LoopGuard
from atoma.ports.scopes import BringsScopes
from atoma.runtime.by_query import WritesByQuery
from atoma.runtime.flows import Core, ReadFlow, Recall, ResolveFlow, WriteCommitFlow, WriteFlow
from atoma.runtime.history import CommitHistory
from atoma.runtime.hooks import StoreHooks
from atoma.runtime.optimism import LayeredWrites
from atoma.runtime.reading import Reading
from atoma.runtime.registry import PolicyNames
from atoma.runtime.results import WriteHandle, handle_of
from atoma.runtime.store import Store
from atoma.runtime.transaction import Transaction
from atoma.runtime.turning import Turning
from atoma.runtime.undo import UndoStack
from atoma.runtime.writeback import WriteBack
from atoma.schema.ids import numbered
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec

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
        is_remote: Whether other machines alone write under a policy.
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
        is_remote: Callable[[str], bool] = lambda policy: False,
        emit: Callable[[Event], None] = lambda event: None,
        resolve: ResolvePort | None = None,
        recall: Recall | None = None,
        scopes: BringsScopes | None = None,
    ) -> None:
        self.schema = schema
        self.hooks = writeback.hooks = StoreHooks(schema, emit, environment.wall_ms)
        layered: LayeredWrites | None = None
        if reach is not None and writeback.apply is not None:
            layered = LayeredWrites(
                write,
                writeback.apply,
                reach=reach,
                nursery=nursery,
                environment=environment,
                emit=emit,
                hooks=self.hooks,
                settled=writeback.freshness.settled,
            )
            writeback.layered = layered
        traces = environment.traces or numbered(environment.ids)
        self._recall = recall
        self._resolves = None if resolve is None else ResolveFlow(resolve, recall, layered, traces)

        def elsewhere(request: WriteRequest) -> bool:  # what replicates and has an id goes through the outbox
            is_far = reach is not None and reach(request.context.policy) != "local"
            return is_far and all(entry.store not in synced or entry.awaits_id for entry in request.entries)

        commit = WriteCommitFlow(write, writeback, self.hooks, elsewhere, layered)
        self.core = Core(
            guard=guard,
            read_flow=ReadFlow(query, names, traces, writeback),
            write_flow=WriteFlow(commit, names, environment.ids, traces, schema, is_remote),
            names=names,
            synced=synced,
            nursery=nursery,
            live_queries=live,
            scopes=scopes,
        )
        self.reading = Reading(self.core, schema)

        def is_local(policy: str) -> bool:
            return reach is None or reach(policy) == "local"

        self.by_query = WritesByQuery(self.core, schema, is_local)
        self._turning = Turning(self.core, schema, is_local)
        self._ids = environment.ids

    def store(self, spec: StoreSpec[T]) -> Store[T]:
        """The store of ``spec``.

        Raises:
            ConfigurationError: What was passed is not a declaration.
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

    def history(self, past: LocalHistory) -> CommitHistory:
        """What this device remembers of its past; see :attr:`atoma.Client.history`."""
        return CommitHistory(self.core, self.schema, past, self._turning)

    def undo(self, past: LocalHistory) -> UndoStack:
        """The stack of what can be undone; see :attr:`atoma.Client.undo`."""
        return UndoStack(self.core, past, self._turning, self._ids)

    async def handle(self, key: str) -> WriteHandle[object]:
        """The handle of a write that lies or lay in the outbox; see :meth:`atoma.Client.handle`."""
        self.core.guard.check()
        if not is_a(key, str):
            raise ConfigurationError(f"handle() takes the key of a write, its handle's key, not {key!r}")
        unit, _, place = key.rpartition(":")
        found = await self._recalled(key)
        if found is not None:
            return handle_of(found, 0, _row_only, self.core)
        found = await self._recalled(unit) if place.isdecimal() else None
        if found is None or int(place) >= len(found.items):
            raise NotResolvable(
                key, "it has put nothing into this device's outbox, or was forgotten behind 10,000 newer ones"
            )
        return handle_of(found, int(place), _row_only, self.core)

    async def _recalled(self, idem: str) -> WriteResult | None:
        return None if self._recall is None else await self._recall(idem)

    def transaction(self, policy: str | None = None) -> Transaction:
        """A transaction over several stores; use it with ``async with``."""
        return Transaction(self.core, policy)


def _row_only(id: str, row: RowImage) -> object:
    """The value of a handle whose store is not known: a recalled unit has no rows."""
    return row
