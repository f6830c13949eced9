"""The lists of promises are complete, and what a row names as its proof exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ACCEPTANCE = [f"A{number:02}" for number in range(1, 87)]
FEATURES = [
    f"F{number:02}"
    for first, last in ((1, 15), (20, 30), (40, 45), (50, 56), (60, 64), (70, 82), (90, 120))
    for number in range(first, last + 1)
]
COLUMNS = {"A": 4, "F": 3}
NOT_YET = "not yet"
REFERENCE = re.compile(r"`([^`]+)`")


def rows(page: Path) -> dict[str, str]:
    """The last cell of every row of a page's tables, by the row's id."""
    found: dict[str, str] = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)][1:-1]
        if cells and re.fullmatch(r"[AF]\d{2,3}", cells[0]):
            assert cells[0] not in found, f"{cells[0]} stands twice"
            assert len(cells) == COLUMNS[cells[0][0]], f"{cells[0]} has {len(cells)} cells"
            found[cells[0]] = cells[-1]
    return found


def dangling(shown_by: str, root: Path) -> list[str]:
    """The references of a cell to a file, or to a test in a file (`path::name`), that does not exist."""
    return [reference for reference in REFERENCE.findall(shown_by) if not exists(reference, root)]


def exists(reference: str, root: Path) -> bool:
    path, _, name = reference.partition("::")
    file = root / path
    if not name:
        return file.exists()
    if not file.is_file():
        return False
    scope: list[ast.stmt] = parsed(file).body
    for part in name.partition("[")[0].split("::"):
        named = [node for node in scope if part in declared(node)]
        if not named:
            return False
        scope = getattr(named[0], "body", [])
    return True


@functools.cache
def parsed(file: Path) -> ast.Module:
    """A file of which many rows name a test."""
    return ast.parse(file.read_text(encoding="utf-8"))


def declared(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):  # a state machine's test is a plain name: TestOverlay = Overlay.TestCase
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


LISTS = {"acceptance": ACCEPTANCE, "features": FEATURES}


@pytest.mark.parametrize("name", LISTS)
def test_every_promise_has_its_row(root: Path, name: str) -> None:
    assert list(rows(root / f"docs/internals/{name}.md")) == LISTS[name]


@pytest.mark.parametrize("name", LISTS)
def test_what_a_row_names_as_its_proof_exists(root: Path, name: str) -> None:
    proofs = rows(root / f"docs/internals/{name}.md")
    missing = {row: dangling(cell, root) for row, cell in proofs.items()}
    assert {row: names for row, names in missing.items() if names} == {}
    unproven = [row for row, cell in proofs.items() if not cell.startswith(NOT_YET) and not REFERENCE.search(cell)]
    assert unproven == [], "a row is shown by something, or says that it is not yet"


def test_a_dangling_reference_is_seen(root: Path) -> None:
    here = "tests/architecture/test_promises.py"
    assert dangling(f"`{here}::test_a_dangling_reference_is_seen`, `{here}`", root) == []
    assert dangling(f"`{here}::test_nowhere`, `tests/nowhere.py`, `tests/nowhere.py::test_it`", root) == [
        f"{here}::test_nowhere",
        "tests/nowhere.py",
        "tests/nowhere.py::test_it",
    ]
