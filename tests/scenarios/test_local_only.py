"""An application without a network: everything works, nothing of the wire is loaded, nothing is encoded for it."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from atoma import Client, Insert, Reset, Schema, StoreSpec, col, new_id, open_client, select
from atoma.plugins import Plugin
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str
    rank: int = 0


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


async def use_everything(client: Client) -> None:
    """Every way to read and write a store."""
    notes = client.store(NOTES)
    async with notes.live(select(NOTES).where(col("rank") > 0)) as batches:
        first = await anext(batches)
        assert isinstance(first.changes[0], Reset)
        await notes.insert(Note(id="1", text="one", rank=1))
        second = await anext(batches)
        assert isinstance(second.changes[0], Insert)
    await notes.insert_many([Note(id="2", text="two"), Note(id="3", text="three", rank=3)])
    await notes.update("2", rank=2)
    await notes.upsert({"id": "2", "text": "zwei"})
    await notes.delete("3")
    async with client.transaction() as tx:
        await tx.store(NOTES).insert(Note(id="4", text="four", rank=4))
        await tx.store(NOTES).delete("1")
    assert [(note.id, note.text, note.rank) for note in await notes.query(select(NOTES).order_by("-rank"))] == [
        ("4", "four", 4),
        ("2", "zwei", 2),
    ]
    assert (await notes.count(), await notes.exists("1"), await notes.get_many(["4"])) == (
        2,
        False,
        [Note(id="4", text="four", rank=4)],
    )


def coding_functions() -> list[tuple[types.ModuleType | type, str]]:
    """Whatever turns requests into operations, messages and frames, or back, under every name it has."""
    verbs = ("encode", "decode", "pack", "unpack", "to_remote", "from_remote")
    found: list[tuple[types.ModuleType | type, str]] = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "atoma_transports" or module is None:
            continue
        owners: list[types.ModuleType | type] = [module]
        owners += [value for value in vars(module).values() if isinstance(value, type)]
        for owner in owners:
            if isinstance(owner, type) and not str(owner.__module__).startswith("atoma_transports"):
                continue
            found += [
                (owner, attribute)
                for attribute, value in vars(owner).items()
                if attribute.startswith(verbs) and isinstance(value, types.FunctionType)
            ]
    return found


async def test_direct_local_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    targets = coding_functions()
    names = {attribute for _, attribute in targets}
    assert {"encode_frame", "decode_frame", "to_remote_ops", "from_remote_results", "pack_rows", "encode"} <= names
    for owner, attribute in targets:

        def refuse(*_: object, attribute: str = attribute, **__: object) -> object:
            calls.append(attribute)
            raise AssertionError(f"{attribute} was called")

        monkeypatch.setattr(owner, attribute, refuse)
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(tmp_path / "a.db")), Remote(MemoryTransport(MemoryNetwork()))]
    async with open_client(SCHEMA, plugins=plugins) as client:
        assert client.topology().default == "direct-local"
        await use_everything(client)
        assert calls == []


async def test_the_remote_way_does_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same functions, refused, do stop a remote write."""
    from atoma.hub import AllowLoopback, open_hub
    from atoma_stores.sqlite.hub_store import SQLiteHubStore
    from atoma_transports.adapters import OperationAdapter

    def refuse(*_: object) -> object:
        raise LookupError("encoded")

    network = MemoryNetwork()
    monkeypatch.setattr(OperationAdapter, "to_remote_ops", refuse)
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(":memory:")), Remote(MemoryTransport(network))]
    async with (
        open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub,
        network.listen(hub),
        open_client(SCHEMA, plugins=plugins) as client,
    ):
        with trio.fail_after(60), pytest.raises(Exception, match="encoded"):
            await client.store(NOTES).insert(Note(text="x"), policy="direct-remote", confirm="strict")


def test_local_work_needs_no_transport_on_the_machine(tmp_path: Path) -> None:
    """No adapter, no protocol and none of their libraries can be imported, and none is asked for."""
    code = f"""
import sys
for name in ("atoma_transports", "trio_websocket", "wsproto", "h11", "grpclib"):
    sys.modules[name] = None  # importing it raises
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
import trio
"""
    whole = Path(__file__).read_text(encoding="utf-8")
    kept = whole.partition("def coding_functions")[0].replace("from atoma_transports", "# from atoma_transports")
    kept = kept.replace("from __future__ import annotations\n", "").replace("import pytest\n", "")
    script = tmp_path / "script.py"
    script.write_text(
        code
        + kept
        + """
async def main():
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine("a.db"))]) as client:
        await use_everything(client)

trio.run(main)
print(sorted(name for name, module in sys.modules.items() if name.startswith("atoma_transports.") and module))
""",
        encoding="utf-8",
    )
    outcome = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip() == "[]"
