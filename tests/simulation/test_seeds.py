"""Clients and a hub under drops, partitions, crashes, clock jumps, and restores: every promise holds after every commit."""

from __future__ import annotations

import pytest

from atoma.testing.simulation import (
    Extras,
    Fault,
    Kind,
    Report,
    State,
    apart,
    encountered,
    pace,
    scarce,
    simulate,
    table,
    total,
)

pytestmark = pytest.mark.xdist_group(
    "simulated"
)  # one worker runs the batch, or nobody could look back on the whole of it
SEEDS: dict[Kind, range] = {"steady": range(12), "restored": range(10, 14), "kept": range(2)}
ONCE_BROKEN: list[tuple[Kind, int, float]] = [
    ("restored", 300023, 0.0),
    ("restored", 300077, 0.0),
    ("restored", 920000179, 0.05),
    ("kept", 920000197, 0.05),
    ("kept", 920000234, 0.0),
]
"""Seeds at which a promise was broken once, or the checker asked for too much; and the share of minds that change."""
MINDS: list[tuple[Kind, int]] = [("steady", 0), ("steady", 1), ("restored", 9112), ("restored", 9121)]
WITH_EXTRAS: list[tuple[Kind, int, Extras, str]] = [
    ("restored", 16, Extras(increments=0.4), "counters added to"),
    ("steady", 0, Extras(secrets=0.4), "secrets written"),
    ("steady", 1, Extras(parts=1.0), "looks at parts"),
    ("restored", 9, Extras(parts=1.0), "repairs HUB_LOST_DATA"),
    ("restored", 980000009, Extras(trades=0.05, minds=0.05, secrets=0.4, lies=0.2), "offers applied"),
    ("calm", 2, Extras(secrets=0.4), "calm restores"),
    ("calm", 2, Extras(parts=1.0), "calm restores"),
    ("steady", 0, Extras(lies=1.0), "lies told"),
    ("steady", 4, Extras(disks=0.3), "tails lost"),
    ("restored", 13, Extras(disks=0.3), "tails lost"),
    ("restored", 4, Extras(downgrades=0.3), "unproven rows kept"),
    ("restored", 16, Extras(untold=0.6), "hub restores untold"),
]
"""What is drawn for them, and what has to have happened. The first one added twice to a number once; in 980000009 somebody brings a
row back that others have written and deleted since, of which they may not know; in the one of disks with seed 4 a device waited for a
program that was not there."""
RUNS = [(kind, seed) for kind, seeds in SEEDS.items() for seed in seeds]
ON_FILES = [(kind, seed, extras) for kind, seed, extras, _ in WITH_EXTRAS if extras.disks or extras.downgrades]
BATCH = [*((kind, seed, Extras()) for kind, seed in RUNS), *ON_FILES]
REPORTS: dict[tuple[Kind, int, Extras], Report] = {}


@pytest.mark.parametrize(("kind", "seed"), RUNS)
def test_every_promise_holds(kind: Kind, seed: int) -> None:
    report = REPORTS[kind, seed, Extras()] = simulate(seed, kind=kind)
    assert report.violation is None, str(report)


@pytest.mark.parametrize(("kind", "seed", "minds"), ONCE_BROKEN)
def test_a_promise_that_was_broken_holds(kind: Kind, seed: int, minds: float) -> None:
    report = simulate(seed, kind=kind, extras=Extras(minds=minds))
    assert report.violation is None, str(report)


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_exchange_unique_values_come_back(seed: int) -> None:
    report = simulate(seed, kind="calm", extras=Extras(trades=0.4))
    assert report.violation is None, str(report)
    assert report.counts["unique values exchanged"]


@pytest.mark.parametrize(("kind", "seed"), MINDS)
def test_minds_are_changed_about_what_was_never_sent(kind: Kind, seed: int) -> None:
    report = simulate(seed, kind=kind, extras=Extras(minds=0.4))
    assert report.violation is None, str(report)
    assert report.counts["numbers given out anew"]
    assert report.counts["writes held"]


@pytest.mark.parametrize(("kind", "seed", "extras", "counted"), WITH_EXTRAS)
def test_every_promise_holds_with_extras(kind: Kind, seed: int, extras: Extras, counted: str) -> None:
    report = simulate(seed, kind=kind, extras=extras)
    if extras.disks or extras.downgrades:
        REPORTS[kind, seed, extras] = report
    assert report.violation is None, str(report)
    assert report.counts[counted]


def whole_batch() -> list[Report]:
    if set(REPORTS) != set(BATCH):
        pytest.skip("looks back on the whole batch, of which only a part was run")
    reports = list(REPORTS.values())
    for kind, seeds in SEEDS.items():
        print(f"{kind}, {seeds}: {pace([report for report in reports if report.kind == kind])}")
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
