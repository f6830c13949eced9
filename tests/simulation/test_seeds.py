"""Clients and a hub under drops, doubles, partitions, crashes and clock jumps: every promise holds after every commit."""

from __future__ import annotations

import pytest

from atoma.testing.simulation import Fault, Report, State, apart, encountered, pace, scarce, simulate, table, total

SEEDS = range(48)
REPORTS: dict[int, Report] = {}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds(seed: int) -> None:
    report = REPORTS[seed] = simulate(seed)
    assert report.violation is None, str(report)


def whole_batch() -> list[Report]:
    if set(REPORTS) != set(SEEDS):
        pytest.skip("looks back on the whole batch, of which only a part was run")
    reports = list(REPORTS.values())
    print(f"seeds {SEEDS.start} to {SEEDS.stop - 1}: {pace(reports)}")
    return reports


def test_what_can_go_wrong_did() -> None:
    reports = whole_batch()
    print(dict(sorted(total(reports).items())))
    assert scarce(reports) == {}


def test_every_fault_struck_and_every_state_was_struck() -> None:
    met = encountered(whole_batch())
    print(table(met))
    assert {fault for fault, _ in met} == set(Fault)
    assert {state for _, state in met} == set(State)
    assert sorted(met.keys() & apart().keys(), key=str) == [], "what cannot meet has met"
