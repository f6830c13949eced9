"""The envelope: one msgpack array per frame, the same bytes on every transport that carries messages."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import msgspec

from atoma.contracts.codec import decode, encode
from atoma.contracts.understood import Understood
from atoma.errors import ProtocolError
from atoma_transports.calls.call import BUDGET_MS_MAX, ID_MAX, TRACE_LENGTH_MAX

FRAME_VERSION = 1
CREDIT_MAX = 1024
NAME_LENGTH_MAX = 64

FrameKind: TypeAlias = Literal[
    "auth", "welcome", "call", "reply", "stream", "item", "end", "error", "cancel", "credit", "ping", "pong"
]
KINDS = frozenset(get_args(FrameKind))
CLIENT_KINDS = frozenset({"auth", "call", "stream", "cancel", "credit", "ping", "pong"})
"""What a client may send once it is welcome."""
SERVER_KINDS = frozenset({"welcome", "reply", "item", "end", "error", "ping", "pong"})
"""What a server may send once it has said welcome."""


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One message on the wire: an array, so that no field can come twice.

    A payload is a map whose last value counts when a key comes twice: everybody reads it through the one decoder, and
    what is handed on is written anew, so nobody can be shown something else.

    Attributes:
        version: Version of this envelope.
        kind: What it is.
        id: Call or stream it belongs to, given by the client; 0 for the connection itself.
        method: What is called; only in ``call`` and ``stream``.
        budget_ms: Milliseconds until the caller's deadline, -1 without one; only in ``call`` and ``stream``.
        trace_id: The caller's trace; only in ``call`` and ``stream``.
        credit: Items the sender of this frame is ready to take; only in ``stream`` and ``credit``.
        payload: The encoded message, or an encoded ``ErrorInfo``.
    """

    version: int
    kind: str
    id: int = 0
    method: str = ""
    budget_ms: int = -1
    trace_id: str = ""
    credit: int = 0
    payload: bytes = b""


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of the first frame of a client, and of every frame that brings a new token later.

    The first one has the id 0; a later one has an id of its own, which its answer repeats.
    """

    token: str

    def __repr__(self) -> str:
        return "Auth(token=…)"


class Welcome(msgspec.Struct, frozen=True):
    """Payload of a server's answer to a token: who the client is, and the server's bounds.

    Attributes:
        principal: The subject of the token.
        frame_bytes: Largest frame the server takes.
        calls: Calls and streams the server takes in flight.
        expires_in: Seconds until the token stops being good; None for never.
        queries: What the server understands of queries.
    """

    principal: str
    frame_bytes: int
    calls: int
    expires_in: float | None = None
    queries: Understood = Understood()


def read_welcome(payload: bytes) -> Welcome:
    """The welcome that ``payload`` is.

    Raises:
        ProtocolError: It is none, or its limits leave no room for any call.
    """
    welcome = decode(payload, Welcome)
    if welcome.frame_bytes < 1 or welcome.calls < 1:
        raise ProtocolError("the welcome has bounds within which nothing can be sent")
    return welcome


def encode_frame(
    kind: FrameKind,
    id: int = 0,
    payload: bytes = b"",
    *,
    method: str = "",
    budget_ms: int = -1,
    trace_id: str = "",
    credit: int = 0,
) -> bytes:
    """The bytes of a frame."""
    return encode(Frame(FRAME_VERSION, kind, id, method, budget_ms, trace_id, credit, payload))


def decode_frame(data: bytes, size_max: int) -> Frame:
    """The frame that ``data`` is, every field within its bounds.

    Raises:
        ProtocolError: It is not a frame, too large, of another version or of an unknown kind.
    """
    if len(data) > size_max:
        raise ProtocolError(f"frame of {len(data)} bytes; the limit is {size_max}")
    frame = decode(data, Frame)
    if frame.version != FRAME_VERSION:
        raise ProtocolError(f"frame version {frame.version} is not spoken here; version {FRAME_VERSION} is")
    if frame.kind not in KINDS:
        raise ProtocolError("unknown kind of frame")
    within = (
        0 <= frame.id <= ID_MAX
        and -1 <= frame.budget_ms <= BUDGET_MS_MAX
        and 0 <= frame.credit <= CREDIT_MAX
        and len(frame.method) <= NAME_LENGTH_MAX
        and len(frame.trace_id) <= TRACE_LENGTH_MAX
    )
    if not within:
        raise ProtocolError(f"a field of a {frame.kind!r} frame is out of bounds")
    return frame
