"""Layers over the confirmed base, in an open local transaction: lay one, take it out, put the authority's image under.

Nothing here decides when; :mod:`atoma.runtime.flows.optimism` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

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

Versions: TypeAlias = dict[RowKey, int | None]
"""The authority's versions of rows; None for a row that is not there."""


NEVER = 2**53 - 1
"""A version that no row has. A number of this device must not be taken for one of the authority's, which may be equal."""


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
        seen: The authority's versions of the rows whose versions it names, as they were when it was shown.
    """

    layers: tuple[int, ...]
    items: tuple[WriteItemResult, ...]
    seen: Versions


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the rows of a unit.

    Attributes:
        versions: The versions they have here, in entry order.
        made: The authority's versions of those that it wrote.
    """

    versions: tuple[int, ...]
    made: Versions


def lay(tx: LocalTx, request: WriteRequest) -> Laid:
    """Show ``request`` and remember it as volatile mutations under its keys.

    Raises:
        Unpredictable: An entry does not fit the rows of this device; the transaction has to be rolled back.
    """
    for store, id, version in request.options.reads:
        row = tx.read_row(store, id)
        if (None if row is None else row.version) != version:
            raise Unpredictable
    seen = {row: _version_there(tx, row) for row in named_versions(request)}
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
    return Laid(tuple(layers), tuple(items), seen)


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


def named_versions(request: WriteRequest) -> dict[RowKey, int | None]:
    """The rows whose versions the request depends on, with the versions; the authority counts them in its own way."""
    named: dict[RowKey, int | None] = {(store, id): version for store, id, version in request.options.reads}
    for entry in request.entries:
        if entry.base_version is not None:
            named[entry.store, entry.id] = entry.base_version or None
    return named


def known_versions(tx: LocalTx, request: WriteRequest) -> Versions:
    """The authority's versions of the rows that are here as the request names them."""
    named = named_versions(request)
    here = {row: tx.read_row(*row) for row in named}
    return {
        row: _version_there(tx, row)
        for row, version in named.items()
        if (None if (found := here[row]) is None else found.version) == version
    }


def _version_there(tx: LocalTx, row: RowKey) -> int | None:
    base = tx.read_base(*row)
    return None if base.image is None else base.seq


def address(request: WriteRequest, versions: Versions) -> WriteRequest:
    """``request`` with the authority's ``versions`` in the place of this device's.

    A version that is not among them was not this device's any more when the write was entered, or never: below 0 it is the
    authority's own, of a row that it told and that is not here; any other is of a row that has moved.
    """

    def there(row: RowKey, version: int | None) -> int | None:
        if row in versions or not version:
            return versions.get(row)
        return NEVER if version > 0 else -version

    def entry_for_hub(entry: WriteEntry) -> WriteEntry:
        if entry.base_version is None:
            return entry
        return msgspec.structs.replace(entry, base_version=there((entry.store, entry.id), entry.base_version) or 0)

    reads = tuple((store, id, there((store, id), version)) for store, id, version in request.options.reads)
    options = msgspec.structs.replace(request.options, reads=reads)
    entries = tuple(entry_for_hub(entry) for entry in request.entries)
    return WriteRequest(entries, options, request.context, request.idem)


def settle(tx: LocalTx, request: WriteRequest, layers: Sequence[int], items: Sequence[WriteItemResult]) -> Settled:
    """Confirm what is ok, take the layers out, and replay what is left on the rows.

    An item whose image the authority did not tell is confirmed as it was asked for.
    """
    rows: dict[RowKey, None] = {}
    made: Versions = {}
    for entry, item in zip(request.entries, items, strict=True):
        row = (entry.store, entry.id)
        rows[row] = None
        if item.ok:
            _confirm(tx, entry, item)
            made[row] = _version_there(tx, row)
    for layer in layers:
        rows.update(dict.fromkeys(tx.remove_pending(layer, None)))
    rebuild_rows(tx, rows)
    visible = (tx.read_row(entry.store, entry.id) for entry in request.entries)
    return Settled(tuple(0 if row is None else row.version for row in visible), made)


def _confirm(tx: LocalTx, entry: WriteEntry, item: WriteItemResult) -> None:
    base = tx.read_base(entry.store, entry.id)
    image: RowImage | None
    if item.row is not None:
        image, seq, scope = item.row, item.version, tx.schema.store(entry.store).scope_of(item.row)
    else:
        known = entry.op == "delete" and item.changed
        image = None if known else replay(as_op(entry), base.image)
        if image is None and base.image is None and not base.shadowed:
            return  # nothing of the row was ever here, not even its scope, and nothing of it is now
        seq, scope = base.seq, base.scope or _scope(tx, entry)
    if not base.shadowed:
        tx.shadow(entry.store, entry.id, base.scope or scope, base.image)
    tx.put_base(entry.store, entry.id, scope, image, seq)


def only_nodded(item: WriteItemResult) -> bool:
    """Whether the result is a local node's that left the row to the runtime: it says nothing about the authority."""
    return item.ok and not item.changed and item.row is None and not item.version
