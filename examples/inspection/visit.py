from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from model import CHECKS, SCHEMA, Check, plugins

from atoma import Client, StaticTokenVerifier, open_client, open_hub
from atoma_stores.sqlite import SQLiteHubStore
from atoma_transports.serving import open_server

TOKENS = {"the long token of ada": "ada", "the long token of ben": "ben"}


@asynccontextmanager
async def device(name: str, hub: str) -> AsyncIterator[Client]:
    parts = plugins(f"{name}.db", f"ws://{hub}/sync", f"the long token of {name}")
    async with open_client(SCHEMA, plugins=parts, policy="sync-queue") as client:
        yield client


async def main() -> None:
    async with open_hub(SCHEMA, SQLiteHubStore("hub.db"), verifier=StaticTokenVerifier(TOKENS)) as hub:
        async with open_server(hub, "127.0.0.1:0") as address:
            async with device("ada", address) as ada:
                await ada.store(CHECKS).insert(Check(id="rail", what="Handrail of the bridge"))
                await ada.sync.wait_idle()
            async with device("ben", address) as ben:
                await ben.sync.wait_idle()
                print("ben has", [check.what for check in await ben.store(CHECKS).query()])

            async with device("ada", "127.0.0.1:9") as ada, device("ben", "127.0.0.1:9") as ben:  # nobody is there
                await ada.store(CHECKS).update("rail", state="fault")
                await ben.store(CHECKS).update("rail", state="fine", what="Handrail, both sides")
                print("ben waits with", len(await ben.sync.outbox.entries()))

            for name in ("ada", "ben"):  # in this order they come back to where there is a network
                async with device(name, address) as client:
                    await client.sync.wait_idle()
                    check = await client.store(CHECKS).get("rail")
                    assert check is not None
                    print(name, "has", check.what, "·", check.state)
                    for entry in await client.inbox.entries():
                        mine, theirs = entry.mine or {}, entry.theirs or {}
                        print(name, "is asked:", mine["state"], "or", theirs["state"])
                        await client.inbox.keep_mine(entry)
                        await client.sync.wait_idle()


trio.run(main)
