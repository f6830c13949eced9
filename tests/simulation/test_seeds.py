"""Clients and a hub under drops, doubles, partitions, crashes and clock jumps: every promise holds after every commit."""

from __future__ import annotations

import pytest

from atoma.testing.simulation import Report, scarce, simulate, total

SEEDS = range(48)
REPORTS: dict[int, Report] = {}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds(seed: int) -> None:
    report = REPORTS[seed] = simulate(seed)
    assert report.violation is None, str(report)


def test_what_can_go_wrong_did() -> None:
    if set(REPORTS) != set(SEEDS):
        pytest.skip("looks back on the whole batch, of which only a part was run")
    reports = list(REPORTS.values())
    print(f"seeds {SEEDS.start} to {SEEDS.stop - 1}: {dict(sorted(total(reports).items()))}")
    assert scarce(reports) == {}
