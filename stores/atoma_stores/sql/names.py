"""Names in SQL."""

from __future__ import annotations


def quote(name: str) -> str:
    """A name from the schema as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
