"""What the application leaves to replication to decide."""

from __future__ import annotations

from typing import Literal, TypeAlias

HubLossPolicy: TypeAlias = Literal["offer", "inbox", "drop"]
"""What a device does with what a hub has lost, where the operator leaves it the choice."""

RepairPolicy: TypeAlias = Literal["auto", "manual"]
"""Whether a file that does not continue the hub's history is repaired by itself, or when somebody says so."""
