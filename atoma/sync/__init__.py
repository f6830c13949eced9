"""The client side of replication: outbox, push, pull and notify lanes, overlay rebase, conflict inbox."""

from __future__ import annotations

from atoma.sync.control import SYNC_CONTROL, SyncControl
from atoma.sync.failures import HubLostData, WrongHub
from atoma.sync.inbox import Inbox
from atoma.sync.modes import SyncMode
from atoma.sync.outbox import OUTBOX_NODE, OutboxNode
from atoma.sync.plugin import Sync
from atoma.sync.push import PushStalled
from atoma.sync.status import ScopeProgress, SyncState, SyncStatus

__all__ = [
    "OUTBOX_NODE",
    "SYNC_CONTROL",
    "HubLostData",
    "Inbox",
    "OutboxNode",
    "PushStalled",
    "ScopeProgress",
    "Sync",
    "SyncControl",
    "SyncMode",
    "SyncState",
    "SyncStatus",
    "WrongHub",
]
