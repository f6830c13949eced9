"""The seams: Protocols that runtime, kernel, sync, stores, transports and hub meet in.

Who implements and who calls each port is written in ``docs/internals/ports.md``.
"""

from __future__ import annotations

from atoma.ports.channel import Announced, Channel, Transport
from atoma.ports.engine import Commit, CommitFeed, LocalDatabase, LocalEngine
from atoma.ports.environment import Environment, seeded_environment
from atoma.ports.execution import (
    ApplyPort,
    AtomicWriter,
    MergingNode,
    QueryNode,
    QueryPort,
    ResolvePort,
    ResolvingNode,
    Staging,
    Voided,
    WritebackPart,
    WriteNode,
    WritePort,
)
from atoma.ports.keys import APPLY, COMPLETENESS, LIVE_QUERIES, LOCAL_DATABASE, SCOPES, SYNC_LINK, PortKey
from atoma.ports.live import (
    Change,
    Insert,
    LiveBatch,
    LiveInspection,
    LiveQueries,
    LiveStats,
    Move,
    Remove,
    Reset,
    Update,
    apply_batch,
)
from atoma.ports.local import LocalTx
from atoma.ports.scopes import BringsScopes
from atoma.ports.service import (
    AdmitsLoopback,
    DeclaresStores,
    Peer,
    Principal,
    ServiceHost,
    SyncLink,
    SyncService,
    TellsUnderstood,
    TokenVerifier,
)
from atoma.ports.sessions import Session, SessionInfo, Sessions, TracksSessions

__all__ = [
    "APPLY",
    "COMPLETENESS",
    "LIVE_QUERIES",
    "LOCAL_DATABASE",
    "SCOPES",
    "SYNC_LINK",
    "AdmitsLoopback",
    "Announced",
    "ApplyPort",
    "AtomicWriter",
    "BringsScopes",
    "Change",
    "Channel",
    "Commit",
    "CommitFeed",
    "DeclaresStores",
    "Environment",
    "Insert",
    "LiveBatch",
    "LiveInspection",
    "LiveQueries",
    "LiveStats",
    "LocalDatabase",
    "LocalEngine",
    "LocalTx",
    "MergingNode",
    "Move",
    "Peer",
    "PortKey",
    "Principal",
    "QueryNode",
    "QueryPort",
    "Remove",
    "Reset",
    "ResolvePort",
    "ResolvingNode",
    "ServiceHost",
    "Session",
    "SessionInfo",
    "Sessions",
    "Staging",
    "SyncLink",
    "SyncService",
    "TellsUnderstood",
    "TokenVerifier",
    "TracksSessions",
    "Transport",
    "Update",
    "Voided",
    "WriteNode",
    "WritePort",
    "WritebackPart",
    "apply_batch",
    "seeded_environment",
]
