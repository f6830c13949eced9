"""The examples run as they stand and tell what they say they tell."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STORY = """\
— together
Bob has Make tea (todo)
— the cable is out
Ada has Make green tea (todo)
Bob has Make coffee (doing), Write it down (todo)
— the cable is in
Ada has Make green tea (doing), Write it down (todo)
Bob has Make green tea (doing), Write it down (todo)
Bob's inbox: 'Make coffee' gave way to 'Make green tea' (MERGED)
"""


def test_the_quickstart_tells_its_story(tmp_path: Path) -> None:
    script = EXAMPLES / "quickstart/quickstart.py"
    command = [sys.executable, "-X", "utf8", str(script), str(tmp_path)]
    outcome = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=120)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == STORY
    rows: list[list[tuple[str, str]]] = []
    for name in ("ada", "bob", "hub"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as file:
            rows.append(file.execute("SELECT title, lane FROM cards ORDER BY title").fetchall())
    assert rows[0] == rows[1] == rows[2] == [("Make green tea", "doing"), ("Write it down", "todo")]
