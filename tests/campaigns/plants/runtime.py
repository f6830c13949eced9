"""Ways to break the runtime, the plugins and the client: A46–A58."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

PLANTS: Final[tuple[Plant, ...]] = (
    Plant(
        "A46",
        "atoma.runtime.flows:ReadFlow.query",
        "result = await self._port.execute_query(request)",
        "await self._port.execute_query(request)\n        result = await self._port.execute_query(request)",
        why="one read asks twice",
    ),
    Plant(
        "A47",
        "atoma.runtime.flows:ReadFlow.get_all",
        'gone = missing if merge == "replace" else ()',
        'gone = missing if merge != "replace" else ()',
        why="the merge policies of get_all change places",
    ),
    Plant(
        "A48",
        "atoma.runtime.applying:ApplyFlow._drop",
        "if tx.base.read(row.store, row.id).shadowed or not self._is_news(row, writeback):",
        "if not self._is_news(row, writeback):",
        why="a complete remote answer deletes rows with pending writes",
    ),
    Plant(
        "A49",
        "atoma.contracts.receipts:await_verdicts",
        "judged.append(WriteItemResult(item.id, ok=False, error=refusal(error.reason, str(error))))",
        "judged.append(item)",
        why="a strict write that the hub refused is told as written",
    ),
    Plant(
        "A50",
        "atoma_transports.adapters.operations:_in_order",
        "if result.id != ids[result.index]:",
        "if False:",
        why="an answer about another row is taken",
    ),
    Plant(
        "A51",
        "atoma.runtime.writeback:WriteBack.write_settled",
        "self.layered.answered(request, result, error)",
        "self.layered.answered(request, result, None)",
        why="the failure of a shown write does not take it back",
    ),
    Plant(
        "A53",
        "atoma.runtime.registry:PolicyNames.resolve",
        "name = asked or self._per_store.get(store, self.default)",
        "name = self._per_store.get(store, asked or self.default)",
        why="a store's own policy overrules the one that was asked for",
    ),
    Plant(
        "A54",
        "atoma.client.context:Planes.undo_all",
        "next(reversed(self._undo))()",
        "next(iter(self._undo))()",
        why="registrations are taken back in the order in which they were made",
    ),
    Plant(
        "A54",
        "atoma.client.context:Planes.register_transport",
        'undo.append(self.register_node(f"{REMOTE_PREFIX}{transport.name}", parts.node))',
        "pass",
        why="a registered transport gives no node",
    ),
    Plant(
        "A54",
        "atoma.client.context:Planes.register_transport",
        "return _all(undo)",
        "return undo[1]",
        why="a transport that is taken back leaves its node behind",
    ),
    Plant(
        "A55",
        "atoma.client.ordering",
        'RETIRED = ("operations",)',
        'RETIRED = ("operation",)',
        why="the retired way in is accepted in silence",
    ),
    Plant(
        "A56",
        "atoma_stores.local:LocalExecution.open",
        'context.register_node("local-write", LocalWriteNode(database))',
        "pass",
        why="local execution alone cannot write",
    ),
    Plant(
        "A57",
        "atoma.kernel.topology:TopologyCheck._check_nodes",
        '"NO_QUERY_NODE", "no node can answer queries", "add LocalExecution(…) or Remote(…) to plugins"',
        '"NO_QUERY_NODE", "no node can answer queries", ""',
        why="a client without plugins is refused without a remedy",
    ),
    Plant(
        "A58",
        "atoma.client.client:_assemble",
        "default=policy,",
        "default=None,",
        why="the policy that the client was opened with is not the default",
    ),
    Plant(
        "A58",
        "atoma.kernel.policy:policies_of_stores",
        "return REPLICATING if store in synced else DEFAULT",
        "return DEFAULT",
        why="adding Sync to a client that named no policy is a start error",
    ),
)
