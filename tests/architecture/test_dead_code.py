"""Nothing in the product is there for nobody: every function, class and method is used by the product, a test or a page."""

from __future__ import annotations

from pathlib import Path

import pytest
import vulture

FOLDERS = ["atoma", "stores/atoma_stores", "transports/atoma_transports"]
USERS = ["tests", "benchmarks", "examples"]
KINDS = {"function", "method", "property", "class", "import", "unreachable_code"}
# found by name at run time, so that no caller is in sight
CALLED_BY_NAME = [
    "visit_*",
    "do_*",
    "__getattr__",
    "__dir__",
    "__call__",
    "x[A-Z]*",  # methods of a VFS
    "before_task_step",  # an instrument
    "WebSocketHandler",  # a handler is found by its name
    *["SyncBase", "_raise_for_grpc_status", "recv_headers", "recv_trailers", "send_trailing_metadata"],  # grpclib's
    *["_receive_frame", "_receive_goaway_frame"],  # h2's
    *["start_tls", "get_extra_info", "connect_tcp"],  # httpcore2's
    *["action_*", "on_mount", "on_unmount", "on_click", "on_resize", "on__called"],  # Textual's
    *["columnCount", "QPersistentModelIndex"],  # Qt's; the import is for annotations, which are text
]
REGISTERED = ["@CHECKS.add"]
"""A check of the conformance kit is used through its table."""


def unused(product: list[Path], users: list[Path]) -> list[str]:
    """What is defined below `product` and named nowhere below `product` or `users`."""
    finder = vulture.Vulture(ignore_names=CALLED_BY_NAME, ignore_decorators=REGISTERED)
    finder.scavenge([str(path) for path in (*product, *users) if path.exists()])
    found = (item for item in finder.get_unused_code() if item.typ in KINDS)
    return [
        f"{item.filename}:{item.first_lineno} {item.typ} {item.name}"
        for item in found
        if any(Path(item.filename).is_relative_to(folder) for folder in product)
    ]


@pytest.mark.finished
def test_nothing_is_there_for_nobody(root: Path) -> None:
    assert unused([root / folder for folder in FOLDERS], [root / folder for folder in USERS]) == []


@pytest.mark.parametrize(("user", "found"), [("thing.used()", 1), ("thing.used(); thing.spare()", 0)])
def test_an_unused_method_is_seen(tmp_path: Path, user: str, found: int) -> None:
    (tmp_path / "product").mkdir()
    (tmp_path / "product/thing.py").write_text("class Thing:\n    def used(self): ...\n    def spare(self): ...\n")
    (tmp_path / "user.py").write_text(f"from product.thing import Thing\nthing = Thing()\n{user}\n")
    names = unused([tmp_path / "product"], [tmp_path / "user.py"])
    assert len(names) == found
    assert all(name.endswith("method spare") for name in names)
