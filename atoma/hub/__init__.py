"""The hub: one authority that decides writes, orders them per scope and serves the log."""

from __future__ import annotations

from atoma.hub.auth import AllowLoopback, StaticTokenVerifier, ThreadVerifier, token_digest
from atoma.hub.garbage import open_garbage_collection
from atoma.hub.hub import Hub, open_hub
from atoma.hub.presence import PresenceLimits
from atoma.hub.reading import ReadBudget
from atoma.hub.rules import Access, Caller, EveryScope, RowRule, Rules
from atoma.ports.hub import ClockAhead
from atoma.ports.sessions import SessionInfo

__all__ = [
    "Access",
    "AllowLoopback",
    "Caller",
    "ClockAhead",
    "EveryScope",
    "Hub",
    "PresenceLimits",
    "ReadBudget",
    "RowRule",
    "Rules",
    "SessionInfo",
    "StaticTokenVerifier",
    "ThreadVerifier",
    "open_garbage_collection",
    "open_hub",
    "token_digest",
]
