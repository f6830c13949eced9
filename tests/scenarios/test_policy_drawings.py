"""The drawings in the documentation are what ``explain`` draws today."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
FOLDER = DOCS / "images" / "policies"


def test_the_drawings_of_the_built_in_policies_are_current() -> None:
    drawn: dict[str, str] = runpy.run_path(str(FOLDER / "draw.py"))["drawings"]()
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")}
    assert kept == drawn, "run python docs/images/policies/draw.py"


def test_the_page_shows_every_drawing() -> None:
    page = (DOCS / "explanation" / "policies.md").read_text(encoding="utf-8")
    assert [path.name for path in FOLDER.glob("*.svg") if f"../images/policies/{path.name}" not in page] == []
