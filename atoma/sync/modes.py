"""What runs of its own accord, by mode."""

from __future__ import annotations

from typing import Literal, TypeAlias

SyncMode: TypeAlias = Literal["full", "pull-only", "push-only", "subscribe-only", "manual"]
SyncLane: TypeAlias = Literal["push", "pull", "notify"]

MODES: dict[SyncMode, frozenset[SyncLane]] = {
    "full": frozenset({"push", "pull", "notify"}),
    "pull-only": frozenset({"pull", "notify"}),
    "push-only": frozenset({"push"}),
    "subscribe-only": frozenset({"notify"}),
    "manual": frozenset(),
}
