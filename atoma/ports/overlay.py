"""Visible row = confirmed base + pending mutations in local order, carried out in an open transaction."""

from __future__ import annotations

from collections.abc import Iterable

from atoma.contracts.codec import decode
from atoma.contracts.overlay import replay
from atoma.contracts.sync import MutationBody
from atoma.errors import ConflictError
from atoma.ports.local import LocalTx

RowKey = tuple[str, str]
"""Store name and row id."""


def rebuild_rows(tx: LocalTx, rows: Iterable[RowKey]) -> None:
    """Make each row visible as its base and its pending mutations say; a row with none of them loses its shadow.

    Rows may have exchanged a unique value, so what an index refuses is tried again after the others. A row that is
    still refused is hidden, because another one shows its value; it keeps its shadow and comes back when it can.
    """
    keys = dict.fromkeys(rows)
    keys.update(dict.fromkeys(_hidden(tx, keys)))
    refused = [key for key in keys if not _show(tx, key)]
    for key in refused:
        _hide(tx, key)
    still = {key for key in refused if not _show(tx, key)}
    for key in keys:
        if key not in still and not tx.pending(*key):
            tx.unshadow(*key)


def _hidden(tx: LocalTx, keys: Iterable[RowKey]) -> list[RowKey]:
    """Rows of the same stores that an index has refused before."""
    stores = {store for store, _ in keys if any(index.unique for index in tx.schema.store(store).indexes)}
    if not stores:
        return []
    scopes = {tx.read_base(store, id).scope for store, id in keys if store in stores}
    shadowed = (key for scope in sorted(scopes) for key in tx.shadowed(scope))
    return [key for key in shadowed if key[0] in stores and not tx.pending(*key)]


def _show(tx: LocalTx, key: RowKey) -> bool:
    """Make the row visible as it should be; False when an index refuses it."""
    base = tx.read_base(*key)
    if not base.shadowed:
        return True
    image = base.image
    pending = tx.pending(*key)
    for mutation in pending:
        for op in decode(mutation.body, MutationBody).ops:
            if (op.store, op.id) == key:
                image = replay(op, image)
    scope = pending[-1].scope if pending else base.scope
    row = tx.read_row(*key)
    if row is not None and (image is None or row.scope != scope):
        tx.put_visible(*key, row.scope, None)  # gone, or about to begin another life in another scope
    if image is None:
        return True
    try:
        tx.put_visible(*key, scope, image)
    except ConflictError:
        return False
    return True


def _hide(tx: LocalTx, key: RowKey) -> None:
    row = tx.read_row(*key)
    if row is not None:
        tx.put_visible(*key, row.scope, None)


__all__ = ["RowKey", "rebuild_rows"]
