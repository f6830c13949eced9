"""Rows that were there before their store was synced: queued as creates, so that the first snapshot keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
from atoma.contracts.mutations import Effect, Op
from atoma.contracts.values import StoredRow
from atoma.ports.local import LocalTx
from atoma.query import bind, select
from atoma.sync.outbox import OutboxNode
from atoma.sync.replica import Replica

PAGE_ROWS = 500


async def adopt_rows(replica: Replica, scope: str) -> int:
    """Queue a create for every row of ``scope`` that the hub never sent and that is not queued yet.

    Returns:
        How many rows were queued. Each page of rows is one transaction; calling it again goes on where it stopped.
    """
    count = 0
    for store in sorted(replica.stores):
        spec = replica.schema.store(store)
        page, more = select(spec).limit(PAGE_ROWS), True
        while more:
            found = await replica.database.read(bind(page, replica.schema))
            rows, page, more = found.rows, page.after(found.meta.cursor), bool(found.meta.cursor)
            unknown = [row for row in rows if row.seq == 0 and row.scope == scope]
            if unknown:
                body = partial(_queue, replica=replica, store=store, scope=scope, rows=unknown)
                count += await replica.apply.apply_writeback(body)
    return count


def _queue(tx: LocalTx, *, replica: Replica, store: str, scope: str, rows: Sequence[StoredRow]) -> int:
    effects: list[Effect] = []
    for row in rows:
        current = tx.rows.read(store, row.id)
        if current is None or current.seq or tx.outbox.on_row(store, row.id):
            continue
        op = Op("create", store, row.id, current.image)
        effects.append(Effect(op, scope, None, current.image, len(effects)))
    if not effects:
        return 0
    request = WriteRequest(
        tuple(effect.op for effect in effects),
        WriteOptions(),
        OperationContext(replica.environment.ids()),
        replica.environment.ids(),
    )
    node = OutboxNode(replica.database.database, [store], [scope])
    node.enqueue(tx, request, effects)
    return len(effects)
