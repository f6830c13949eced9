"""Values in files that people and other programs read: one form of a field for CSV, JSON and Arrow, and the way back.

A file holds what the column does, except where that would mean nothing to a reader: decimals that columns keep as whole numbers are
written with their point, 0 and 1 as false and true. Every value that a field can have comes back as it was.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias, cast

import msgspec

from atoma.contracts.values import Scalar
from atoma.schema.fields import Field
from atoma.schema.kinds import refuse
from atoma.schema.spec import StoreSpec

Plain: TypeAlias = "bool | int | float | str | bytes | None"
"""A value as a file holds it."""
_WHOLE = re.compile(r"-?[0-9]+")
_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def plain_of(field: Field, stored: Scalar) -> Plain:
    """What a file holds for what a column does."""
    if stored is None:
        return None
    if field.boolean:
        return bool(stored)
    if field.places is not None and field.decode is not None:
        return format(field.decode(stored), "f")
    return stored


def value_of(spec: StoreSpec[Any], name: str, plain: Plain) -> object:
    """The value of a field that a file holds as ``plain``.

    Raises:
        ValidationError: The field cannot have it.
    """
    field = spec.fields[name]
    if plain is None and field.nullable:
        return None
    stored: Scalar = plain
    if field.places is not None:
        try:
            stored = field.literal(Decimal(str(plain)))
        except InvalidOperation:
            raise refuse(spec.name, name, "a decimal", plain) from None
    stored = spec.canonical(name, stored, literal=True)
    return stored if field.decode is None else field.decode(stored)


# JSON


def to_json(field: Field, plain: Plain) -> object:
    """``plain`` for JSON: documents as they are, bytes in base64, infinities as text."""
    if plain is None:
        return None
    if field.type == "json":
        return msgspec.Raw(str(plain).encode())
    if isinstance(plain, bytes):
        return base64.b64encode(plain).decode()
    return str(plain) if isinstance(plain, float) and math.isinf(plain) else plain


def from_json(store: str, field: Field, raw: bytes) -> Plain:
    """What JSON says as ``raw``.

    Raises:
        ValidationError: It is an array or an object where a value is needed, or no base64.
    """
    if raw == b"null" and field.nullable:
        return None
    if field.type == "json":
        return raw.decode()
    value: object = msgspec.json.decode(raw)
    if isinstance(value, (dict, list)):
        raise refuse(store, field.name, field.type_name, cast("object", value))
    if field.type.startswith("decimal") and isinstance(value, (int, float)) and not isinstance(value, bool):
        return raw.decode()  # a number with a point, which no float may touch
    if isinstance(value, str):
        return _read_text(store, field, value) if field.sql_type in ("REAL", "BLOB") else value
    assert value is None or isinstance(value, (bool, int, float))
    return value


# CSV


def to_text(field: Field, plain: Plain) -> str | None:
    """``plain`` as the text of a cell; None for an empty one that is no text."""
    if plain is None:
        return None
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, bytes):
        return base64.b64encode(plain).decode()
    return repr(plain) if isinstance(plain, float) else str(plain)


def from_text(store: str, field: Field, text: str | None) -> Plain:
    """What a cell says; None is an empty one without quotes.

    Raises:
        ValidationError: It is no value of the column's.
    """
    if text is None:
        if field.nullable:
            return None
        text = ""
    return text if field.sql_type == "TEXT" or field.places is not None else _read_text(store, field, text)


def _read_text(store: str, field: Field, text: str) -> Plain:
    try:
        if field.sql_type == "BLOB":
            return base64.b64decode(text, validate=True)
        if field.sql_type == "REAL":
            return float(text)
    except (ValueError, binascii.Error):
        raise refuse(store, field.name, field.type_name, text) from None
    if field.boolean and text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    if not _WHOLE.fullmatch(text) or field.boolean:
        raise refuse(store, field.name, field.type_name, text)
    return int(text)
