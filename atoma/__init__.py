"""Atoma: an embedded, reactive, offline-first database runtime for Python on Trio and SQLite.

An application declares stores, opens a client made of plugins, reads and writes, follows live queries, and keeps
working without a network. When the network is back, everything syncs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from atoma.client import Client, open_client
from atoma.contracts.completeness import Completeness
from atoma.contracts.execution import ExecutionMeta, Resolution, Step
from atoma.plugins import Plugin
from atoma.ports import Change, Environment, Insert, LiveBatch, Move, Remove, Reset, Update
from atoma.query import (
    Expression,
    Included,
    IncludedProjection,
    Joined,
    Projection,
    Query,
    Rows,
    Table,
    avg,
    case,
    col,
    count,
    count_of,
    exists,
    max_,
    min_,
    scalar,
    select,
    sum_,
)
from atoma.runtime import ItemResult, ManyResult, Page, Store, Transaction, WriteHandle
from atoma.schema import (
    Excluding,
    Including,
    Increment,
    Index,
    Scale,
    Schema,
    Shape,
    StoreSpec,
    belongs_to,
    has_many,
    has_one,
    new_id,
    param,
    variants,
)

if TYPE_CHECKING:
    from atoma.hub import AllowLoopback, Hub, StaticTokenVerifier, open_hub
    from atoma.sync import Sync, SyncControl, SyncStatus

_LOADED_WHEN_USED = {
    **dict.fromkeys(("AllowLoopback", "Hub", "StaticTokenVerifier", "open_hub"), "atoma.hub"),
    **dict.fromkeys(("Sync", "SyncControl", "SyncStatus"), "atoma.sync"),
}

__all__ = [
    "AllowLoopback",
    "Change",
    "Client",
    "Completeness",
    "Environment",
    "Excluding",
    "ExecutionMeta",
    "Expression",
    "Hub",
    "Included",
    "IncludedProjection",
    "Including",
    "Increment",
    "Index",
    "Insert",
    "ItemResult",
    "Joined",
    "LiveBatch",
    "ManyResult",
    "Move",
    "Page",
    "Plugin",
    "Projection",
    "Query",
    "Remove",
    "Reset",
    "Resolution",
    "Rows",
    "Scale",
    "Schema",
    "Shape",
    "StaticTokenVerifier",
    "Step",
    "Store",
    "StoreSpec",
    "Sync",
    "SyncControl",
    "SyncStatus",
    "Table",
    "Transaction",
    "Update",
    "WriteHandle",
    "avg",
    "belongs_to",
    "case",
    "col",
    "count",
    "count_of",
    "exists",
    "has_many",
    "has_one",
    "max_",
    "min_",
    "new_id",
    "open_client",
    "open_hub",
    "param",
    "scalar",
    "select",
    "sum_",
    "variants",
]


if not TYPE_CHECKING:  # or type checkers would take any name for one that is here

    def __getattr__(name: str) -> object:
        # programs that keep rows on one device start without the modules of sync, and clients without those of the hub
        if name in _LOADED_WHEN_USED:
            value: object = getattr(import_module(_LOADED_WHEN_USED[name]), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
