"""The answering side: a host's services on a port, or over any pipe."""

from __future__ import annotations

from atoma_transports.serving.pipes import serve_pipe
from atoma_transports.serving.server import open_server, serve

__all__ = ["open_server", "serve", "serve_pipe"]
