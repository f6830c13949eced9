"""A layer is built alone: its types are checked and its own tests pass where only what it may know exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.copies import copy_part

VALUES = (
    "atoma/codes.py",
    "atoma/concurrency",
    "atoma/errors.py",
    "atoma/contracts",
    "atoma/schema",
    "atoma/query",
    "atoma/ports",
)
OTHERS = ("atoma_stores", "atoma_transports", "apsw", "trio_websocket", "h11", "wsproto")


@dataclass(frozen=True)
class Layer:
    """What a layer may know, and its own tests.

    Attributes:
        package: The layer.
        knows: What it may import.
        tests: Files or folders of tests that need nothing else.
        at_least: How many tests there are at least.
    """

    package: str
    knows: tuple[str, ...]
    tests: tuple[str, ...]
    at_least: int


LAYERS = {
    "runtime": Layer(
        "atoma/runtime", (*VALUES, "atoma/mutations"),
        ("tests/unit/runtime/kit.py", "tests/unit/runtime/test_flows.py", "tests/unit/runtime/test_over_ports.py"), 16,
    ),
    "kernel": Layer("atoma/kernel", (*VALUES, "atoma/plugins", "atoma/testing/queries.py"), ("tests/unit/kernel",), 200),
}  # fmt: skip

# refuses what a layer may not know, though it is installed, and says at the end what was loaded of the project
GUARD = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {others!r}:
            raise ModuleNotFoundError(f"{{name}} does not exist here", name=name)

sys.meta_path.insert(0, Refusing())

def pytest_terminal_summary(terminalreporter):
    loaded = {{".".join(name.split(".")[:2]) for name in sys.modules if name.startswith("atoma")}}
    terminalreporter.write_line("loaded: " + " ".join(sorted(loaded)))
"""
SETTINGS = """
[pytest]
addopts = --import-mode=importlib --strict-markers -p no:cacheprovider
markers =
    virtual_time: run the async test on a MockClock that jumps to the next deadline
filterwarnings = error
"""


def copy_layer(root: Path, folder: Path, layer: Layer) -> None:
    """The layer, what it may know and its tests, and nothing else of the project."""
    for part in (*layer.knows, layer.package, *layer.tests, "tests/conftest.py"):
        copy_part(root / part, folder / part)
    for part in ("atoma/__init__.py", "atoma/py.typed", "atoma/testing/__init__.py"):
        (folder / part).parent.mkdir(exist_ok=True)
        (folder / part).write_text("")
    (folder / "guard.py").write_text(GUARD.format(others=set(OTHERS)))
    (folder / "pytest.ini").write_text(SETTINGS)


def run(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "MYPYPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def check_types(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the copies strictly; the log says which files were read."""
    return run(folder, ["mypy", "-v", "--strict", "--config-file=", "--cache-dir", "cache", "atoma"])


def beyond(folder: Path, checked: subprocess.CompletedProcess[str]) -> list[str]:
    """Modules of the project that were read from anywhere but the copies: an installed project is behind them."""
    read = re.findall(r"^LOG: +Parsing (.+) \((atoma[\w.]*)\)$", checked.stderr, re.MULTILINE)
    assert len(read) > 20, checked.stderr[-2000:]
    return [module for path, module in read if not (folder / path).resolve().is_relative_to(folder.resolve())]


@pytest.mark.parametrize("name", ["runtime", pytest.param("kernel", marks=pytest.mark.finished)])
def test_the_tests_of_a_layer_pass_where_nothing_else_exists(root: Path, tmp_path: Path, name: str) -> None:
    layer = LAYERS[name]
    copy_layer(root, tmp_path, layer)
    outcome = run(tmp_path, ["pytest", "-q", "-p", "guard", *layer.tests])
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    passed = int(outcome.stdout.split(" passed")[0].rsplit(None, 1)[-1])
    assert passed >= layer.at_least, outcome.stdout
    loaded = outcome.stdout.split("loaded: ")[1].split("\n")[0].split()
    allowed = {".".join(part.removesuffix(".py").split("/")[:2]) for part in (*layer.knows, layer.package)}
    assert set(loaded) <= {"atoma", *allowed}


@pytest.mark.finished
@pytest.mark.parametrize("name", LAYERS)
def test_the_types_of_a_layer_are_whole_where_nothing_else_exists(root: Path, tmp_path: Path, name: str) -> None:
    layer = LAYERS[name]
    copy_layer(root, tmp_path, layer)
    outcome = check_types(tmp_path)
    assert outcome.returncode == 0, outcome.stdout
    assert outcome.stdout.startswith("Success: no issues found in ")
    assert beyond(tmp_path, outcome) == []


@pytest.mark.finished
def test_a_type_that_is_not_there_is_seen(root: Path, tmp_path: Path) -> None:
    layer = LAYERS["runtime"]
    copy_layer(root, tmp_path, layer)
    (tmp_path / "atoma/runtime/reaching.py").write_text("from atoma.kernel import ExecutionKernel as ExecutionKernel\n")
    outcome = check_types(tmp_path)
    assert outcome.returncode == 1 or "atoma.kernel" in beyond(tmp_path, outcome)


def test_a_test_that_needs_more_is_seen(root: Path, tmp_path: Path) -> None:
    layer = LAYERS["runtime"]
    copy_layer(root, tmp_path, layer)
    (tmp_path / "tests/test_more.py").write_text("def test_more():\n    import atoma_stores\n")
    outcome = run(tmp_path, ["pytest", "-q", "-p", "guard", "tests/test_more.py"])
    assert outcome.returncode == 1
    assert "atoma_stores" in outcome.stdout
    assert "does not exist here" in outcome.stdout
