"""The import contracts hold, and each of them breaks when it should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("import contracts")  # which share what was said

PLANTS = {
    # contract: the file that gets a bad import, and the import
    "layers": [
        ("atoma/runtime/planted.py", "import atoma.kernel"),
        ("atoma/kernel/planted.py", "import atoma.runtime"),
        ("atoma/sync/planted.py", "import atoma.hub"),
        ("atoma/ports/planted.py", "from atoma.plugins import *"),
        ("atoma/errors.py", "import atoma.contracts"),
        ("atoma/client/planted.py", "import atoma.testing"),
        ("atoma/runtime/planted.py", "import atoma.bindings.portal"),
        ("atoma/placeless.py", ""),
    ],
    "bindings": [
        ("atoma/bindings/aio/planted.py", "import atoma.bindings.blocking"),
        ("atoma/bindings/delivery.py", "import atoma.bindings.aio"),
        ("atoma/bindings/placeless.py", ""),
    ],
    "engines": [
        ("atoma/runtime/planted.py", "import atoma_transports"),
        ("atoma/client/planted.py", "def late() -> None:\n    import atoma_stores.sqlite"),
        ("stores/atoma_stores/planted.py", "import atoma_transports"),
        ("transports/atoma_transports/planted.py", "from atoma_stores import sqlite"),
    ],
    "spi": [
        ("stores/atoma_stores/planted.py", "import atoma.runtime"),
        ("transports/atoma_transports/planted.py", "from atoma import sync"),
    ],
    "root": [
        ("stores/atoma_stores/planted.py", "import atoma"),
        ("transports/atoma_transports/adapters/planted.py", "from atoma import open_client"),
        ("atoma/runtime/planted.py", "import atoma"),
    ],
    "remote-op": [
        ("transports/atoma_transports/memory/planted.py", "import atoma_transports.protocol"),
        ("transports/atoma_transports/serving/planted.py", "from atoma_transports.protocol import RemoteOp"),
    ],
    "store-rooms": [
        ("stores/atoma_stores/sql/planted.py", "import atoma_stores.sqlite"),
        ("stores/atoma_stores/sqlite/planted.py", "import atoma_stores.postgres"),
        ("stores/atoma_stores/live/planted.py", "import atoma_stores.local"),
        ("stores/atoma_stores/placeless.py", ""),
    ],
    "rooms": [
        ("transports/atoma_transports/calls/planted.py", "import atoma_transports.frames"),
        ("transports/atoma_transports/frames/planted.py", "def late() -> None:\n    import atoma_transports.serving"),
        ("transports/atoma_transports/websocket/planted.py", "import atoma_transports.grpc"),
        ("transports/atoma_transports/dialing/planted.py", "import atoma_transports.adapters"),
        ("transports/atoma_transports/placeless.py", ""),
    ],
    "replication": [
        ("atoma/runtime/planted.py", "from atoma.contracts.sync import Outcome"),
        ("atoma/runtime/planted.py", "from atoma.contracts import replica"),
        ("atoma/kernel/planted.py", "def late() -> None:\n    import atoma.contracts.sync"),
        ("atoma/mutations/planted.py", "from atoma.contracts.replica import InboxEntry"),
    ],
    "drivers": [
        ("stores/atoma_stores/live/planted.py", "import apsw"),
        ("atoma/runtime/planted.py", "from apsw import Connection"),
        ("transports/atoma_transports/memory/planted.py", "import trio_websocket"),
        ("atoma/inspector/planted.py", "import h11"),
        ("transports/atoma_transports/websocket/planted.py", "import grpclib.client"),
    ],
    "trio-only": [
        ("atoma/kernel/planted.py", "import asyncio"),
        ("atoma/bindings/blocking/planted.py", "import asyncio"),
        ("transports/atoma_transports/memory/planted.py", "from asyncio import Queue"),
    ],
    "acyclic": [
        ("stores/atoma_stores/planted.py", "import atoma_stores.sqlite.planted"),
    ],
}
CYCLE = ("stores/atoma_stores/sqlite/planted.py", "import atoma_stores.planted")
"""Closes the planted cycle."""


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says about a copy of the tree."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    paths = os.pathsep.join(str(tree / part) for part in ("", "stores", "transports"))
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}
    return subprocess.run(
        [*command, "--no-cache"], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def copied(root: Path, tree: Path) -> Path:
    """A copy of everything that the contracts speak about."""
    for folder in ("atoma", "stores", "transports"):
        shutil.copytree(root / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tree)
    return tree


def contracts(root: Path) -> dict[str, str]:
    """The name of each contract, by its id."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["id"]: contract["name"] for contract in project["tool"]["importlinter"]["contracts"]}


@dataclass(frozen=True)
class Plant:
    """A line that breaks a contract, and the file that gets it."""

    contract: str
    path: str
    line: str

    @property
    def tree(self) -> str:
        """The copy that it is planted in, with others that do not change what is said about it.

        A module without a place ends what a contract looks at, and what is added to a module that others import makes
        chains that begin elsewhere.
        """
        if not self.line or self.contract == "acyclic":
            return "modules without a place"
        return "new modules" if self.path.endswith("/planted.py") else "modules that there are"

    @property
    def own_path(self) -> str:
        """The path, which no other plant has."""
        number = ALL.index(self)
        return self.path if self.contract == "acyclic" else self.path.replace("planted.py", f"planted_{number}.py")

    @property
    def shown(self) -> str:
        """What is said when the contract breaks because of it."""
        if self.contract == "acyclic":
            return "\n- .sqlite -> .planted "
        module = ".".join(Path(self.own_path).with_suffix("").parts[0 if self.path.startswith("atoma") else 1 :])
        return f"\n- {module} -> " if self.line else f"\n- {module}\n"


ALL = [Plant(name, path, line) for name, plants in PLANTS.items() for path, line in plants]


@pytest.fixture(scope="module")
def said(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mapping[str, str]]:
    """What is said about each contract that is broken in a copy of the tree, by the contract's id."""

    @cache
    def broken(name: str) -> Mapping[str, str]:
        tree = copied(root, tmp_path_factory.mktemp("tree"))
        for plant in ALL:
            if plant.tree == name:
                for path, line in ((plant.own_path, plant.line), *((CYCLE,) if plant.contract == "acyclic" else ())):
                    with (tree / path).open("a", encoding="utf-8") as module:
                        module.write(f"\n{line}\n")
        outcome = lint(tree)
        assert outcome.returncode == 1, outcome.stdout + outcome.stderr
        text = re.sub(r"^- +", "- ", outcome.stdout.partition("Broken contracts")[2], flags=re.MULTILINE)
        ids = {title: id for id, title in contracts(root).items()}
        parts = re.split(r"^(.+)\n-{5,}\n", text, flags=re.MULTILINE)
        return {ids[title]: part for title, part in zip(parts[1::2], parts[2::2], strict=True)}

    return broken


def test_the_tree_keeps_every_contract(root: Path, tmp_path: Path) -> None:
    outcome = lint(copied(root, tmp_path))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize("plant", ALL, ids=lambda plant: f"{plant.contract}: {plant.path}: {plant.line}")
def test_a_planted_violation_breaks_its_contract(plant: Plant, said: Callable[[str], Mapping[str, str]]) -> None:
    assert plant.shown in said(plant.tree)[plant.contract]


def test_every_contract_has_a_planted_violation(root: Path) -> None:
    assert sorted(PLANTS) == sorted(contracts(root))
