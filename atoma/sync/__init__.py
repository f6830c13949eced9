"""The client side of replication: outbox, push, pull and notify lanes, overlay rebase, conflict inbox."""

from __future__ import annotations

from atoma.sync.control import SYNC_CONTROL, SyncControl
from atoma.sync.failures import HubLostData, WrongHub
from atoma.sync.inbox import Inbox
from atoma.sync.keeping import ScopesNotNamed, TooManyScopes
from atoma.sync.modes import SyncMode
from atoma.sync.outbox import OUTBOX_NODE, OutboxNode
from atoma.sync.plugin import Sync
from atoma.sync.presence import Other, Presence
from atoma.sync.push import PushStalled
from atoma.sync.scopes import IdleScopes
from atoma.sync.status import PartProgress, ScopeProgress, SyncState, SyncStatus
from atoma.sync.unsent import AlreadySent, NotPending
from atoma.sync.using import ScopeInUse
from atoma.sync.waiting import Outbox

__all__ = [
    "OUTBOX_NODE",
    "SYNC_CONTROL",
    "AlreadySent",
    "HubLostData",
    "IdleScopes",
    "Inbox",
    "NotPending",
    "Other",
    "Outbox",
    "OutboxNode",
    "PartProgress",
    "Presence",
    "PushStalled",
    "ScopeInUse",
    "ScopeProgress",
    "ScopesNotNamed",
    "Sync",
    "SyncControl",
    "SyncMode",
    "SyncState",
    "SyncStatus",
    "TooManyScopes",
    "WrongHub",
]
