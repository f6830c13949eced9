"""SQLite through apsw: the local engine and the hub's storage, over one ``Database``."""

from __future__ import annotations

from atoma_stores.sqlite._history import History
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_stores.sqlite.prebuilt import make_prebuilt
from atoma_stores.sqlite.rekeying import change_key

__all__ = ["History", "SQLiteEngine", "SQLiteHubStore", "change_key", "make_prebuilt"]
