"""Shapes in messages and in a device's file, and how a position says to which of them it belongs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from atoma.contracts.codec import decode, encode

SHAPES_MAX = 32
"""Maximum number of shapes in which one device takes parts of one scope."""
SHAPE_BYTES = 4_096
"""Maximum size of a shape with its values, in bytes."""
MARK_BYTES = 16


class ShapeCall(msgspec.Struct, frozen=True, array_like=True):
    """A shape by its name, with the values of its parameters.

    Attributes:
        name: The name that the hub declares it under.
        values: Each parameter by name, in order, with its value as a column stores it.
        condition: Digest of the shape's condition at its origin. A hub that declares the shape differently refuses it.
    """

    name: str
    values: tuple[tuple[str, object], ...]
    condition: bytes

    @property
    def data(self) -> bytes:
        """The call as bytes, equal for equal calls."""
        return encode(self)


def read_call(data: bytes) -> ShapeCall:
    """Return the call that ``data`` encodes.

    Raises:
        ProtocolError: It is none.
    """
    return decode(data, ShapeCall)


def mark_of(shapes: Iterable[bytes]) -> bytes:
    """What the ``view`` of a cursor ends with that is of the rows in ``shapes``; empty where it is of the whole scope."""
    every = sorted(set(shapes))
    return hashlib.sha256(encode(every)).digest()[:MARK_BYTES] if every else b""


def marked(view: bytes) -> bytes:
    """What :func:`mark_of` has given for a cursor's ``view``: what stands before it is shorter than a mark."""
    return view[-MARK_BYTES:] if len(view) >= MARK_BYTES else b""
