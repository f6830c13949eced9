"""The answering side: a host's services on a port, or over any pipe."""

from __future__ import annotations

from atoma_transports.serving.pipes import serve_pipe

__all__ = ["serve_pipe"]
