"""What both type checkers say of `tests/typing/queries.py`: everything there holds, and every wrong use is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FIXTURE = ROOT / "tests/typing/queries.py"
LINES = FIXTURE.read_text(encoding="utf-8").splitlines()
WRONG = {number for number, line in enumerate(LINES, start=1) if "# type: ignore" in line}


def test_the_fixture_says_enough() -> None:
    assert sum("assert_type(" in line for line in LINES) + len(WRONG) >= 60
    assert len(WRONG) >= 20


@pytest.mark.xdist_group("machine")
def test_mypy_infers_what_is_said_and_refuses_what_is_wrong() -> None:
    pytest.importorskip("mypy", reason="the quality group has it")
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", str(FIXTURE)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.xdist_group("machine")
def test_pyright_infers_what_is_said_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="the quality group has it")
    paths = [str(ROOT), str(ROOT / "stores"), str(ROOT / "transports")]
    config = {"extraPaths": paths, "enableTypeIgnoreComments": False, "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / FIXTURE.name).write_text(FIXTURE.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "-p", str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    said = json.loads(run.stdout)["generalDiagnostics"]
    found = {each["range"]["start"]["line"] + 1 for each in said if each["severity"] == "error"}
    assert found == WRONG, [LINES[line - 1] for line in sorted(found ^ WRONG)]


def test_a_line_that_is_wrong_is_told_apart() -> None:
    assert all(re.search(r"# type: ignore\[[a-z-]+\]", LINES[line - 1]) for line in WRONG)
