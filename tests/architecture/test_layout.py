"""The files that the design names stand where it says, so that a reader of the design finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

# what the design names: the one module or package that is it
LAYOUT = {
    "execution kernel": "atoma/kernel/kernel.py",
    "kernel types": "atoma/kernel/types.py",
    "kernel policies": "atoma/kernel/policy.py",
    "kernel events": "atoma/kernel/events.py",
    "policy registry": "atoma/runtime/registry.py",
    "read flow": "atoma/runtime/flows.py",
    "write flow": "atoma/runtime/flows.py",
    "write commit flow": "atoma/runtime/flows.py",
    "execution contracts": "atoma/contracts/execution.py",
    "execution ports": "atoma/ports/execution.py",
    "environment": "atoma/ports/environment.py",
    "outbox node": "atoma/sync/outbox.py",
    "push lane": "atoma/sync/push.py",
    "pull lane": "atoma/sync/pull.py",
    "notify lane": "atoma/sync/notify.py",
    "what an operation does": "atoma/mutations/deciding.py",
    "rebase": "atoma/mutations/overlay.py",
    "layers": "atoma/mutations/layers.py",
    "verdicts meeting the overlay": "atoma/sync/settle.py",
    "conflict rules": "atoma/hub/conflicts.py",
    "local nodes": "stores/atoma_stores/local.py",
    "SQLite engine": "stores/atoma_stores/sqlite/engine.py",
    "live queries": "stores/atoma_stores/live",
    "remote nodes": "transports/atoma_transports/remote.py",
    "adapters": "transports/atoma_transports/adapters",
    "protocol": "transports/atoma_transports/protocol",
    "serving": "transports/atoma_transports/serving",
    "memory transport": "transports/atoma_transports/memory",
    "websocket transport": "transports/atoma_transports/websocket",
}
SHIPPED_MARKERS = ["atoma/py.typed", "stores/atoma_stores/py.typed", "transports/atoma_transports/py.typed"]
TOP_LEVEL = [
    "pyproject.toml", "dev.py", "mkdocs.yml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", ".ci/run",
    "docs/tutorial", "docs/how-to", "docs/reference", "docs/explanation", "docs/internals", "docs/adr",
]  # fmt: skip


@pytest.mark.parametrize("path", LAYOUT.values(), ids=LAYOUT.keys())
def test_each_named_part_has_its_place(root: Path, path: str) -> None:
    assert (root / path).is_file() or (root / path / "__init__.py").is_file()


@pytest.mark.parametrize("path", [*TOP_LEVEL, *SHIPPED_MARKERS])
def test_the_repository_has_its_top_level(root: Path, path: str) -> None:
    assert (root / path).exists()
