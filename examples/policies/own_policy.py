"""A policy of your own: patient with the hub, but only as long as it makes sense; otherwise what this device knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from atoma import AllowLoopback, Schema, StoreSpec, open_client, open_hub
from atoma.contracts.policy import Policy
from atoma.kernel import Backoff, breaker, describe_path, fallback, node, retry, timeout
from atoma.plugins import Plugin, PluginContext
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    id: str
    cents: int


PRICES = StoreSpec("prices", Price, policy="patient")
SCHEMA = Schema(PRICES)

HUB = node("remote-memory")
PATIENT = Policy(
    "patient",
    query=fallback(
        breaker(retry(timeout(HUB, 2), attempts=3, backoff=Backoff(0.01)), failures=3, cooldown_s=30),
        node("local-query"),
    ),
    write=timeout(HUB, 5),
)


class Patience:
    """The plugin that registers it."""

    id = "patience"
    provides = ()
    needs = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncIterator[None]:
        context.register_policy(PATIENT)
        yield


async def main() -> None:
    network = MemoryNetwork()  # a program of your own has WebSocketTransport("wss://…") in its place
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(":memory:")),
        Remote(MemoryTransport(network)),
        Patience(),
    ]
    async with open_client(SCHEMA, plugins=plugins) as client:
        print(client.explain("patient"))
        prices = client.store(PRICES)
        async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub, network.listen(hub):
            await prices.insert(Price(id="tea", cents=300), confirm="strict")
            page = await prices.query()
            print("with a hub:", [price.cents for price in page], page.meta.source)
        for _ in range(2):
            page = await prices.query()
            print("without:", [price.cents for price in page], page.meta.source)
        print(describe_path(page.meta.path).splitlines()[-1].partition(" in ")[0])
        for _ in range(3):
            page = await prices.query()
        print("breaker:", [(guard.kind, guard.state) for guard in client.topology().guards])


if __name__ == "__main__":
    trio.run(main)
