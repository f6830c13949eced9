"""The hub's loop under attack: what a bystander notices of it, and what it costs the hub."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import trio
from rich.table import Table

from benchmarks.attacks.shapes import SHAPES
from benchmarks.measure import Row
from benchmarks.programs import Program, running

IDLE_S, ATTACK_S, WARM_S = 2.0, 4.0, 0.3
CALM = "without an attack"
HELD, P50, P99, WORST = "the loop, held by one step: longest", "p50", "p99", "worst"
NEWCOMER, CPU_BEFORE, CPU = "a newcomer's connection: worst", "CPU of the hub, before", "CPU of the hub, during"
MEMORY = "memory of the hub, more than before"
COLUMNS = ((HELD, "step"), (P50, "p50"), (P99, "p99"), (WORST, "worst"),
           (NEWCOMER, "newcomer"), (MEMORY, "more MB"), (CPU, "CPU"))  # fmt: skip
BARS = {HELD: "≤ 20 ms", P99: "≤ 50 ms", NEWCOMER: "≤ 250 ms", MEMORY: "≤ 64 MB"}
"""Of every attack. A newcomer waits for the hub five times: to be taken, for two answers of the handshake, while the token
is looked at, and for the welcome; each time no longer than a bystander."""
TABS_BAR = "≤ 10 %"
"""Of a core, for all tabs of the inspector together: they share one look."""


async def attacks(folder: Path, only: str = "") -> list[Row]:
    """Every attack whose name holds ``only``, against a hub of its own; each is bounded by :data:`ATTACK_S`."""
    rows: list[Row] = []
    for number, name in enumerate(name for name in SHAPES if only in name):
        place = folder / str(number)
        place.mkdir()
        found = await trio.to_thread.run_sync(_under, name, place)
        print(name, *(f"{row.variant} {row.value:.1f} {row.unit}" for row in found if row.bar), sep=", ", flush=True)
        rows += found
    return rows


def _under(name: str, folder: Path) -> list[Row]:
    with running("benchmarks.attacks.hub", str(folder)) as hub:
        port = str(int(hub.hear()["port"]))
        with running("benchmarks.attacks.bystander", port) as bystander:
            bystander.ask(WARM_S)
            calm = _watched(hub, bystander, IDLE_S)
            command = [sys.executable, "-m", "benchmarks.attacks.attacker", port, name, str(ATTACK_S + WARM_S)]
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as attacker:
                try:
                    assert attacker.stdout is not None
                    attacker.stdout.readline()  # it begins
                    time.sleep(WARM_S)
                    found = _watched(hub, bystander, ATTACK_S)
                    attacker.wait(ATTACK_S + 30)
                finally:
                    attacker.kill()
    more = (found["peak"] - calm["peak"]) / 1e6
    return [
        Row(name, HELD, found["held_s"] * 1e3, "ms", None, "", BARS[HELD]),
        Row(name, P50, found["p50_s"] * 1e3, "ms", found["p50_s"] / calm["p50_s"], CALM),
        Row(name, P99, found["p99_s"] * 1e3, "ms", found["p99_s"] / calm["p99_s"], CALM, BARS[P99]),
        Row(name, WORST, found["worst_s"] * 1e3, "ms"),
        Row(name, NEWCOMER, found["newcomer_worst_s"] * 1e3, "ms", None, "", BARS[NEWCOMER]),
        Row(name, MEMORY, more, "MB", None, "", BARS[MEMORY]),
        Row(name, CPU_BEFORE, calm["cpu"], "%"),
        Row(name, CPU, found["cpu"], "%", None, "", TABS_BAR if "tabs" in name else ""),
    ]


def table(rows: list[Row]) -> Table:
    """One line for each attack, and whether all bars are met under it."""
    found = Table(
        title="The hub under attack: milliseconds, the longest step in those of the CPU", title_justify="left"
    )
    found.add_column("attack", no_wrap=True)
    for variant, heading in COLUMNS:
        found.add_column(f"{heading} {BARS.get(variant, '')}".strip(), justify="right")
    found.add_column("met")
    for name in dict.fromkeys(row.case for row in rows):
        figures = {row.variant: row for row in rows if row.case == name}
        met = all(row.met is not False for row in figures.values())
        cells = [_cell(figures[variant]) for variant, _ in COLUMNS]
        found.add_row(name, *cells, "yes" if met else "[bold red]NO")
    return found


def _cell(row: Row) -> str:
    text = f"{row.value:,.0f} %" if row.unit == "%" else f"{row.value:,.1f}"
    return f"[bold red]{text}" if row.met is False else text


def _watched(hub: Program, bystander: Program, seconds: float) -> dict[str, float]:
    """What the bystander found, how much of a core the hub took meanwhile, in percent, and its longest step."""
    before, began = hub.ask("cpu")["cpu_s"], time.perf_counter()
    found = bystander.ask(seconds)
    after = hub.ask("cpu")
    cpu = (after["cpu_s"] - before) / (time.perf_counter() - began) * 100
    return {**found, "cpu": cpu, "held_s": after["held_s"], "peak": after["peak"]}
