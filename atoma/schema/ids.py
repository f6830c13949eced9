"""Ids made by the client: UUIDv7 (RFC 9562), monotonic within one source, as 32 hexadecimal digits with dashes."""

from __future__ import annotations

import itertools
import random
import re
import time
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_UUID7 = re.compile(
    r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(?::[0-9]+)?", re.IGNORECASE
)
_COUNTER_BITS = 12
_RANDOM_BITS = 62
BEHIND_MS_MAX = 86_400_000
"""How far the clock may have stepped back, one day, for ids to go on in the time that they had reached."""


class IdSource:
    """A source of UUIDv7 strings that sort in the order they were made, also within one millisecond.

    The 12 bits after the version count within a millisecond (RFC 9562 §6.2, method 1); when the clock steps back or
    the counter is full, the last timestamp is carried on. A clock that is more than a day behind it was wrong before:
    then ids begin anew in its time, and sort before the ones that were made in the future.

    Args:
        wall_ms: Wall clock in milliseconds.
        randomness: Source of the 62 random bits.
    """

    def __init__(self, wall_ms: Callable[[], int], randomness: random.Random) -> None:
        self._wall_ms = wall_ms
        self._random = randomness
        self._last_ms = 0
        self._counter = 0

    def __call__(self) -> str:
        """The next id."""
        now = self._wall_ms()
        if now > self._last_ms or now < self._last_ms - BEHIND_MS_MAX:
            self._last_ms = now
            self._counter = self._random.getrandbits(_COUNTER_BITS - 1)
        else:
            self._counter += 1
            if self._counter >> _COUNTER_BITS:
                self._last_ms += 1
                self._counter = 0
        bits = 0b10 << _RANDOM_BITS | self._random.getrandbits(_RANDOM_BITS)
        ms = self._last_ms & 0xFFFF_FFFF_FFFF
        return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7{self._counter:03x}-{bits >> 48:04x}-{bits & 0xFFFF_FFFF_FFFF:012x}"


def drawn_ms(key: str) -> int | None:
    """When ``key``, a UUIDv7 or one of those numbered below it, was drawn by the clock of who drew it.

    Returns:
        Milliseconds since 1970; None when the key does not say.
    """
    found = _UUID7.fullmatch(key)
    return None if found is None else int(found[1] + found[2], 16)


def numbered(ids: Callable[[], str]) -> Callable[[], str]:
    """A source of trace ids at the price of a counter: one that ``ids`` draws now for all, and a number."""
    prefix = ids()
    return partial(next, map((prefix + ".{}").format, itertools.count(1)))


_system = IdSource(lambda: time.time_ns() // 1_000_000, random.SystemRandom())
ids_in_use: ContextVar[Callable[[], str]] = ContextVar("ids_in_use", default=_system)
"""Source of :func:`new_id` in the current context; the simulation sets a seeded one."""


def new_id() -> str:
    """A fresh UUIDv7; the usual ``default_factory`` of a model's ``id``."""
    return ids_in_use.get()()
