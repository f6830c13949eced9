"""Rows that a restored hub has lost and this device still had, kept until somebody offers them or lets them go."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.replica import LostRow
from atoma.ports.loops import LoopGuard
from atoma.sync.repair.changes import Discarded, Offered
from atoma.sync.replica import Replica


class LostRows:
    """The lost rows, to be resolved. What nobody has decided about for thirty days is resolved as ``expired``, and told.

    Args:
        replica: The client's side.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._guard = LoopGuard("replication")

    async def entries(self, *, resolved: bool = False) -> Sequence[LostRow]:
        """Open entries, oldest first; resolved ones too when asked for."""
        self._guard.check()
        return await self._replica.database.inspect(lambda tx: tx.inbox.lost(resolved=resolved))

    async def offer(self, entries: Sequence[LostRow]) -> None:
        """Bring rows back as this device had them, in one local transaction.

        The hub takes a row unless somebody has written it since the hub was restored; then it comes to the inbox. An entry
        that is resolved already is passed over. Cancelled, nothing has happened, or all of it.
        """
        self._guard.check()
        await self._replica.change(Offered(entries))
        self._replica.push_wake.poke()

    async def discard(self, entries: Sequence[LostRow]) -> None:
        """Leave rows as the hub has them; the entries stay listed among the resolved ones."""
        self._guard.check()
        await self._replica.change(Discarded([entry.number for entry in entries]))
