"""The same seed is the same run. Trio's own hooks for that are private: a Trio that changes them is noticed here."""

from __future__ import annotations

import os
import subprocess
import sys

from atoma.testing.simulation import simulate

SEED = 5


def trace_in_another_process(seed: int, hash_seed: str, *options: str) -> str:
    command = [sys.executable, "-m", "atoma.testing.simulation", "--seed", str(seed), *options]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return run.stdout.partition("last trace ")[2].split()[0]


def test_a_seed_gives_the_same_trace_again_and_in_other_processes() -> None:
    here = simulate(SEED)
    assert here.counts["client crashes"]
    assert here.counts["frames dropped"]
    assert simulate(SEED).trace == here.trace
    assert [trace_in_another_process(SEED, hash_seed) for hash_seed in ("1", "2")] == [here.trace] * 2


def test_a_run_with_restores_gives_the_same_trace_in_another_process() -> None:
    here = simulate(SEED, kind="restored")
    assert here.counts["hub restores"] + here.counts["file restores"] + here.counts["file clones"]
    assert trace_in_another_process(SEED, "1", "--kind", "restored") == here.trace


def test_another_seed_gives_another_trace() -> None:
    assert simulate(SEED).trace != simulate(SEED + 1).trace
