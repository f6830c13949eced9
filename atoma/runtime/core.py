"""What every store and transaction of one client shares."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from atoma.errors import PluginError
from atoma.ports.live import LiveQueries
from atoma.ports.loops import LoopGuard
from atoma.runtime.flows import ReadFlow, WriteFlow
from atoma.runtime.registry import PolicyNames


@dataclass(frozen=True, slots=True)
class Core:
    """The flows, the names and the nursery behind the stores of one client.

    Attributes:
        guard: Refuses calls from other loops; whoever takes a flow has asked it.
        read_flow: Carries reads out.
        write_flow: Carries writes out.
        names: Chooses policies.
        synced: Stores that replicate.
        nursery: Where Observables run.
        live_queries: Live queries, None when there is no local database.
    """

    guard: LoopGuard
    read_flow: ReadFlow
    write_flow: WriteFlow
    names: PolicyNames
    synced: frozenset[str]
    nursery: trio.Nursery
    live_queries: LiveQueries | None

    @property
    def reads(self) -> ReadFlow:
        """Carries reads out.

        Raises:
            WrongLoop: The call comes from another loop than the client's.
            ClosedError: The client is closed.
        """
        self.guard.check()
        return self.read_flow

    @property
    def writes(self) -> WriteFlow:
        """Carries writes out; the same errors."""
        self.guard.check()
        return self.write_flow

    @property
    def live(self) -> LiveQueries:
        """Live queries.

        Raises:
            PluginError: There is no local database to follow.
            WrongLoop: The call comes from another loop than the client's.
            ClosedError: The client is closed.
        """
        self.guard.check()
        if self.live_queries is None:
            raise PluginError("live queries need a local database: add LocalExecution(SQLiteEngine(…)) to plugins")
        return self.live_queries
