"""A hub and an inspected client in a program of its own, full of markup in every place that is shown.

It prints its address, and the paths of the inspector that take a POST.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio
from msgspec.structs import replace

from atoma.client import open_client
from atoma.contracts.mutations import Op
from atoma.contracts.policy import Policy
from atoma.contracts.replica import InboxEntry
from atoma.errors import ConnectFailed
from atoma.hub import AllowLoopback, open_hub
from atoma.inspector import Inspected, Inspection, add_inspector
from atoma.kernel import node
from atoma.plugins import Plugin, PluginContext
from atoma.ports import LOCAL_DATABASE, SYNC_LINK, LocalTx, PortKey, SyncService
from atoma.schema import Schema, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.http import HttpHandler
from atoma_transports.serving import open_server

MARKUP = '"><img src=x onerror="window.owned=1"><script>window.owned=1</script>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    board: str = MARKUP


CARDS = StoreSpec("cards", Card, scope="board")
SCHEMA = Schema(CARDS)


class Hostile:
    """Policies, errors and an inbox made of markup."""

    id = MARKUP
    provides: Sequence[PortKey[Any]] = (SYNC_LINK,)
    needs: Sequence[PortKey[Any]] = (LOCAL_DATABASE,)

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_policy(Policy(f"policy {MARKUP}", node("local-query"), None))
        context.provide(SYNC_LINK, self)
        image: dict[str, Any] = {"title": f"inbox {MARKUP}", "board": MARKUP}
        op = Op("create", "cards", MARKUP, {**image})
        entry = InboxEntry(1, "cards", MARKUP, MARKUP, "CONFLICT", f"message {MARKUP}", op, image, image, image, 1, 1)
        mine = {name: f"mine {value}" for name, value in image.items()}
        others = [replace(entry, mid=number, lsn=number, id=f"conflict {number}", mine=mine) for number in (2, 3)]
        for each in (entry, *others):
            await context.require(LOCAL_DATABASE).apply(partial(_keep, each))
        yield

    def connect(self) -> AbstractAsyncContextManager[SyncService]:
        raise ConnectFailed(f"error {MARKUP}")


def _keep(entry: InboxEntry, tx: LocalTx) -> None:
    tx.inbox.add(entry)


async def main(folder: str) -> None:
    eye, handler = Inspection(), HttpHandler()
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(Path(folder) / "a.db")),
        Hostile(),
        eye,
        Sync([CARDS], [MARKUP]),
    ]
    async with (
        open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client,
        open_hub(SCHEMA, SQLiteHubStore(Path(folder) / "hub.db"), verifier=AllowLoopback()) as hub,
    ):
        add_inspector(handler, [Inspected("main", f"client {MARKUP}", client, eye)])
        cards = client.store(CARDS)
        for number in range(3):
            await cards.insert(Card(id=f"{number} {MARKUP}", title=f"title {MARKUP}"))
        await cards.query(policy=f"policy {MARKUP}")
        async with cards.live(), open_server(hub, "127.0.0.1:0", pages=handler) as address:
            print(address, *sorted(path for verb, path in handler._routes.handlers if verb == "POST"), flush=True)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
