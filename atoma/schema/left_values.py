"""Values as another program writes them in JSON that looks like a table: as the columns have them, bytes as PostgreSQL shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import msgspec

from atoma.contracts.values import Scalar
from atoma.errors import ValidationError
from atoma.schema.fields import Field

BYTES_PREFIX = "\\x"
"""How PostgreSQL's JSON shows bytes: this, and hexadecimal digits."""
NESTED_MAX = 500
"""Lists and objects within one another, of which the values are the first: how deep a decoder goes differs by version of Python."""


def values_from_json(text: str, fields: Mapping[str, Field]) -> dict[str, object]:
    """The values of a write that was left, each as the column of its field has it.

    Args:
        text: A JSON object.
        fields: Those of the store, as whoever left the write knew them; of others the values are as they were.

    Raises:
        ValidationError: It is nested too deeply, or has a number that nothing here can hold.
    """
    try:
        told = msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValidationError(f"the values are a JSON object of values by field: {error}") from error
    if _is_deeper(told, NESTED_MAX):
        raise ValidationError(f"the values are nested more than {NESTED_MAX} deep")
    return {name: _stored_from_json(fields.get(name), value) for name, value in told.items()}


def _is_deeper(value: object, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [part for each in level for part in _parts_of(each) if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _parts_of(value: object) -> Iterable[object]:
    return cast("dict[str, object]", value).values() if isinstance(value, dict) else cast("list[object]", value)


def _stored_from_json(field: Field | None, value: object) -> object:
    """A value as the column of ``field`` has it, where JSON has no such values; what fits no column is as it was.

    Whatever it is, it is checked where all writes are.
    """
    if field is None:
        return value
    if field.sql_type == "BLOB" and isinstance(value, str) and value.startswith(BYTES_PREFIX):
        try:
            return bytes.fromhex(value.removeprefix(BYTES_PREFIX))
        except ValueError:
            return value
    if field.sql_type == "REAL" and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return value
    if field.sql_type == "TEXT" and isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return value


def json_from_stored(value: Scalar) -> object:
    """What :func:`values_from_json` makes the value of a column of."""
    return f"{BYTES_PREFIX}{value.hex()}" if isinstance(value, bytes) else value
