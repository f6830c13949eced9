"""The part of a write-back that replication has, and everything that it may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoma.contracts.mutations import PendingMutation
from atoma.contracts.sync import Outcome
from atoma.contracts.values import RowKey
from atoma.contracts.writeback import Writeback
from atoma.errors import PluginError
from atoma.ports.local import LocalTx
from atoma.sync.oversize import LeftOut
from atoma.sync.push import Sending
from atoma.sync.repair.changes import Aged, Discarded, Offered, Reborn
from atoma.sync.staging import (
    AttemptFailed,
    EpochMoved,
    Fenced,
    HubMet,
    Hurried,
    LeadLost,
    LivePage,
    Opened,
    Replied,
    Resolved,
    RowsAdopted,
    SnapshotBegun,
    SnapshotPage,
    SnapshotsForgotten,
    TailPage,
    TakingNoted,
)
from atoma.sync.unsent import Edited, Kept, Released, WriteDiscarded
from atoma.sync.using import ScopeDropped, ScopesUsed

CHANGES = (
    Replied, LivePage, TailPage, SnapshotPage, SnapshotBegun, SnapshotsForgotten, AttemptFailed, Hurried, HubMet, EpochMoved,
    RowsAdopted, Offered, Discarded, Aged, Resolved, Reborn, TakingNoted, Sending, Kept, Released, Edited, WriteDiscarded,
    ScopesUsed, ScopeDropped, LeftOut,
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
            LeadLost: It comes from a program that does not run the lanes any more.
            PluginError: It asks for something that replication does not know.
        """
        change = writeback.replication
        if change is None:
            change = Replied()
        if isinstance(change, Fenced):
            if tx.scopes.term() != change.term:
                raise LeadLost("another program at this file runs the sync lanes by now")
            change = change.change
        if not isinstance(change, CHANGES):
            raise PluginError(f"no part of this client carries out {type(change).__name__}")
        return change.stage(Opened(tx, decided, touched, self._ids))
