"""Values as another program writes them in JSON that looks like a table: as the columns have them, bytes as PostgreSQL shows them."""

from __future__ import annotations

import msgspec

from atoma.contracts.values import Scalar
from atoma.schema.fields import Field

BYTES_PREFIX = "\\x"
"""How PostgreSQL's JSON shows bytes: this, and hexadecimal digits."""


def stored_from_json(field: Field | None, value: object) -> object:
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
        return float(value)
    if field.sql_type == "TEXT" and isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return value


def json_from_stored(value: Scalar) -> object:
    """What :func:`stored_from_json` makes the value of a column of."""
    return f"{BYTES_PREFIX}{value.hex()}" if isinstance(value, bytes) else value
