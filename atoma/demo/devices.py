"""A hub and devices with cables to pull: everything real, on loopback."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoma.client import Client, open_client
from atoma.hub import StaticTokenVerifier, open_hub
from atoma.plugins import Plugin
from atoma.schema import Schema
from atoma.sync import Sync
from atoma.testing.cable import Cable, open_cable
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.http import HttpFace
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport

SCOPE = "main"


@dataclass(frozen=True, slots=True)
class Device:
    """One client with a file of its own and a cable of its own.

    Attributes:
        name: What people call it.
        client: The open client.
        cable: Its connection to the hub; ``cut()`` and ``mend()``.
        path: Its database file.
    """

    name: str
    client: Client
    cable: Cable
    path: Path


@asynccontextmanager
async def open_hub_server(
    schema: Schema, path: Path, names: Sequence[str], *, address: str = "127.0.0.1:0", pages: HttpFace | None = None
) -> AsyncGenerator[int]:
    """A hub on ``path``, serving on ``address``, whose port the block gets; ``names`` may connect."""
    verifier = StaticTokenVerifier({_token(name): name for name in names})
    async with open_hub(schema, SQLiteHubStore(path), verifier=verifier) as hub:
        async with open_server(hub, address, pages=pages) as bound:
            yield int(bound.rpartition(":")[2])


@asynccontextmanager
async def open_device(
    schema: Schema, path: Path, name: str, hub_port: int, *, plugins: Sequence[Plugin] = ()
) -> AsyncGenerator[Device]:
    """A device that syncs every store of ``schema`` with the hub behind ``hub_port``, through a cable."""
    async with open_cable(hub_port) as cable:
        transport = WebSocketTransport(f"ws://127.0.0.1:{cable.port}/sync", token=_token(name))
        parts: list[Plugin] = [
            LocalExecution(SQLiteEngine(path)),
            Remote(transport),
            Sync(stores=tuple(schema.stores.values()), scopes=[SCOPE]),
            *plugins,
        ]
        async with open_client(schema, plugins=parts, policy="sync-queue") as client:
            yield Device(name, client, cable, path)


def _token(name: str) -> str:
    return f"demo-token-of-{name}"
