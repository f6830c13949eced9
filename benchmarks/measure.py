"""Timing: medians over rounds that take turns, the loop's longest stall, and what the machine underneath does."""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

TICK_S = 0.001
NO_BARS: Mapping[str, str] = {}
_BOUND = re.compile(r"([≤≥]) \+?([\d,.]+)(×?)")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report: a figure, its unit, and its ratio to the line it is compared with."""

    case: str
    variant: str
    value: float
    unit: str
    ratio: float | None = None
    against: str = ""
    bar: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met, or one of the two where it says `or`; None without a bar."""
        found = [bound for bound in map(_BOUND.search, self.bar.split(" or ")) if bound is not None]
        return any(map(self._keeps, found)) if found else None

    def _keeps(self, found: re.Match[str]) -> bool:
        value = self.ratio if found[3] else self.value
        assert value is not None, f"{self.case}: a bar for a ratio that is not there"
        bound = float(found[2].replace(",", ""))
        return value <= bound if found[1] == "≤" else value >= bound


@dataclass(slots=True)
class Samples:
    """Seconds per operation, one list per variant; a round appends to each."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, variant: str, seconds: float) -> None:
        self.seconds.setdefault(variant, []).append(seconds)

    def median(self, variant: str) -> float:
        return statistics.median(self.seconds[variant])

    def rows(self, case: str, against: str, scale: float, unit: str, bars: Mapping[str, str] = NO_BARS) -> list[Row]:
        """A line for each variant: its median in ``unit``, and its ratio to ``against``."""
        base = self.median(against)
        return [
            Row(
                case,
                variant,
                self.median(variant) * scale,
                unit,
                None if variant == against else self.median(variant) / base,
                "" if variant == against else against,
                bars.get(variant, ""),
            )
            for variant in self.seconds
        ]


def each(operation: Callable[[int], object], count: int) -> float:
    """Seconds per call of a synchronous operation."""
    begin = time.perf_counter()
    for number in range(count):
        operation(number)
    return (time.perf_counter() - begin) / count


async def each_async(operation: Callable[[int], Awaitable[object]], count: int) -> float:
    """Seconds per call of an awaitable operation."""
    begin = time.perf_counter()
    for number in range(count):
        await operation(number)
    return (time.perf_counter() - begin) / count


@dataclass(slots=True)
class Stall:
    """The longest time, in seconds, for which the loop did not run a task that wanted to run every millisecond."""

    longest_s: float = 0.0


@asynccontextmanager
async def watch_stalls() -> AsyncIterator[Stall]:
    """Watch the loop during the block."""
    stall = Stall()

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await trio.sleep(TICK_S)
            stall.longest_s = max(stall.longest_s, time.perf_counter() - before - TICK_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        yield stall
        nursery.cancel_scope.cancel()


def bare_fsync(folder: Path, rounds: int = 30) -> float:
    """Median seconds of appending 4 KiB to a file and fsyncing it: the floor under every FULL commit."""
    taken: list[float] = []
    with (folder / "fsync.probe").open("wb", buffering=0) as file:
        for _ in range(rounds):
            begin = time.perf_counter()
            file.write(b"\0" * 4096)
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def filesystem(folder: Path) -> str:
    """Type of the file system that ``folder`` is on, where the system tells."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "unknown"
    inside = [parts for parts in mounts if str(folder.resolve()).startswith(parts[1])]
    return max(inside, key=lambda parts: len(parts[1]))[2] if inside else "unknown"


def machine() -> str:
    """Python, platform and cores in one line."""
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
