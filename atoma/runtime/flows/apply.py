"""ApplyFlow: the apply port over the local database; where confirmed state comes back in."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from atoma.contracts.execution import Durability
from atoma.ports.engine import LocalDatabase
from atoma.ports.execution import Origin
from atoma.ports.local import LocalTx

T = TypeVar("T")


class ApplyFlow:
    """Implements ``ApplyPort``: one transaction, no staging nodes, so nothing echoes into the outbox.

    Args:
        database: The local database.
    """

    def __init__(self, database: LocalDatabase) -> None:
        self._database = database

    async def apply_writeback(
        self,
        body: Callable[[LocalTx], T],
        origin: Origin = "sync",
        *,
        durability: Durability | None = None,
        stores: Collection[str] = (),
    ) -> T:
        """Run ``body`` in one local transaction; see ``ApplyPort``."""
        del origin  # what runs here is decided by the door, not by a flag; kept for tracing by implementations
        if stores:
            durability = self._database.durability_of(stores, durability)
        return await self._database.apply(body, durability=durability)
