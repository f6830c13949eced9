"""SQLite through apsw: the local engine and the hub's storage, over one ``Database``."""

from __future__ import annotations

from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore

__all__ = ["SQLiteEngine", "SQLiteHubStore"]
