"""gRPC: the transport for clients; :mod:`atoma_transports.grpc.handler` is the server's side."""

from __future__ import annotations

from atoma.contracts.extras import needs_extra

with needs_extra("grpc"):
    from atoma_transports.grpc.transport import GrpcTransport

__all__ = ["GrpcTransport"]
