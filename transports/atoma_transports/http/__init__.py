"""HTTP/1.1: a handler for pages, JSON and event streams on the hub's port, and the transport for clients."""

from __future__ import annotations

from atoma.contracts.extras import needs_extra

with needs_extra("http"):
    from atoma_transports.http.client import BatchRules, HttpTransport, LaneRules
    from atoma_transports.http.handler import HttpHandler
    from atoma_transports.http.messages import (
        EventHandler,
        EventSender,
        Handler,
        HttpError,
        HttpRequest,
        HttpResponse,
        json_response,
    )

__all__ = [
    "BatchRules",
    "EventHandler",
    "EventSender",
    "Handler",
    "HttpError",
    "HttpHandler",
    "HttpRequest",
    "HttpResponse",
    "HttpTransport",
    "LaneRules",
    "json_response",
]
