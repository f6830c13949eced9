"""Atoma: an embedded, reactive, offline-first database runtime for Python on Trio and SQLite.

An application declares stores, opens a client made of plugins, reads and writes, follows live queries, and goes on
working without a network; when the network is back, everything syncs.
"""

from __future__ import annotations

from atoma.client import Client, open_client
from atoma.contracts.execution import ExecutionMeta, Step
from atoma.hub import AllowLoopback, Hub, StaticTokenVerifier, open_hub
from atoma.ports import Change, Environment, Insert, LiveBatch, Move, Remove, Reset, Update
from atoma.query import Query, col
from atoma.runtime import ItemResult, ManyResult, Page, Store, Transaction, WriteHandle
from atoma.schema import Index, Schema, StoreSpec, new_id
from atoma.sync import Sync, SyncControl, SyncStatus

__all__ = [
    "AllowLoopback",
    "Change",
    "Client",
    "Environment",
    "ExecutionMeta",
    "Hub",
    "Index",
    "Insert",
    "ItemResult",
    "LiveBatch",
    "ManyResult",
    "Move",
    "Page",
    "Query",
    "Remove",
    "Reset",
    "Schema",
    "StaticTokenVerifier",
    "Step",
    "Store",
    "StoreSpec",
    "Sync",
    "SyncControl",
    "SyncStatus",
    "Transaction",
    "Update",
    "WriteHandle",
    "col",
    "new_id",
    "open_client",
    "open_hub",
]
