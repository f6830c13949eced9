"""Ways to break the contracts of the execution ports: A19–A26."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

WRITEBACKS = "tests/unit/sync/test_writebacks.py"

PLANTS: Final[tuple[Plant, ...]] = (
    Plant(
        "A19",
        "atoma.runtime.flows:WriteCommitFlow.commit",
        "await self._port.execute_write(request)",
        "await self._port.write(request)",
        why="the runtime calls a method that the port does not promise",
    ),
    Plant(
        "A20",
        "atoma.contracts.execution:QueryRequest",
        "class QueryRequest(msgspec.Struct, frozen=True):",
        "class QueryRequest(msgspec.Struct):",
        why="a request can be changed on its way",
    ),
    Plant(
        "A23",
        "atoma.contracts.execution:status_of",
        'else "partial" if ok else "rejected"',
        'else "partial"',
        why="a write of which nothing was taken is called partial",
    ),
    Plant(
        "A23",
        "atoma.mutations.layers:_show",
        ", decided=False)",
        ")",
        why="a write that is shown and that nobody has decided is called confirmed",
    ),
    Plant(
        "A24",
        "atoma_transports.adapters.operations:OperationAdapter.to_remote_ops",
        "RemoteOp(index, op=op)",
        "RemoteOp(index, op=type(op)(op.kind, op.store, op.id, op.values, op.defaults, scope=op.scope))",
        why="the version that the caller saw does not travel",
    ),
    Plant(
        "A24",
        "atoma_transports.protocol.operations:operation",
        "return replace(op, values=image(op.values), defaults=image(op.defaults), edits=edits)",
        "return replace(op, values=image(op.values), defaults={}, edits=edits)",
        why="the defaults of a merging upsert do not arrive",
    ),
    Plant(
        "A25",
        "atoma.kernel._steps:run_node",
        'end(events, execution, id, "cancelled", started, clock())\n            raise',
        'end(events, execution, id, "cancelled", started, clock())\n            with trio.CancelScope(shield=True):\n                return await call(request)',
        why="a cancelled write is done all the same",
    ),
    Plant(
        "A26",
        "atoma_stores.sqlite._rows:ConfirmedRows._put_clean",
        "if before is not None and before.image == image and before.scope == scope:",
        "if before is not None and before.seq == seq and before.scope == scope:",
        why="a row that comes again under a later sequence is told as a change",
    ),
    Plant(
        "A26",
        "atoma.sync.staging:LivePage.stage",
        "raise Voided",
        "pass",
        why="a page that comes late is taken over again",
        tests=(f"{WRITEBACKS}::test_a_page_is_taken_over_once_and_an_older_one_never_again",),
    ),
    Plant(
        "A26",
        "atoma.sync.staging:LivePage.stage",
        "raise Voided",
        "return Settlement()",
        why="the rows of a page that comes late are taken over, and the cursor stays",
        tests=(f"{WRITEBACKS}::test_a_page_that_comes_too_early_leaves_no_row_behind",),
    ),
    Plant(
        "A26",
        "atoma.sync.writebacks:ReplicationPart.stage",
        "if not isinstance(change, CHANGES):",
        "if callable(change):\n            return change(tx)\n        if False:",
        why="a function of a caller runs in the transaction of the apply port",
        tests=(f"{WRITEBACKS}::test_nothing_but_what_replication_knows_is_carried_out",),
    ),
)
