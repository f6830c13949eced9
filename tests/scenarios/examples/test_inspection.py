"""The files of ``examples/inspection`` are those that a reader of the story has at its end; the page itself runs with the others."""

from __future__ import annotations

from pathlib import Path

from tests.architecture.test_docs_code import FENCE

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples/inspection"
STORY = ROOT / "docs/tutorial/inspection.md"


def test_the_story_ends_with_the_example() -> None:
    told: dict[str, str] = {}
    for block in FENCE.finditer(STORY.read_text(encoding="utf-8")):
        if (block["note"] or "").startswith("file: "):
            told[block["note"].removeprefix("file: ")] = block["body"]  # a later chapter writes over an earlier one
    assert told == {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
