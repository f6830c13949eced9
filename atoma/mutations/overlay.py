"""Visible row = confirmed base + pending mutations in local order: as a function of images, and in an open transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from atoma.contracts.mutations import Op, PendingMutation
from atoma.contracts.values import RowImage, RowKey, is_hidden
from atoma.errors import ConflictError
from atoma.mutations.deciding import replay
from atoma.ports.local import LocalTx
from atoma.schema.bodies import decode_body
from atoma.schema.schema import Schema


def rebase(base: RowImage | None, ops: Iterable[Op]) -> RowImage | None:
    """Replay ``ops`` on ``base``, which is left as it is."""
    image = base
    for op in ops:
        image = replay(op, image)
    return image


def version_here(tx: LocalTx, store: str, id: str) -> int | None:
    """Version of the visible row, None when there is none, or it was deleted softly."""
    row = tx.rows.read(store, id)
    return None if row is None or is_hidden(row.image) else row.version


def ops_by_row(body: bytes, schema: Schema) -> dict[RowKey, list[Op]]:
    """The operations of an encoded mutation, by the row they are on, in order.

    Raises:
        ProtocolError: ``body`` is not an encoded mutation.
    """
    found: dict[RowKey, list[Op]] = {}
    for op in decode_body(body, schema).ops:
        found.setdefault((op.store, op.id), []).append(op)
    return found


def rebase_rows(tx: LocalTx, rows: Iterable[RowKey]) -> None:
    """Make each row visible as its base and its pending mutations say; a row with none of them loses its shadow.

    Rows may have exchanged a unique value, so what an index refuses is tried again after the others. A row that is
    still refused is hidden, because another one shows its value; it keeps its shadow and comes back when it can.
    """
    keys = dict.fromkeys(rows)
    settled = set(_settled(tx, keys))
    keys.update(dict.fromkeys(_hidden(tx, keys)))
    rebased = list(_rebased(tx, [key for key in keys if key not in settled]))
    refused = [row for row in rebased if not _show(tx, row)]
    for row in refused:
        _hide(tx, row.key)
    still = {row.key for row in refused if not _show(tx, row)}
    for row in rebased:
        if not row.pending and row.key not in still:
            tx.base.unshadow(*row.key)


def _settled(tx: LocalTx, keys: Iterable[RowKey]) -> Iterator[RowKey]:
    """Let go of what was set aside for rows that are visible as they are confirmed, with nothing pending; those rows."""
    by_store: dict[str, list[str]] = {}
    for store, id in keys:
        by_store.setdefault(store, []).append(id)
    for store, ids in by_store.items():
        yield from ((store, id) for id in tx.base.unshadow_settled(store, ids))


@dataclass(frozen=True, slots=True)
class _Rebased:
    """A row as it should be visible.

    Attributes:
        key: The row.
        scope: Its scope.
        image: Its image, None when it is gone.
        pending: Whether anything is pending on it.
    """

    key: RowKey
    scope: str
    image: RowImage | None
    pending: bool


def _rebased(tx: LocalTx, keys: Iterable[RowKey]) -> Iterator[_Rebased]:
    """The rows among ``keys`` whose base lies aside; each mutation is decoded once, however many of them it is on."""
    decoded: dict[int, dict[RowKey, list[Op]]] = {}

    def ops(key: RowKey, pending: Sequence[PendingMutation]) -> Iterator[Op]:
        for mutation in pending:
            if mutation.lsn not in decoded:
                decoded[mutation.lsn] = ops_by_row(mutation.meaning, tx.schema)
            yield from decoded[mutation.lsn].get(key, ())

    for key in keys:
        base = tx.base.read(*key)
        if base.shadowed:
            pending = tx.outbox.on_row(*key)
            scope = pending[-1].scope if pending else base.scope
            yield _Rebased(key, scope, rebase(base.image, ops(key, pending)), bool(pending))


def _hidden(tx: LocalTx, keys: Iterable[RowKey]) -> list[RowKey]:
    """Rows of the same stores that an index has refused before."""
    stores = {store for store, _ in keys if tx.schema.store(store).unique}
    return [(store, id) for store in sorted(stores) for id in tx.base.hidden(store)]


def _show(tx: LocalTx, rebased: _Rebased) -> bool:
    """Make the row visible as it should be; False when an index refuses it."""
    key, image = rebased.key, rebased.image
    row = tx.rows.read(*key)
    if row is not None and (image is None or row.scope != rebased.scope):
        tx.rows.put(*key, row.scope, None)  # gone, or about to begin another life in another scope
    if image is None:
        return True
    try:
        tx.rows.put(*key, rebased.scope, image)
    except ConflictError:
        return False
    return True


def _hide(tx: LocalTx, key: RowKey) -> None:
    row = tx.rows.read(*key)
    if row is not None:
        tx.rows.put(*key, row.scope, None)
