"""The source tree as the architecture tests see it: parsed, not imported."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

import pytest

Sources = dict[Path, ast.Module]

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "transports" / "atoma_transports" / "grpc" / "v1"
TOOLKITS = {
    "qt": ("PySide6", "pip install 'atoma-runtime[qt]'"),
    "tk": ("tkinter", "apt install python3-tk"),
}
PACKAGES = ("atoma", "stores/atoma_stores", "transports/atoma_transports")


def parse(*folders: str) -> Sources:
    """Every Python file below the folders, by its path from the root."""
    files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    files = [file for file in files if GENERATED not in file.parents]
    parsed = {file.relative_to(ROOT): ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in files}
    gc.freeze()  # millions of nodes that the collector of garbage would look through until the end
    return parsed


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one worker run what is about the sources, which takes seconds to parse."""
    for item in items:
        if isinstance(item, pytest.Function) and not {"product", "suite"}.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group("sources"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def product() -> Sources:
    """The three packages."""
    return parse(*PACKAGES)


@pytest.fixture(scope="session")
def suite() -> Sources:
    """The tests."""
    return parse("tests")


@pytest.fixture(autouse=True)
def _toolkit(request: pytest.FixtureRequest) -> None:
    """Skip what is about the binding to a toolkit that is not installed: Qt is large, and in a group of its own."""
    case = getattr(request.node, "callspec", None)
    for binding, (library, install) in TOOLKITS.items():
        if case is not None and f"atoma.bindings.{binding}" in case.params.values():
            pytest.importorskip(library, reason=f"{library} is not installed: {install}", exc_type=ImportError)
