"""Plugins: the planes through which stores, transports, sync and users' own parts join a client."""

from __future__ import annotations

from atoma.plugins.context import (
    Listener,
    Node,
    Plugin,
    PluginContext,
    RemoteParts,
    Replicating,
    TransportAdapter,
    Undo,
)

__all__ = ["Listener", "Node", "Plugin", "PluginContext", "RemoteParts", "Replicating", "TransportAdapter", "Undo"]
