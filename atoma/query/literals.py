"""The values of a query: as the program wrote them, or as somebody sent them, into the form that columns store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from atoma.contracts.query import AS_WRITTEN, NULL, PATH, REGEX, SEARCH, Lit
from atoma.contracts.values import Scalar
from atoma.errors import QueryError, ValidationError
from atoma.query.paths import path_literal
from atoma.query.regex import regex_literal
from atoma.query.searching import search_literal
from atoma.schema.decimals import SCALE_MAX, Scale, scaled
from atoma.schema.expressions import unknown_field
from atoma.schema.fields import SIMPLE, Field
from atoma.schema.kinds import INT64_MAX, INT64_MIN, Kind, is_unicode
from atoma.schema.spec import StoreSpec

_TYPES: Mapping[type, str] = MappingProxyType({bool: "bool", int: "int", float: "real", str: "text", bytes: "blob"})
_STORED: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {"int": (int,), "bool": (bool, int), "real": (float, int), "blob": (bytes,), "duration": (int,)}
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
        QueryError: It is not a value of the field's type.
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
    if wanted == PATH:
        return path_literal(value)
    if wanted == SEARCH:
        return search_literal(value)
    if wanted == REGEX:
        return regex_literal(value)
    if value is None:
        return Lit(NULL, None)
    kind = own_type(literal) if wanted == "any" else wanted
    known = kind_named(kind)
    encode = None if known is None else known.literal
    if encode is None and kind != "json":
        raise QueryError(f"unknown type {kind[:80]!r}; there are: {', '.join((*_SIMPLE, 'decimal(2)', 'json'))}")
    if literal.type == AS_WRITTEN and encode is not None:
        try:
            return Lit(kind, encode(value))
        except ValidationError as error:
            raise QueryError(str(error)) from None
    stored = scalar(value)
    if not isinstance(stored, _STORED.get(kind) or ((int,) if kind.startswith("decimal(") else (str,))) or (
        isinstance(stored, bool) and kind != "bool"
    ):
        raise QueryError(f"a {kind} is wanted, not {type(value).__name__}")
    return Lit(kind, float(stored) if kind == "real" else int(stored) if kind == "bool" else stored)  # type: ignore[arg-type]


def as_stored(value: object) -> Lit:
    """``value``, which is as a column stores it, as a literal of the type that it has by itself."""
    return Lit(NULL if value is None else _TYPES.get(type(value), "text"), value)


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
    raise QueryError(f"a {type(value).__name__} is not a column value")


_SIMPLE: Mapping[str, Kind] = MappingProxyType(
    {kind.type: kind for kind in (make("query", "value") for make in SIMPLE.values())}
)


@lru_cache(maxsize=64)
def kind_named(name: str) -> Kind | None:
    """The kind of values of that type, which no column stands for; None for a type that no value has by itself."""
    places = name.removeprefix("decimal(").removesuffix(")")
    if name == f"decimal({places})" and places.isascii() and places.isdigit() and int(places) <= SCALE_MAX:
        return scaled("query", "value", Scale(int(places)))
    return _SIMPLE.get(name)
