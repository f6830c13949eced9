"""Names in SQL."""

from __future__ import annotations

SYSTEM_COLUMNS = ("_ver", "_seq", "_scope", "_other_seq")
"""The columns of a store's table that are not fields of the store; the last one exists only at a hub."""


def quote(name: str) -> str:
    """Return a name from the schema as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
