"""What goes over the wire for direct queries and writes; ``adapters`` and ``serving`` translate, nobody else sees it."""

from __future__ import annotations

from atoma_transports.protocol.methods import METHODS
from atoma_transports.protocol.operations import (
    OpsReply,
    QueryCall,
    RemoteOp,
    RemoteOpResult,
    ResolveCall,
    ResolveReply,
    Rows,
    WriteCall,
)
from atoma_transports.protocol.validation import OPS_MAX, image, operation, pack_rows, unpack_rows

__all__ = [
    "METHODS",
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
