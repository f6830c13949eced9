"""Rows that were there before their store was synced: queued as creates, so that the first snapshot keeps them."""

from __future__ import annotations

from atoma.query import bind, col, select
from atoma.sync.replica import Replica
from atoma.sync.staging import RowsAdopted

PAGE_ROWS = 500


async def adopt_rows(replica: Replica, scope: str) -> int:
    """Queue a create for every row of ``scope`` that the hub never sent and that is not queued yet.

    Returns:
        How many rows were queued. Each page of rows is one transaction; calling it again goes on where it stopped.
    """
    count = 0
    for store in sorted(replica.stores):
        spec = replica.schema.store(store)
        field = spec.scope_field
        if field is None and spec.fixed_scope != scope:
            continue
        every = select(spec) if field is None else select(spec).where(col(field) == scope)
        page, more = every.limit(PAGE_ROWS), True
        while more:
            found = await replica.database.read(bind(page, replica.schema))
            rows, page, more = found.rows, page.after(found.meta.cursor), bool(found.meta.cursor)
            unknown = [row for row in rows if row.seq == 0 and row.scope == scope]
            if unknown:
                adopted = RowsAdopted(store, scope, unknown, replica.environment.ids())
                count += await replica.change(adopted)
    return count
