"""The same seed is the same run. Trio's own hooks for that are private: a Trio that changes them is noticed here."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

from atoma.testing.simulation import Report, simulate

SEED = 2
OTHER_HASH_SEED = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
"""Another order of sets than here."""


def trace_in_another_process(seed: int, hash_seed: str, *options: str) -> str:
    command = [sys.executable, "-m", "atoma.testing.simulation", "--seed", str(seed), *options]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return run.stdout.partition("last trace ")[2].split()[0]


@functools.cache
def first_run() -> Report:
    return simulate(SEED)


def test_a_seed_gives_the_same_trace_again_and_in_another_process() -> None:
    here = first_run()
    assert here.counts["client crashes"]
    assert here.counts["frames dropped"]
    assert simulate(SEED).trace == here.trace
    assert trace_in_another_process(SEED, OTHER_HASH_SEED) == here.trace


def test_a_run_with_restores_gives_the_same_trace_in_another_process() -> None:
    here = simulate(SEED, kind="restored")
    assert here.counts["hub restores"] + here.counts["file restores"] + here.counts["file clones"]
    assert trace_in_another_process(SEED, OTHER_HASH_SEED, "--kind", "restored") == here.trace


def test_another_seed_gives_another_trace() -> None:
    assert simulate(SEED + 1).trace != first_run().trace
