"""How long to wait after a failure: exponential with full jitter, so that a crowd of clients spreads out."""

from __future__ import annotations

import random

FIRST_S = 0.5
LIMIT_S = 60.0
_DOUBLINGS = 16


class Backoff:
    """Delays that double up to a limit.

    Args:
        randomness: The client's own randomness; a shared one would keep a crowd in step.
        first_s: Upper bound of the first delay in seconds.
        limit_s: Upper bound of every delay in seconds.

    Attributes:
        failures: Failures since the last success.
    """

    __slots__ = ("_first_s", "_limit_s", "_random", "failures")

    def __init__(self, randomness: random.Random, first_s: float = FIRST_S, limit_s: float = LIMIT_S) -> None:
        self._random = randomness
        self._first_s = first_s
        self._limit_s = limit_s
        self.failures = 0

    def fail(self, at_least_s: float = 0.0) -> float:
        """Count a failure and return the seconds to wait: at least what the other side asked for."""
        bound = min(self._limit_s, self._first_s * 2 ** min(self.failures, _DOUBLINGS))
        self.failures += 1
        return max(at_least_s, self._random.uniform(0.0, bound))

    def slow(self) -> float:
        """Count a failure that a quick retry cannot mend; between half the limit and the limit."""
        self.failures += 1
        return self._random.uniform(self._limit_s / 2, self._limit_s)

    def reset(self) -> None:
        """Something worked: begin anew."""
        self.failures = 0
