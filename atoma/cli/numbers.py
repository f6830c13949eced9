"""The numbers that options take: each within bounds, so that one that makes no sense is wrong usage."""

from __future__ import annotations

import argparse

WHOLE_MAX = 1_000_000_000_000
"""No option counts further."""


def number_of(text: str, what: str, least: float, most: float) -> float:
    """The number in ``text``, of ``what`` in the plural.

    Raises:
        ArgumentTypeError: It is none, or not from ``least`` to ``most``.
    """
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not least <= found <= most:
        raise argparse.ArgumentTypeError(f"{what} from {least:g} to {most:g} are needed, not {text!r}")
    return found


def days(text: str) -> float:
    """Days, of a century at most."""
    return number_of(text, "days", 0, 36_500)


def seconds(text: str) -> float:
    """Seconds, of a day at most."""
    return number_of(text, "seconds", 0.1, 86_400)


def whole_number(text: str, least: int = 0) -> int:
    """A number of things.

    Raises:
        ArgumentTypeError: It is none, or below ``least``, or beyond :data:`WHOLE_MAX`.
    """
    if not text.isdecimal() or not least <= float(text) <= WHOLE_MAX:
        raise argparse.ArgumentTypeError(f"a whole number from {least} to {WHOLE_MAX:,} is needed, not {text!r}")
    return int(text)
