"""After the quickstart both devices and the hub hold the same rows, in files that any tool reads."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "examples/quickstart/quickstart.py"


def test_the_quickstart_leaves_equal_files(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "utf8", str(SCRIPT), str(tmp_path)]
    outcome = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=120)
    assert outcome.returncode == 0, outcome.stderr
    rows: list[list[tuple[str, str]]] = []
    for name in ("ada", "bob", "hub"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as file:
            rows.append(file.execute("SELECT title, lane FROM cards ORDER BY title").fetchall())
    assert rows[0] == rows[1] == rows[2] == [("Make green tea", "doing"), ("Write it down", "todo")]
