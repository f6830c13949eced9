"""The numbers that options take, each within bounds; a number outside them is wrong usage."""

from __future__ import annotations

import argparse

WHOLE_MAX = 1_000_000_000_000
"""The largest whole number that an option takes."""


def number_of(text: str, what: str, least: float, most: float) -> float:
    """Return the number in ``text``; ``what`` names the unit, in the plural.

    Raises:
        ArgumentTypeError: It is not a number, or not from ``least`` to ``most``.
    """
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not least <= found <= most:
        raise argparse.ArgumentTypeError(f"the value must be {least:g} to {most:g} {what}, not {text!r}")
    return found


def days(text: str) -> float:
    """Return a number of days, a century at most."""
    return number_of(text, "days", 0, 36_500)


def seconds(text: str) -> float:
    """Return a number of seconds, a day at most."""
    return number_of(text, "seconds", 0.1, 86_400)


def whole_number(text: str, least: int = 0) -> int:
    """Return a whole number.

    Raises:
        ArgumentTypeError: It is not a whole number, is below ``least``, or is above :data:`WHOLE_MAX`.
    """
    if not text.isdecimal() or not least <= float(text) <= WHOLE_MAX:
        raise argparse.ArgumentTypeError(
            f"the value must be a whole number from {least} to {WHOLE_MAX:,}, not {text!r}"
        )
    return int(text)
