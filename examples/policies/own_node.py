"""A node of your own: answers queries from a catalogue that ships with the program, when the device knows nothing yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from atoma import Schema, StoreSpec, open_client, select
from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.policy import Policy
from atoma.contracts.values import StoredRow
from atoma.errors import ConnectFailed
from atoma.kernel import fallback, node
from atoma.plugins import Plugin, PluginContext
from atoma.query.evaluate import evaluate
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Airport:
    id: str
    city: str


AIRPORTS = StoreSpec("airports", Airport)
SCHEMA = Schema(AIRPORTS)
BUILT_IN = {"TXL": "Berlin", "LIS": "Lisbon", "NRT": "Tokyo"}


class Catalogue:
    """Rows that never change. Rows travel as columns in storage form, the id beside them.

    ``remote = False`` says where the answer is from; without it the result's own word is taken.
    """

    remote = False

    def __init__(self, cities: Mapping[str, str]) -> None:
        self._cities = dict(cities)
        self.is_open = True

    async def query(self, request: QueryRequest) -> QueryResult:
        """Carry the query out over rows in memory."""
        await trio.lowlevel.checkpoint()
        if not self.is_open:
            raise ConnectFailed("the catalogue is closed")  # retryable: a fallback may go on
        rows = [StoredRow(id, 1, 0, "main", {"city": city}) for id, city in self._cities.items()]
        found = evaluate(request.query, {"airports": rows})
        return QueryResult(tuple(found)) if request.query.plan.whole_rows else QueryResult(tuples=tuple(found))


class Shipped:
    """The plugin: a node, and a policy that uses it."""

    id = "shipped"
    provides = ()
    needs = ()

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncIterator[None]:
        context.register_node("catalogue", self._catalogue)
        context.register_policy(Policy("shipped", query=fallback(node("catalogue"), node("local-query")), write=None))
        yield


async def main() -> None:
    catalogue = Catalogue(BUILT_IN)
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(":memory:")), Shipped(catalogue)]
    async with open_client(SCHEMA, plugins=plugins) as client:
        airports = client.store(AIRPORTS)
        await airports.insert(Airport(id="LIS", city="Lisboa"))
        page = await airports.query(select(AIRPORTS), policy="shipped")
        print([airport.city for airport in page], [step.node for step in page.meta.path])
        print(await airports.get("NRT", policy="shipped"))
        catalogue.is_open = False
        page = await airports.query(policy="shipped")
        print([airport.city for airport in page], [(step.node, step.outcome) for step in page.meta.path])


if __name__ == "__main__":
    trio.run(main)
