"""The outside world as one value: clock, wall clock, ids, randomness and where blocking work runs.

Product code asks its ``Environment``, never ``time``, ``uuid`` or ``random``; the simulation gives a seeded one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import trio

from atoma.schema.ids import IdSource, new_id

ExecutorKind: TypeAlias = Literal["thread", "inline"]


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Everything that is not a function of the program's input.

    Attributes:
        clock: Monotonic seconds; Trio's clock, so virtual under ``MockClock``.
        wall_ms: Wall clock in milliseconds; for display and stored times only, no promise depends on it.
        ids: Makes row ids, trace ids and idempotency keys.
        random: Jitter and client identities.
        executor: ``thread`` runs blocking SQLite work in threads, ``inline`` on the loop (under ``MockClock`` and in
            the simulation it has to be inline, or virtual time runs away while a thread works).
        traces: Makes trace ids, one per request, in place of ``ids``; ``atoma.telemetry.trace_ids`` continues the caller's trace.
    """

    clock: Callable[[], float] = trio.current_time
    wall_ms: Callable[[], int] = _wall_ms
    ids: Callable[[], str] = new_id
    random: random.Random = field(default_factory=random.SystemRandom)
    executor: ExecutorKind = "thread"
    traces: Callable[[], str] | None = None

    def in_this_loop(self) -> Environment:
        """The same for use in the loop that runs here alone: Trio's clock is not looked for each time it is asked."""
        if self.clock is not trio.current_time:
            return self
        return replace(self, clock=trio.lowlevel.current_clock().current_time)


def seeded_environment(seed: int, *, wall_start_ms: int = 1_700_000_000_000) -> Environment:
    """An environment that is a function of ``seed`` and of Trio's clock; the executor is inline.

    Args:
        seed: Seed of ids and randomness.
        wall_start_ms: Wall-clock time at which Trio's clock reads 0.
    """
    source = random.Random(seed)

    def wall_ms() -> int:
        return wall_start_ms + int(trio.current_time() * 1000)

    return Environment(
        wall_ms=wall_ms, ids=IdSource(wall_ms, random.Random(source.random())), random=source, executor="inline"
    )
