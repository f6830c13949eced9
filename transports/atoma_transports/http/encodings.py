"""The two encodings of a message over HTTP; the answer comes in that of the question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from atoma.contracts.codec import decode, encode
from atoma_transports.http.envelope import JSON, MSGPACK
from atoma_transports.protocol.json_mapping import decode_json, encode_json

T = TypeVar("T", bound=msgspec.Struct)


class _Decode(Protocol):
    def __call__(self, data: bytes, kind: type[T]) -> T: ...


@dataclass(frozen=True, slots=True)
class Encoding:
    """How messages become bytes.

    Attributes:
        content_type: What it is called in header fields.
        encode: The bytes of a message.
        decode: The message of that type; raises ``ProtocolError``.
    """

    content_type: str
    encode: Callable[[msgspec.Struct], bytes]
    decode: _Decode


AS_JSON = Encoding(JSON, encode_json, decode_json)
AS_MSGPACK = Encoding(MSGPACK, encode, decode)
ENCODINGS = {encoding.content_type: encoding for encoding in (AS_JSON, AS_MSGPACK)}
