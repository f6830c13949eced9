"""The hub's loop under attack: what a bystander notices of it, and what it costs the hub."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import trio

from benchmarks.attacks.shapes import SHAPES
from benchmarks.measure import Row
from benchmarks.programs import Program, running

IDLE_S, ATTACK_S, WARM_S = 2.0, 4.0, 0.3
BAR, HELD_BAR = "≤ 50 ms", "≤ 20 ms"
CALM = "without an attack"


async def attacks(folder: Path) -> list[Row]:
    """Every attack against a hub of its own, one after the other; each is bounded by :data:`ATTACK_S`."""
    rows: list[Row] = []
    for number, name in enumerate(SHAPES):
        place = folder / str(number)
        place.mkdir()
        rows += await trio.to_thread.run_sync(_under, name, place)
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
                    time.sleep(WARM_S)  # until it has begun
                    found = _watched(hub, bystander, ATTACK_S)
                    attacker.wait(ATTACK_S + 30)
                finally:
                    attacker.kill()
    return [
        Row(name, "a bystander's question: p50", found["p50_s"] * 1e3, "ms", found["p50_s"] / calm["p50_s"], CALM),
        Row(name, "a bystander's question: p99", found["p99_s"] * 1e3, "ms", found["p99_s"] / calm["p99_s"], CALM, BAR),
        Row(name, "a bystander's question: worst", found["worst_s"] * 1e3, "ms"),
        Row(name, "a newcomer's connection: worst", found["newcomer_worst_s"] * 1e3, "ms"),
        Row(name, "the loop, held by one step: longest", found["held_s"] * 1e3, "ms", None, "", HELD_BAR),
        Row(name, "CPU of the hub, before", calm["cpu"], "%"),
        Row(name, "CPU of the hub, during", found["cpu"], "%"),
    ]


def _watched(hub: Program, bystander: Program, seconds: float) -> dict[str, float]:
    """What the bystander found, how much of a core the hub took meanwhile, in percent, and its longest step."""
    before, began = hub.ask("cpu")["cpu_s"], time.perf_counter()
    found = bystander.ask(seconds)
    after = hub.ask("cpu")
    cpu = (after["cpu_s"] - before) / (time.perf_counter() - began) * 100
    return {**found, "cpu": cpu, "held_s": after["held_s"]}
