"""How long to wait before the next try: longer after every failure, with jitter, so that a crowd spreads out."""

from __future__ import annotations

import math
from random import Random

import msgspec

from atoma.errors import ConfigurationError


class Backoff(msgspec.Struct, frozen=True):
    """Waits between tries: at most ``initial_s * factor ** (n - 1)`` after the n-th, and never more than ``max_s``.

    Attributes:
        initial_s: Bound of the first wait.
        factor: Growth from wait to wait.
        max_s: Bound of every wait, unless the other side asks for a longer one.
        jitter: The part of a wait that is drawn: 1 draws it between 0 and its bound, 0.5 between half of it and all.
    """

    initial_s: float = 0.1
    factor: float = 2.0
    max_s: float = 10.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        grows = 0 <= self.initial_s <= self.max_s < math.inf and 1 <= self.factor < math.inf
        if not grows or not 0 <= self.jitter <= 1:
            rule = "0 <= initial_s <= max_s < inf, factor >= 1 and 0 <= jitter <= 1"
            raise ConfigurationError(f"backoff needs {rule}, not {self}")

    def bound(self, tries: int) -> float:
        """Upper bound in seconds of the wait after that many tries."""
        grown = self.initial_s
        for _ in range(tries - 1):
            grown *= self.factor
            if grown >= self.max_s or self.factor == 1 or not grown:
                break
        return min(grown, self.max_s)

    def wait_s(self, tries: int, random: Random, at_least_s: float = 0.0) -> float:
        """Seconds to wait after that many tries.

        Args:
            tries: How often it was tried, 1 or more.
            random: The randomness of the client's environment; a shared one would keep a crowd in step.
            at_least_s: What the other side asks for.
        """
        return max(at_least_s, self._drawn(self.bound(tries), random, self.jitter))

    def slow_s(self, random: Random) -> float:
        """Seconds to wait where a quick retry cannot help: between half the longest wait and all of it."""
        return self._drawn(self.max_s, random, 0.5)

    @staticmethod
    def _drawn(bound: float, random: Random, jitter: float) -> float:
        return bound * random.uniform(1.0 - jitter, 1.0)


class Retries:
    """A counter of failures in a row, which says how long to wait after each.

    Args:
        backoff: The rule.
        random: The randomness of the client's environment.

    Attributes:
        failures: Failures since the last success.
    """

    __slots__ = ("_backoff", "_random", "failures")

    def __init__(self, backoff: Backoff, random: Random) -> None:
        self._backoff = backoff
        self._random = random
        self.failures = 0

    def fail(self, at_least_s: float = 0.0) -> float:
        """Count a failure and return the seconds to wait: at least what the other side asked for."""
        self.failures += 1
        return self._backoff.wait_s(self.failures, self._random, at_least_s)

    def slow(self) -> float:
        """Count a failure against which a quick retry does not help; between half the longest wait and all of it."""
        self.failures += 1
        return self._backoff.slow_s(self._random)

    def reset(self) -> None:
        """Begin anew: something worked."""
        self.failures = 0


__all__ = ["Backoff", "Retries"]
