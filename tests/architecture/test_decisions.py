"""The decision records are numbered once, complete, and listed."""

from __future__ import annotations

from pathlib import Path

PARTS = ["Status: ", "## Why a decision is needed", "## Decision", "## What follows", "## What was dropped"]


def records(root: Path) -> list[Path]:
    return sorted((root / "docs/adr").glob("[0-9]*.md"))


def test_no_number_is_given_twice(root: Path) -> None:
    numbers = [record.name[:4] for record in records(root)]  # gaps are numbers of records that are still being written
    assert len(set(numbers)) == len(numbers)


def test_every_record_has_its_parts(root: Path) -> None:
    texts = {record.name: record.read_text(encoding="utf-8") for record in records(root)}
    lacking = {name: [part for part in PARTS if part not in text] for name, text in texts.items()}
    assert {name: parts for name, parts in lacking.items() if parts} == {}
    assert [name for name, text in texts.items() if name[:4] != "0000" and f"# {name[:4]}. " not in text] == []


def test_the_index_lists_every_record(root: Path) -> None:
    index = (root / "docs/adr/index.md").read_text(encoding="utf-8")
    assert [record.name for record in records(root) if f"({record.name})" not in index] == []
