"""Each layer works with nothing importable but what it may know: the rest is not even on the path."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
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
SPI = (*VALUES, "atoma/plugins")
REST = ("atoma.client", "atoma.runtime", "atoma.kernel", "atoma.sync", "atoma.hub", "atoma_stores", "atoma_transports")

PREAMBLE = """
import sys
from dataclasses import dataclass
import trio
from atoma.contracts.execution import (
    ExecutionMeta, OperationContext, QueryRequest, QueryResult, WriteItemResult, WriteOptions,
    WriteRequest, WriteResult, status_of,
)
from atoma.contracts.mutations import Op
from atoma.contracts.policy import Policy
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.ports import Environment
from atoma.schema import Schema, StoreSpec

@dataclass(frozen=True, kw_only=True)
class Note:
    id: str
    text: str = ""

NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)

class Node:
    def __init__(self): self.seen = []
    async def query(self, request):
        self.seen.append(request)
        return QueryResult((StoredRow("1", 1, 0, "main", {"text": "x"}),))
    async def write(self, request):
        self.seen.append(request)
        items = tuple(WriteItemResult(entry.id, True, True, row=dict(entry.values)) for entry in request.entries)
        return WriteResult("confirmed", items)
    execute_query, execute_write = query, write
"""

RUNTIME = """
from atoma.ports.loops import LoopGuard
from atoma.runtime import Runtime
from atoma.runtime.writeback import WriteBack
from atoma.runtime.registry import PolicyNames

async def main():
    port = Node()
    async with trio.open_nursery() as nursery:
        runtime = Runtime(
            SCHEMA, query=port, write=port, writeback=WriteBack(None, frozenset()), live=None,
            names=PolicyNames("here", {}, frozenset({"here"})), environment=Environment(), synced=frozenset(),
            nursery=nursery,
            guard=LoopGuard("the client"),
        )
        notes = runtime.store(NOTES)
        assert (await notes.insert(Note(id="1", text="x"))).value == Note(id="1", text="x")
        await notes.update("1", text="y")
        await notes.upsert(Note(id="1"))
        assert [item.ok for item in await notes.insert_many([Note(id="2"), Note(id="3")])] == [True, True]
        assert await notes.get("1") == Note(id="1", text="x")
        assert [note.id for note in await notes.query()] == ["1"]
        async with runtime.transaction() as tx:
            await tx.store(NOTES).delete("1")
        assert len(port.seen) > 6
"""

KERNEL = """
from atoma.query.plans import every_row
from atoma.kernel import EventDispatch, ExecutionKernel, fallback, node

class Opaque:
    __eq__ = None  # whoever compares or hashes it fails

async def main():
    near, far = Node(), Node()
    value = Opaque()
    async with trio.open_nursery() as nursery:
        kernel = ExecutionKernel(
            SCHEMA, nodes={"near": near, "far": far}, environment=Environment(), events=EventDispatch(),
            nursery=nursery, policies=[Policy("mine", fallback(node("near"), node("far")), node("far"))],
            default="mine",
        )
        entry = Op("create", "notes", "1", {"anything": value})
        result = await kernel.execute_write(WriteRequest((entry,), WriteOptions(), OperationContext("t"), "key"))
        assert far.seen[0].entries[0].values["anything"] is value, "carried, not looked at"
        assert result.items[0].row["anything"] is value
        read = await kernel.execute_query(QueryRequest(every_row("notes"), OperationContext("t")))
        assert [step.node for step in read.meta.path] == ["near"]
"""

ADAPTERS = """
from atoma_transports.adapters import OperationAdapter, ServiceProxy
from atoma_transports.protocol import RemoteOpResult

async def main():
    adapter = OperationAdapter()
    entries = tuple(Op("create", "notes", id, {"text": "x"}, scope="main") for id in "ab")
    request = WriteRequest(entries, WriteOptions(), OperationContext("t"), "key")
    ops = adapter.to_remote_ops(request)
    assert [op.op for op in ops] == list(entries)
    results = [RemoteOpResult(op.index, op.op.id, True, True, 4) for op in reversed(list(ops))]
    back = adapter.from_remote_results(request, results)
    assert ([item.id for item in back.items], back.status, back.meta.source) == (["a", "b"], "confirmed", "remote")
    assert ServiceProxy
"""

SYNC = """
from atoma.contracts.codec import encode
from atoma.contracts.mutations import MutationBody
from atoma.mutations import ops_by_row, rebase
from atoma.sync import Sync

async def main():
    assert Sync([NOTES]).synced_stores == {"notes"}
    body = encode(MutationBody(1, "k", "main", 0, 1, 0, (Op("patch", "notes", "1", {"text": "mine"}),)))
    assert rebase({"text": "theirs"}, ops_by_row(body, SCHEMA)["notes", "1"]) == {"text": "mine"}
"""

HUB = """
from atoma.hub import AllowLoopback
from atoma.hub.admission import check_op
from atoma.hub.conflicts import Seen, decide
from atoma.ports.hub_rows import RowFact
from atoma.ports.service import Peer

async def main():
    assert (await AllowLoopback().verify("", Peer("127.0.0.1", True, "memory"))).subject == "local"
    assert check_op and Seen and decide and RowFact
"""

# layer: what it may know, and what it does with that
LAYERS = {
    "runtime": ((*VALUES, "atoma/mutations", "atoma/runtime"), RUNTIME, {"atoma.runtime"}),
    "kernel": ((*SPI, "atoma/kernel"), KERNEL, {"atoma.kernel"}),
    "adapters": ((*SPI, "transports/atoma_transports"), ADAPTERS, {"atoma_transports"}),
    "sync": ((*SPI, "atoma/mutations", "atoma/sync"), SYNC, {"atoma.sync"}),
    "hub": ((*SPI, "atoma/mutations", "atoma/hub"), HUB, {"atoma.hub"}),
}


def run_alone(root: Path, folder: Path, parts: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` where only ``parts`` of the source can be imported."""
    for part in parts:
        copy_part(root / part, folder / part.removeprefix("transports/"))
    (folder / "atoma/__init__.py").write_text("")
    script = folder / "script.py"
    script.write_text(textwrap.dedent(PREAMBLE) + textwrap.dedent(code), encoding="utf-8")
    # the first entry of sys.path is the script's folder, so that an installed copy stands behind this one
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_runs_with_what_it_may_know_and_loads_nothing_else(root: Path, tmp_path: Path, layer: str) -> None:
    parts, code, own = LAYERS[layer]
    forbidden = [name for name in REST if name not in own]
    end = f"\ntrio.run(main)\nprint([name for name in {forbidden!r} if name in sys.modules])\n"
    outcome = run_alone(root, tmp_path, parts, code + end)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip() == "[]"


def test_a_layer_that_reaches_out_is_seen(root: Path, tmp_path: Path) -> None:
    outcome = run_alone(root, tmp_path, (*VALUES, "atoma/mutations", "atoma/runtime"), "import atoma.kernel")
    assert "No module named 'atoma.kernel'" in outcome.stderr
