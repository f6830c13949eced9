"""What metadata costs, and what a request's headers say."""

from __future__ import annotations

from collections.abc import Iterable


def metadata_size(headers: Iterable[tuple[str, str]]) -> int:
    """Size of ``headers`` as HTTP/2 counts it: names, values, and 32 bytes for each field."""
    return sum(len(name) + len(value) + 32 for name, value in headers)
