"""The processes of the kill tests: a hub, a writer that reports every write that has returned, one that drains,
and a hub that kills itself, as kill -9 does, before or after it commits a direct write whose text asks for it.

programs.py hub FILE PORT
programs.py mortal FILE PORT
programs.py writer FILE PORT NAME BUG
programs.py drain FILE PORT
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import trio

from atoma.client import Client, open_client
from atoma.hub import AllowLoopback, open_hub
from atoma.hub.direct import WriteDecision
from atoma.plugins import Plugin
from atoma.ports import Environment
from atoma.ports.hub import Decision, HubDatabase, HubStore, WritePlan
from atoma.schema import Schema, StoreSpec
from atoma.sync import Sync
from atoma.testing.simulation import plant
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)
DRAIN_S = 120


@dataclass(frozen=True)
class Mortal:
    """A hub's database that does not survive some writes."""

    database: HubDatabase

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)

    async def run(self, decisions: Sequence[Decision], *rest: Any) -> Sequence[WritePlan]:
        texts = {
            entry.values.get("text")
            for decision in decisions
            if isinstance(decision, WriteDecision)
            for entry in decision.entries
        }
        if "die before" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        plans = await self.database.run(decisions, *rest)
        if "die after" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        return plans


@dataclass(frozen=True)
class MortalStore:
    """The file of a hub that does not survive some writes."""

    store: SQLiteHubStore

    @asynccontextmanager
    async def open_hub_database(self, schema: Schema, environment: Environment) -> AsyncGenerator[HubDatabase]:
        async with self.store.open_hub_database(schema, environment) as database:
            yield cast("HubDatabase", Mortal(database))


async def run_hub(file: str, port: int, mortal: bool) -> None:
    store: HubStore = MortalStore(SQLiteHubStore(file)) if mortal else SQLiteHubStore(file)
    async with open_hub(SCHEMA, store, verifier=AllowLoopback()) as hub:
        async with open_server(hub, f"127.0.0.1:{port}") as bound:
            print(bound, flush=True)
            await trio.sleep_forever()


@asynccontextmanager
async def client_on(file: str, port: int) -> AsyncGenerator[Client]:
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(file)),
        Remote(WebSocketTransport(f"ws://127.0.0.1:{port}/sync")),
        Sync(stores=[NOTES]),
    ]
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
        yield client


async def write(file: str, port: int, name: str) -> None:
    """Write without end: single rows, changes of them, pairs in a transaction; the text of a row names its write."""
    async with client_on(file, port) as client:
        notes = client.store(NOTES)
        last = ""
        for number in count(1):
            token = f"{name}.{number}"
            if number % 5 == 0:
                async with client.transaction() as tx:
                    await tx.store(NOTES).insert(Note(id=f"{token}a", text=token))
                    await tx.store(NOTES).insert(Note(id=f"{token}b", text=token))
            elif number % 5 == 1 and last:
                await notes.update(last, text=token)
            else:
                last = (await notes.insert(Note(id=token, text=token))).id
            print(token, flush=True)


async def drain(file: str, port: int) -> None:
    async with client_on(file, port) as client:
        with trio.fail_after(DRAIN_S):
            await client.sync.wait_idle()


def main(role: str, file: str, port: str, *rest: str) -> None:
    if role in ("hub", "mortal"):
        trio.run(run_hub, file, int(port), role == "mortal")
    elif role == "drain":
        trio.run(drain, file, int(port))
    else:
        name, bug = rest
        with plant(bug):
            trio.run(write, file, int(port), name)


if __name__ == "__main__":
    main(*sys.argv[1:])
