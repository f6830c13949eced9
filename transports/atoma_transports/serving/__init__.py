"""The server side: a host's services on a port, in every protocol that is installed."""

from __future__ import annotations

from atoma_transports.serving.server import open_server, serve

__all__ = ["open_server", "serve"]
