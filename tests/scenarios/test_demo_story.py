"""The demo's story over every transport: two devices, a hub, cables that are pulled, and three equal files at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atoma.demo.wiring import TRANSPORTS


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atoma", "demo", "--once", *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "COLUMNS": "100"},
        check=False,
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_story_holds_over(transport: str, tmp_path: Path) -> None:
    told = run_demo("--rows", "1000", "--transport", transport, "--dir", str(tmp_path))
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Both devices and the hub are equal, and every conflict is accounted for." in told.stdout
    assert "✗" not in told.stdout
    assert told.stderr == ""


@pytest.mark.parametrize("rows", ["0", "59", "-5", "many"])
def test_too_few_airports_are_refused_before_the_story_begins(rows: str) -> None:
    outcome = run_demo(f"--rows={rows}")
    assert outcome.returncode == 2
    assert "60" in outcome.stderr and "Traceback" not in outcome.stderr


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = run_demo("--dir", str(tmp_path / "file"))
    assert outcome.returncode == 1
    assert outcome.stderr.count("\n") == 1 and "cannot be used as a folder" in outcome.stderr
