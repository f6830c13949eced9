"""Ways to break the goals and the layering: A01–A18."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

FUTURE = "from __future__ import annotations\n"

PLANTS: Final[tuple[Plant, ...]] = (
    Plant(
        "A01",
        "atoma.kernel.merging",
        FUTURE,
        f"{FUTURE}\nimport atoma.sync.settle\n",
        why="the kernel knows the sync orchestrator",
    ),
    Plant(
        "A02",
        "atoma.runtime.flows",
        FUTURE,
        f"{FUTURE}\nimport atoma_transports.protocol\n",
        why="the runtime knows the protocol's types",
    ),
    Plant(
        "A03",
        "atoma.kernel.merging",
        FUTURE,
        f"{FUTURE}\nimport atoma.runtime.results\n",
        why="the kernel knows what a store's results mean",
    ),
    Plant(
        "A04",
        "atoma_transports.adapters.operations",
        FUTURE,
        f"{FUTURE}\nimport atoma.runtime.results\n",
        why="an adapter reaches into the runtime",
    ),
    Plant(
        "A04",
        "atoma_transports.adapters.operations:_in_order",
        "places[result.index] = result",
        "places[results.index(result)] = result",
        why="results are taken in the order in which they come",
    ),
    Plant(
        "A05",
        "atoma.sync.settle",
        FUTURE,
        f"{FUTURE}\nimport atoma.runtime.results\n",
        why="sync reaches into the runtime past its ports",
    ),
    Plant(
        "A06",
        "atoma_stores.local:LocalWriteNode.write",
        "return await self._database.commit(request, [self])",
        "from atoma_transports.adapters import OperationAdapter\n\n        OperationAdapter().to_remote_ops(request)\n"
        "        return await self._database.commit(request, [self])",
        why="a purely local write is encoded for a wire",
    ),
    Plant(
        "A07",
        "atoma.client.client:_set_up",
        "planes.owner = plugin.id",
        'planes.owner = "client"',
        why="what a plugin adds is shown as the client's own",
    ),
    Plant(
        "A09",
        "atoma.kernel.topology:TopologyCheck.check",
        "if self.problems:",
        "if self.problems and self.policies is None:",
        why="a client without nodes opens and answers nothing",
    ),
    Plant(
        "A10",
        "atoma.sync.plugin",
        "context.register_node(OUTBOX_NODE",
        'context.register_node("outbox-2"',
        why="sync registers another node than its outbox",
    ),
    Plant(
        "A11",
        "atoma_transports.adapters.operations:_in_order",
        "if places[result.index] is not None:",
        "if places[result.index] is None:",
        why="only transports that are ours can carry a write",
    ),
    Plant(
        "A12",
        "atoma.kernel.outcomes:QuerySide.goes_on",
        'return classify(error) == "retryable"',
        'return classify(error) in ("retryable", "rejected")',
        why="a refusal is hidden behind a fallback",
    ),
    Plant(
        "A13",
        "atoma_transports.http.envelope:BatchCall",
        "trace_id: str",
        "trace: str",
        why="HTTP calls the trace of a call by another name than everybody else",
    ),
    Plant(
        "A15",
        "atoma",
        '    "open_client",\n',
        '    "open_client",\n    "open_database",\n',
        why="one object has two public names",
    ),
    Plant(
        "A16",
        "atoma_transports.adapters.operations",
        FUTURE,
        f"{FUTURE}\nimport atoma\n",
        why="an adapter imports the root package",
    ),
    Plant(
        "A17",
        "atoma.runtime.flows",
        FUTURE,
        f"{FUTURE}\nimport atoma_stores.local\n",
        why="the runtime imports a plugin",
    ),
    Plant(
        "A18",
        "atoma.runtime",
        "__all__ = [",
        'RuntimeStoreWriteResultPage = Store\n__all__ = [\n    "RuntimeStoreWriteResultPage",',
        why="a public name repeats its package and is a sentence",
    ),
)
