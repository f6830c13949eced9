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
"""The kinds of frames that a client may send once it has been welcomed."""
SERVER_KINDS = frozenset({"welcome", "reply", "item", "end", "error", "ping", "pong"})
"""The kinds of frames that a server may send once it has sent its welcome."""


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One message on the wire: an array, so that no field can occur twice.

    A payload is a map, in which the last value counts if a key occurs twice. Everybody reads it with the same decoder, and
    whatever is passed on is encoded again, so two readers cannot be shown different values.

    Attributes:
        version: The version of the envelope.
        kind: The kind of frame.
        id: The call or stream that it belongs to, assigned by the client; 0 for the connection itself.
        method: The method that is called; only in ``call`` and ``stream``.
        budget_ms: Milliseconds until the caller's deadline, -1 without one; only in ``call`` and ``stream``.
        trace_id: The caller's trace; only in ``call`` and ``stream``.
        credit: Number of items that the sender of this frame is ready to take; only in ``stream`` and ``credit``.
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
    """The payload of a client's first frame, and of every later frame that carries a new token.

    The first one has the id 0; a later one has its own id, which the answer repeats.
    """

    token: str

    def __repr__(self) -> str:
        return "Auth(token=…)"


class Welcome(msgspec.Struct, frozen=True):
    """The payload of a server's answer to a token: who the client is, and the limits of the server.

    Attributes:
        principal: The subject of the token.
        frame_bytes: Size of the largest frame that the server accepts.
        calls: Number of calls and streams that the server accepts in flight.
        expires_in: Seconds until the token expires; None for never.
        queries: The parts of the query language that the server understands.
    """

    principal: str
    frame_bytes: int
    calls: int
    expires_in: float | None = None
    queries: Understood = Understood()


def read_welcome(payload: bytes) -> Welcome:
    """Decode the welcome in ``payload``.

    Raises:
        ProtocolError: It is not a welcome, or its limits leave no room for any call.
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
    """Encode a frame."""
    return encode(Frame(FRAME_VERSION, kind, id, method, budget_ms, trace_id, credit, payload))


def decode_frame(data: bytes, size_max: int) -> Frame:
    """Decode the frame in ``data``, with every field within its bounds.

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
