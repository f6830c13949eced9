"""A method of the service is one row of one table, and whoever forgets it cannot import what would need it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.copies import copy_part

PORT = Path("atoma/ports/service.py")
TABLE = Path("transports/atoma_transports/adapters/methods.py")
SERVICES = Path("transports/atoma_transports/adapters/services.py")

METHOD = (
    '    async def resolve(self, request: ResolveRequest) -> Resolution:\n        """What became of this',
    '    async def blob(self, request: OpenRequest) -> OpenReply:\n        """Planted."""\n        ...\n\n',
)
ROW = ("METHODS = table_of(SyncService, ", "BLOB = unary(SyncService.blob, OpenRequest, OpenReply)\n")
LISTED = ("METHODS = table_of(SyncService, ", "METHODS = table_of(SyncService, BLOB, ")
LINE = (
    "    async def open(self, request: OpenRequest) -> OpenReply:",
    '    async def blob(self, request: OpenRequest) -> OpenReply:\n        """Planted."""\n'
    "        return await self._ask(METHODS['blob'], request)\n\n",
)


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """A copy of what the table is made of, and of gRPC."""
    for folder in ("atoma", "transports"):
        copy_part(root / folder, tmp_path / folder)
    return tmp_path


def plant(tree: Path, path: Path, anchor: str, new: str) -> None:
    """Put ``new`` before ``anchor``, or in its place when it begins with it."""
    text = (tree / path).read_text(encoding="utf-8")
    assert text.count(anchor) == 1, (path, anchor)
    (tree / path).write_text(text.replace(anchor, new if new.startswith(anchor) else new + anchor), encoding="utf-8")


def imported(tree: Path, module: str) -> str:
    """What ends the import of ``module``; empty when nothing does."""
    paths = os.pathsep.join(str(tree / part) for part in ("", "transports"))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", f"import {module}"]
    outcome = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    return outcome.stderr.strip().rpartition("\n")[2]


STEPS: Mapping[str, tuple[list[tuple[Path, tuple[str, str]]], str, str]] = {
    "a method of the port": (
        [(PORT, METHOD)],
        "atoma_transports.adapters",
        "TypeError: SyncService has blob, for which the table of methods has no row",
    ),
    "and a row that is not in the table": (
        [(PORT, METHOD), (TABLE, ROW)],
        "atoma_transports.adapters",
        "TypeError: SyncService has blob, for which the table of methods has no row",
    ),
    "and a row": (
        [(PORT, METHOD), (TABLE, LISTED), (TABLE, ROW)],
        "atoma_transports.adapters",
        "TypeError: ServiceMethods lacks blob, which the table of methods has",
    ),
    "and its line, with nothing in sync.proto": (
        [(PORT, METHOD), (TABLE, LISTED), (TABLE, ROW), (SERVICES, LINE)],
        "atoma_transports.grpc",
        "TypeError: sync.proto and the table of methods differ in Blob",
    ),
    "all of it, without gRPC": (
        [(PORT, METHOD), (TABLE, LISTED), (TABLE, ROW), (SERVICES, LINE)],
        "atoma_transports.websocket, atoma_transports.http",
        "",
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_method_without_its_row_does_not_import(tree: Path, name: str) -> None:
    plants, module, said = STEPS[name]
    for path, (anchor, new) in plants:
        plant(tree, path, anchor, new)
    assert imported(tree, module) == said
