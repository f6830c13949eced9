"""The WebSocket transport, on trio-websocket."""

from __future__ import annotations

from atoma.contracts.extras import needs_extra

with needs_extra("websocket"):
    from atoma_transports.websocket.handler import accept_pipe
    from atoma_transports.websocket.transport import WebSocketTransport

__all__ = ["WebSocketTransport", "accept_pipe"]
