"""Values in PostgreSQL's protocol: a single value as text, whose type the statement implies, a list in binary form."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from atoma.contracts.values import Scalar
from atoma_stores.sql.scripts import Value

_LIST = re.compile(r"\$(\d+)::(text|bigint|float8|bytea)\[\]")
_PLACE = re.compile(r"\$(\d+)")
_FORM = struct.Struct(">iiiii").pack  # dimensions, has NULLs, element type, length, first index
_EMPTY = struct.Struct(">iii").pack
_LENGTH = struct.Struct(">i").pack
_NULL = _LENGTH(-1)
TEXT, BINARY = 0, 1


@dataclass(frozen=True, slots=True)
class _Type:
    number: int
    of_lists: int
    write: Callable[[Any], bytes]


_TYPES = {
    "text": _Type(25, 1009, lambda value: str(value).encode()),
    "bigint": _Type(20, 1016, struct.Struct(">q").pack),
    "float8": _Type(701, 1022, struct.Struct(">d").pack),
    "bytea": _Type(17, 1001, bytes),
}


@dataclass(frozen=True, slots=True)
class ParameterShape:
    """The parameters that a statement takes.

    Attributes:
        text: Its text.
        lists: For each place, the element type of a list; None for a single value.
        numbers: For each place, the number of its type; 0 if the server infers it.
    """

    text: bytes
    lists: tuple[_Type | None, ...]
    numbers: tuple[int, ...]
    formats: tuple[int, ...]

    def write(self, values: Sequence[Value]) -> list[bytes | None]:
        """Return ``values`` as they are sent."""
        return [
            _single(cast("Scalar", value)) if of is None else _list(of, cast("Sequence[Scalar]", value))
            for of, value in zip(self.lists, values, strict=True)
        ]


@lru_cache(maxsize=2_048)
def shape_of(sql: str) -> ParameterShape:
    """Return the parameters of the statement ``sql``."""
    lists = {int(place): _TYPES[name] for place, name in _LIST.findall(sql)}
    places = range(1, max((int(place) for place in _PLACE.findall(sql)), default=0) + 1)
    found = tuple([lists.get(place) for place in places])
    return ParameterShape(
        sql.encode(),
        found,
        tuple([0 if of is None else of.of_lists for of in found]),
        tuple([TEXT if of is None else BINARY for of in found]),
    )


def _single(value: Scalar) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if isinstance(value, bool):
        return str(int(value)).encode()
    return value.encode() if isinstance(value, str) else repr(value).encode()  # a float as its shortest exact form


def _list(of: _Type, values: Sequence[Scalar]) -> bytes:
    if not values:
        return _EMPTY(0, 0, of.number)
    parts = [b""]
    has_nulls = 0
    for value in values:
        if value is None:
            has_nulls = 1
            parts.append(_NULL)
        else:
            written = of.write(value)
            parts += (_LENGTH(len(written)), written)
    parts[0] = _FORM(1, has_nulls, of.number, len(values), 1)
    return b"".join(parts)
