"""Names under which plugins offer one another their parts."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from atoma.ports.completeness import CompletenessBoard
from atoma.ports.engine import LocalDatabase
from atoma.ports.execution import ApplyPort
from atoma.ports.live import LiveQueries
from atoma.ports.scopes import BringsScopes
from atoma.ports.service import SyncLink

T = TypeVar("T")


class PortKey(msgspec.Struct, Generic[T], frozen=True):
    """A typed name for one part of a client."""

    name: str


LOCAL_DATABASE: PortKey[LocalDatabase] = PortKey("local-database")
"""The open local database; offered by ``LocalExecution``."""
LIVE_QUERIES: PortKey[LiveQueries] = PortKey("live-queries")
"""Live queries over it; offered by ``LocalExecution``."""
COMPLETENESS: PortKey[CompletenessBoard] = PortKey("completeness")
"""How complete its rows are; offered by ``LocalExecution``, written by ``Sync``."""
APPLY: PortKey[ApplyPort] = PortKey("apply")
"""Write-back into the local database; offered by the client once there is one."""
SCOPES: PortKey[BringsScopes] = PortKey("scopes")
"""What brings along the scopes that a query looks at; offered by ``Sync``."""
SYNC_LINK: PortKey[SyncLink] = PortKey("sync-link")
"""A way to the hub; offered by ``Remote``."""
