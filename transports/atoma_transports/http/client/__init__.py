"""The HTTP transport, client side: requests over kept connections, calls of one moment joined."""

from __future__ import annotations

from atoma_transports.http.client.lanes import BatchRules, LaneRules
from atoma_transports.http.client.transport import HttpTransport

__all__ = ["BatchRules", "HttpTransport", "LaneRules"]
