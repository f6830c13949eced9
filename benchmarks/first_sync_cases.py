"""The first sync of a million small rows: how fast, in how much memory, what a killed device reads again, and its first screen."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from benchmarks.measure import Row
from benchmarks.programs import Program, running

ROWS, FIRST_SCREEN = 1_000_000, 200
FIRST, ALL = "first", "main"
RATE_BAR, MEMORY_BAR, AGAIN_BAR, SCREEN_BAR = "S4 ≥ 40,000", "S4 ≤ 150 MB", "S4 ≤ 5,000", "S4 ≤ 1 s"


async def first_sync(folder: Path) -> list[Row]:
    """Hub and devices are processes of their own, over a WebSocket; what is received is durable at the end."""
    return await trio.to_thread.run_sync(_first_sync, folder)


def _first_sync(folder: Path) -> list[Row]:
    case = f"first sync of {ROWS:,} small rows"
    with running("benchmarks.hub_program", str(folder / "hub.db")) as hub:
        port = str(hub.hear()["port"])
        began = time.perf_counter()
        hub.ask({"do": "fill", "scope": ALL, "rows": ROWS})
        hub.ask({"do": "fill", "scope": FIRST, "rows": FIRST_SCREEN})
        filled = time.perf_counter() - began
        before = hub.ask({"do": "look"})
        with running("benchmarks.device_program", port, str(folder / "a.db"), ALL) as device:
            device.hear()
            whole = device.hear()
        after = hub.ask({"do": "look"})
        again = _killed(hub, port, folder / "b.db")
        with running("benchmarks.device_program", port, str(folder / "c.db"), FIRST, ALL) as device:
            screen = device.hear()
    assert whole["rows"] == ROWS
    cpu = whole["cpu_s"] + after["cpu_s"] - before["cpu_s"]
    return [
        Row(case, "written to the hub, 500 in a mutation", ROWS / filled, "rows/s"),
        Row(case, "device empty until live", ROWS / whole["seconds"], "rows/s", bar=RATE_BAR),
        Row(case, "CPU of hub and device", cpu / ROWS * 1e6, "µs a row"),
        Row(case, "most memory of the device's process", whole["most_resident"] / 1e6, "MB", bar=MEMORY_BAR),
        Row(case, "read again after kill -9 in the middle, at most a page", again, "rows", bar=AGAIN_BAR),
        Row(case, f"a scope of {FIRST_SCREEN} named before it, complete", screen["first_s"], "s", bar=SCREEN_BAR),
    ]


def _killed(hub: Program, port: str, path: Path) -> int:
    """How many rows are read twice for a device that is killed in the middle and started again."""
    before = hub.ask({"do": "look"})["scanned"]
    with running("benchmarks.device_program", port, str(path), ALL):
        while hub.ask({"do": "look"})["scanned"] - before < ROWS / 2:
            time.sleep(0.02)
    with running("benchmarks.device_program", port, str(path), ALL) as device:
        device.hear()
        assert device.hear()["rows"] == ROWS
    found: int = hub.ask({"do": "look"})["scanned"] - before - ROWS
    assert found >= 0
    return found
