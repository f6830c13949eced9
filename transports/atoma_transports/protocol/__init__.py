"""What goes over the wire for direct queries and writes: ``adapters`` translates it, gRPC and HTTP write it down."""

from __future__ import annotations

from atoma_transports.protocol.operations import (
    OPS_MAX,
    OpsReply,
    QueryCall,
    RemoteOp,
    RemoteOpResult,
    ResolveCall,
    ResolveReply,
    Rows,
    WriteCall,
    image,
    operation,
    pack_rows,
    unpack_rows,
)

__all__ = [
    "OPS_MAX",
    "OpsReply",
    "QueryCall",
    "RemoteOp",
    "RemoteOpResult",
    "ResolveCall",
    "ResolveReply",
    "Rows",
    "WriteCall",
    "image",
    "operation",
    "pack_rows",
    "unpack_rows",
]
