"""The in-memory transport: encoded bytes, bounded, on real or virtual time, with fault hooks."""

from __future__ import annotations

from atoma_transports.memory.network import Direction, FaultHook, MemoryNetwork, MemoryTransport

__all__ = ["Direction", "FaultHook", "MemoryNetwork", "MemoryTransport"]
