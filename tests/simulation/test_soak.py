"""Long campaigns from a new seed each time; `dev.py soak` runs them and prints the seeds."""

from __future__ import annotations

import os
import random
from typing import get_args

import pytest

from atoma.testing.simulation import (
    PLANTED,
    Extras,
    Kind,
    apart,
    encountered,
    pace,
    rarest,
    scarce,
    seldom,
    simulate,
    table,
    total,
)

pytestmark = pytest.mark.soak

SEEDS = int(os.environ.get("ATOMA_SOAK_SEEDS", "2000"))
SEEDS_PER_BUG = 200
MET_PER_SEED = 0.05
"""Of each fault in each state in which it can strike: a hundred times in the whole campaign."""


@pytest.fixture(scope="session")
def first_seed(request: pytest.FixtureRequest) -> int:
    """Where the campaign begins: at the seed of the run, so that it can be repeated."""
    given = request.config.getoption("--hypothesis-seed")
    return int(given) if given and str(given).isdigit() else random.SystemRandom().randrange(10**9)


def test_a_campaign_of_seeds(first_seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for seed in range(first_seed, first_seed + SEEDS):
        for kind in get_args(Kind):
            reports.append(simulate(seed, kind=kind, extras=Extras.drawn(seed, kind)))
            assert reports[-1].violation is None, str(reports[-1])
    with capsys.disabled():
        print(f"\nsimulation: {SEEDS} seeds of each kind, {first_seed} to {first_seed + SEEDS - 1}: {pace(reports)}")
        print(f"{dict(total(reports))}\n\n{table(encountered(reports))}\n\nrarest: {rarest(encountered(reports))}\n")
    assert scarce(reports) == {}
    assert sorted(encountered(reports).keys() & apart().keys(), key=str) == [], "what cannot meet has met"
    assert seldom(encountered(reports), MET_PER_SEED * SEEDS) == {}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found_within_200_seeds(bug: str, first_seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    for tried, seed in enumerate(range(first_seed, first_seed + SEEDS_PER_BUG), 1):
        report = simulate(seed, bug, kind=PLANTED[bug].kind, extras=PLANTED[bug].extras)
        if report.violation is not None:
            with capsys.disabled():
                print(f"\n{bug}: found after {tried} seed(s) from {first_seed}: {report.violation}")
            return
    pytest.fail(f"{bug}, {PLANTED[bug].what}: not found in {SEEDS_PER_BUG} seeds from {first_seed}")
