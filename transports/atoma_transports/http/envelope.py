"""What both ends of the protocol over HTTP agree on: paths, header fields, envelopes, and the two encodings of a message."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import msgspec

from atoma.contracts.codec import encode
from atoma.contracts.understood import Understood
from atoma.contracts.values import ErrorInfo
from atoma_transports.calls.requests import MESSAGEPACK, WireFormat, too_much
from atoma_transports.protocol.json_mapping import decode_json, encode_json, from_json
from atoma_transports.protocol.json_text import parse_json

PREFIX = "/v1/"
MSGPACK = "application/vnd.msgpack"
JSON = "application/json"
EVENTS = "text/event-stream"
ITEMS = "application/vnd.atoma.items"
BUDGET = "atoma-budget-ms"
TRACE = "atoma-trace"

BATCH_VERSION = 1
BATCH_ID_LENGTH_MAX = 64
BATCH = "batch"
CANCEL = "cancel"


class BatchCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call of a batch.

    Attributes:
        id: Its number in the batch, given by the client.
        method: What is called; a stream cannot be.
        message: The request, encoded in place like the envelope itself.
        budget_ms: Milliseconds until the caller's deadline, -1 without one.
        trace_id: The caller's trace.
    """

    id: int
    method: str
    message: msgspec.Raw
    budget_ms: int = -1
    trace_id: str = ""


class CallHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of a :class:`BatchCall` besides its message."""

    id: int
    method: str
    budget_ms: int = -1
    trace_id: str = ""


class BatchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/batch``; ``id`` is drawn by the client at random, for ``POST /v1/cancel``."""

    version: int
    id: str
    calls: tuple[BatchCall, ...]


class CallReply(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The result of one call of a batch: ``ok`` is the reply, encoded in place, or ``error`` why there is none."""

    id: int
    ok: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorInfo | None = None


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/cancel``: calls of a running batch of the same principal; unknown ones are ignored."""

    batch: str
    calls: tuple[int, ...]


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an answer that is an error."""

    error: ErrorInfo


class Done(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of an answer that says no more than that it was done.

    Attributes:
        principal: Who asked, as the token has it.
        queries: What the server understands of queries; sent to a client that asks for nothing, only to see who is there.
    """

    principal: str = ""
    queries: Understood = Understood()


RecordKind: TypeAlias = Literal["i", "e", "z", "p"]
"""``i`` an item (of a batch: a reply), ``e`` an error that ends the stream, ``z`` its regular end, ``p`` still here."""
_RECORD = struct.Struct(">cL")


def pack_record(kind: RecordKind, payload: bytes = b"") -> bytes:
    """One record of a body of :data:`ITEMS`: a byte of kind, four of length, the payload."""
    return _RECORD.pack(kind.encode(), len(payload)) + payload


T = TypeVar("T", bound=msgspec.Struct)


SEPARATORS_MAX = 40_000
"""Commas, colons and opening brackets of one request in JSON, which is read more strictly than quickly: about 15 ms."""
SEPARATORS = (b",", b":", b"{", b"[")
BASE64_GROWTH = 4 / 3


class Json:
    """Requests in JSON."""

    growth = BASE64_GROWTH

    def decode(self, data: bytes, kind: type[T]) -> T:
        """See :class:`atoma_transports.calls.requests.WireFormat`."""
        return decode_json(data, kind)

    def decode_in_steps(self, data: bytes, kind: type[T]) -> Generator[None, None, T]:
        """See :class:`atoma_transports.calls.requests.WireFormat`."""
        check_separators(data)
        value = parse_json(data)
        yield
        return from_json(value, kind)


def check_separators(data: bytes) -> None:
    """See that ``data`` holds no more than one request in JSON may; what is within texts is counted as well.

    Raises:
        RemoteError: ``TOO_LARGE``: it does.
    """
    if len(data) > SEPARATORS_MAX and sum(map(data.count, SEPARATORS)) > SEPARATORS_MAX:
        raise too_much(f"at most {SEPARATORS_MAX:,} commas, colons and brackets")


@dataclass(frozen=True, slots=True)
class Encoding:
    """The way in which messages become bytes.

    Attributes:
        content_type: What it is called in header fields.
        encode: The bytes of a message.
        format: How they are read.
    """

    content_type: str
    encode: Callable[[msgspec.Struct], bytes]
    format: WireFormat


AS_JSON = Encoding(JSON, encode_json, Json())
AS_MSGPACK = Encoding(MSGPACK, encode, MESSAGEPACK)
ENCODINGS = {encoding.content_type: encoding for encoding in (AS_JSON, AS_MSGPACK)}
