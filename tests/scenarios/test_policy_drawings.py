"""The drawings in the documentation are what ``explain`` draws today."""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoma import Schema, StoreSpec, open_client
from atoma.errors import ConfigurationError
from atoma.kernel import direct_local, explain
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine

DOCS = Path(__file__).resolve().parents[2] / "docs"
FOLDER = DOCS / "images" / "policies"


@dataclass(frozen=True)
class Note:
    id: str
    text: str


def test_the_drawings_of_the_built_in_policies_are_current() -> None:
    drawn: dict[str, str] = runpy.run_path(str(FOLDER / "draw.py"))["drawings"]()
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")}
    assert kept == drawn, "run python docs/images/policies/draw.py"


def test_the_page_shows_every_drawing() -> None:
    page = (DOCS / "explanation" / "policies.md").read_text(encoding="utf-8")
    assert [path.name for path in FOLDER.glob("*.svg") if f"../images/policies/{path.name}" not in page] == []


async def test_a_client_draws_its_policies_in_three_ways() -> None:
    plugins = [LocalExecution(SQLiteEngine(":memory:"))]
    async with open_client(Schema(StoreSpec("notes", Note)), plugins=plugins) as client:
        assert client.explain("direct-local").startswith("policy direct-local\n")
        assert client.explain("direct-local", format="mermaid").startswith("flowchart TD\n")
        assert client.explain("direct-local", format="svg") == explain(direct_local(), "svg")
        assert "policy hybrid" in client.explain()
        with pytest.raises(ConfigurationError, match="name it"):
            client.explain(format="svg")
