"""The transports, which carry calls between devices and a hub: memory, WebSocket, gRPC and HTTP."""

from __future__ import annotations

from atoma.contracts.extras import refuse_namesake

refuse_namesake()
