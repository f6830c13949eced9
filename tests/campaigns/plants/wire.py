"""Ways to break the adapters, sync and what the phases promise: A59–A62, A64, A66–A73, A75–A82."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

FUTURE = "from __future__ import annotations\n"

PLANTS: Final[tuple[Plant, ...]] = (
    Plant(
        "A59",
        "atoma_transports.http.client.lanes:CallLane.take",
        "batch = CallBatch({call.id: call for call in calls})",
        "batch = CallBatch({call.id: call for call in calls[:1]})",
        why="of the calls of one moment only the first travels",
    ),
    Plant(
        "A60",
        "atoma_transports.grpc.convert:pack",
        "return message.SerializeToString()",
        "return message.SerializeToString()[:-1]",
        why="a gRPC message loses its last byte",
    ),
    Plant(
        "A61",
        "atoma.mutations.deciding:decide",
        "if op.base_version is not None and op.base_version != row.version and not unseen:",
        "if op.base_version is not None and op.base_version > row.version and not unseen:",
        why="compare-and-set takes a version that is older than the row",
    ),
    Plant(
        "A62",
        "atoma.kernel.kernel:ExecutionKernel.execute_write",
        "WriteDispatched(request, at=self._now())",
        "WriteDispatched(WriteRequest(entries[:1], request.options, context, request.idem), at=self._now())",
        why="the event of a write has its first entry only",
    ),
    Plant(
        "A64",
        "atoma.sync.settle:settle",
        "if is_covered(tx, outcome, page, work):",
        "if outcome.seq:",
        why="an accepted write leaves the overlay before its page has come",
    ),
    Plant(
        "A66",
        "atoma_transports.grpc.convert:unpack",
        'return cast("S", twin.part[1](twin.message.FromString(data)))',
        'return cast("S", twin.part[1](twin.message()))',
        why="gRPC answers with empty messages",
    ),
    Plant(
        "A67",
        "atoma.runtime.flows",
        FUTURE,
        f"{FUTURE}\nimport atoma.kernel.types\n",
        why="the runtime cannot be built without the kernel",
    ),
    Plant(
        "A68",
        "atoma.kernel.topology:TopologyCheck._check_nodes",
        'if not any(self._can(id, "query") for id in self._nodes):',
        "if not self._nodes:",
        why="a client that cannot answer a query is told of everything but that",
    ),
    Plant(
        "A69",
        "atoma.contracts.execution:status_of",
        "if ok == len(items)",
        "if ok",
        why="a write of which a part was refused is called confirmed",
    ),
    Plant(
        "A70",
        "atoma.kernel.kernel:ExecutionKernel.topology",
        "self.policies.unavailable(policy.name),",
        '"",',
        why="the topology does not say why a policy cannot be selected",
    ),
    Plant(
        "A71",
        "atoma.kernel._steps:run_fallback",
        "if not side.goes_on(error):",
        "if isinstance(error, WriteUnknown):",
        why="whatever the error, the next way is taken",
    ),
    Plant(
        "A72",
        "atoma.kernel._steps:run_fallback",
        "return await step(request, current)",
        "found = await step(request, current)\n"
        '                if getattr(found, "rows", True) or failed == subjects[-1]:\n'
        "                    return found\n"
        "                continue",
        why="an empty answer means that the next way is taken",
    ),
    Plant(
        "A73",
        "atoma.runtime.results",
        FUTURE,
        f"{FUTURE}\nimport atoma_transports.protocol.operations\n",
        why="the runtime imports the protocol",
    ),
    Plant(
        "A75",
        "atoma.kernel.policy",
        'DEFAULT = "direct-local"',
        'DEFAULT = "direct-remote"',
        why="a client that names no policy asks another machine",
    ),
    Plant(
        "A76",
        "atoma.sync.outbox:OutboxNode.enqueue",
        "if scope not in self._scopes and not tx.scopes.is_brought(scope):",
        'if scope not in self._scopes or any(effect.op.kind == "delete" for effect in effects):',
        why="with sync a row cannot be deleted",
    ),
    Plant(
        "A77",
        "atoma.sync.settle:_remove",
        "work.dirty.update(dict.fromkeys(touched))",
        "pass",
        why="a row whose write was refused stays as the user saw it",
    ),
    Plant(
        "A78",
        "atoma_transports.remote",
        FUTURE,
        f"{FUTURE}\nimport atoma_transports.grpc\n",
        why="every client needs gRPC's libraries",
    ),
    Plant(
        "A79",
        "atoma.runtime.flows:ReadFlow.get_all",
        'own = missing if merge == "preserve-missing" else',
        'own = missing if merge == "upsert-only" else',
        why="upsert-only answers with the rows that the other side lacks",
    ),
    Plant(
        "A80",
        "atoma.kernel.guards:Bulkhead.enter",
        "if self._places.statistics().tasks_waiting >= self._spec.queue:",
        "if self._places.statistics().tasks_waiting > self._spec.queue:",
        why="one more than may waits for a place",
    ),
    Plant(
        "A81",
        "atoma_stores.local",
        FUTURE,
        f"{FUTURE}\nimport atoma_transports.adapters\n",
        why="local work needs the transports",
    ),
    Plant(
        "A82",
        "atoma_transports.adapters.operations:_item",
        "restated(result, WriteItemResult, row=row)",
        'restated(result, WriteItemResult, row=row, error=result.error and type(result.error)("REJECTED", ""))',
        why="the reason of a refused item does not come back",
    ),
)
