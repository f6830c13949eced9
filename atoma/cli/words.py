"""The ways in which commands print: names and values in two columns, times for people, or everything as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import cast

import msgspec


def pairs(values: Iterable[tuple[str, object]], indent: int = 0) -> None:
    """Print names and values, one pair a line; a pair whose value is None is left out."""
    shown = [(name, value) for name, value in values if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{' ' * indent}{name:<{width}}  {value}".rstrip())


def moment(ms: int) -> str:
    """Return a wall-clock time in UTC, to the second."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def count(number: int, one: str, many: str = "") -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Return a number of bytes for people."""
    if number < 1024:
        return f"{number} B"
    return f"{number / 1024:.0f} KiB" if number < 1024**2 else f"{number / 1024**2:.1f} MiB"


def print_json(value: object) -> None:
    """Print ``value`` as JSON; see :func:`as_json`."""
    print(msgspec.json.format(msgspec.json.encode(as_json(value))).decode())


def as_json(value: object) -> object:
    """Return ``value`` as JSON can hold it: ids and bytes as hexadecimal digits, infinities as ``"inf"`` and ``"-inf"``."""
    return _with_digits(msgspec.to_builtins(value, builtin_types=(bytes,)))


def _with_digits(value: object) -> object:
    """Return ``value`` with bytes as hexadecimal digits; msgspec would write them as base64."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _with_digits(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_with_digits(item) for item in cast("Iterable[object]", value)]
    return value
