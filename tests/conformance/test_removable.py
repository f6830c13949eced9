"""A transport can be taken away: its folder and its library gone, everything else works. And no asyncio, anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.copies import copy_part

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"atoma": "atoma", "atoma_stores": "stores/atoma_stores", "atoma_transports": "transports/atoma_transports"}

PROGRAM = """
import sys, tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

{before}

import trio
from atoma import AllowLoopback, select, Schema, StoreSpec, Sync, open_client, open_hub
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server

@dataclass(frozen=True, kw_only=True)
class Card:
    id: str
    title: str

CARDS = StoreSpec("cards", Card)
SCHEMA = Schema(CARDS)

def transport_of(kind, network, address):
    if kind == "memory":
        return MemoryTransport(network)
    if kind == "websocket":
        from atoma_transports.websocket import WebSocketTransport
        return WebSocketTransport(f"ws://{{address}}/sync")
    if kind == "grpc":
        from atoma_transports.grpc import GrpcTransport
        return GrpcTransport(address)
    from atoma_transports.http.client import HttpTransport
    return HttpTransport(f"http://{{address}}")

def open_side(folder, name, transport, policy):
    plugins = [LocalExecution(SQLiteEngine(f"{{folder}}/{{name}}.db")), Remote(transport)]
    if policy == "sync-queue":
        plugins.append(Sync(stores=[CARDS]))
    return open_client(SCHEMA, plugins=plugins, policy=policy)

async def shown(client):
    return [(card.id, card.title) for card in await client.store(CARDS).query(select(CARDS).order_by("id"))]

async def carry(kind, network, address, folder):
    def transport(): return transport_of(kind, network, address)
    async with (
        open_side(folder, kind + "-direct", transport(), "direct-remote") as direct,
        open_side(folder, kind + "-synced", transport(), "sync-queue") as synced,
    ):
        await direct.store(CARDS).insert(Card(id="a", title="one"), confirm="strict")
        await direct.store(CARDS).update("a", title="two", confirm="strict")
        handle = await synced.store(CARDS).insert(Card(id="b", title="three"))
        await handle.observed()
        while await shown(synced) != await shown(direct):
            await trio.sleep(0.02)
        assert await shown(direct) == [("a", "two"), ("b", "three")]
        await direct.store(CARDS).delete_many(["a", "b"], confirm="strict")
    print("carried", kind)

async def main():
    with trio.fail_after(60), tempfile.TemporaryDirectory() as folder:
        network = MemoryNetwork()
        async with (
            open_hub(SCHEMA, SQLiteHubStore(f"{{folder}}/hub.db"), verifier=AllowLoopback()) as hub,
            network.listen(hub),
            AsyncExitStack() as stack,
        ):
            address = await stack.enter_async_context(open_server(hub, "127.0.0.1:0")) if {kinds}[1:] else ""
            for kind in {kinds}:
                await carry(kind, network, address, folder)

trio.run(main)
{after}
"""

BLOCK = """
BLOCKED = {names}

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED or name in BLOCKED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Gone())
"""

NO_LOOP = """
import asyncio

def refuse(*_arguments, **_named):
    raise RuntimeError("an asyncio event loop was asked for")

asyncio.new_event_loop = refuse
asyncio.BaseEventLoop.__init__ = refuse
"""


def run(program: str, folder: Path, path: str) -> str:
    script = folder / "program.py"
    script.write_text(textwrap.dedent(program), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(script)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


HTTP_LIBRARIES = {"httpcore2", "httpx2", "httpcore", "httpx"}
GONE = {
    # what is deleted; which libraries cannot be imported; what still has to work
    "grpc": (["grpc"], {"grpclib", "h2", "hpack", "hyperframe", "google"}, ["memory", "websocket", "http"]),
    "http": (["http"], HTTP_LIBRARIES, ["memory", "websocket", "grpc"]),
    "websocket": (["websocket"], {"trio_websocket", "wsproto"}, ["memory", "grpc", "http"]),
    # the library of WebSocket needs h11 as well
    "http and websocket": (["http", "websocket"], {"h11", "trio_websocket", *HTTP_LIBRARIES}, ["memory", "grpc"]),
    "all three": (["grpc", "http", "websocket"], {"grpclib", "h2", "h11", "trio_websocket"}, ["memory"]),
}


@pytest.mark.parametrize("gone", GONE)
def test_everything_else_works_without(gone: str, tmp_path: Path) -> None:
    folders, libraries, kinds = GONE[gone]
    copy = tmp_path / "copy"
    for name, source in PACKAGES.items():
        copy_part(ROOT / source, copy / name)
    for folder in folders:
        shutil.rmtree(copy / "atoma_transports" / folder)
    before = BLOCK.format(names=repr(libraries))
    after = f"""
import atoma_transports
assert Path(atoma_transports.__file__).is_relative_to({str(copy)!r}), atoma_transports.__file__
assert not {{name.partition(".")[0] for name in sys.modules}} & {libraries!r}
"""
    told = run(PROGRAM.format(before=before, kinds=kinds, after=after), tmp_path, str(copy))
    assert told.split() == [word for kind in kinds for word in ("carried", kind)]


def test_a_hub_and_its_clients_need_no_asyncio_loop(tmp_path: Path) -> None:
    kinds = ["memory", "websocket", "grpc", "http"]
    path = os.pathsep.join(str(ROOT / source.rpartition("/")[0]) for source in PACKAGES.values())
    told = run(PROGRAM.format(before=NO_LOOP, kinds=kinds, after=""), tmp_path, path)
    assert told.split() == [word for kind in kinds for word in ("carried", kind)]


def test_the_refusal_of_a_loop_would_be_seen(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="an asyncio event loop was asked for"):
        run(f"{NO_LOOP}\nasync def main(): pass\nasyncio.run(main())\n", tmp_path, "")


def test_a_library_that_is_gone_would_be_missed(tmp_path: Path) -> None:
    path = os.pathsep.join(str(ROOT / source.rpartition("/")[0]) for source in PACKAGES.values())
    before = BLOCK.format(names=repr({"trio_websocket"}))
    with pytest.raises(AssertionError, match="trio_websocket is not installed: pip install"):
        run(PROGRAM.format(before=before, kinds=["websocket"], after=""), tmp_path, path)
