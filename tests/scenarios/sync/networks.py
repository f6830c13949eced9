"""A hub and devices on a network in memory, where connections have tokens, bounds, and frames that may be damaged."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from atoma.hub import StaticTokenVerifier, open_hub
from atoma.sync import Sync
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

TOKENS = {"secret": "ann", "other": "bob"}


@asynccontextmanager
async def serving(world: Any, network: MemoryNetwork, **options: Any) -> AsyncGenerator[Any]:
    options = {"verifier": StaticTokenVerifier(TOKENS), "environment": world.environment("hub"), **options}
    store = SQLiteHubStore(world.folder / "hub.db")
    async with open_hub(world.schema, store, **options) as hub, network.listen(hub):
        yield hub


@asynccontextmanager
async def device(
    world: Any,
    network: MemoryNetwork,
    name: str,
    token: Any = "secret",
    faults: Any = None,
    scopes: Sequence[str] = ("main",),
) -> AsyncGenerator[Any]:
    transport = MemoryTransport(network, token=token, site=name, faults=faults)
    plugins = (Remote(transport), Sync(world.SYNCED, scopes))
    async with world.open_device(name, plugins=plugins, policy="sync-queue") as opened:
        yield opened
