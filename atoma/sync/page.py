"""Pages of rows as they travel, turned into images of the local schema."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

import trio

from atoma.contracts.sync import PullReply, StoreChanges
from atoma.contracts.values import RowImage, as_image
from atoma.contracts.writeback import ConfirmedRow
from atoma.errors import ProtocolError
from atoma.schema.schema import Schema

TURN = 500
"""So many rows are turned into images before others have their turn."""

ChangedRow = tuple[str, RowImage | None, int]
"""Id, image (None when deleted) and hub sequence."""


def changed_rows(schema: Schema, changes: StoreChanges) -> Iterator[ChangedRow]:
    """Every row of ``changes`` in the local schema's columns; columns unknown here are left out.

    Raises:
        ProtocolError: A declared column is missing, or a row is malformed.
    """
    columns = changes.columns[1:]
    store = schema.store(changes.store)
    declared = store.value_columns
    missing = set(declared) - set(columns)
    if changes.rows and (missing or changes.columns[:1] != ("id",)):
        raise ProtocolError(f"rows of {changes.store!r} came without the columns {', '.join(sorted(missing)) or 'id'}")
    extra = set(columns) - set(declared)
    width = len(columns) + 2
    for row in changes.rows:
        if len(row) != width:
            raise ProtocolError(f"a row of {changes.store!r} has {len(row) - 1} values for {width - 1} columns")
        seq, id = row[0], row[1]
        if not isinstance(seq, int) or not isinstance(id, str):
            raise ProtocolError(f"a row of {changes.store!r} has no sequence or no id")
        try:
            image = as_image(dict(zip(columns, row[2:], strict=True)))
        except TypeError as error:
            raise ProtocolError(f"row {id!r} of {changes.store!r}: {error}") from None
        yield id, store.unpack({name: image[name] for name in declared} if extra else image), seq
    for seq, id in changes.deletes:
        yield id, None, seq


async def confirmed_rows(schema: Schema, page: PullReply, stores: Collection[str]) -> list[ConfirmedRow]:
    """The rows of ``page`` as what the hub has; stores that do not replicate here are passed over.

    Others have their turn in between: a page has thousands of rows.

    Raises:
        ProtocolError: A declared column is missing, or a row is malformed.
    """
    found: list[ConfirmedRow] = []
    for changes in page.stores:
        if changes.store not in stores:
            continue
        rows = changed_rows(schema, changes)
        while turn := [
            ConfirmedRow(changes.store, id, image, seq, page.scope) for id, image, seq in islice(rows, TURN)
        ]:
            found += turn
            await trio.lowlevel.checkpoint()
    return found
