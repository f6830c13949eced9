"""A minimal HTTP/1.1 face: pages, JSON and event streams on the hub's port."""

from __future__ import annotations

from atoma_transports.http.connection import HttpConnection, HttpRules
from atoma_transports.http.face import HttpFace
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
    "EventHandler",
    "EventSender",
    "Handler",
    "HttpConnection",
    "HttpError",
    "HttpFace",
    "HttpRequest",
    "HttpResponse",
    "HttpRules",
    "json_response",
]
