"""The codec of messages: MessagePack, through msgspec. No other module encodes messages.

Encoding is deterministic for equal values built in the same order; bodies of mutations are encoded once and kept.
"""

from __future__ import annotations

from typing import TypeVar, cast

import msgspec

from atoma.errors import ProtocolError

T = TypeVar("T")
REASON_LENGTH_MAX = 300

_encoder = msgspec.msgpack.Encoder()


_decoders: dict[type[object], msgspec.msgpack.Decoder[object]] = {}


def _decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    return cast("msgspec.msgpack.Decoder[T]", found)


def encode(message: object) -> bytes:
    """Return the MessagePack bytes of ``message``, a contract struct or a plain value."""
    return _encoder.encode(message)


def decode(data: bytes | bytearray | memoryview, kind: type[T]) -> T:
    """Return the ``kind`` that ``data`` encodes.

    Raises:
        ProtocolError: The bytes are not MessagePack, or not a ``kind``.
    """
    try:
        return _decoder(kind).decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        text = str(error)
        if len(text) > REASON_LENGTH_MAX:  # it repeats what came, as long as that was; where it was stands at the end
            text = f"{text[: REASON_LENGTH_MAX // 2]}…{text[-REASON_LENGTH_MAX // 2 :]}"
        raise ProtocolError(f"malformed {kind.__name__}: {text}") from None
