"""Opening a device's file as its program would, but without a hub: nothing is sent, and nothing is fetched."""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from atoma.cli import keys
from atoma.client import Client, open_client
from atoma.plugins import Plugin
from atoma.schema import Schema
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.device_files import read_sync
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote


def add_device_file(command: argparse.ArgumentParser) -> None:
    """Add the argument for a device's file to a command."""
    command.add_argument("file", metavar="FILE", help="the device's file; it may be open elsewhere")
    keys.add_option(command)


@asynccontextmanager
async def open_offline(
    options: argparse.Namespace, schema: Schema | None = None, *, plugins: Sequence[Plugin] = ()
) -> AsyncGenerator[Client]:
    """Open a client on the file of a command, which other programs may have open; its writes are sent with their next sync.

    Args:
        options: The options of the command, with the file and its key.
        schema: The application's schema; None takes the file's own declarations, which are enough to move rows as they are stored.
        plugins: Further plugins of the client.

    Raises:
        ConfigurationError: There is no such file.
        StoreError: It is not a device's file, or cannot be read.
    """
    stored = read_sync(options.file, keys.key_of(options))
    made: list[Plugin] = [LocalExecution(SQLiteEngine(options.file, key=keys.secret_of(options))), *plugins]
    if stored.stores and stored.scopes:
        nowhere = Remote(MemoryTransport(MemoryNetwork()))
        made += [nowhere, Sync(stored.stores, stored.scopes, mode="manual")]
    async with open_client(stored.schema if schema is None else schema, plugins=made) as client:
        yield client
