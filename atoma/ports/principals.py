"""State that is kept for every principal as long as there is something to keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
KEPT_MAX = 1_000
"""Principals that are remembered besides those with something to keep."""


class PerPrincipal(Generic[T]):
    """One ``T`` for each principal.

    Args:
        make: Makes a fresh one.
        is_idle: Whether one is as good as a fresh one, so that it may be forgotten.
    """

    def __init__(self, make: Callable[[], T], is_idle: Callable[[T], bool]) -> None:
        self._make = make
        self._is_idle = is_idle
        self._kept: dict[str, T] = {}
        self._room = KEPT_MAX

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, subject: str) -> T:
        """What is kept for ``subject``."""
        found = self._kept.get(subject)
        if found is None:
            if len(self._kept) >= self._room:
                self._kept = {name: kept for name, kept in self._kept.items() if not self._is_idle(kept)}
                self._room = len(self._kept) + KEPT_MAX
            found = self._kept[subject] = self._make()
        return found
