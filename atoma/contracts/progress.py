"""How long work tells of its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]
"""A function that is called now and then with how much is done and the total; the total is 0 where nobody knows it."""
