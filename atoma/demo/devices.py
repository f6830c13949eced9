"""Devices with a file and a plug of their own: everything real."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoma.client import Client, open_client
from atoma.demo.wiring import HubServer, Plug, open_plug
from atoma.plugins import Plugin
from atoma.schema import Schema
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.remote import Remote

SCOPE = "main"


@dataclass(frozen=True, slots=True)
class Device:
    """One client with a file of its own and a plug of its own.

    Attributes:
        name: What people call it.
        client: The open client.
        cable: Its connection to the hub; ``cut()`` and ``repair()``.
        path: Its database file.
    """

    name: str
    client: Client
    cable: Plug
    path: Path


@asynccontextmanager
async def open_device(
    schema: Schema, path: Path, name: str, hub: HubServer, *, plugins: Sequence[Plugin] = ()
) -> AsyncGenerator[Device]:
    """A device that syncs every store of ``schema`` with ``hub``, through a plug."""
    async with open_plug(hub, name) as (transport, cable):
        parts: list[Plugin] = [
            LocalExecution(SQLiteEngine(path)),
            Remote(transport),
            Sync(stores=tuple(schema.stores.values()), scopes=[SCOPE]),
            *plugins,
        ]
        async with open_client(schema, plugins=parts, policy="sync-queue") as client:
            yield Device(name, client, cable, path)
