"""A program: carries out operations that have a note, and says where the note was seen.

It runs in a copy of the tree whose operation has that field, see ``test_one_operation.py``, and prints a JSON object: path → the
notes that were seen there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
from msgspec.structs import replace

import atoma.hub.direct
import atoma.hub.pushing
import atoma.mutations.overlay
import atoma.runtime.store
import atoma.runtime.transaction
import atoma_stores.local
from atoma import StaticTokenVerifier, StoreSpec, open_client, open_hub
from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
from atoma.contracts.mutations import MutationBody
from atoma.mutations.layers import lay
from atoma.plugins import Plugin
from atoma.ports.keys import LOCAL_DATABASE
from atoma.ports.service import Principal
from atoma.runtime.flows import insert_entry, update_entry
from atoma.schema import Schema
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.adapters import OperationAdapter
from atoma_transports.adapters.operations import write_request
from atoma_transports.grpc.convert import pack, unpack
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.protocol import WriteCall
from atoma_transports.protocol.json_mapping import decode_json, encode_json
from atoma_transports.remote import Remote

SEEN: defaultdict[str, set[str]] = defaultdict(set)


@dataclass(frozen=True, kw_only=True)
class Page:
    id: str
    text: str = ""


PAGES = StoreSpec("pages", Page)
SCHEMA = Schema(PAGES)


def noted(op: Any, note: str) -> Any:
    return replace(op, note=note)


def watch(module: Any, name: str, path: str) -> None:
    """Note what the operation carries that is the first argument of a function."""
    original: Callable[..., Any] = getattr(module, name)

    def watched(op: Any, *rest: Any) -> Any:
        SEEN[path].add(op.note)
        return original(op, *rest)

    setattr(module, name, watched)


def give(module: Any, note: str) -> None:
    """Let what ``module`` inserts carry ``note``."""
    module.insert_entry = lambda spec, item: noted(insert_entry(spec, item), note)


class Probe:
    """Reaches the local database."""

    id = "probe"
    provides: Sequence[Any] = ()
    needs: Sequence[Any] = (LOCAL_DATABASE,)
    database: Any = None

    @asynccontextmanager
    async def open(self, context: Any) -> AsyncGenerator[None]:
        self.database = context.require(LOCAL_DATABASE)
        yield

    async def pending(self, id: str) -> set[str]:
        """The notes in the pending mutations on a row."""
        found = await self.database.inspect(lambda tx: tx.outbox.on_row("pages", id))
        return {note_of(op) for item in found for op in decode(item.body, MutationBody).ops}


def note_of(op: Any) -> str:
    note: str = op.note
    return note


def unit(op: Any) -> WriteRequest:
    return WriteRequest((op,), WriteOptions(), OperationContext("t"), f"key of {op.note}")


def travelled(request: WriteRequest) -> WriteRequest:
    """``request`` as it comes out of the wire, whose encodings are all looked at."""
    call = WriteCall(OperationAdapter().to_remote_ops(request), request.idem, request.options)
    arrived = {
        "MessagePack": decode(encode(call), WriteCall),
        "JSON": decode_json(encode_json(call), WriteCall),
        "gRPC": unpack(pack(call), WriteCall),
    }
    for name, one in arrived.items():
        SEEN[f"wire: {name}"] = {note_of(op) for op in write_request(one, 5.0).entries}
    return write_request(arrived["gRPC"], 5.0)


async def main() -> None:
    probe, network = Probe(), MemoryNetwork()
    verifier = StaticTokenVerifier({"token": "ann"})
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(":memory:")), Remote(MemoryTransport(network, token="token")), Sync([PAGES]), probe
    ]  # fmt: skip
    async with open_client(SCHEMA, plugins=plugins) as client:
        pages = client.store(PAGES)
        watch(atoma_stores.local, "decide", "local write")
        give(atoma.runtime.store, "inserted")
        handle = await pages.insert(Page(id="a"))
        SEEN["outbox"] = await probe.pending("a")
        give(atoma.runtime.transaction, "in a transaction")
        async with client.transaction() as tx:
            await tx.store(PAGES).insert(Page(id="b"))
        SEEN["transaction"] = await probe.pending("b")
        watch(atoma.hub.pushing, "decide", "hub: push")
        watch(atoma.hub.direct, "decide", "hub: direct")
        async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=verifier) as hub, network.listen(hub):
            await handle.observed()
            await probe.database.apply(lambda tx: lay(tx, unit(noted(update_entry(PAGES, "a", {}, None), "laid"))))
            SEEN["overlay"] = await probe.pending("a")
            watch(atoma.mutations.overlay, "replay", "page")
            request = travelled(unit(noted(update_entry(PAGES, "a", {"text": "theirs"}, None), "sent")))
            result = await hub.service(Principal("ann")).write(request)
            assert result.status == "confirmed", result
            while "page" not in SEEN:
                await trio.sleep(0.01)


async def bounded() -> None:
    with trio.fail_after(60):
        await main()


trio.run(bounded)
print(json.dumps({path: sorted(notes) for path, notes in SEEN.items()}))
