"""The kernel's own tests take its branches: those that nothing has ever taken are where it may do anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

OWN_TESTS = (
    "tests/unit/kernel",
    "tests/properties/test_kernel_model.py::test_the_kernel_does_what_the_interpreter_says",
    "tests/properties/test_kernel_model.py::test_of_many_worlds_too[0]",
)
BRANCHES_PERCENT_MIN = 95.0


@dataclass(frozen=True)
class Branches:
    """The kernel's branches: how many there are, how many were taken, and where the others are."""

    all: int
    taken: int
    missing: list[str]

    @property
    def percent(self) -> float:
        return 100 * self.taken / self.all

    def __str__(self) -> str:
        return f"atoma.kernel: {self.percent:.1f} % of {self.all} branches are taken; not {', '.join(self.missing)}"


def branches_of(root: Path, folder: Path, tests: tuple[str, ...]) -> Branches:
    """The kernel's branches under ``tests``."""
    data, report = folder / "data", folder / "report.json"
    coverage = [sys.executable, "-m", "coverage"]
    measure = ["run", "--branch", f"--source={root / 'atoma/kernel'}", f"--data-file={data}", "--rcfile=/dev/null"]
    environment = {**os.environ, "COVERAGE_CORE": "ctrace"}  # the only one with branches on every Python
    ran = subprocess.run(
        [*coverage, *measure, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    told = [*coverage, "json", f"--data-file={data}", "--rcfile=/dev/null", "-q", "-o", str(report)]
    subprocess.run(told, cwd=root, env=environment, check=True)
    found = json.loads(report.read_text(encoding="utf-8"))
    missing = [
        f"{Path(name).name} {start}->{end}"
        for name, file in found["files"].items()
        for start, end in file["missing_branches"]
    ]
    totals = found["totals"]
    return Branches(totals["num_branches"], totals["covered_branches"], missing)


@pytest.mark.finished
def test_the_kernels_own_tests_take_its_branches(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("coverage", reason="the quality group has it")
    found = branches_of(root, tmp_path, OWN_TESTS)
    with capsys.disabled():
        print(f"\n{found}")
    assert found.percent >= BRANCHES_PERCENT_MIN, str(found)


@pytest.mark.finished
def test_a_branch_that_nothing_takes_is_seen(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("coverage", reason="the quality group has it")
    found = branches_of(root, tmp_path, ("tests/unit/kernel/test_merging.py",))
    assert found.percent < BRANCHES_PERCENT_MIN
    assert any(branch.startswith("guards.py ") for branch in found.missing)
