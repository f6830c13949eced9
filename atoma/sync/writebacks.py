"""The part of a write-back that replication has, and everything that it may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoma.contracts.mutations import PendingMutation
from atoma.contracts.sync import Outcome
from atoma.contracts.writeback import Writeback
from atoma.errors import PluginError
from atoma.mutations import RowKey
from atoma.ports.local import LocalTx
from atoma.sync.repair.changes import Aged, Discarded, Offered, Reborn
from atoma.sync.staging import (
    AttemptFailed,
    EpochMoved,
    HubMet,
    LivePage,
    Opened,
    Replied,
    Resolved,
    RowsAdopted,
    SnapshotBegun,
    SnapshotPage,
    SnapshotsForgotten,
    TailPage,
    VersionNoted,
)

CHANGES = (
    Replied, LivePage, TailPage, SnapshotPage, SnapshotBegun, SnapshotsForgotten, AttemptFailed, HubMet, EpochMoved,
    RowsAdopted, Offered, Discarded, Aged, Resolved, Reborn, VersionNoted,
)  # fmt: skip
"""Everything that replication changes in the local database."""


class ReplicationPart:
    """The part of a writeback that sync has: a ``WritebackPart``, registered where a client is composed.

    Args:
        ids: Draws idempotency keys.
    """

    def __init__(self, ids: Callable[[], str]) -> None:
        self._ids = ids

    def stage(
        self,
        tx: LocalTx,
        writeback: Writeback,
        decided: Sequence[tuple[PendingMutation, Outcome]],
        touched: dict[RowKey, None],
    ) -> object:
        """Carry out what replication changes by ``writeback``; verdicts that come with nothing else are settled.

        Raises:
            Voided: Nothing of the writeback is to be done.
            PluginError: It asks for something that replication does not know.
        """
        change = writeback.replication
        if change is None:
            if not decided:
                return None
            change = Replied()
        if not isinstance(change, CHANGES):
            raise PluginError(f"no part of this client carries out {type(change).__name__}")
        return change.stage(Opened(tx, decided, touched, self._ids))
