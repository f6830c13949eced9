"""The values of a query: as the program wrote them, or as somebody sent them, into the form that columns store."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import get_args

from atoma.contracts.query import AS_WRITTEN, NULL, Lit
from atoma.contracts.values import Scalar
from atoma.errors import QueryError, ValidationError
from atoma.schema.expressions import unknown_field
from atoma.schema.fields import Field
from atoma.schema.kinds import INT64_MAX, INT64_MIN, SIMPLE, ValueType, is_unicode
from atoma.schema.spec import StoreSpec

_TYPES: Mapping[type, str] = MappingProxyType({bool: "bool", int: "int", float: "real", str: "text", bytes: "blob"})
_KINDS: tuple[str, ...] = get_args(ValueType)
_STORED: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {"int": (int,), "bool": (bool, int), "real": (float, int), "blob": (bytes,)}
)


def known_field(name: str, store: StoreSpec[object]) -> Field:
    """The field of that name.

    Raises:
        QueryError: There is none.
    """
    field = store.fields.get(name)
    if field is None:
        raise unknown_field(store.name, name, store.columns)
    return field


def for_field(literal: Lit, field: Field, store: StoreSpec[object]) -> Lit:
    """``literal`` as the column of ``field`` stores it.

    Raises:
        QueryError: It is no value of the field's type.
    """
    value = literal.value
    if value is None:
        return Lit(NULL, None)
    try:
        if literal.type == AS_WRITTEN:
            stored = field.literal(value)
        else:
            stored = store.canonical(field.name, scalar(value), literal=True)
    except ValidationError as error:
        raise QueryError(str(error)) from None
    return Lit(NULL if stored is None else field.type, stored)


def for_type(literal: Lit, wanted: str) -> Lit:
    """``literal`` as a value of the type ``wanted``, which no column stands for; ``any`` takes its own type.

    Raises:
        QueryError: It is none.
    """
    value = literal.value
    if value is None:
        return Lit(NULL, None)
    kind = own_type(literal) if wanted == "any" else wanted
    if kind not in _KINDS:
        raise QueryError(f"unknown type {kind[:80]!r}; there are: {', '.join(_KINDS)}")
    if literal.type == AS_WRITTEN and kind in _ENCODERS:
        try:
            return Lit(kind, _ENCODERS[kind](value))
        except ValidationError as error:
            raise QueryError(str(error)) from None
    stored = scalar(value)
    if not isinstance(stored, _STORED.get(kind, (str,))) or (isinstance(stored, bool) and kind != "bool"):
        raise QueryError(f"a {kind} is wanted, not {type(value).__name__}")
    return Lit(kind, float(stored) if kind == "real" else int(stored) if kind == "bool" else stored)  # type: ignore[arg-type]


def own_type(literal: Lit) -> str:
    """The type of ``literal`` by itself.

    Raises:
        QueryError: It is a value that no column stores as it is.
    """
    if literal.type not in (AS_WRITTEN, NULL):
        return literal.type.removesuffix("?")
    found = _TYPES.get(type(literal.value))
    if found is None:
        raise QueryError(f"compare a {type(literal.value).__name__} with a field, which says how it is stored")
    return found


def scalar(value: object) -> Scalar:
    """``value``, which a column can hold.

    Raises:
        QueryError: It is a list, a map, NaN, an integer beyond 64 bits, or text with a lone surrogate.
    """
    if isinstance(value, bool) or value is None or isinstance(value, bytes):
        return value
    if isinstance(value, int):
        if INT64_MIN <= value <= INT64_MAX:
            return value
        raise QueryError(f"{value} does not fit into 64 bits")
    if isinstance(value, str):
        if is_unicode(value):
            return value
        raise QueryError("text in a query has a lone surrogate")
    if isinstance(value, float) and not math.isnan(value):
        return value or 0.0
    raise QueryError(f"a {type(value).__name__} is no column value")


def _encoder(kind: type) -> Callable[[object], Scalar]:
    return SIMPLE[kind]("query", "value").literal


_ENCODERS: Mapping[str, Callable[[object], Scalar]] = MappingProxyType(
    {name: _encoder(kind) for kind, name in _TYPES.items()}
)
