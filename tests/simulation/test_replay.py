"""A seed that fails prints one command, which runs the same once more."""

from __future__ import annotations

import shlex

import pytest

from atoma.testing.simulation import PLANTED, simulate
from atoma.testing.simulation.__main__ import main

BUG, SEED = "lies-believed", 0


def test_the_command_that_a_report_ends_with_runs_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    """With its kind, its extras and its bug: a seed alone is another run."""
    bug = PLANTED[BUG]
    report = simulate(SEED, BUG, kind=bug.kind, extras=bug.extras)
    assert report.violation is not None
    _, _, command = str(report).rpartition("replay: ")
    python, *arguments = shlex.split(command)
    assert [python, *arguments[:2]] == ["python", "-m", "atoma.testing.simulation"]
    assert main(arguments[2:]) == 1
    said = capsys.readouterr().out
    assert f"last trace {report.trace}" in said
    assert str(report.violation) in said
