"""A combinator of your own: asks a second node beside the first, answers with the first, and tells when they disagree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from atoma import AllowLoopback, Schema, StoreSpec, open_client, open_hub
from atoma.contracts.execution import QueryResult
from atoma.contracts.policy import Combinator, Policy, Req, Res
from atoma.errors import AtomaError
from atoma.kernel import node
from atoma.plugins import Plugin, PluginContext
from atoma.ports.tasks import open_tasks
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    id: str
    value: float


RATES = StoreSpec("rates", Rate)
SCHEMA = Schema(RATES)


@dataclass(frozen=True)
class Compare:
    """Runs both steps at once. A combinator is a frozen value, so that policies can be compared and hashed.

    Attributes:
        first: Its answer is given.
        second: Its answer is only compared; its failure harms nobody.
        report: Told about a difference.
    """

    first: Combinator
    second: Combinator
    report: Callable[[str], None]
    label: str = "compare"
    nodes: tuple[str, ...] = ()

    @property
    def children(self) -> Sequence[Combinator]:
        return (self.first, self.second)

    async def run(self, request: Req, steps: Sequence[Callable[[Req], Awaitable[Res]]]) -> Res:
        """``steps`` are the compiled children; they fill the trail. Cancelling ends both, the nursery sees to it."""
        other: list[Res] = []

        async def ask_second() -> None:
            try:
                other.append(await steps[1](request))
            except AtomaError as error:
                self.report(f"nothing to compare with: {error.code}")

        async with open_tasks() as nursery:
            nursery.start_soon(ask_second)
            answer = await steps[0](request)
        for compared in other:
            if isinstance(answer, QueryResult) and isinstance(compared, QueryResult):
                ours, theirs = ({row.id: row.image for row in one.rows} for one in (answer, compared))
                if ours != theirs:
                    self.report(
                        f"they disagree about {sorted(id for id in ours | theirs if ours.get(id) != theirs.get(id))}"
                    )
        return answer


class Comparing:
    """The plugin that registers a policy with it."""

    id = "comparing"
    provides = ()
    needs = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncIterator[None]:
        both = Compare(node("local-query"), node("remote-memory"), print)
        context.register_policy(Policy("comparing", query=both, write=None))
        yield


async def main() -> None:
    network = MemoryNetwork()
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(":memory:")),
        Remote(MemoryTransport(network)),
        Comparing(),
    ]
    async with open_client(SCHEMA, plugins=plugins) as client:
        print(client.explain("comparing"))
        rates = client.store(RATES)
        async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub, network.listen(hub):
            await rates.insert(Rate(id="EUR", value=1.0), policy="direct-remote", confirm="strict")
            await rates.query(policy="comparing")
            await rates.update("EUR", policy="direct-local", value=1.5)
            page = await rates.query(policy="comparing")
            print([rate.value for rate in page], sorted(step.node for step in page.meta.path))
        page = await rates.query(policy="comparing")
        print([rate.value for rate in page], page.meta.source)


if __name__ == "__main__":
    trio.run(main)
