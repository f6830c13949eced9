"""What every store and transaction of one client shares."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from atoma.errors import PluginError
from atoma.ports.live import LiveQueries
from atoma.runtime.flows.read import ReadFlow
from atoma.runtime.flows.write import WriteFlow
from atoma.runtime.registry import PolicyNames


@dataclass(frozen=True, slots=True)
class Core:
    """The flows, the names and the nursery behind the stores of one client.

    Attributes:
        reads: Carries reads out.
        writes: Carries writes out.
        names: Chooses policies.
        synced: Stores that replicate.
        nursery: Where Observables run.
        live_queries: Live queries, None when there is no local database.
    """

    reads: ReadFlow
    writes: WriteFlow
    names: PolicyNames
    synced: frozenset[str]
    nursery: trio.Nursery
    live_queries: LiveQueries | None

    @property
    def live(self) -> LiveQueries:
        """Live queries.

        Raises:
            PluginError: There is no local database to follow.
        """
        if self.live_queries is None:
            raise PluginError("live queries need a local database: add LocalExecution(SQLiteEngine(…)) to plugins")
        return self.live_queries
