"""The packed form of values: how they look in what is sent and in what is kept as bytes.

A column holds a value in the form that orders and compares as the value does. Mutations, entries of the hub's log, pages,
staged snapshots and shadows hold it in the form in which it has always travelled: devices and hubs of neighbouring versions
understand each other, and what lies in a file stays valid. For most types the two are one. Whoever reads such bytes
unpacks them before looking at a value, on both sides, so that what is equal by value is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import msgspec

from atoma.contracts.values import Scalar
from atoma.errors import ValidationError

ConvertScalar: TypeAlias = Callable[[Scalar], Scalar]


class Packed(msgspec.Struct, frozen=True):
    """The packed form of one type, where it is not what its columns hold. Columns of older files hold it, as TEXT.

    Attributes:
        json: Whether it is JSON text.
        pack: Column value → packed value. What has none stays as it is.
        unpack: Packed value → column value. What is none stays as it is: whoever stores it says what is wrong.
    """

    json: bool
    pack: ConvertScalar
    unpack: ConvertScalar


def as_json(hint: object, decode: Callable[[Any], object] | None, stored: Callable[[Any], Scalar]) -> Packed:
    """The packed form of a type that travels as JSON text.

    Args:
        hint: What the text holds, for msgspec.
        decode: Column value → Python value, None when they are the same.
        stored: Python value → column value; raises :class:`ValidationError` when there is none.
    """
    decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(cast("type[object]", hint))

    def pack(value: Scalar) -> Scalar:
        if value is None:
            return None
        try:
            found = value if decode is None else decode(value)
            return msgspec.json.encode(found).decode()
        except (ValueError, TypeError, ArithmeticError):
            return value

    def unpack(value: Scalar) -> Scalar:
        if type(value) is not str:
            return value
        try:
            return stored(decoder.decode(value))
        except (msgspec.MsgspecError, ValidationError, ValueError, RecursionError):
            return value

    return Packed(True, pack, unpack)
