"""A power cut at any moment: ``full`` keeps what it promised, ``normal`` loses a tail, and a missing fsync is noticed."""

from __future__ import annotations

import functools
import os
import random
from collections import Counter

import pytest

from atoma.contracts.execution import Durability
from tests.power.cuts import Finding, Inquest, Report, cuts_at, draw_cuts, play
from tests.power.disk import is_log
from tests.power.faults import DEAF, PLANTED, Plant, begun_anew_too_early
from tests.power.platter import Ignores
from tests.power.story import Tape

pytestmark = pytest.mark.xdist_group("power cuts")

SEED = 6
CUTS = 60
OPENINGS = 5
SOAK_SEEDS = int(os.environ.get("ATOMA_SOAK_CUTS_SEEDS", "20"))
SOAK_CUTS = 400


@functools.cache
def story(durability: Durability) -> tuple[Tape, Inquest]:
    tape = play(SEED, durability)
    return tape, Inquest(tape)


def cuts_in(report: Report) -> int:
    return report.counts["cuts of the device"] + report.counts["cuts of the hub"]


def test_full_keeps_every_promise() -> None:
    """Also where some writes are ``normal``: a promise holds whatever was written before it."""
    tape, inquest = story("full")
    report = inquest.examine(draw_cuts(tape, CUTS), openings=OPENINGS)
    assert report.findings == []
    assert cuts_in(report) == CUTS and report.counts["openings"] == OPENINGS
    assert min(report.counts["cuts of the device"], report.counts["cuts of the hub"]) > CUTS // 4


def test_normal_loses_only_a_tail_and_nothing_that_was_told() -> None:
    """What is found is a state that was; the mutations that were sent and what the hub was told to forget are in it."""
    tape, inquest = story("normal")
    report = inquest.examine(draw_cuts(tape, 3 * CUTS), openings=OPENINGS)
    assert report.findings == []
    assert report.counts["cuts that lost commits"] >= 3, "or the disk was not asked for enough"


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_the_stories_have_everything_in_them(durability: Durability) -> None:
    tape, _ = story(durability)
    life, _ = tape.given_out
    assert life == 2, "the device was repaired, and took another name"
    assert len(tape.epochs) == 2, "the hub began another epoch"
    begun = [note for note in tape.notes if is_log(note) and note.event == "write" and note.at == 0]
    made = [note for note in tape.notes if is_log(note) and note.event == "create"]
    assert len(begun) > len(made), "a log began anew while its database was open"
    kinds = Counter(promise.kind for promises in tape.promises.values() for promise in promises)
    assert len(kinds) >= 17, kinds
    refused = [promise.what for promise in tape.promises["device"] if promise.what.endswith("refusals were shown")]
    assert refused[-1][0] in "123456789"


@pytest.mark.parametrize("ignores", DEAF.values(), ids=DEAF.keys())
def test_a_disk_that_does_not_sync_is_noticed(ignores: Ignores) -> None:
    tape, inquest = story("full")
    report = inquest.examine(draw_cuts(tape, CUTS), ignores=ignores, stop=True)
    assert report.findings, f"not noticed in {CUTS} cuts of seed {SEED}"


def test_a_log_that_begins_anew_before_its_database_is_synced_is_noticed() -> None:
    tape, inquest = story("full")
    notes, between = begun_anew_too_early(tape.notes)
    report = inquest.examine(cuts_at(between, CUTS), notes=notes, stop=True)
    assert report.findings, f"not noticed in {CUTS} cuts of seed {SEED}"


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
def test_an_acknowledgement_that_comes_too_early_is_noticed(planted: Plant) -> None:
    with pytest.MonkeyPatch.context() as patch:
        planted(patch)
        tape = play(SEED, "full", lives=1)
    report = Inquest(tape).examine(draw_cuts(tape, CUTS), stop=True)
    assert [finding.fault for finding in report.findings[:1]] == ["lost"], f"not noticed in {CUTS} cuts of seed {SEED}"


@pytest.fixture(scope="module")
def first_seed(request: pytest.FixtureRequest) -> int:
    """Where the campaign begins: at the seed of the run, so that it can be repeated."""
    given = request.config.getoption("--hypothesis-seed")
    return int(given) if given and str(given).isdigit() else random.SystemRandom().randrange(10**9)


@pytest.mark.soak
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_campaign_of_cuts(first_seed: int, durability: Durability, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + SOAK_SEEDS):
        tape = play(seed, durability)
        report = Inquest(tape).examine(draw_cuts(tape, SOAK_CUTS), openings=SOAK_CUTS // 20)
        counts += report.counts
        assert report.findings == [], told(seed, report.findings)
    with capsys.disabled():
        print(f"\n{durability}: {SOAK_SEEDS} seeds from {first_seed}: {dict(counts)}")


@pytest.mark.soak
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_campaign_of_cuts_beside_real_threads(
    first_seed: int, durability: Durability, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + max(1, SOAK_SEEDS // 10)):
        tape = play(seed, durability, threads=True)
        report = Inquest(tape).examine(draw_cuts(tape, SOAK_CUTS), openings=SOAK_CUTS // 20)
        counts += report.counts
        assert report.findings == [], told(seed, report.findings)
    with capsys.disabled():
        print(f"\n{durability}, threads: from {first_seed}: {dict(counts)}")


@pytest.mark.soak
@pytest.mark.parametrize("ignores", DEAF.values(), ids=DEAF.keys())
def test_every_seed_notices_a_disk_that_does_not_sync(first_seed: int, ignores: Ignores) -> None:
    for seed in range(first_seed, first_seed + max(1, SOAK_SEEDS // 5)):
        tape = play(seed, "full")
        assert Inquest(tape).examine(draw_cuts(tape, CUTS), ignores=ignores, stop=True).findings, f"seed {seed}"


@pytest.mark.soak
def test_one_missing_sync_is_noticed_where_something_rests_on_it(
    first_seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing rests on a sync that the next one makes up for before anything is promised: about a half of them."""
    total: dict[str, Counter[bool]] = {}
    for seed in range(first_seed, first_seed + max(1, SOAK_SEEDS // 10)):
        for kind, noticed in Inquest(play(seed, "full")).miss_each_sync(3).items():
            total.setdefault(kind, Counter()).update(noticed)
    with capsys.disabled():
        print(f"\none sync left out, from {first_seed}: { ({kind: dict(noticed) for kind, noticed in total.items()}) }")
    assert total["a log"][True] > total["a log"][False] // 2
    assert total["a database"][True] > 0


def told(seed: int, findings: list[Finding]) -> str:
    """The first findings of a seed, for a person."""
    return f"seed {seed}: " + "; ".join(str(finding) for finding in findings[:3])
