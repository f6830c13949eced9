"""What the programs of this folder use of the transports, wherever the code that runs them has it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING or find_spec("atoma_transports.frames"):
    from atoma_transports.adapters import METHODS
    from atoma_transports.frames.envelope import (
        FRAME_VERSION,
        Auth,
        Frame,
        FrameKind,
        Welcome,
        decode_frame,
        encode_frame,
    )
    from atoma_transports.grpc.messages import HelloReply, HelloRequest, trailer_of
    from atoma_transports.http.envelope import BatchRequest
else:  # the golden commit
    from atoma_transports._channel.frames import (
        FRAME_VERSION,
        Auth,
        Frame,
        FrameKind,
        Welcome,
        decode_frame,
        encode_frame,
    )
    from atoma_transports.grpc.greeting import HelloReply, HelloRequest
    from atoma_transports.grpc.statuses import trailer_of
    from atoma_transports.http.envelope import Batch as BatchRequest
    from atoma_transports.protocol import METHODS

__all__ = [
    "FRAME_VERSION",
    "METHODS",
    "Auth",
    "BatchRequest",
    "Frame",
    "FrameKind",
    "HelloReply",
    "HelloRequest",
    "Welcome",
    "decode_frame",
    "encode_frame",
    "trailer_of",
]
