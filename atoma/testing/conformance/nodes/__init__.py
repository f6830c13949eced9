"""Checks of nodes: what the kernel expects of whoever answers queries and carries writes out."""

from __future__ import annotations

from atoma.testing.conformance.nodes.contract import CHECKS, NodeGround, NodeSite

__all__ = ["CHECKS", "NodeGround", "NodeSite"]
