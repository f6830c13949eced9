"""Layers over the confirmed base, in an open local transaction: lay one, take it out, put the authority's image under.

Nothing here decides when; :mod:`atoma.runtime.flows.optimism` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from atoma.contracts.codec import encode
from atoma.contracts.execution import WriteEntry, WriteItemResult, WriteRequest, item_key
from atoma.contracts.overlay import PendingMutation, replay
from atoma.contracts.sync import MutationBody, Op
from atoma.contracts.values import RowImage, StoredRow
from atoma.errors import ConflictError, ValidationError
from atoma.ports.local import LocalTx
from atoma.ports.overlay import RowKey, rebuild_rows
from atoma.runtime.entries import as_op


class Unpredictable(Exception):
    """What this device holds does not show how the write would end: only the authority can tell."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What one entry does to the visible row."""

    op: Op
    scope: str
    pre: RowImage | None


@dataclass(frozen=True, slots=True)
class Laid:
    """A unit that is visible and not confirmed.

    Attributes:
        layers: Its pending mutations, in entry order; one for an atomic unit.
        items: What each entry made of its row.
    """

    layers: tuple[int, ...]
    items: tuple[WriteItemResult, ...]


def lay(tx: LocalTx, request: WriteRequest) -> Laid:
    """Show ``request`` and remember it as volatile mutations under its keys.

    Raises:
        Unpredictable: An entry does not fit the rows of this device; the transaction has to be rolled back.
    """
    for store, id, version in request.options.reads:
        row = tx.read_row(store, id)
        if (None if row is None else row.version) != version:
            raise Unpredictable
    changes: list[_Change] = []
    items: list[WriteItemResult] = []
    for entry in request.entries:
        change, item = _show(tx, entry)
        changes.append(change)
        items.append(item)
    groups = [changes] if request.options.atomic else [[change] for change in changes]
    layers: list[int] = []
    for index, group in enumerate(groups):
        key = item_key(request.idem, index, atomic=request.options.atomic, size=len(changes))
        layers.append(_enqueue(tx, key, group))
    return Laid(tuple(layers), tuple(items))


def _show(tx: LocalTx, entry: WriteEntry) -> tuple[_Change, WriteItemResult]:
    row = tx.read_row(entry.store, entry.id)
    if not _fits(entry, row):
        raise Unpredictable
    scope = row.scope if row is not None else _scope(tx, entry)
    op = as_op(entry)
    pre = None if row is None else row.image
    post = replay(op, pre)
    try:
        version = tx.put_visible(entry.store, entry.id, scope, post)
    except (ConflictError, ValidationError):
        raise Unpredictable from None
    return _Change(op, scope, pre), WriteItemResult(entry.id, True, pre != post, version, post, decided=False)


def _fits(entry: WriteEntry, row: StoredRow | None) -> bool:
    if entry.base_version is not None and entry.base_version != (0 if row is None else row.version):
        return False
    if row is None:
        return entry.op in ("insert", "upsert")
    return entry.op != "insert" and entry.scope in ("", row.scope)


def _scope(tx: LocalTx, entry: WriteEntry) -> str:
    return entry.scope or tx.schema.store(entry.store).scope_of({**entry.defaults, **entry.values})


def _enqueue(tx: LocalTx, key: str, changes: Sequence[_Change]) -> int:
    rows: dict[RowKey, RowImage | None] = {}
    for change in changes:
        rows.setdefault((change.op.store, change.op.id), change.pre)
    for change in changes:
        row = (change.op.store, change.op.id)
        tx.shadow(*row, change.scope, rows[row])
    scope = changes[0].scope
    ops = tuple(change.op for change in changes)
    body = encode(MutationBody(0, key, scope, 0, tx.schema.version, tx.now_ms, ops))
    mutation = PendingMutation(0, "volatile", 0, key, scope, 0, body, b"")
    return tx.enqueue(mutation, [(*row, pre) for row, pre in rows.items()])


def names_versions(request: WriteRequest) -> bool:
    """Whether the request depends on versions, which the authority counts in its own way."""
    return bool(request.options.reads) or any(entry.base_version is not None for entry in request.entries)


def address(tx: LocalTx, request: WriteRequest, *, laid: bool) -> WriteRequest:
    """``request`` with this device's versions replaced by the authority's versions of the same rows.

    Args:
        tx: An open transaction; it is only read.
        request: What is to be sent.
        laid: The versions were this device's when the unit was shown. Otherwise those that are not are left alone:
            they are the authority's own.
    """

    def entry_for_hub(entry: WriteEntry) -> WriteEntry:
        if entry.base_version is None:
            return entry
        known = _known(tx, entry.store, entry.id, entry.base_version or None, laid)
        if known is _FOREIGN:
            return entry
        return msgspec.structs.replace(entry, base_version=known or 0)

    reads = tuple(
        (store, id, version if (known := _known(tx, store, id, version, laid)) is _FOREIGN else known)
        for store, id, version in request.options.reads
    )
    options = msgspec.structs.replace(request.options, reads=reads)
    entries = tuple(entry_for_hub(entry) for entry in request.entries)
    return WriteRequest(entries, options, request.context, request.idem)


_FOREIGN = -1


def _known(tx: LocalTx, store: str, id: str, version: int | None, laid: bool) -> int | None:
    """The authority's version of the row whose version here is ``version``, None for no row, or ``_FOREIGN``."""
    row = tx.read_row(store, id)
    if not laid and (None if row is None else row.version) != version:
        return _FOREIGN
    base = tx.read_base(store, id)
    return None if base.image is None else base.seq


def settle(
    tx: LocalTx, request: WriteRequest, layers: Sequence[int], items: Sequence[WriteItemResult]
) -> tuple[int, ...]:
    """Confirm what is ok, take the layers out, replay what is left on the rows; returns the versions they have here.

    An item whose image the authority did not tell is confirmed as it was asked for.
    """
    rows: dict[RowKey, None] = {}
    for entry, item in zip(request.entries, items, strict=True):
        rows[entry.store, entry.id] = None
        if item.ok:
            _confirm(tx, entry, item)
    for layer in layers:
        rows.update(dict.fromkeys(tx.remove_pending(layer, None)))
    rebuild_rows(tx, rows)
    visible = (tx.read_row(entry.store, entry.id) for entry in request.entries)
    return tuple(0 if row is None else row.version for row in visible)


def _confirm(tx: LocalTx, entry: WriteEntry, item: WriteItemResult) -> None:
    base = tx.read_base(entry.store, entry.id)
    image: RowImage | None
    if item.row is not None:
        image, seq, scope = item.row, item.version, tx.schema.store(entry.store).scope_of(item.row)
    else:
        known = entry.op == "delete" and item.changed
        image = None if known else replay(as_op(entry), base.image)
        seq, scope = base.seq, base.scope or _scope(tx, entry)
    if not base.shadowed:
        tx.shadow(entry.store, entry.id, base.scope or scope, base.image)
    tx.put_base(entry.store, entry.id, scope, image, seq)


def only_nodded(item: WriteItemResult) -> bool:
    """Whether the result is a local node's that left the row to the runtime: it says nothing about the authority."""
    return item.ok and not item.changed and item.row is None and not item.version
