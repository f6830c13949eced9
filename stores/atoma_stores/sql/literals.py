"""Values written into SQL text; the values of queries are bound instead."""

from __future__ import annotations

import math

INFINITY = "9e999"
"""Infinity, as SQLite and JSON read it."""


def literal(value: object) -> str:
    """Return a value as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, float) and math.isinf(value):
        return INFINITY if value > 0 else f"-{INFINITY}"
    return repr(int(value) if isinstance(value, bool) else value)
