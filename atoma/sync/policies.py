"""What the application leaves to replication to decide."""

from __future__ import annotations

from typing import Literal, TypeAlias

HubLossPolicy: TypeAlias = Literal["offer", "inbox", "drop"]
"""What a device does with what a hub has lost, where the operator leaves it the choice."""
