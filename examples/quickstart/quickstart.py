"""Two devices and a hub that goes away for a while, in one program of one file.

    python examples/quickstart/quickstart.py [FOLDER]

Ada and Bob both write while the hub is away, on the same card too. When it is back, both have the same cards, and what
Bob had typed over Ada's change waits in his inbox. The database files are left in FOLDER to look at.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import trio

from atoma import Client, Schema, StaticTokenVerifier, StoreSpec, Sync, col, new_id, open_client, open_hub, select
from atoma.plugins import Plugin
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A row of the store ``cards``."""

    id: str = field(default_factory=new_id)
    title: str
    lane: Literal["todo", "doing", "done"] = "todo"


CARDS = StoreSpec("cards", Card, conflict="server_wins")
SCHEMA = Schema(CARDS, version=1)
OPEN = select(CARDS).where(col("lane") != "done").order_by("title")
TOKENS = {"the long token of ada": "ada", "the long token of bob": "bob"}
NOWHERE = "127.0.0.1:9"


@asynccontextmanager
async def open_device(folder: Path, name: str, address: str) -> AsyncIterator[Client]:
    """A client that keeps its rows in a file of its own and syncs with the hub at ``address``."""
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(folder / f"{name}.db")),
        Remote(WebSocketTransport(f"ws://{address}/sync", token=f"the long token of {name}")),
        Sync(stores=[CARDS]),
    ]
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
        yield client


async def show(name: str, client: Client) -> None:
    """Print the open cards of a device."""
    page = await client.store(CARDS).query(OPEN)
    cards = ", ".join(f"{card.title} ({card.lane})" for card in page) or "nothing"
    print(f"{name} has {cards}")


@asynccontextmanager
async def open_pair(folder: Path, address: str) -> AsyncIterator[tuple[Client, Client]]:
    """Ada's and Bob's devices."""
    async with open_device(folder, "ada", address) as ada, open_device(folder, "bob", address) as bob:
        yield ada, bob


async def settle(*clients: Client) -> None:
    """Until nobody has anything left to send or to fetch; twice, for what the later one sends the earlier one."""
    with trio.fail_after(60):
        for client in (*clients, *clients):
            await client.sync.wait_idle()


async def main(folder: Path) -> None:
    """Tell the story."""
    verifier = StaticTokenVerifier(TOKENS)
    print("— together")
    async with open_hub(SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=verifier) as hub:
        async with open_server(hub, "127.0.0.1:0") as address, open_pair(folder, address) as (ada, bob):
            await ada.store(CARDS).insert(Card(id="tea", title="Make tea"))
            await settle(ada, bob)
            await show("Bob", bob)

    print("— the hub is away")
    async with open_pair(folder, NOWHERE) as (ada, bob):
        await ada.store(CARDS).update("tea", title="Make green tea")
        await bob.store(CARDS).update("tea", title="Make coffee", lane="doing")
        await bob.store(CARDS).insert(Card(title="Write it down"))
        await show("Ada", ada)
        await show("Bob", bob)

    print("— the hub is back")
    async with open_hub(SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=verifier) as hub:
        async with open_server(hub, "127.0.0.1:0") as address:
            async with open_device(folder, "ada", address) as ada:
                await settle(ada)  # Ada's change is the first at the hub
            async with open_pair(folder, address) as (ada, bob):
                await settle(bob, ada)
                await show("Ada", ada)
                await show("Bob", bob)
                for entry in await bob.inbox.entries():
                    mine, theirs = entry.mine or {}, entry.theirs or {}
                    print(f"Bob's inbox: {mine['title']!r} gave way to {theirs['title']!r} ({entry.code})")
                    await bob.inbox.dismiss(entry)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            trio.run(main, Path(place))
