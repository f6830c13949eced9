"""Every planted bug is found, at a seed at which the product as it is keeps every promise."""

from __future__ import annotations

import pytest

from atoma.errors import ConfigurationError
from atoma.testing.simulation import PLANTED, plant, simulate

# bug → the seed that finds it, the promise that it breaks there
FOUND_AT: dict[str, tuple[int, str]] = {}


def test_every_bug_has_its_seed() -> None:
    assert set(FOUND_AT) == set(PLANTED)


@pytest.mark.parametrize("bug", FOUND_AT)
def test_a_planted_bug_is_found(bug: str) -> None:
    seed, promise = FOUND_AT[bug]
    report = simulate(seed, bug)
    assert report.violation is not None, f"{bug}, {PLANTED[bug].what}: not found; {report}"
    assert report.violation.invariant == promise, str(report)
    assert report.command == f"python -m atoma.testing.simulation --seed {seed} --planted {bug}"


@pytest.mark.parametrize("seed", sorted({seed for seed, _ in FOUND_AT.values()}))
def test_without_the_bug_the_same_seed_keeps_every_promise(seed: int) -> None:
    report = simulate(seed)
    assert report.violation is None, str(report)


def test_a_bug_is_gone_after_its_run() -> None:
    from atoma.sync import settle

    before = settle.is_covered
    with plant("ack-drops-overlay"):
        assert settle.is_covered is not before
    assert settle.is_covered is before


def test_a_bug_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no bug is called 'nonsense'"):
        simulate(1, "nonsense")
