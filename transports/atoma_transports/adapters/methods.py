"""The table of methods: whatever can be asked of a hub, over any transport, is one row here.

A method that :class:`atoma.ports.SyncService` has and this table has not ends the import.
"""

from __future__ import annotations

from atoma.contracts.presence import AppearReply, AppearRequest, PresenceChange, PresenceRequest
from atoma.contracts.sync import (
    Hint,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotReply,
    SnapshotRequest,
)
from atoma.ports import SyncService
from atoma_transports.adapters.operations import QUERIES, RESOLUTIONS, WRITES
from atoma_transports.calls.methods import stream, table_of, translated, unary

OPEN = unary(SyncService.open, OpenRequest, OpenReply)
PUSH = unary(SyncService.push, PushRequest, PushReply, carries_rows=True)
PULL = unary(SyncService.pull, PullRequest, PullReply, reads=True)
SNAPSHOT = unary(SyncService.snapshot, SnapshotRequest, SnapshotReply, reads=True)
NOTIFY = stream(SyncService.notify, NotifyRequest, Hint)
PRESENCE = stream(SyncService.presence, PresenceRequest, PresenceChange)
APPEAR = unary(SyncService.appear, AppearRequest, AppearReply)
QUERY = translated(SyncService.query, QUERIES, reads=True, lane="query")
WRITE = translated(SyncService.write, WRITES, carries_rows=True, lane="write")
RESOLVE = translated(SyncService.resolve, RESOLUTIONS, lane="query")

METHODS = table_of(SyncService, OPEN, PUSH, PULL, SNAPSHOT, NOTIFY, PRESENCE, APPEAR, QUERY, WRITE, RESOLVE)
"""Every row, by the name of its method."""
