"""Names under which plugins offer one another their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from atoma.ports.engine import LocalDatabase
from atoma.ports.execution import ApplyPort
from atoma.ports.live import LiveQueries
from atoma.ports.service import SyncLink

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PortKey(Generic[T]):
    """A typed name for one part of a client."""

    name: str


LOCAL_DATABASE: PortKey[LocalDatabase] = PortKey("local-database")
"""The open local database; offered by ``LocalExecution``."""
LIVE_QUERIES: PortKey[LiveQueries] = PortKey("live-queries")
"""Live queries over it; offered by ``LocalExecution``."""
APPLY: PortKey[ApplyPort] = PortKey("apply")
"""Write-back into the local database; offered by the client once there is one."""
SYNC_LINK: PortKey[SyncLink] = PortKey("sync-link")
"""A way to the hub; offered by ``Remote``."""
