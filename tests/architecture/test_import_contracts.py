"""The import contracts hold, and each of them breaks when it should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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
ALSO = {"stores/atoma_stores/sqlite/planted.py": "import atoma_stores.planted"}  # closes the planted cycle


def lint(tree: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """What import-linter says about a copy of the tree."""
    only = [word for name in contracts for word in ("--contract", name)]
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    paths = os.pathsep.join(str(tree / part) for part in ("", "stores", "transports"))
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}
    return subprocess.run(
        [*command, "--no-cache", *only], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """A copy of everything that the contracts speak about."""
    for folder in ("atoma", "stores", "transports"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def contract_ids(root: Path) -> list[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return [contract["id"] for contract in project["tool"]["importlinter"]["contracts"]]


def test_the_tree_keeps_every_contract(tree: Path) -> None:
    outcome = lint(tree)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("contract", "path", "line"), [(name, path, line) for name, plants in PLANTS.items() for path, line in plants]
)
def test_a_planted_violation_breaks_its_contract(tree: Path, contract: str, path: str, line: str) -> None:
    for where, what in ((path, line), *(ALSO.items() if contract == "acyclic" else ())):
        with (tree / where).open("a", encoding="utf-8") as module:
            module.write(f"\n{what}\n")
    outcome = lint(tree, contract)
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    broken = outcome.stdout.partition("Broken contracts")[2]
    assert Path(path).stem in broken, outcome.stdout


def test_every_contract_has_a_planted_violation(root: Path) -> None:
    assert sorted(PLANTS) == sorted(contract_ids(root))
